"""Quaternion convolution and linear layers.

Channel counts are real channels, laid out in four blocks r|i|j|k: a layer with `out_channels=64`
has 16 quaternion filters and a quarter of the parameters of its real counterpart.
"""

import math
import weakref
from collections.abc import Callable
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from qaudio.quaternion.algebra import real_matrix


def quaternion_init_(
    weight: Tensor, scheme: str = "he", generator: torch.Generator | None = None
) -> Tensor:
    """Fill quaternion weights in place: chi-distributed modulus, uniform phase, random axis.

    Scale 1/√(2·(fan_in + fan_out)) for Glorot and 1/√(2·fan_in) for He, fans counted in
    quaternions × kernel area (Parcollet et al., *Quaternion Recurrent Neural Networks*, 2019;
    Gaudet & Maida, *Deep Quaternion Networks*, 2018).

    Args:
        weight: (out, in/4, *kernel), rows laid out r|i|j|k.
        scheme: "he" or "glorot".
        generator: random numbers; torch's default generator when None.

    Returns:
        `weight`.

    Raises:
        ValueError: for an unknown scheme.
    """
    if weight.is_meta:  # only laid out
        return weight
    area = math.prod(weight.shape[2:])
    fan_out, fan_in = weight.shape[0] // 4 * area, weight.shape[1] * area
    if scheme == "he":
        scale = 1 / math.sqrt(2 * fan_in)
    elif scheme == "glorot":
        scale = 1 / math.sqrt(2 * (fan_in + fan_out))
    else:
        raise ValueError(f"initialisation must be 'he' or 'glorot', not {scheme!r}")
    with torch.no_grad():
        # chi with 4 degrees of freedom = norm of four unit normals
        parts = weight.view(4, -1, *weight.shape[1:])
        modulus = _modulus(parts.normal_(generator=generator)).mul_(scale)
        phase = torch.empty_like(modulus).uniform_(-math.pi, math.pi, generator=generator)
        axis = parts[1:].normal_(generator=generator)
        length = _modulus(axis).clamp_(min=torch.finfo(weight.dtype).tiny)
        torch.mul(modulus, phase.cos(), out=parts[0])
        axis.mul_(modulus.mul_(phase.sin_()).div_(length))
    return weight


def _modulus(parts: Tensor) -> Tensor:
    """Norm over the first axis; many times faster than `Tensor.norm`, whose strides are long."""
    total = parts[0].square()
    for part in parts[1:]:
        total.addcmul_(part, part)
    return total.sqrt_()


class _QuaternionLayer(nn.Module):
    """Shared by convolution and linear layer: weight, bias, and the cached real matrix."""

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, ...], bias: bool, init: str):
        super().__init__()
        for what, count in (("input", inputs), ("output", outputs)):
            if count <= 0 or count % 4:
                raise ValueError(
                    f"{type(self).__name__}: {what} count must be a positive multiple of 4 "
                    f"(channels are laid out r|i|j|k), not {count}"
                )
        self.init = init
        self.weight = nn.Parameter(torch.empty(outputs, inputs // 4, *kernel))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None
        self._matrix: Tensor | None = None
        self._matrix_key: tuple | None = None
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw new weights by `self.init`; the bias becomes zero."""
        quaternion_init_(self.weight, self.init, generator)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def matrix(self) -> Tensor:
        """Real matrix of the weight, (out, in, *kernel) in real channels.

        Assembled where a gradient must reach the weight; kept from call to call otherwise, until
        the weight changes, is moved or cast, or `train()` is called. Changes through
        `weight.data` go unseen: change the weight itself, under `torch.no_grad()`.
        """
        weight = self.weight
        needs_gradient = weight.requires_grad and torch.is_grad_enabled()
        if needs_gradient or torch.compiler.is_compiling() or weight.is_inference():
            return real_matrix(weight)
        # Another weight may stand where one that is gone stood, so that its address is not enough.
        key = (weight._version, weight.data_ptr(), weight.device, weight.dtype)
        matrix, kept = self._matrix, self._matrix_key  # other threads may drop them meanwhile
        if matrix is None or kept is None or kept[0]() is not weight or kept[1:] != key:
            with torch.inference_mode(False), torch.no_grad():
                matrix = real_matrix(weight)
            self._matrix, self._matrix_key = matrix, (weakref.ref(weight), *key)
        return matrix

    def train(self, mode: bool = True) -> Self:
        """Set the mode and drop the cached matrix when training starts."""
        if mode:
            self._matrix = self._matrix_key = None
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._matrix = self._matrix_key = None
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict:
        return {**super().__getstate__(), "_matrix": None, "_matrix_key": None}


class QConv2d(_QuaternionLayer):
    """Quaternion 2-D convolution: Hamilton product with the weight on the left.

    Args:
        in_channels, out_channels: real channels, multiples of 4, laid out r|i|j|k.
        kernel_size, stride, padding, dilation: as in `torch.nn.Conv2d`, int or pair.
        groups: only 1.
        bias: add a learned bias per real output channel.
        init: "he" or "glorot", see `quaternion_init_`.

    Shape:
        (B, in_channels, H, W) -> (B, out_channels, H', W'), H' and W' as in `torch.nn.Conv2d`.
        `weight`: (out_channels, in_channels/4, kH, kW), rows laid out r|i|j|k.

    Raises:
        ValueError: for channel counts that are no multiples of 4, or groups other than 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        init: str = "he",
    ):
        if groups != 1:
            raise ValueError(f"QConv2d supports groups=1 only, not {groups}")
        self.kernel_size: tuple[int, int] = _pair(kernel_size)
        super().__init__(in_channels, out_channels, self.kernel_size, bias, init)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.stride: tuple[int, int] = _pair(stride)
        self.padding: tuple[int, int] = _pair(padding)
        self.dilation: tuple[int, int] = _pair(dilation)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x, (B, in_channels, H, W)."""
        return F.conv2d(x, self.matrix(), self.bias, self.stride, self.padding, self.dilation)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"bias={self.bias is not None}"
        )


class QLinear(_QuaternionLayer):
    """Quaternion linear layer: Hamilton product with the weight on the left.

    Args:
        in_features, out_features: real features, multiples of 4, laid out r|i|j|k.
        bias: add a learned bias per real output feature.
        init: "he" or "glorot", see `quaternion_init_`.

    Shape:
        (..., in_features) -> (..., out_features). `weight`: (out_features, in_features/4).

    Raises:
        ValueError: for feature counts that are no multiples of 4.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, init: str = "he"):
        super().__init__(in_features, out_features, (), bias, init)
        self.in_features, self.out_features = in_features, out_features

    def forward(self, x: Tensor) -> Tensor:
        """Multiply x, (..., in_features)."""
        return F.linear(x, self.matrix(), self.bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"
