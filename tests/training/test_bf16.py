"""bf16 on CPUs where it is slower than float32."""

from contextlib import nullcontext

import lightning
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from qaudio.cli import main
from qaudio.quaternion import QConv2d
from qaudio.training import bf16
from qaudio.training.bf16 import PRODUCTS, RoundedProducts, fast_bf16


class Seen(TorchDispatchMode):
    """Records the types in which products are computed."""

    def __init__(self):
        super().__init__()
        self.types = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in PRODUCTS:
            self.types.setdefault(func, set()).add(args[0].dtype)
        return func(*args, **kwargs or {})


def step(mode, autocast=True):
    """Output and gradients of a small network, and the types of its products."""
    torch.manual_seed(0)
    layers = (QConv2d(4, 8, 3), torch.nn.Flatten(), torch.nn.Linear(8 * 36, 3))
    net, seen = torch.nn.Sequential(*layers), Seen()
    x = torch.randn(5, 4, 8, 8, requires_grad=True)
    with seen, mode, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = net(x)
        y.square().mean().backward()
    return [y.detach(), x.grad, *(p.grad for p in net.parameters())], seen.types


def test_bf16_products_are_summed_in_float32_and_rounded_to_bf16():
    plain, types = step(nullcontext())
    assert types and all(found == {torch.bfloat16} for found in types.values())
    ours, types = step(RoundedProducts())
    assert len(types) >= 4  # convolution and product, forwards and backwards
    assert all(found == {torch.float32} for found in types.values())
    for one, other in zip(ours, plain, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=0.02, atol=0.02 * other.abs().max().item())


def test_bf16_convolution_is_that_of_the_rounded_numbers():
    x, w = torch.randn(2, 3, 9, 9).bfloat16(), torch.randn(6, 3, 3, 3).bfloat16()
    with RoundedProducts():
        found = torch.nn.functional.conv2d(x, w, torch.zeros(6).bfloat16())
    expected = torch.nn.functional.conv2d(x.float(), w.float(), torch.zeros(6)).bfloat16()
    assert torch.equal(found, expected)


def test_bf16_float32_stays_as_it_is():
    for one, other in zip(
        step(RoundedProducts(), False)[0], step(nullcontext(), False)[0], strict=True
    ):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("precision", "capabilities", "onednn", "expected"),
    [
        ("bf16-mixed", {"avx2": True, "avx512_bf16": False}, True, RoundedProducts),
        ("bf16-true", {"neon": True, "bf16": False}, True, RoundedProducts),
        ("bf16-mixed", {"neon": True, "bf16": True}, False, RoundedProducts),
        ("bf16-mixed", {"avx512_bf16": True, "amx_bf16": False}, True, nullcontext),
        ("bf16-mixed", {"neon": True, "bf16": True}, True, nullcontext),
        ("32-true", {"avx2": True}, True, nullcontext),
    ],
)
def test_bf16_only_where_bf16_is_slow(monkeypatch, precision, capabilities, onednn, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: onednn)
    trainer = lightning.Trainer(accelerator="cpu", precision=precision, logger=False)
    assert isinstance(fast_bf16(trainer), expected)


@pytest.mark.parametrize("command", ["fit", "validate"])
def test_bf16_training_commands_run_in_it(monkeypatch, recipe, command):
    monkeypatch.setattr(bf16, "bf16_is_fast", lambda: False)
    arguments = recipe(trainer={"precision": "bf16-mixed", "max_epochs": 1})
    if command == "validate":
        assert main(["fit", *arguments, "--data.holdout=validation"]) == 0
    seen = Seen()
    with seen:
        assert main([command, *arguments, "--data.holdout=validation"]) == 0
    assert seen.types and all(found == {torch.float32} for found in seen.types.values())
