import errno
import pickle
from copy import copy

import pytest

import qaudio
from qaudio import cli, errors
from qaudio.commands import list_
from qaudio.commands.common import REPORT

CHILDREN = [
    kind for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.QaudioError)
]  # fmt: skip


@pytest.fixture
def failing(monkeypatch, capsys):
    """Run a command that raises an error; gives the exit code and stderr."""

    def run(error, *arguments):
        def fail(*_, **__):
            raise error

        monkeypatch.setattr(list_, "list_models", fail)
        code = cli.main(["list", *arguments])
        return code, capsys.readouterr().err

    return run


@pytest.mark.parametrize("kind", CHILDREN)
def test_command_tells_a_qaudio_error_in_one_line(failing, kind):
    code = 2 if kind is errors.UsageError else 1
    assert failing(kind("what is wrong,\n  and what to do")) == (
        code, "qaudio: what is wrong, and what to do\n"
    )  # fmt: skip


@pytest.mark.parametrize("arguments", [("--debug",), ("--json", "--debug")])
def test_debug_shows_the_traceback_of_a_qaudio_error(failing, arguments):
    code, err = failing(errors.InputError("too large"), *arguments)
    assert code == 1
    assert err.startswith("Traceback (most recent call last):")
    assert "in fail" in err
    assert err.endswith("qaudio: too large\n")


def test_debug_stands_before_or_behind_the_command(monkeypatch, capsys):
    def fail(*_, **__):
        raise errors.InputError("too large")

    monkeypatch.setattr(list_, "list_models", fail)
    for arguments in (["--debug", "list"], ["list", "--debug"]):
        assert cli.main(arguments) == 1
        assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("option", [(), ("--debug",)])
@pytest.mark.parametrize(
    "error",
    [
        ValueError("operands could not be broadcast together"),
        KeyError("labels"),
        OSError("no number of the system's"),
        FileNotFoundError(errno.ENOENT, "No such file", str(errors.__file__)),  # our own file
    ],
)
def test_command_raises_what_no_user_can_mend_and_asks_for_a_report(failing, error, option):
    with pytest.raises(type(error)) as raised:
        failing(copy(error), *option)
    assert raised.value.__notes__ == [REPORT]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.ENOENT])
def test_command_tells_what_the_system_refuses_in_one_line(failing, tmp_path, number):
    code, err = failing(OSError(number, "it cannot be done", str(tmp_path / "out")))
    assert code == 1
    assert err == f"qaudio: [Errno {number}] it cannot be done: '{tmp_path / 'out'}'\n"


@pytest.mark.parametrize(
    "call",
    [
        lambda: qaudio.create_model("qcnn11", num_classes=2),
        lambda: qaudio.FrontendConfig(n_mels=0),
        lambda: qaudio.Classifier(arch="qcnn6", lr=-1.0),
        lambda: qaudio.PrunedClassifier(source="x", ratio=0.5, target_macs=0.5),
        lambda: qaudio.ESC50("nowhere", batch_size=0),
        lambda: qaudio.OnnxModel("missing.onnx"),
    ],
)
def test_arguments_out_of_range_are_value_errors_that_the_command_tells(call):
    with pytest.raises(ValueError) as raised:
        call()
    assert isinstance(raised.value, errors.QaudioError)


def test_training_settings_that_are_refused_are_one_line(capsys, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "model: {class_path: qaudio.Classifier, init_args: {arch: qcnn6, lr: -1.0}}\n"
        "data: {class_path: qaudio.ESC50, init_args: {root: nowhere}}\n"
    )
    arguments = ["fit", "--config", str(recipe)]
    assert cli.main(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "qaudio: lr must be at least 0, not -1.0"
    assert cli.main([*arguments, "--debug"]) == 1
    shown = capsys.readouterr().err
    assert "Traceback" in shown and shown.endswith(f"{line}\n")


@pytest.mark.parametrize("kind", CHILDREN)
def test_errors_travel_between_processes(kind):
    error = pickle.loads(pickle.dumps(kind("a line")))
    assert type(error) is kind
    assert str(error) == "a line"
