import copy
import json

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import qaudio
from qaudio import cli
from qaudio.deploy.export_checks import ExportError
from qaudio.deploy.onnx import export
from qaudio.deploy.onnx.export import export_onnx
from qaudio.deploy.onnx.modules import FrontendGraph, NetworkGraph
from qaudio.deploy.onnx.runtime import session
from qaudio.models.registry import create_model, find
from qaudio.quaternion import QConv2d, QLinear
from tests.support.networks import EVERY, noise, quaternion, small_model, sounds

RATE = 16000  # of the tiny model


@pytest.fixture
def sound_folder(write_sound, tmp_path):
    """Eight tones in noise, at two rates."""
    for n in range(8):
        samples = sounds(8, 8000)[n].numpy()
        write_sound(f"sounds/{n}.wav", samples=samples, rate=(8000, RATE)[n % 2])
    return tmp_path / "sounds"


def run(path, **inputs):
    arrays = {name: tensor.detach().numpy() for name, tensor in inputs.items()}
    return torch.from_numpy(session(str(path)).run(["logits"], arrays)[0])


def close(found, expected, share=1e-4):
    return float((found - expected).abs().max()) <= share * float(expected.max() - expected.min())


def metadata(path):
    stored = {prop.key: prop.value for prop in onnx.load(path).metadata_props}
    return {key: json.loads(text) for key, text in stored.items()}


# The file.


@pytest.mark.parametrize(("batch", "samples"), [(1, 512), (1, 16001), (3, 5333), (2, 80000)])
def test_any_batch_and_length(tiny_model, tiny_export, batch, samples):
    samples = max(samples, tiny_model.min_samples)
    waveform = sounds(batch, samples)
    with torch.no_grad():
        assert close(run(tiny_export, waveform=waveform), tiny_model(waveform))


def test_the_file_says_all_that_a_prediction_needs(tiny_model, tiny_export):
    told = metadata(tiny_export)
    assert told["labels"] == tiny_model.labels
    assert told["task"] == "multiclass"
    assert told["sample_rate"] == RATE
    assert told["min_samples"] == tiny_model.min_samples
    assert told["frontend"] == tiny_model.frontend.config.to_dict()
    assert (told["entry"], told["license"]) == ("tiny.made", "cc0-1.0")
    assert told["check"]["largest_difference"] <= told["check"]["tolerance"] == 1e-4
    graph = onnx.load(tiny_export)
    onnx.checker.check_model(graph, full_check=True)
    assert [entry.version for entry in graph.opset_import if not entry.domain] == [told["opset"]]
    assert str(export.__file__).encode() not in tiny_export.read_bytes()


def test_batch_norms_are_folded_and_quaternion_layers_gone(tiny_export):
    operators = [node.op_type for node in onnx.load(tiny_export).graph.node]
    assert operators.count("BatchNormalization") <= 1  # over the features: before any conv
    assert operators.count("Conv") == 4
    assert operators.count("Gemm") == 2


def test_without_its_front_end(tiny_model, tmp_path):
    path = export_onnx(tiny_model, tmp_path / "features.onnx", features=True).path
    features = tiny_model.features(sounds(3, 9000))
    with torch.no_grad():
        assert close(run(path, features=features), tiny_model(sounds(3, 9000)))
    assert metadata(path)["input"] == "features"


def test_sounds_that_cannot_calibrate_are_named_and_left_out(tiny_model, sound_folder, tmp_path):
    (sound_folder / "3.wav").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"left out: .*3\.wav"):
        path = export_onnx(tiny_model, tmp_path / "int8.onnx", calibrate=sound_folder).path
    assert metadata(path)["int8"]["calibrated_on"] == 5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_exports_as_float32(tiny_model, tmp_path, dtype):
    model = copy.deepcopy(tiny_model).to(dtype)
    path = export_onnx(model, tmp_path / "model.onnx").path
    with torch.no_grad():
        assert close(run(path, waveform=sounds(2, 9000)), model.float()(sounds(2, 9000)))


def test_int8_of_several_labels_is_compared_label_by_label(tiny_model, sound_folder, tmp_path):
    model = copy.deepcopy(tiny_model)
    model.task = "multilabel"
    told = metadata(export_onnx(model, tmp_path / "int8.onnx", calibrate=sound_folder).path)
    assert 0.5 < told["int8"]["label_agreement"] <= 1
    assert "top1_agreement" not in told["int8"]


def test_int8_is_near_and_says_how_near(tiny_model, sound_folder, tiny_export, tmp_path):
    path = export_onnx(tiny_model, tmp_path / "int8.onnx", calibrate=sound_folder).path
    told = metadata(path)["int8"]
    assert (told["calibrated_on"], told["checked_on"]) == (6, 2)
    assert 0 <= told["top1_agreement"] <= 1
    waveform = sounds(8, 16000)
    with torch.no_grad():
        expected = tiny_model(waveform)
    difference = (run(path, waveform=waveform) - expected).abs().mean()
    assert difference < 0.05 * (expected.max() - expected.min())
    assert not close(run(path, waveform=waveform), expected, 1e-5)
    graph = onnx.load(path).graph
    integers = {
        tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT8
    }
    assert len(integers) >= 4  # the convolutions' weights
    made = {output: node for node in graph.node for output in node.output}
    classifier = made["logits"]
    assert classifier.op_type == "Gemm"
    assert classifier.input[1] in {tensor.name for tensor in graph.initializer}  # fp32, as it was
    front = [node.op_type for node in graph.node if node.name.startswith("frontend/")]
    assert "MatMul" in front
    assert "QuantizeLinear" not in front


@pytest.mark.parametrize("arch", ["qcnn6_025", "resnet38_013"])
def test_pooling_by_convolutions_gives_the_same_means(arch):
    graph = export._network(model := small_model(arch), "matrix")
    pools = [node.op_type for node in graph.graph.node].count("AveragePool")
    convolutions = [node.op_type for node in graph.graph.node].count("Conv")
    export._pool_by_convolutions(graph)
    operators = [node.op_type for node in graph.graph.node]
    assert pools > 0 and "AveragePool" not in operators
    assert operators.count("Conv") == convolutions + pools
    features = model.features(sounds(2, 30001))
    (found,) = session(graph.SerializeToString()).run(["logits"], {"features": features.numpy()})
    with torch.no_grad():
        expected = model.classifier(model.embed_features(features))
    assert close(torch.from_numpy(found), expected)


def test_padded_pooling_stays_as_it_is():
    kinds = [{}, {"pads": [1, 1, 1, 1]}, {"ceil_mode": 1}, {"strides": [1, 3]}]
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    names = ["x", *(f"y{n}" for n in range(len(kinds)))]
    nodes = [
        helper.make_node("AveragePool", [a], [b], b, kernel_shape=[2, 3], **kind)
        for a, b, kind in zip(names, names[1:], kinds, strict=False)
    ]
    values = [helper.make_tensor_value_info(name, float32, [1, 4, "h", "w"]) for name in names]
    model = helper.make_model(helper.make_graph(nodes, "g", [], [], value_info=values))
    export._pool_by_convolutions(model)
    after = model.graph.node
    assert [node.op_type for node in after] == ["Conv", "AveragePool", "AveragePool", "Conv"]
    strides = [helper.get_node_attr_value(node, "strides") for node in (after[0], after[3])]
    assert strides == [[1, 1], [1, 3]]  # ONNX's default is a step of one


# The graphs.


def folded(model, form):
    return NetworkGraph(model, form).eval()


@pytest.mark.parametrize("arch", ["qcnn6_025", "qresnet38_013"])
def test_both_forms_of_a_quaternion_network_are_the_network(arch):
    model = small_model(arch)
    for module in model.modules():
        if isinstance(module, QConv2d):  # the networks have none; the layer may
            module.bias = nn.Parameter(noise(module.out_channels))
    with torch.no_grad():
        features = model.features(sounds(3, 32000))
        expected = model.classifier(model.embed_features(features))
        for form in ("matrix", "products"):
            network = folded(model, form)
            assert close(network(features), expected, 1e-5)
            assert not [m for m in network.modules() if isinstance(m, QLinear)]
    assert any(isinstance(m, QConv2d) for m in model.modules())  # untouched


def test_auto_takes_products_for_wide_convolutions_alone():
    model = qaudio.create_model("qcnn6", num_classes=3)
    kinds = [
        type(m).__name__ for n, m in folded(model, "auto").named_modules() if n.endswith("conv1")
    ]
    assert kinds == ["Conv2d", "Conv2d", "Conv2d", "_ProductConv2d"]  # 4→64→128→256→512


@pytest.mark.parametrize("kind", ["logmel", "delta", "published"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"n_fft": 512, "hop_length": 512}, {"n_fft": 400, "hop_length": 441, "n_mels": 40},
     {"n_fft": 509, "hop_length": 100, "n_mels": 32}],
    ids=["default", "no overlap", "gaps", "prime"],
)  # fmt: skip
def test_the_front_end_in_matrix_products_is_the_front_end(kind, settings):
    config = qaudio.FrontendConfig(kind=kind, **settings)
    frontend = qaudio.create_model("cnn6_006", num_classes=2, frontend=config).frontend
    for samples in (config.n_fft, 12345):
        waveform = noise(2, samples)
        expected, found = frontend(waveform), FrontendGraph(frontend)(waveform)
        assert found.shape == expected.shape
        # Of `published`, a value in thousands is a logarithm that rounding decides.
        share = 0.99 if kind == "published" else 1
        near = (found - expected).abs() < 2e-3
        assert float(near.float().mean()) >= share


# What is refused.


def test_a_difference_leaves_no_file(tiny_model, tiny_export, tmp_path, monkeypatch):
    made = onnx.load(tiny_export)
    bias = next(
        tensor for tensor in made.graph.initializer if tensor.name.endswith("classifier.bias")
    )
    values = onnx.numpy_helper.to_array(bias) + np.float32([1e-2, 0, 0])
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    monkeypatch.setattr(export, "_network", lambda model, form: made)
    (tmp_path / "model.onnx").write_bytes(b"an earlier file")
    monkeypatch.setattr(export, "_joined", lambda front, network: network)
    with pytest.raises(ExportError, match="differ from PyTorch's"):
        export_onnx(tiny_model, tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_bytes() == b"an earlier file"


def test_a_network_without_a_graph_is_refused_in_one_line(tiny_model, tmp_path):
    class Odd(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x  # a way that depends on the sound

    model = copy.deepcopy(tiny_model)
    model.conv_block1.conv1 = nn.Sequential(Odd(), model.conv_block1.conv1)
    with pytest.raises(ExportError, match="no ONNX graph") as caught:
        export_onnx(model, tmp_path / "model.onnx", features=True)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("model.pt", {}, "must end in .onnx"),
        ("model.onnx", {"calibrate": "nothing"}, "0 usable sound files"),
        ("model.onnx", {"calibrate": "nothing", "form": "products"}, "not as products"),
    ],
)
def test_wrong_settings_are_named(tiny_model, tmp_path, name, settings, said):
    if "calibrate" in settings:
        settings = settings | {"calibrate": tmp_path / settings["calibrate"]}
    with pytest.raises(ExportError, match=said):
        export_onnx(tiny_model, tmp_path / name, **settings)
    assert not list(tmp_path.iterdir())


def test_the_model_is_left_as_it_was(tiny_model, tiny_export):
    assert not tiny_model.training
    assert any(isinstance(module, QConv2d) for module in tiny_model.modules())
    assert next(tiny_model.parameters()).requires_grad


# The command.


def test_the_command_exports_an_entry(tiny_entry, tmp_path, capsys):
    path = tmp_path / "made" / "model.onnx"
    assert cli.main(["export", str(tiny_entry), "--out", str(path)]) == 0
    assert "opset 18" in capsys.readouterr().out
    told = metadata(path)
    assert (told["entry"], told["license"]) == ("tiny.made", "cc0-1.0")


@pytest.mark.parametrize(
    "options",
    [["--out", "a.onnx", "--int8"], ["--out", "a.onnx", "--calibrate", "b"], ["--out", "a.pt"],
     ["--out", "a.onnx", "--int8", "--calibrate", "b", "--form", "products"]],
    ids=" ".join,
)  # fmt: skip
def test_wrong_usage_is_two(options, tiny_entry, capsys):
    assert cli.main(["export", str(tiny_entry), *options]) == 2
    assert capsys.readouterr().err.startswith("qaudio export: ")


# Every architecture.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "form"),
    [
        *((arch, "auto") for arch in EVERY),
        *((arch, "products") for arch in EVERY if quaternion(arch)),
    ],
)
def test_every_architecture_exports(arch, form, tmp_path):
    # Depthwise networks with norms of small_model's make much of the last digits.
    model = small_model(arch) if find(arch).blocks else create_model(arch, num_classes=7).eval()
    path = export_onnx(model, tmp_path / "model.onnx", form=form).path
    waveform = sounds(2, 50001)
    with torch.no_grad():
        assert close(run(path, waveform=waveform), model(waveform))


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["cnn6_025", "qcnn10_025"])
@pytest.mark.parametrize("kind", ["delta", "published"])
def test_the_other_front_ends_export(arch, kind, tmp_path):
    model = small_model(arch, frontend={"kind": kind})
    path = export_onnx(model, tmp_path / "model.onnx").path
    waveform = sounds(2, 50001)
    with torch.no_grad():
        assert close(run(path, waveform=waveform), model(waveform))


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["cnn10_025", "qresnet38_013"])
def test_int8_of_other_architectures(arch, tmp_path, sound_folder):
    model = small_model(arch)
    path = export_onnx(model, tmp_path / "model.onnx", calibrate=sound_folder).path
    waveform = sounds(8, 32000)
    with torch.no_grad():
        assert np.isfinite(run(path, waveform=waveform)).all()
        assert close(run(path, waveform=waveform), model(waveform), 0.25)
