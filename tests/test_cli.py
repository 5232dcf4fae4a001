import argparse
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import qaudio
from qaudio import cli
from qaudio.commands import list_
from tests.support.command import lines_of

COMMANDS = next(
    action.choices
    for action in cli.make_parser()._actions
    if isinstance(action, argparse._SubParsersAction)
)


def process(*arguments, **settings):
    """Run the command as users do."""
    root = str(Path(qaudio.__file__).parents[1])
    # Buffered as in a user's shell: what is left is written when the interpreter ends.
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    return subprocess.run(
        [sys.executable, "-m", "qaudio", *map(os.fspath, arguments)],
        env=inherited | {"PYTHONPATH": root},
        **{"capture_output": True, "timeout": 300} | settings,
    )


# Modules of one's own.


@pytest.fixture
def own_folder(tmp_path, monkeypatch, registries):
    """A folder to work in, whose modules register nothing for other tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def test_modules_that_the_environment_names_are_imported(run, own_folder, monkeypatch):
    (own_folder / "own_net.py").write_text(
        "import qaudio\n\n@qaudio.register('ownnet')\nclass Own(qaudio.AudioModel):\n    pass\n"
    )
    assert run("list", "ownnet").code == 1
    monkeypatch.setenv("QAUDIO_IMPORT", "json,own_net")
    assert run("list", "ownnet").out.split()[0] == "ownnet"


@pytest.mark.parametrize("name", ["no_such_module", "no_such_package.net"])
def test_a_module_that_is_not_there_is_wrong_usage(run, own_folder, monkeypatch, name):
    monkeypatch.setenv("QAUDIO_IMPORT", name)
    result = run("list")
    assert (result.code, result.out) == (2, "")
    assert f"QAUDIO_IMPORT: no module '{name}' in this folder" in result.err


def test_what_a_module_of_ones_own_lacks_is_not_taken_for_it(run, own_folder, monkeypatch):
    (own_folder / "own_lacking.py").write_text("import no_such_module\n")
    monkeypatch.setenv("QAUDIO_IMPORT", "own_lacking")
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        run("list")


# Usage.


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(run, command):
    result = run(command, "--help")
    assert result.code == 0
    assert f"example: qaudio {command}" in result.out


def test_help_names_every_command(run):
    result = run("--help")
    assert result.code == 0
    assert "example: qaudio" in result.out
    named = re.findall(r"^    ([\w-]+)(?: |$)", result.out, re.MULTILINE)
    assert set(named) == set(COMMANDS)


def test_version(run):
    assert run("--version").out == f"qaudio {qaudio.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["no-such-command"],
        ["list", "--no-such-option"],
        ["info"],
        ["predict"],
        ["predict", "a.wav", "--top-k", "0"],
        ["predict", "a.wav", "--top-k", "some"],
        ["predict", "a.wav", "--window", "some"],
        ["predict", "a.wav", "--window", "0"],
        ["predict", "a.wav", "--hop", "20"],
        ["predict", "a.wav", "--threshold", "2"],
        ["predict", "a.wav", "--merge", "--low-threshold", "0.9"],
        ["predict", "a.wav", "--merge", "--min-duration", "-1"],
        ["predict", "a.wav", "--min-duration", "1"],
        ["predict", "a.wav", "--jobs", "0"],
        ["predict", "--csv", "a.wav"],
        ["predict", "a.wav", "--csv", "b.txt"],
        ["predict", "a.wav", "--csv", "--json"],
        ["predict", "a.wav", "--csv", "--resume"],
        ["predict", "a.wav", "--resume"],
        ["predict", "a.wav", "--format", "raven"],
        ["predict", "a.wav", "--format", "raven", "--out", "a.wav"],
        ["predict", "a.wav", "--format", "other", "--out", "b"],
        ["predict", "a.wav", "--out", "b"],
        ["embed", "--out", "b.npz"],
        ["embed", "a.wav"],
        ["embed", "a.wav", "--out", "b"],
        ["embed", "a.wav", "--out", "b.npy"],
        ["embed", "a.wav", "--out", "b.npz", "--window", "0"],
        ["embed", "a.wav", "--out", "b.npz", "--hop", "11"],
        ["embed", "a.wav", "--out", "b.npz", "--jobs", "some"],
        ["embed", "a.wav", "--out", "b.npz", "--model", "b.onnx"],
        ["verify"],
        ["verify", "a", "--all"],
        ["verify", "hf-hub:your-name/a", "--write"],
        ["compare", "a", "--plot", "a.pdf"],
        ["prune", "a"],
        ["prune", "a", "--out", "b"],
        ["prune", "a", "--out", "b", "--ratio", "0.5", "--target-macs", "0.5"],
        ["push", "a"],
        ["push", "a", "no-slash"],
        ["push", "a", "your-name/a", "--create-pr", "--revision", "b"],
        ["pull", "your-name/a"],
        ["import", "panns", "a.pth", "--arch", "cnn14"],
        ["import", "panns", "a.pth", "--arch", "qcnn14", "--out", "b"],
        ["import", "other", "a.pth", "--arch", "cnn14", "--out", "b"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_two(run, arguments, tiny_entry, write_sound, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    write_sound("a.wav")
    tiny_entry.rename("a")
    if arguments[:1] == ["predict"]:
        arguments = [*arguments, "--model", "a"]
    result = run(*arguments)
    assert result.code == 2
    assert result.out == ""
    assert "invalid positive" not in result.err  # a name of ours, not of the user's
    assert result.err.splitlines()[-1].startswith("qaudio")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["predcit", "a.wav"], "qaudio: no command 'predcit'; similar: predict"),
        (["--debug", "trian"], "qaudio: no command 'trian'; similar: train"),
        (["predict", "a.wav", "--treshold=1"],
         "qaudio predict: unrecognized arguments: --treshold=1; similar: --threshold"),
        (["list", "a", "b"], "qaudio list: unrecognized arguments: b; see qaudio list --help"),
        (["recipes", "esc10/qcnn10_05"], "no recipe matches 'esc10/qcnn10_05'; similar: esc10/"),
    ],
)  # fmt: skip
def test_what_is_misspelt_names_the_nearest(run, arguments, said):
    result = run(*arguments)
    assert result.code == (1 if arguments[0] == "recipes" else 2)
    assert result.err.count("\n") == 1 and said in result.err


def test_an_interrupt_is_no_traceback(run, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(list_, "list_models", interrupted)
    result = run("list")
    assert result.code == 130
    assert result.err == "qaudio: interrupted\n"


def test_too_little_memory_is_no_traceback(run, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(list_, "list_models", full)
    result = run("list")
    assert result.code == 1
    assert result.err == "qaudio: CUDA out of memory\n"


# Entries that cannot be read.


@pytest.mark.parametrize("command", ["info", "verify", "predict"])
def test_an_unknown_entry_is_one_line(run, command, write_sound):
    arguments = ["sound.wav", "--model"] if command == "predict" else []
    result = run(command, *arguments, "no_such.entry")
    assert (result.code, result.out) == (1, "")
    (line,) = lines_of(result)
    assert "no_such.entry" in line


@pytest.mark.parametrize("command", ["info", "verify", "predict"])
@pytest.mark.parametrize("content", ["{}", "[]", "not json", '{"schema_version": 99}', "\xff"])
def test_a_broken_config_is_one_line(run, command, tiny_entry, write_sound, content):
    (tiny_entry / "config.json").write_bytes(content.encode("latin-1"))
    arguments = [write_sound("sound.wav"), "--model"] if command == "predict" else []
    result = run(command, *arguments, tiny_entry)
    assert (result.code, result.out) == (1, "")
    (line,) = lines_of(result)
    assert "config.json" in line


def test_a_name_that_is_an_entry_in_another_folder_is_pointed_to(
    run, tiny_entry, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_models").mkdir()
    shutil.copytree(tiny_entry, tmp_path / "my_models" / "mine.folder")
    result = run("info", "mine.folder")
    (line,) = lines_of(result)
    assert result.code == 1 and f"there is {Path('my_models', 'mine.folder')}: give" in line


# As a process of its own.


def test_list_as_a_process():
    result = process("list", "cnn14")
    assert result.returncode == 0
    assert result.stdout.split()[0] == b"cnn14"
    assert process("list", "--no-such-option").returncode == 2


def test_predict_as_a_process_with_names_that_are_not_text(tiny_entry, write_sound, bad_sounds):
    folder = os.fsencode(write_sound("a.wav").parent)
    strange = folder + b"/two\nlines\xff.wav"
    os.rename(folder + b"/a.wav", strange)
    missing = folder + b"/missing\n\xff.wav"
    bad = [os.fsencode(path) for path in bad_sounds.values()]
    arguments = ["predict", "--model", tiny_entry, strange, missing, *bad]
    result = process(*map(os.fsdecode, arguments))
    assert result.returncode == 1
    assert b"Traceback" not in result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == 1 + len(bad)
    assert all(line.startswith(b"qaudio: ") for line in lines)
    assert result.stdout.splitlines()[0].endswith(b".wav  (tiny.made)")


@pytest.mark.parametrize("command", ["list", "predict"])
def test_a_reader_that_goes_away_is_no_error(command, tiny_entry, write_sound):
    """`| head -1`, made certain: the pipe has no reader from the start."""
    arguments = ["--model", tiny_entry, write_sound("a.wav")] if command == "predict" else []
    read, write = os.pipe()
    os.close(read)
    try:
        result = process(command, *arguments, capture_output=False, stdout=write,
                         stderr=subprocess.PIPE)  # fmt: skip
    finally:
        os.close(write)
    assert result.stderr == b""
    assert result.returncode == 0


def test_names_that_the_terminal_cannot_write_stop_nothing(tiny_entry, write_sound, monkeypatch):
    for name in ("Łódź 日本.wav", "plain.wav"):
        write_sound(f"sounds/{name}", rate=16000)
    out = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", out)
    sounds = write_sound("sounds/third.wav", rate=16000).parent
    assert cli.main(["predict", "--model", str(tiny_entry), str(sounds)]) == 0
    out.seek(0)
    written = out.read()
    assert r"\u0141ód\u017a \u65e5\u672c.wav" in written
    assert "plain.wav" in written and "third.wav" in written


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "qaudio: the following arguments are required: COMMAND; see qaudio --help"),
        (["explain"], "qaudio explain: the following arguments are required: file, --out; see"),
        (["predict", "--jobs", "0", "x.wav"], "must be a positive whole number, not '0'; see"),
        (["finetune"], "qaudio finetune: the following arguments are required: FOLDER; see"),
        (["nonesuch"], "no command 'nonesuch'"),
    ],
    ids=" ".join,
)
def test_cli_wrong_usage_is_one_line(arguments, said, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert said in error and error.count("\n") == 1


@pytest.mark.parametrize("config", [["--config", "none.yaml"], ["--config=recipes/none.yaml"]])
def test_cli_a_recipe_that_is_missing_is_one_line(config, capsys):
    assert cli.main(["train", *config]) == 1
    error = capsys.readouterr().err
    assert "no such recipe; `qaudio recipes` lists" in error and error.count("\n") == 1
