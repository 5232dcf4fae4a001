import functools
from types import SimpleNamespace

import pytest
import torch

from qaudio.compress.cost import cost, device_name, macs_by_layer
from qaudio.compress.measured import Cost
from qaudio.compress.prune import plan, prune
from qaudio.models.registry import create_model
from tests.support.networks import same_state, small_model

WIDTHS = {f"conv_block{n}.conv1": width for n, width in ((1, 4), (2, 8), (3, 8), (4, 12))}


def tiny(arch: str):
    return create_model(arch, num_classes=5, widths=WIDTHS | {"fc1": 16})


def macs_by_hand(inputs: int) -> dict[str, int]:
    """One second: 101 frames of 64 mels, halved after each block; 5×5 kernels."""
    return {
        "conv_block1.conv1": 101 * 64 * 25 * inputs * 4,
        "conv_block2.conv1": 50 * 32 * 25 * 4 * 8,
        "conv_block3.conv1": 25 * 16 * 25 * 8 * 8,
        "conv_block4.conv1": 12 * 8 * 25 * 8 * 12,
        "fc1": 12 * 16,
        "classifier": 16 * 5,
    }


@pytest.mark.parametrize(("arch", "inputs"), [("cnn6", 1), ("qcnn6", 4)])
def test_macs_are_those_counted_by_hand(arch, inputs) -> None:
    model = tiny(arch)
    expected = macs_by_hand(inputs)
    assert macs_by_layer(model, 1.0) == expected
    assert cost(model, seconds=1.0).macs == sum(expected.values())


def test_parameters_and_bytes_are_those_counted_by_hand() -> None:
    norms = 64 + 4 + 8 + 8 + 12
    real = cost(tiny("cnn6"), seconds=1.0)
    weights = 25 * (1 * 4 + 4 * 8 + 8 * 8 + 8 * 12) + 12 * 16 + 16 * 5
    assert real.params == weights + 16 + 5 + 2 * norms
    # and the running mean and variance of each norm, and five 8-byte counters
    assert real.bytes == 4 * (real.params + 2 * norms) + 5 * 8
    norms += 3 * 64  # the `delta` front-end has a norm for each of its four channels
    quaternion = cost(tiny("qcnn6"), seconds=1.0)
    weights = (25 * (4 * 4 + 4 * 8 + 8 * 8 + 8 * 12) + 12 * 16) // 4 + 16 * 5
    assert quaternion.params == weights + 16 + 5 + 2 * norms
    assert cost(tiny("qcnn6").double(), seconds=1.0).bytes == 2 * (quaternion.bytes - 40) + 40


def test_ten_seconds_unless_said() -> None:
    model = tiny("cnn6")
    assert cost(model) == cost(model, seconds=10.0)
    assert cost(model).seconds == 10.0
    assert cost(model).macs > 9 * cost(model, seconds=1.0).macs
    document = cost(model, seconds=1.0).to_dict()
    assert document == {
        "params": cost(model).params,
        "macs": cost(model, seconds=1.0).macs,
        "bytes": cost(model).bytes,
        "seconds": 1.0,
        "latency": None,
    }


@pytest.mark.parametrize("training", [True, False])
def test_model_is_left_as_it_is(training) -> None:
    model, twin = small_model("qcnn6_025"), small_model("qcnn6_025")
    model.train(training)
    cost(model, seconds=1.0, latency=True)
    assert same_state(model, twin)
    assert all(module.training == training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(
    ("count", "words", "method"),
    [(1, "1 thread", "median of 15, processor time"), (2, "2 threads", "median of 15")],
)
def test_latency_includes_the_front_end_and_says_how_it_was_measured(
    count, words, method, threads
) -> None:
    threads(count)
    latency = cost(tiny("qcnn6"), seconds=1.0, latency=True).latency
    assert 0 < latency.frontend_milliseconds < latency.milliseconds
    assert latency.device.endswith(f", {words}")
    assert latency.method == method


def test_attention_and_mlps_of_a_transformer_are_counted_by_hand() -> None:
    """Ten seconds: 1001 frames of 64 mels, 63 × 4 patches of 16 × 16; every 10: 100 × 6."""
    for arch, tokens, width in (("ast_tiny", 63 * 4, 192), ("ast_tiny_s10", 100 * 6, 192)):
        model = create_model(arch, num_classes=5)
        block = {
            "attn.qkv": tokens * width * 3 * width,
            "attn": 2 * tokens * tokens * width,  # queries by keys, then weights by values
            "attn.proj": tokens * width * width,
            "mlp.fc1": tokens * width * 4 * width,
            "mlp.fc2": tokens * width * 4 * width,
        }
        expected = {f"blocks.{n}.{name}": macs for n in range(12) for name, macs in block.items()}
        expected |= {"patches": tokens * 16 * 16 * width, "classifier": width * 5}
        assert macs_by_layer(model, 10.0) == expected
        assert cost(model).macs == sum(expected.values())


def test_a_timm_network_is_counted_operator_by_operator() -> None:
    """MobileNetV3's stem, and its last convolution, which runs on the pooled map."""
    macs = macs_by_layer(create_model("timm:mobilenetv3_small_100", num_classes=5), 1.0)
    assert macs["backbone.conv_stem"] == 51 * 32 * 9 * 1 * 16
    assert macs["backbone.blocks.0.0.conv_dw"] == 26 * 16 * 9 * 16  # a depthwise one
    assert macs["backbone.conv_head"] == 576 * 1024
    assert macs["classifier"] == 1024 * 5


@pytest.mark.parametrize(
    ("arch", "params", "printed", "macs"),
    [
        ("cnn6", 4_837_455, 4.84, 9.93e9),
        ("cnn10", 5_219_279, 5.22, 13.02e9),
        ("cnn14", 80_753_615, 80.75, 20.04e9),
        ("resnet38", 73_783_247, 73.78, 23.39e9),
        # With the norm that `delta` has for each of its four channels, 384 more than published.
        ("qcnn14", 21_012_815, 21.01, 20.15e9),
        ("qresnet38", 19_277_135, 19.28, 23.50e9),
    ],
)
def test_known_networks_have_their_known_cost(arch, params, printed, macs) -> None:
    found = cost(create_model(arch, num_classes=527))
    assert found.params == params and round(params / 1e6, 2) == printed
    assert found.macs == pytest.approx(macs, rel=0.01)


@pytest.fixture(scope="module")
def dense():
    """Unpruned networks by name, each built once."""
    return functools.cache(lambda arch: create_model(arch, num_classes=527))


@pytest.mark.parametrize(
    ("arch", "layers", "ratio", "params", "printed", "macs"),
    [
        ("qcnn14", "published", 0.25, 12_673_871, 12.67, 15.75e9),
        ("qcnn14", "published", 0.5, 6_620_495, 6.62, 12.53e9),
        ("qcnn14", "published", 0.75, 2_852_687, 2.85, 10.47e9),
        ("qcnn14", "all", 0.25, 12_492_991, 12.49, 11.37e9),
        ("qcnn14", "all", 0.5, 6_331_311, 6.33, 5.08e9),
        ("qcnn14", "all", 0.75, 2_527_775, 2.53, 1.29e9),
        ("qresnet38", "published", 0.25, 14_294_351, 14.29, 22.33e9),
        ("qresnet38", "published", 0.5, 10_491_215, 10.49, 21.45e9),
        ("qresnet38", "published", 0.75, 7_867_727, 7.87, 20.87e9),
    ],
)
def test_pruned_networks_have_their_known_cost(
    dense, arch, layers, ratio, params, printed, macs
) -> None:
    chosen = plan(dense(arch), ratio=ratio, layers=layers)
    pruned = prune(dense(arch), chosen)
    assert sum(p.numel() for p in pruned.parameters()) == params
    assert round(params / 1e6, 2) == printed
    assert chosen.macs_after == pytest.approx(macs, rel=0.01)


@pytest.mark.parametrize("model", ["qcnn10_050.esc10", None, torch.nn.Linear(2, 2)])
def test_only_models_have_a_cost(model) -> None:
    with pytest.raises(TypeError, match=r"as qaudio\.load\('ENTRY'\) gives, not a (str|N|L)"):
        cost(model)


def test_processors_are_named_as_their_systems_do(monkeypatch) -> None:
    files: dict[str, str] = {}

    def read(path, **_):
        if str(path) not in files:
            raise FileNotFoundError(path)
        return files[str(path)]

    monkeypatch.setattr("pathlib.Path.read_text", read)
    run = SimpleNamespace(stdout="Apple M1\n")
    monkeypatch.setattr("subprocess.run", lambda *_, **__: run)
    monkeypatch.setattr("torch.get_num_threads", lambda: 4)
    assert device_name(torch.device("mps")) == "Apple M1, MPS"
    assert device_name(torch.device("cpu")) == "Apple M1, 4 threads"
    run.stdout = ""
    files["/proc/device-tree/model"] = "Raspberry Pi 5\0"
    assert device_name(torch.device("cpu")).startswith("Raspberry Pi 5, ")
    files["/proc/cpuinfo"] = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz \n"
    assert device_name(torch.device("cpu")).startswith("Some CPU @ 2 GHz, ")


@pytest.mark.parametrize(
    ("params", "macs", "widest"),
    [(32_000, 60_000_000, "float32"), (32_001, 1, "float16"), (64_001, 1, "int8"),
     (128_000, 1, "int8"), (128_001, 1, None), (1, 60_000_001, None)],
)  # fmt: skip
def test_budget_of_dcase_is_kept_in_the_widest_type_that_fits(params, macs, widest) -> None:
    two_seconds = Cost(params=params, macs=macs, bytes=4 * params, seconds=2.0, latency=None)
    assert two_seconds.within_dcase == widest
