"""Interfaces of PyTorch that are not public: all that `qaudio.deploy` uses of them.

Each has a guard and a fallback. Where a version of PyTorch lacks oneDNN's operators, no layer is
packed; where it lacks the compiler's settings, pieces are compiled more often than need be.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from typing import Any

import torch
from torch import Tensor

OPERATORS = ("_reorder_convolution_weight", "_convolution_pointwise", "_is_mkldnn_bf16_supported")


@cache
def has_onednn() -> bool:
    """Whether oneDNN's operators are there, by the names that are used here."""
    return torch.backends.mkldnn.is_available() and all(
        hasattr(torch.ops.mkldnn, name) for name in OPERATORS
    )


def can_pack(tensor: Tensor) -> bool:
    """Whether oneDNN can lay out weights of this kind on this machine."""
    if tensor.device.type != "cpu" or not has_onednn():
        return False
    if tensor.dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return tensor.dtype == torch.float32


def pack_weight(weight: Tensor, where: Sequence[Any], shape: list[int]) -> Tensor:
    """A convolution's weight as oneDNN's kernels want it.

    Args:
        weight: for which `can_pack` holds.
        where: padding, stride, dilation and groups of the convolution.
        shape: of the input that the layout is best for; others work.
    """
    return torch.ops.mkldnn._reorder_convolution_weight(weight, *where, shape)


def convolve_packed(x: Tensor, weight: Tensor, bias: Tensor | None, where: Sequence[Any]) -> Tensor:
    """The convolution of x with a weight of `pack_weight`; not oneDNN's ReLU, which hides NaN."""
    return torch.ops.mkldnn._convolution_pointwise(x, weight, bias, *where, "none", [None], "")


@contextmanager
def sizes_apart() -> Iterator[None]:
    """Compile for sizes that are independent of each other, however often a piece is compiled."""
    with ExitStack() as stack:
        with suppress(ImportError, AttributeError):
            from torch.fx.experimental import _config

            stack.enter_context(_config.patch(use_duck_shape=False))  # type: ignore[attr-defined]
        with suppress(AttributeError):
            stack.enter_context(torch._dynamo.config.patch(recompile_limit=64))
        yield
