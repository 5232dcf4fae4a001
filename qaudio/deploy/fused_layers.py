"""Forms that a trained convolution or quaternion linear layer can take for speed.

All give the outputs of the layer with its BatchNorm, ReLU and pooling, to rounding:

- "matrix": one real convolution, BatchNorm folded into its weight;
- "packed": the same, its weight laid out once as oneDNN's kernels want it (CPU);
- "grouped": a convolution of eight groups, each of a quarter of the channels: half the
  multiplications (Howell & Lafon, Cornell TR 75-245, 1975). The additions around it, BatchNorm,
  ReLU and pooling are one loop, made by `torch.compile`;
- "tiled": the eight products and the additions around them in one pass, by a kernel of our own for
  3×3 convolutions in float32 on a CPU (see `qaudio.deploy.cpp_kernel`).

Real convolutions have the first two.
"""

import warnings
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qaudio.deploy import cpp_kernel
from qaudio.deploy.private_torch import can_pack, convolve_packed, pack_weight, sizes_apart
from qaudio.quaternion.algebra import Four, gather, product_weights, spread
from qaudio.quaternion.layers import QConv2d, QLinear

# With fewer channels "tiled" is the faster way to eight products, by a factor of two and more with
# vectors of 16; from so many on it is a matter of the map's size. Not trying the others spares
# their compilation.
WIDE = 128


def _spread(w: Tensor, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return torch.cat(spread(w, x, y, z), dim=1)


def _normed(products: list[Tensor], scale: Four, shift: Four) -> list[Tensor]:
    """Components after BatchNorm, in float32."""
    parts = gather(product.float() for product in products)
    return [part * s + t for part, s, t in zip(parts, scale, shift, strict=True)]


# One function for each way to end a layer: each is compiled on its own.
def _plain(products: list[Tensor], scale: Four, shift: Four) -> Tensor:
    return torch.cat(_normed(products, scale, shift), dim=1).to(products[0].dtype)


def _added(products: list[Tensor], scale: Four, shift: Four, shortcut: Four) -> Tensor:
    parts = zip(_normed(products, scale, shift), shortcut, strict=True)
    return torch.cat([F.relu(part + other) for part, other in parts], dim=1).to(products[0].dtype)


def _rectified(products: list[Tensor], scale: Four, shift: Four) -> Tensor:
    parts = [F.relu(part).to(products[0].dtype) for part in _normed(products, scale, shift)]
    return torch.cat(parts, dim=1)


def _pooled(products: list[Tensor], scale: Four, shift: Four) -> Tensor:
    parts = [F.relu(part).to(products[0].dtype) for part in _normed(products, scale, shift)]
    return torch.cat([F.avg_pool2d(part, 2) for part in parts], dim=1)


@cache
def _fused(function: Callable, dtype: torch.dtype, one: bool = True) -> Callable:
    """A compiled piece that takes maps of every size.

    It is traced here on a tiny map whose sizes all differ: traced on one that happens to have as
    many rows as channels, it would be compiled again for the next that has not.

    Args:
        one: for batches of one; the others share a piece.
    """
    piece = torch.compile(function, dynamic=True)
    batch, part, size = (1 if one else 3), 24, (10, 14)

    def blocks(count: int) -> tuple[Tensor, ...]:
        x = torch.ones(batch, count * part, *size, dtype=dtype)
        return x.contiguous(memory_format=torch.channels_last).chunk(count, dim=1)

    arguments: tuple = blocks(4)
    if function is not _spread:
        each = tuple(torch.ones(part, 1, 1, dtype=torch.float32) for _ in range(4))
        arguments = (list(blocks(8)), each, each, *([arguments] if function is _added else []))
    with torch.inference_mode(), sizes_apart():
        piece(*arguments)
    return piece


@cache
def can_compile() -> bool:
    """Whether `torch.compile` works here; if not, one warning says why."""
    try:
        _fused(_spread, torch.float32)
    except Exception as error:  # whatever stands in its way, the eager forms work
        reason = str(error).strip().splitlines() or [type(error).__name__]
        warnings.warn(
            "torch.compile does not work here, so the additions of quaternion layers are not "
            f"fused and take longer; it needs a C++ compiler such as g++ ({reason[0]})",
            stacklevel=2,
        )
        return False
    return True


class Convolution(nn.Module):
    """A real convolution for inference, with an optional ReLU; `packed` for oneDNN's kernels.

    Shape:
        (B, in, H, W) -> (B, out, H', W') as the layer whose stride, padding, dilation it takes.
    """

    def __init__(
        self,
        layer: nn.Conv2d | QConv2d,
        weight: Tensor,
        bias: Tensor | None,
        groups: int,
        relu: bool,
        packed: bool,
        shape: list[int],
    ):
        super().__init__()
        self.stride, self.padding = list(layer.stride), list(cast(tuple[int, int], layer.padding))
        self.dilation, self.groups = list(layer.dilation), groups
        self.relu, self.packed = relu, packed
        self.input_shape = shape  # that the layout is best for; others work
        self.bias = bias
        self.weight = self._layout(weight.contiguous(memory_format=torch.channels_last))

    def _layout(self, weight: Tensor) -> Tensor:
        where = self.padding, self.stride, self.dilation, self.groups
        return pack_weight(weight, where, self.input_shape) if self.packed else weight

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.weight.dtype)
        where = self.padding, self.stride, self.dilation, self.groups
        if self.packed:
            x = convolve_packed(x, self.weight, self.bias, where)
        else:
            x = F.conv2d(x, self.weight, self.bias, where[1], where[0], *where[2:])
        return F.relu_(x) if self.relu else x

    def __getstate__(self) -> dict:
        """Packed weights cannot be copied or stored as they are."""
        weight = self.weight.to_dense(self.weight.dtype) if self.packed else self.weight
        return {**super().__getstate__(), "weight": weight}

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        self.weight = self._layout(self.weight)


class Stage(nn.Module):
    """A convolution with what follows it, in one of `forms(layer)`.

    That is: BatchNorm; a shortcut and ReLU; or ReLU and 2×2 pooling; or nothing.

    Args:
        layer: the convolution, real or quaternion; left as it is.
        form: see the module's text.
        shape: of the input that it will mostly get, (B, in, H, W).
        pool: 2 for average pooling after the ReLU, else 1.
        shortcut: a second input of `forward` is added before the ReLU; `relu` must be set.
        fused: compile the additions; see `can_compile`.

    Shape:
        (B, in, H, W) -> (B, out, H'/pool, W'/pool).
    """

    def __init__(
        self,
        layer: nn.Conv2d | QConv2d,
        norm: nn.BatchNorm2d | None,
        form: str,
        shape: Iterable[int],
        *,
        relu: bool = False,
        pool: int = 1,
        shortcut: bool = False,
        dtype: torch.dtype = torch.float32,
        fused: bool = False,
    ):
        super().__init__()
        self.form, self.relu, self.pool, self.fused = form, relu, pool, fused
        self.layout = layout_of(form)
        batch, channels, *size = shape
        scale, shift = scale_and_shift(layer, norm)
        if form == "tiled":
            self.weight = _kernel().pack(layer.weight)
            self.scales, self.shifts = scale.contiguous(), shift.contiguous()
            return
        if form in ("matrix", "packed"):
            weight = layer.matrix() if isinstance(layer, QConv2d) else layer.weight
            weight = (weight * scale[:, None, None, None]).to(dtype)
            groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
            ends = relu and not shortcut
            packed = form == "packed"
            settings = (groups, ends, packed, [batch, channels, *size])
            self.convs = nn.ModuleList([Convolution(layer, weight, shift.to(dtype), *settings)])
            return
        weights = torch.cat(product_weights(*layer.weight.chunk(4))).to(dtype)
        whole = [batch, 2 * channels, *size]
        made = Convolution(layer, weights, None, 8, False, can_pack(weights), whole)
        self.convs = nn.ModuleList([made])
        self.scale = tuple(part[:, None, None].clone() for part in scale.chunk(4))
        self.shift = tuple(part[:, None, None].clone() for part in shift.chunk(4))

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        if self.form == "tiled":  # float32 also where autocast gave its inputs another type
            x, *others = (one.float().contiguous() for one in (x, shortcut) if one is not None)
            weights = (self.weight, self.scales, self.shifts)
            return _kernel()(x, *weights, *others, relu=self.relu, pool=self.pool)
        x = x.contiguous(memory_format=self.layout)
        if shortcut is not None:
            shortcut = shortcut.contiguous(memory_format=self.layout)
        if self.form in ("matrix", "packed"):
            y = self.convs[0](x)
            if shortcut is not None:
                y = F.relu_(y.add_(shortcut))
            return F.avg_pool2d(y, 2) if self.pool == 2 else y
        products = self.convs[0](self._run(_spread, *x.chunk(4, dim=1))).chunk(8, dim=1)
        if shortcut is not None:
            added = shortcut.chunk(4, dim=1)
            return self._run(_added, list(products), self.scale, self.shift, added)
        end = (_pooled if self.pool == 2 else _rectified) if self.relu else _plain
        return self._run(end, list(products), self.scale, self.shift)

    def _run(self, function: Callable, *arguments: Any) -> Tensor:
        first = arguments[0] if isinstance(arguments[0], Tensor) else arguments[0][0]
        batch, channels, *size = first.shape
        # A size of one would be compiled for itself, and maps this small take no time.
        if not self.fused or channels < 2 or min(size) < (4 if self.pool == 2 else 2):
            return function(*arguments)
        return _fused(function, first.dtype, batch == 1)(*arguments)


class SplitLinear(nn.Module):
    """A quaternion linear layer that reads its weight as stored, a quarter of the real matrix.

    The four component blocks of the weight are multiplied with each component of the input: the
    matrix form's multiplications, at a quarter of the memory traffic that bounds small batches.

    Shape:
        (B, in) -> (B, out).
    """

    def __init__(self, layer: QLinear):
        super().__init__()
        self.weight = layer.weight.detach()
        self.bias = None if layer.bias is None else layer.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.weight.dtype)
        batch = len(x)
        flat = x.reshape(batch * 4, -1)  # a row for each component of each input
        r, i, j, k = F.linear(flat, self.weight).view(batch, 4, 4, -1).unbind(2)  # (B, 4, out/4)
        result = torch.cat(
            (
                r[:, 0] - i[:, 1] - j[:, 2] - k[:, 3],
                i[:, 0] + r[:, 1] - k[:, 2] + j[:, 3],
                j[:, 0] + k[:, 1] + r[:, 2] - i[:, 3],
                k[:, 0] - j[:, 1] + i[:, 2] + r[:, 3],
            ),
            dim=1,
        )
        return result if self.bias is None else result + self.bias


def forms(
    layer: nn.Conv2d | QConv2d, dtype: torch.dtype = torch.float32, compile: bool = True
) -> list[str]:
    """Forms that a convolution can take where it is; with `compile`, what a compiler makes too."""
    found = ["matrix"]
    if can_pack(layer.weight.to(dtype)):
        found.append("packed")
    if isinstance(layer, QConv2d):
        found.append("grouped")
        if compile and cpp_kernel.fits(layer, dtype) and cpp_kernel.kernel() is not None:
            found.append("tiled")
    return found


def layout_of(form: str) -> torch.memory_format:
    """Of what a form takes and gives: planes where it runs along rows, else channels last."""
    return torch.contiguous_format if form == "tiled" else torch.channels_last


def worth_measuring(layer: nn.Conv2d | QConv2d, names: list[str]) -> list[str]:
    """Of the forms that a layer can take, those of which each may be the fastest."""
    narrow = min(layer.in_channels, layer.out_channels) < WIDE
    if "tiled" not in names or not narrow:
        return names
    if not _kernel().parallel and torch.get_num_threads() > 1:
        return names
    return [name for name in names if name != "grouped"]


def _kernel() -> cpp_kernel.Kernel:
    kernel = cpp_kernel.kernel()
    if kernel is None:
        raise RuntimeError("the kernel for quaternion convolutions does not work on this machine")
    return kernel


def scale_and_shift(
    layer: nn.Conv2d | QConv2d, norm: nn.BatchNorm2d | None
) -> tuple[Tensor, Tensor]:
    """What a layer's bias and the BatchNorm after it do to each channel, (out,) each."""
    out = layer.out_channels
    scale, shift = layer.weight.new_ones(out), layer.weight.new_zeros(out)
    if layer.bias is not None:
        shift = shift + layer.bias
    if norm is not None:
        mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
        scale = (variance + norm.eps).rsqrt()
        scale = scale if norm.weight is None else scale * norm.weight
        shift = (shift - mean) * scale
        shift = shift if norm.bias is None else shift + norm.bias
    return scale, shift
