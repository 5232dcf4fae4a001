import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qaudio.deploy.fused_layers import SplitLinear, Stage, forms
from qaudio.quaternion import QConv2d, QLinear
from qaudio.quaternion.algebra import gather, product_weights, spread


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def normed(layer: nn.Conv2d | QConv2d) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(layer.out_channels).eval()
    for tensor in (norm.weight.data, norm.running_var):
        nn.init.uniform_(tensor, 0.5, 1.5)
    for tensor in (norm.bias.data, norm.running_mean):
        nn.init.normal_(tensor)
    return norm


@pytest.mark.parametrize("kernel", [1, 3, (5, 2)])
def test_eight_products_are_the_convolution_in_float64(kernel):
    layer = QConv2d(12, 20, kernel, padding=1, stride=(2, 1), dilation=(1, 2), bias=False).double()
    x = torch.randn(2, 12, 17, 11, dtype=torch.float64)
    factors = zip(spread(*x.chunk(4, 1)), product_weights(*layer.weight.chunk(4)), strict=True)
    products = [
        F.conv2d(part, weight, None, layer.stride, layer.padding, layer.dilation)
        for part, weight in factors
    ]
    assert len(products) == 8
    torch.testing.assert_close(torch.cat(gather(products), 1), layer(x), rtol=0, atol=1e-13)


@pytest.mark.parametrize("bias", [True, False])
def test_split_linear_is_the_linear_layer_in_float64(bias):
    layer = QLinear(12, 20, bias=bias).double()
    if bias:
        nn.init.normal_(layer.bias)
    x = torch.randn(3, 12, dtype=torch.float64)
    torch.testing.assert_close(SplitLinear(layer)(x), layer(x), rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", [nn.Conv2d, QConv2d])
@pytest.mark.parametrize(
    "ends",
    [{}, {"relu": True}, {"relu": True, "pool": 2}, {"relu": True, "shortcut": True}],
    ids=str,
)
@pytest.mark.parametrize("bias", [True, False])
def test_every_form_is_the_layer_and_what_follows_it(kind, ends, bias):
    layer = kind(8, 24, 3, padding=1, bias=bias).requires_grad_(False)
    if bias:
        nn.init.normal_(layer.bias)
    norm, x = normed(layer), torch.randn(2, 8, 9, 6)
    other = torch.randn(2, 24, 9, 6)
    expected = norm(layer(x)) + (other if "shortcut" in ends else 0)
    expected = F.relu(expected) if "relu" in ends else expected
    expected = F.avg_pool2d(expected, 2) if "pool" in ends else expected
    names = forms(layer)
    assert set(names) >= ({"matrix", "grouped"} if kind is QConv2d else {"matrix"})
    with torch.inference_mode():
        for form in names:
            stage = Stage(layer, norm, form, x.shape, **ends)
            extra = [other.clone()] if "shortcut" in ends else []
            torch.testing.assert_close(stage(x, *extra), expected, rtol=0, atol=2e-5)
            torch.testing.assert_close(  # packed weights are copied, other sizes taken
                copy.deepcopy(stage)(x[:, :, :5], *(e[:, :, :5].clone() for e in extra))[:, :, :1],
                stage(x, *extra)[:, :, :1], rtol=0, atol=2e-5,
            )  # fmt: skip


def test_a_real_convolution_keeps_its_groups():
    layer = nn.Conv2d(8, 16, 3, groups=4, stride=2)
    x = torch.randn(1, 8, 9, 9)
    with torch.inference_mode():
        for form in forms(layer):
            stage = Stage(layer, None, form, x.shape)
            torch.testing.assert_close(stage(x), layer(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", [nn.Conv2d, QConv2d])
@pytest.mark.parametrize("ends", [{}, {"relu": True}, {"relu": True, "pool": 2}], ids=str)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_stage_keeps_what_is_no_number(kind, ends, value):
    """In every form: a ReLU that makes zeros of NaN would hide that the result is none."""
    layer = kind(8, 24, 3, padding=1)
    norm, x = normed(layer), torch.randn(2, 8, 9, 6)
    x[0, :, 4, 3] = value
    expected = norm(layer(x))
    expected = F.relu(expected) if "relu" in ends else expected
    expected = F.avg_pool2d(expected, 2) if "pool" in ends else expected
    lost = expected[0].isnan().any(dim=0)
    assert lost.any() and expected[1].isfinite().all()
    with torch.inference_mode():
        for form in forms(layer):
            found = Stage(layer, norm, form, x.shape, **ends)(x)
            assert found[0].isnan().any(dim=0)[lost].all(), form
            assert found[1].isfinite().all(), form
