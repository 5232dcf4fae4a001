import copy
import json

import numpy as np
import pytest
import torch

import qaudio
from qaudio import cli
from qaudio.deploy import mobile
from qaudio.deploy.export_checks import ExportError
from qaudio.deploy.mobile import METADATA, SUFFIXES, WaveformGraph, export_mobile
from tests.support.networks import sounds

RUNTIMES = tuple(SUFFIXES)


@pytest.fixture
def pytorch_as_runtime(monkeypatch):
    """PyTorch in the place of both runtimes; what it returns is added to the logits it gives."""
    error = np.zeros(1, np.float32)
    graphs = []

    def convert(graph, example, metadata):
        graphs.append(graph)
        return metadata.encode()

    def open_file(content):
        return lambda waveform: graphs[-1](torch.from_numpy(waveform)).detach().numpy() + error

    monkeypatch.setattr(mobile, "_RUNTIMES", dict.fromkeys(RUNTIMES, (convert, open_file)))
    return error


def test_the_graph_gives_the_models_logits(tiny_model):
    waveform = sounds(1, 9001)
    with torch.no_grad():
        expected, found = tiny_model(waveform), WaveformGraph(tiny_model)(waveform)
    assert torch.allclose(found, expected, atol=1e-4 * float(expected.max() - expected.min()))


@pytest.mark.parametrize(("seconds", "samples"), [(None, 160000), (0.5, 8000), (1e-3, None)])
def test_the_clip_is_as_long_as_asked_and_the_model_needs(
    tiny_model, pytorch_as_runtime, tmp_path, seconds, samples
):
    made = export_mobile(tiny_model, tmp_path / "m.pte", "executorch", seconds=seconds)
    assert made.metadata["samples"] == (samples or tiny_model.min_samples)
    assert json.loads(made.path.read_bytes())["labels"] == tiny_model.labels


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_difference_leaves_no_file(tiny_model, pytorch_as_runtime, tmp_path, runtime):
    pytorch_as_runtime += 0.1
    with pytest.raises(ExportError, match=f"{runtime}'s logits differ from PyTorch's"):
        export_mobile(tiny_model, tmp_path / f"m{SUFFIXES[runtime]}", runtime, seconds=0.1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("thresholds", [None, [0.25, 0.5, 0.75]])
def test_temperature_and_thresholds_travel_with_the_file(
    tiny_model, pytorch_as_runtime, tmp_path, thresholds
):
    model = copy.deepcopy(tiny_model)
    if thresholds is not None:
        model.temperature, model.thresholds = 2.5, thresholds
    made = export_mobile(model, tmp_path / "m.tflite", "litert", seconds=0.1)
    kept = json.loads((tmp_path / "m.tflite").read_bytes())
    for told in (made.metadata, kept):
        assert told.get("thresholds") == thresholds
        assert told.get("temperature") == (None if thresholds is None else 2.5)


def test_what_an_exporter_says_is_told_in_one_line(tiny_model, tmp_path, monkeypatch):
    def convert(*_):
        raise RuntimeError("no such operator\nand a page of advice")

    monkeypatch.setattr(mobile, "_RUNTIMES", {"litert": (convert, None)})
    with pytest.raises(ExportError, match=r"no litert program of this network: no such operator$"):
        export_mobile(tiny_model, tmp_path / "m.tflite", "litert", seconds=0.1)


def test_settings_out_of_range_are_named(tiny_model, tmp_path):
    with pytest.raises(ExportError, match=r"must end in \.tflite"):
        export_mobile(tiny_model, tmp_path / "m.pte", "litert")
    with pytest.raises(ValueError, match="seconds must be"):
        export_mobile(tiny_model, tmp_path / "m.pte", "executorch", seconds=0)


@pytest.mark.parametrize(
    "options",
    [["--to", "executorch", "--out", "a.onnx"], ["--to", "litert", "--out", "a.pte"],
     ["--to", "litert", "--out", "a.tflite", "--features"], ["--out", "a.onnx", "--seconds", "3"],
     ["--to", "executorch", "--out", "a.pte", "--form", "matrix"]],
    ids=" ".join,
)  # fmt: skip
def test_options_of_another_target_are_wrong_usage(options, tiny_entry, capsys):
    assert cli.main(["export", str(tiny_entry), *options]) == 2
    assert capsys.readouterr().err.startswith("qaudio export: --")


def test_a_package_that_is_missing_is_named_with_its_extra(tiny_entry, capsys, monkeypatch):
    def convert(*_):
        raise ModuleNotFoundError("No module named 'executorch'", name="executorch")

    monkeypatch.setattr(mobile, "_RUNTIMES", {"executorch": (convert, None)})
    assert cli.main(["export", str(tiny_entry), "--to", "executorch", "--out", "a.pte"]) == 1
    assert "pip install 'qaudio[executorch]'" in capsys.readouterr().err


def metadata(runtime, content):
    """The text that a file says of its model."""
    if runtime == "executorch":
        from executorch.runtime import Runtime

        return Runtime.get().load_program(content).load_method("metadata").execute([])[0]
    from ai_edge_litert.tools import flatbuffer_utils

    made = flatbuffer_utils.read_model_from_bytearray(content)
    index = next(entry.buffer for entry in made.metadata if entry.name.decode() == METADATA)
    return bytes(made.buffers[index].data).decode()


@pytest.mark.mobile
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_runtime_gives_pytorchs_logits(runtime, tiny_entry, tmp_path, capsys):
    path = tmp_path / f"model{SUFFIXES[runtime]}"
    options = ["--to", runtime, "--out", str(path), "--seconds", "0.5"]
    assert cli.main(["export", str(tiny_entry), *options]) == 0
    assert "clips of 0.5 s" in capsys.readouterr().out
    content = path.read_bytes()
    run, told = mobile._RUNTIMES[runtime][1](content), json.loads(metadata(runtime, content))
    model, waveform = qaudio.load(tiny_entry), sounds(4, 8000)
    assert (told["labels"], told["entry"], told["samples"]) == (model.labels, "tiny.made", 8000)
    with torch.no_grad():
        expected = model(waveform)
    found = torch.from_numpy(np.concatenate([run(clip[None].numpy()) for clip in waveform]))
    assert torch.allclose(found, expected, atol=1e-4 * float(expected.max() - expected.min()))
