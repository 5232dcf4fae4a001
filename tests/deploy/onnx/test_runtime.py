"""Exported files without torch: what they predict is what the model predicts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import qaudio
from qaudio import cli
from qaudio.deploy.onnx.runtime import OnnxModel
from qaudio.errors import AudioError, InputError
from tests.robustness.fuzz.onnx_files import made

# Stands before the command in a process of its own: an import of these fails as if not installed.
BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchaudio", "lightning", "safetensors", "pooch"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
"""
COMMAND = "from qaudio.cli import main\nsys.exit(main(sys.argv[1:]))"


@pytest.fixture
def path(tiny_export):
    return tiny_export


@pytest.fixture
def retold(path, tmp_path):
    """A copy of the file with other metadata."""

    def make(**changes) -> Path:
        graph = onnx.load(path)
        told = {prop.key: prop.value for prop in graph.metadata_props}
        told |= {key: json.dumps(value) for key, value in changes.items()}
        onnx.helper.set_model_props(graph, {k: v for k, v in told.items() if v != "null"})
        made = tmp_path / f"{'-'.join(changes)}.onnx"
        onnx.save(graph, made)
        return made

    return make


def without_torch(code, *arguments):
    root = str(Path(qaudio.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-c", BLOCKED + code, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": root}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def by_index(predictions):
    return [p["probability"] for p in sorted(predictions, key=lambda p: p["index"])]


def test_the_command_predicts_where_torch_is_not_installed(path, tiny_model, write_sound):
    files = [
        write_sound("same.wav", rate=16000, seconds=2, seed=1),
        write_sound("other.flac", rate=44100, seconds=3, channels=2, seed=2),
        write_sound("long.wav", rate=8000, seconds=33, seed=3),
        write_sound("short.wav", rate=8000, seconds=0.001, seed=4),
    ]
    result = without_torch(
        COMMAND, "predict", "--runtime", "onnx", "--model", path, *files, "--json", "--times"
    )
    assert (result.returncode, result.stderr) == (0, "")
    for file, line in zip(files, result.stdout.splitlines(), strict=True):
        document = json.loads(line)
        assert document["file"] == str(file)
        expected = [vars(p) for p in qaudio.predict(tiny_model, file)]
        assert by_index(document["predictions"]) == pytest.approx(by_index(expected), abs=1e-3)
        assert {p["label"] for p in document["predictions"]} == set(tiny_model.labels)
        ends = {(p["start"], p["end"]) for p in document["predictions"]}
        assert ends == {(p["start"], p["end"]) for p in expected}
    assert len(document["times"]) == 3
    assert (
        len({tuple(by_index(json.loads(n)["predictions"])) for n in result.stdout.splitlines()})
        == 4
    )


def test_the_output_is_that_of_an_entry(path, tiny_entry, write_sound, capsys):
    sound = write_sound("sound.wav", seconds=4)
    shown = []
    for model in (path, tiny_entry):
        assert cli.main(["predict", "--model", str(model), str(sound), "--times"]) == 0
        shown.append(capsys.readouterr().out.replace(model.name, "MODEL"))
    assert shown[0] == shown[1]


def test_the_library_loads_no_torch(path, write_sound):
    code = (
        "import qaudio; model = qaudio.OnnxModel(sys.argv[1]);"
        "print(qaudio.predict(model, sys.argv[2])[0].probability > 0); print(*sys.modules)"
    )
    result = without_torch(code, path, write_sound("sound.wav"))
    assert result.stdout.startswith("True")
    loaded = {name.partition(".")[0] for name in result.stdout.split()}
    assert "onnxruntime" in loaded
    assert not loaded & {"torch", "torchaudio", "onnx", "lightning", "scipy"}


def test_a_command_that_needs_torch_says_so_in_one_line(tmp_path):
    result = without_torch(COMMAND, "predict", "--demo")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "pip install" in result.stderr


def test_arrays_of_any_rate_and_length(path, tiny_model):
    model = qaudio.OnnxModel(path, threads=1)
    for samples, rate in ((100, None), (20000, 22050), (16000, 16000)):
        x = np.random.default_rng(0).standard_normal((2, samples)).astype(np.float32)
        with torch.no_grad():
            expected = tiny_model(torch.from_numpy(x), rate).softmax(-1).numpy()
        assert model.probabilities(x, rate) == pytest.approx(expected, abs=1e-3)


def test_multi_label_files_give_a_probability_for_each_class(path, retold):
    x = np.random.default_rng(0).standard_normal((1, 16000)).astype(np.float32)
    logits = qaudio.OnnxModel(path).logits(x)
    probabilities = qaudio.OnnxModel(retold(task="multilabel")).probabilities(x)
    assert probabilities == pytest.approx(1 / (1 + np.exp(-logits)), abs=1e-6)


def test_files_that_cannot_predict_are_named(path, retold, tmp_path, capsys):
    text, other = tmp_path / "text.onnx", retold(qaudio_version=None)
    text.write_text("not a model")
    for file, said in (
        (tmp_path / "missing.onnx", "no such file"),
        (text, "cannot load"),
        (other, "not written by `qaudio export`"),
        (retold(input="features"), "takes features"),
    ):
        with pytest.raises(ValueError, match=said):
            qaudio.OnnxModel(file)
        assert cli.main(["predict", "--model", str(file), "a.wav"]) == 1
        assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"eval_seconds": 1e29}, {"eval_seconds": [1]}, {"sample_rate": 0}, {"sample_rate": "8000"},
        {"sample_rate": 10**9}, {"num_classes": 10**9}, {"num_classes": True}, {"labels": ["a"]},
        {"labels": "abc"}, {"labels": [1, 2, 3]}, {"labels": ["\x1b[31m", "b", "c"]},
        {"min_samples": 10**12}, {"min_samples": [1]}, {"task": "x"}, {"padded": 3}, {"input": 1},
    ],
    ids=str,
)  # fmt: skip
def test_metadata_that_nobody_could_mean_are_refused_in_one_line(retold, changes):
    path = retold(**changes)
    with pytest.raises(InputError, match=rf"{path.name}: its metadata: ") as caught:
        OnnxModel(path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("name", "said"),
    [("weight", "gives ndarray"), ("waveform", "takes other"), ("logits", "gives other")],
)
def test_graphs_of_others_are_refused_in_one_line(tmp_path, name, said):
    model = made()
    nodes = model.graph.node
    if name == "weight":
        weight = onnx.numpy_helper.from_array(np.ones((1, 7), np.float32), "weight")
        model.graph.initializer[0].CopyFrom(weight)
        model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 7
    elif name == "waveform":
        model.graph.input[0].name = nodes[0].input[0] = "other"
    else:
        model.graph.output[0].name = nodes[2].output[0] = "other"
    onnx.save(model, tmp_path / "x.onnx")
    with pytest.raises(InputError, match=rf"x.onnx: .*{said}"):
        OnnxModel(tmp_path / "x.onnx").logits(np.zeros((2, 8000), np.float32))


@pytest.mark.parametrize(
    ("values", "said"),
    [(2**30 + 1, r"takes over 4 GiB of memory for 2 sounds of 8000 samples: give it fewer"),
     (2**50, r"takes over 4 GiB of memory"), (-3, r"onnxruntime cannot (load|run) it")],
)  # fmt: skip
def test_a_graph_that_cannot_be_run_is_told_in_one_line(tmp_path, values, said):
    """Not even where the machine has the memory that it asks for."""
    model = made()
    shape = onnx.numpy_helper.from_array(np.array([values], np.int64), "shape")
    model.graph.initializer.append(shape)
    model.graph.node[2].output[0] = "part"
    model.graph.node.insert(0, onnx.helper.make_node("ConstantOfShape", ["shape"], ["zeros"]))
    model.graph.node.append(onnx.helper.make_node("ReduceSum", ["zeros"], ["sum"], keepdims=0))
    model.graph.node.append(onnx.helper.make_node("Add", ["part", "sum"], ["logits"]))
    onnx.save(model, tmp_path / "x.onnx")
    with pytest.raises(InputError, match=rf"x.onnx: {said}"):
        OnnxModel(tmp_path / "x.onnx").logits(np.zeros((2, 8000), np.float32))


def test_what_other_tools_write_into_the_metadata_is_left_alone(path, tmp_path):
    graph = onnx.load(path)
    graph.metadata_props.add(key="onnx.infer", value="onnxruntime.quant")
    onnx.save(graph, tmp_path / "touched.onnx")
    assert qaudio.OnnxModel(tmp_path / "touched.onnx").labels == qaudio.OnnxModel(path).labels
    for prop in graph.metadata_props:
        prop.value = "{" if prop.key == "labels" else prop.value
    onnx.save(graph, tmp_path / "broken.onnx")
    with pytest.raises(ValueError, match=r"broken\.onnx: its metadata: labels is missing"):
        qaudio.OnnxModel(tmp_path / "broken.onnx")


def test_idle_threads_leave_the_cores_to_others(path):
    options = qaudio.OnnxModel(path).session.get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        ([[0.1, float("nan")]], "NaN or infinite"),
        ([[0.1, float("-inf")]], "NaN or infinite"),
        ([[1e30] * 9000], "too large to be sound"),
        ([0.1, 0.2], r"must be \(B, T\), nothing empty, not \(2,\)"),
        (np.zeros((1, 0)), r"nothing empty, not \(1, 0\)"),
    ],
)
def test_logits_are_refused_for_samples_that_are_no_sound(path, samples, said):
    model = qaudio.OnnxModel(path)
    with pytest.raises((AudioError, InputError), match=said):
        model.logits(np.asarray(samples, dtype=np.float32))


def test_integer_samples_are_refused(path):
    with pytest.raises(ValueError, match="must be floats"):
        qaudio.OnnxModel(path).logits(np.zeros((1, 16000), np.int16))


@pytest.mark.parametrize(
    "options", [["--runtime", "onnx"], ["--runtime", "torch", "--model", "a.onnx"]], ids=" ".join
)
def test_a_runtime_that_does_not_fit_the_model_is_wrong_usage(options, capsys):
    assert cli.main(["predict", "a.wav", *options]) == 2
    assert "--runtime" in capsys.readouterr().err


def test_onnx_model_with_a_loop_is_refused_before_it_runs(tiny_export, tmp_path):
    """Which onnxruntime would run for ever."""
    model, path = onnx.load(tiny_export), tmp_path / "loop.onnx"
    body = onnx.helper.make_graph([], "body", [], [])
    model.graph.node.append(onnx.helper.make_node("Loop", ["", ""], [], body=body))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=r"loop\.onnx: has a Loop, which may never end"):
        OnnxModel(path)
