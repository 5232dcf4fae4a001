import copy
import math
import pickle
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.utils import _pair

from qaudio.quaternion import QConv2d, QLinear, layers, quaternion_init_, real_matrix
from tests.support import scalar

LAYERS = {
    "conv": (lambda: QConv2d(8, 12, (3, 2), padding=1), (2, 8, 6, 7)),
    "linear": (lambda: QLinear(8, 12), (5, 8)),
}


@pytest.fixture(params=LAYERS)
def layer_and_input(request):
    torch.manual_seed(0)
    make, shape = LAYERS[request.param]
    layer = make()
    nn.init.normal_(layer.bias)
    return layer, torch.randn(shape)


@pytest.fixture
def assembled(monkeypatch) -> list[tuple[int, ...]]:
    """Shapes of the weights whose real matrix was assembled, call by call."""
    calls: list[tuple[int, ...]] = []

    def counted(weight):
        calls.append(tuple(weight.shape))
        return real_matrix(weight)

    monkeypatch.setattr(layers, "real_matrix", counted)
    return calls


def reference(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The layer's output from the weight as it is now."""
    matrix = real_matrix(layer.weight.detach())
    if isinstance(layer, QLinear):
        return F.linear(x, matrix, layer.bias.detach())
    return F.conv2d(x, matrix, layer.bias.detach(), layer.stride, layer.padding, layer.dilation)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [
        (3, 1, 0, 1),
        (1, 1, 0, 1),
        ((2, 3), (2, 1), (1, 2), (1, 2)),
        ((3, 1), (1, 3), (0, 1), (2, 1)),
    ],
)
def test_conv_matches_the_scalar_loop(kernel, stride, padding, dilation, bias) -> None:
    torch.manual_seed(1)
    layer = QConv2d(8, 12, kernel, stride, padding, dilation, bias=bias).double()
    if bias:
        nn.init.normal_(layer.bias)
    x = torch.randn(2, 8, 6, 5, dtype=torch.float64)
    expected = scalar.conv2d(
        x.view(2, 4, 2, 6, 5).numpy(),
        layer.weight.detach().view(4, 3, 2, *layer.kernel_size).numpy(),
        layer.bias.detach().view(4, 3).numpy() if bias else np.zeros((4, 3)),
        *(_pair(setting) for setting in (stride, padding, dilation)),
    )
    actual = layer(x).detach()
    torch.testing.assert_close(actual, torch.from_numpy(expected).flatten(1, 2), rtol=0, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
def test_linear_matches_the_scalar_loop(bias) -> None:
    torch.manual_seed(2)
    layer = QLinear(12, 8, bias=bias).double()
    if bias:
        nn.init.normal_(layer.bias)
    x = torch.randn(3, 12, dtype=torch.float64)
    expected = scalar.linear(
        x.view(3, 4, 3).numpy(),
        layer.weight.detach().view(4, 2, 3).numpy(),
        layer.bias.detach().view(4, 2).numpy() if bias else np.zeros((4, 2)),
    )
    actual = layer(x).detach()
    torch.testing.assert_close(actual, torch.from_numpy(expected).flatten(1), rtol=0, atol=1e-12)
    folded = layer(x.view(3, 1, 12)).detach()
    torch.testing.assert_close(folded, actual.view(3, 1, 8), rtol=0, atol=1e-12)


@pytest.mark.parametrize("groups", [0, 2, 4])
def test_groups_are_refused(groups) -> None:
    with pytest.raises(ValueError, match="groups=1 only"):
        QConv2d(8, 8, 3, groups=groups)


@pytest.mark.parametrize(
    ("inputs", "outputs", "which"),
    [(6, 8, "input"), (8, 6, "output"), (0, 4, "input"), (4, -4, "")],
)
def test_channel_counts_that_are_no_multiple_of_four_are_refused(inputs, outputs, which) -> None:
    for make in (lambda: QConv2d(inputs, outputs, 3), lambda: QLinear(inputs, outputs)):
        with pytest.raises(ValueError, match=f"{which}.*positive multiple of 4"):
            make()


def test_unknown_initialisation_is_refused() -> None:
    with pytest.raises(ValueError, match="'he' or 'glorot'"):
        QLinear(4, 4, init="kaiming")


def test_state_does_not_depend_on_the_length_of_the_input() -> None:
    layer = QConv2d(4, 8, 3, padding=1).eval()
    expected = {"weight": (8, 1, 3, 3), "bias": (8,)}
    for length in (10, 50):
        with torch.no_grad():
            assert layer(torch.randn(1, 4, 5, length)).shape == (1, 8, 5, length)
        assert {name: tuple(t.shape) for name, t in layer.state_dict().items()} == expected


def test_frozen_output_is_the_trainable_one_bit_for_bit(layer_and_input) -> None:
    layer, x = layer_and_input
    trainable = layer(x)
    assert trainable.requires_grad
    for mode in (layer.train, layer.eval):
        mode()
        for context in (torch.no_grad, torch.inference_mode):
            with context():
                for _ in range(2):  # assembled, then cached
                    assert torch.equal(layer(x), trainable)
        assert torch.equal(layer(x), trainable)
    layer.requires_grad_(False)
    for _ in range(2):
        assert torch.equal(layer(x), trainable)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_matrix_is_assembled_once_in_eval_mode(layer_and_input, assembled, context) -> None:
    layer, x = layer_and_input
    layer.eval()
    with context():
        for _ in range(4):
            layer(x)
    assert len(assembled) == 1


def test_matrix_cached_under_inference_mode_serves_gradients_of_the_input(layer_and_input) -> None:
    layer, x = layer_and_input
    layer.eval().requires_grad_(False)
    with torch.inference_mode():
        layer(x)
    x.requires_grad_()
    layer(x).square().sum().backward()
    assert x.grad.abs().sum() > 0


def _step(layer, x) -> None:
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    with torch.enable_grad():
        layer(x).square().sum().backward()
    optimizer.step()


CHANGES = {
    "optimizer": _step,
    "load_state_dict": lambda layer, _: layer.load_state_dict(
        {name: 2 * tensor for name, tensor in layer.state_dict().items()}
    ),
    "assigned": lambda layer, _: layer.load_state_dict(
        {name: 2 * tensor for name, tensor in layer.state_dict().items()}, assign=True
    ),
    "in place": lambda layer, _: layer.weight.mul_(2),
    "one element": lambda layer, _: layer.weight.view(-1)[3].add_(1),
    "new parameter": lambda layer, _: setattr(
        layer, "weight", nn.Parameter(torch.randn_like(layer.weight))
    ),
    "reset": lambda layer, _: layer.reset_parameters(),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_matrix_is_renewed_when_the_weight_changes(layer_and_input, change, context) -> None:
    layer, x = layer_and_input
    layer.eval()
    with context():
        before = layer(x)
    with torch.no_grad():
        CHANGES[change](layer, x)
    with context():
        after = layer(x)
    assert not torch.allclose(after, before)
    assert torch.equal(after, reference(layer, x))


def test_matrix_of_a_weight_that_is_gone_is_not_taken_for_another(layer_and_input) -> None:
    """Whose memory a new one may get."""
    layer, x = layer_and_input
    layer.eval()
    shape = layer.weight.shape
    for seed in range(20):
        with torch.no_grad():
            layer(x)
            del layer.weight
            values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
            layer.weight = nn.Parameter(values)
            del values
            assert torch.equal(layer(x), reference(layer, x))


def test_matrix_is_that_of_the_weights_that_are_called_with(layer_and_input) -> None:
    layer, x = layer_and_input
    layer.eval()
    with torch.no_grad():
        for scale in (1.0, 0.5, 0.25, 2.0):
            state = {name: scale * value for name, value in layer.state_dict().items()}
            found = torch.func.functional_call(layer, state, x)
            assert torch.allclose(found, scale * reference(layer, x), atol=1e-5)


def test_matrix_follows_the_dtype(layer_and_input) -> None:
    layer, x = layer_and_input
    layer.eval()
    with torch.no_grad():
        layer(x)
        doubled = layer.double()(x.double())
    assert doubled.dtype == torch.float64
    assert torch.equal(doubled, reference(layer, x.double()))


def test_training_then_evaluating_sees_the_trained_weight(layer_and_input) -> None:
    layer, x = layer_and_input
    with torch.no_grad():
        layer.eval()(x)
    layer.train()
    _step(layer, x)
    with torch.no_grad():
        assert torch.equal(layer.eval()(x), reference(layer, x))


def test_gradient_reaches_weight_bias_and_input(layer_and_input) -> None:
    layer, x = layer_and_input
    layer, x = layer.double(), x.double().requires_grad_()
    names = [name for name, _ in layer.named_parameters()]

    def output(x, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    small = x[:1].detach().requires_grad_()
    assert torch.autograd.gradcheck(output, (small, *layer.parameters()))
    layer(x).square().sum().backward()
    assert all(p.grad.abs().min() > 0 for p in (*layer.parameters(), x))


def test_deepcopy_is_independent(layer_and_input) -> None:
    layer, x = layer_and_input
    layer.eval()
    with torch.no_grad():
        before = layer(x)
        twin = copy.deepcopy(layer)
        assert torch.equal(twin(x), before)
        twin.weight.zero_()
        assert torch.equal(layer(x), before)
        assert torch.equal(twin(x), reference(twin, x))


def test_pickle_leaves_the_cached_matrix_behind(layer_and_input) -> None:
    layer, x = layer_and_input
    size = len(pickle.dumps(layer.eval()))
    with torch.no_grad():
        before = layer(x)
    pickled = pickle.dumps(layer)
    assert len(pickled) == size
    with torch.no_grad():
        assert torch.equal(pickle.loads(pickled)(x), before)


@pytest.mark.parametrize("scheme", ["he", "glorot"])
def test_modulus_follows_chi_with_four_degrees_of_freedom(scheme) -> None:
    torch.manual_seed(3)
    quaternions_in, quaternions_out, area = 48, 96, 6
    layer = QConv2d(4 * quaternions_in, 4 * quaternions_out, (2, 3), init=scheme)
    fan_in, fan_out = quaternions_in * area, quaternions_out * area
    scale = 1 / math.sqrt(2 * (fan_in if scheme == "he" else fan_in + fan_out))
    parts = layer.weight.detach().view(4, -1) / scale
    modulus = parts.norm(dim=0)  # 27 648 draws: tolerances are about five standard errors
    mean = math.sqrt(2) * math.gamma(2.5)
    assert modulus.mean().item() == pytest.approx(mean, rel=0.012)
    assert modulus.var().item() == pytest.approx(4 - mean**2, rel=0.05)
    # Uniform phase: half of the energy is real; random axis: the rest is shared evenly.
    shares = (parts / modulus).square().mean(dim=1)
    torch.testing.assert_close(shares, torch.tensor([3, 1, 1, 1]) / 6, rtol=0, atol=0.012)
    torch.testing.assert_close(parts.mean(dim=1), torch.zeros(4), rtol=0, atol=0.05)
    assert torch.equal(layer.bias.detach(), torch.zeros(4 * quaternions_out))


def test_linear_weights_have_the_he_scale_of_their_inputs() -> None:
    torch.manual_seed(4)
    modulus = QLinear(256, 512).weight.detach().view(4, -1).norm(dim=0)
    assert modulus.square().mean().item() == pytest.approx(4 / (2 * 64), rel=0.05)


def test_seed_decides_the_weights_and_two_layers_differ() -> None:
    torch.manual_seed(5)
    first, second = QConv2d(8, 8, 3), QConv2d(8, 8, 3)
    assert not torch.isclose(first.weight, second.weight).any()
    moduli = [layer.weight.detach().view(4, -1).norm(dim=0) for layer in (first, second)]
    assert not torch.isclose(*moduli).any()
    torch.manual_seed(5)
    assert torch.equal(QConv2d(8, 8, 3).weight, first.weight)


def test_generator_is_the_only_source_of_random_numbers() -> None:
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    weights = [
        quaternion_init_(torch.empty(8, 2, 3), generator=torch.Generator().manual_seed(seed))
        for seed in (6, 6, 7)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.isclose(weights[0], weights[2]).any()
    assert torch.equal(torch.get_rng_state(), before[0])
    layer = QLinear(8, 8)
    layer.reset_parameters(torch.Generator().manual_seed(8))
    again = layer.weight.detach().clone()
    layer.reset_parameters(torch.Generator().manual_seed(8))
    assert torch.equal(layer.weight, again)
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]
