import pytest
import torch

from qaudio.compress.cost import cost, macs_by_layer
from qaudio.compress.prune import plan, prune
from qaudio.models.registry import create_model
from tests.networks import same_state, small_model

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


def test_latency_includes_the_front_end_and_says_how_it_was_measured() -> None:
    latency = cost(tiny("qcnn6"), seconds=0.1, latency=True).latency
    assert 0 < latency.frontend_milliseconds < latency.milliseconds
    assert f"{torch.get_num_threads()} threads" in latency.device
    assert latency.method == "median of 15"


@pytest.mark.parametrize(
    ("arch", "params", "macs"),
    [
        ("cnn6", 4.84e6, 9.93e9),
        ("cnn10", 5.22e6, 13.02e9),
        ("cnn14", 80.75e6, 20.04e9),
        ("qcnn14", 21.01e6, 20.15e9),
        ("resnet38", 73.78e6, 23.39e9),
        ("qresnet38", 19.28e6, 23.50e9),
    ],
)
def test_known_networks_have_their_known_cost(arch, params, macs) -> None:
    found = cost(create_model(arch, num_classes=527))
    assert found.params == pytest.approx(params, rel=0.01)
    assert found.macs == pytest.approx(macs, rel=0.01)


@pytest.fixture(scope="module")
def qcnn14():
    return create_model("qcnn14", num_classes=527)


@pytest.mark.parametrize(
    ("layers", "ratio", "params", "macs"),
    [
        ("published", 0.25, 12.67e6, 15.75e9),
        ("published", 0.5, 6.62e6, 12.53e9),
        ("published", 0.75, 2.85e6, 10.47e9),
        ("all", 0.25, 12.49e6, 11.37e9),
        ("all", 0.5, 6.33e6, 5.08e9),
        ("all", 0.75, 2.53e6, 1.29e9),
    ],
)
def test_pruned_qcnn14_has_its_known_cost(qcnn14, layers, ratio, params, macs) -> None:
    chosen = plan(qcnn14, ratio=ratio, layers=layers)
    pruned = prune(qcnn14, chosen)
    assert sum(p.numel() for p in pruned.parameters()) == pytest.approx(params, rel=0.01)
    assert chosen.macs_before == pytest.approx(20.15e9, rel=0.01)
    assert chosen.macs_after == pytest.approx(macs, rel=0.01)
