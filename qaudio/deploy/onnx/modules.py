"""Models in operators that ONNX has and onnxruntime is quick at; `export` writes them."""

import copy
import math
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qaudio.frontend import Frontend, mel_bank
from qaudio.models.base import AudioModel, MelNorm
from qaudio.quaternion import QConv2d, QLinear
from qaudio.quaternion.algebra import gather, product_weights, spread

Form = Literal["auto", "matrix", "products"]

# From so many channels on the 8-product form is the faster one in onnxruntime: 0.6-0.8 of the
# real matrix's time at 256 to 2048 channels, about equal at 128 and 192, slower below.
PRODUCT_CHANNELS = 256


class NetworkGraph(nn.Module):
    """A model without its front-end: features (B, channels, frames, n_mels) to logits."""

    def __init__(self, model: AudioModel, form: Form):
        super().__init__()
        self.model = model = copy.deepcopy(model)
        for name, layer in list(model.named_modules()):
            plain = _plain(layer, form, model.frontend.config.n_mels)
            if plain is not layer:
                parent, _, child = name.rpartition(".")
                setattr(model.get_submodule(parent), child, plain)

    def forward(self, features: Tensor) -> Tensor:
        return self.model.classify(self.model.embed_features(features))


class _ProductConv2d(nn.Module):
    """A quaternion convolution as `hamilton_product_8` has it: one convolution of 8 groups."""

    def __init__(self, layer: QConv2d):
        super().__init__()
        self.layer = layer
        weights = product_weights(*layer.weight.detach().chunk(4))
        self.register_buffer("products", torch.cat(weights))
        bias = None
        if layer.bias is not None:
            # The first four products go to one component each.
            bias = torch.cat((layer.bias.detach(), torch.zeros_like(layer.bias)))
        self.register_buffer("bias", bias)
        self.products: Tensor
        self.bias: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        sums = torch.cat(spread(*x.chunk(4, dim=1)), dim=1)
        layer = self.layer
        products = F.conv2d(
            sums, self.products, self.bias, layer.stride, layer.padding, layer.dilation, groups=8
        )
        return torch.cat(gather(products.chunk(8, dim=1)), dim=1)


class _MelNorm(nn.Module):
    """`MelNorm` in eval mode: a scale and a shift, over channels as last axis.

    int8 convolutions take that order, and so does `FrontendGraph`: onnxruntime takes out the
    permutations between them.
    """

    def __init__(self, norm: MelNorm, mels: int):
        super().__init__()
        scale, shift = norm.scale_and_shift(mels)
        self.register_buffer("scale", scale.T.contiguous())  # (mels, C or 1)
        self.register_buffer("shift", shift.T.contiguous())
        self.scale: Tensor
        self.shift: Tensor

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)  # (B, frames, mels, C)
        return (x * self.scale + self.shift).permute(0, 3, 1, 2)


def _plain(layer: nn.Module, form: Form, mels: int) -> nn.Module:
    """A quaternion layer or the norm over mel bins in plain ones; other modules as they are."""
    if isinstance(layer, MelNorm):
        return _MelNorm(layer, mels)
    if isinstance(layer, QLinear):
        linear = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None)
        linear.weight = nn.Parameter(layer.matrix().detach())
        linear.register_parameter("bias", layer.bias)
        return linear
    if not isinstance(layer, QConv2d):
        return layer
    wide = min(layer.in_channels, layer.out_channels) >= PRODUCT_CHANNELS
    if form == "products" or (form == "auto" and wide and layer.kernel_size != (1, 1)):
        return _ProductConv2d(layer)
    conv = nn.Conv2d(
        layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding,
        layer.dilation, bias=layer.bias is not None,
    )  # fmt: skip
    conv.weight = nn.Parameter(layer.matrix().detach())
    conv.register_parameter("bias", layer.bias)
    return conv


class FrontendGraph(nn.Module):
    """`Frontend` in operators that onnxruntime is quick at: matrix products, time as last axis.

    The DFT of n = n1·n2 points is done in two steps (Cooley & Tukey, 1965), each one matrix
    product over all frames without a transposition; onnxruntime is slower at ONNX's STFT operator
    and at a convolution with the DFT's rows.
    """

    def __init__(self, frontend: Frontend):
        super().__init__()
        self.config = config = frontend.config
        self.logarithm = frontend.logarithm
        size = config.n_fft
        self.n1 = next(d for d in range(math.isqrt(size), 0, -1) if size % d == 0)
        self.n2 = size // self.n1
        k1, n1, n2 = np.arange(self.n1 // 2 + 1), np.arange(self.n1), np.arange(self.n2)
        first = np.exp(-2j * np.pi * np.outer(k1, n1) / self.n1)  # of real input: half its rows
        mels = mel_bank(config).numpy().T
        bins = k1[:, None] + self.n1 * np.arange(self.n2)  # (k1, k2)
        if config.kind != "published":  # whose deltas reach over bins that no mel bin does
            used = np.any(mels != 0, axis=0)[np.minimum(bins, size - bins)].any(axis=0)
            bins = bins[:, used if used.any() else slice(1)]
        second = np.exp(-2j * np.pi * bins[:, :, None] * n2 / size)  # (k1, k2, n2)
        real, imaginary = second.real, second.imag
        second = np.block([[real, -imaginary], [imaginary, real]])  # on real over imaginary parts
        # Bins come as the two steps leave them; of bins n and n_fft - n, one is taken.
        mirrored = np.minimum(bins, size - bins).reshape(-1)
        found, order = np.unique(mirrored, return_index=True)
        bank = np.zeros((config.n_mels, len(mirrored)))
        bank[:, order] = mels[:, found]
        first = np.stack([first.real, first.imag], axis=1).reshape(-1, self.n1)
        for name, array in (("first", first), ("second", second), ("bank", bank)):
            self.register_buffer(name, torch.from_numpy(array.astype(np.float32)))
        self.register_buffer("order", torch.from_numpy(order))
        self.register_buffer("window", frontend.window[:, None].clone())
        self.first: Tensor
        self.second: Tensor
        self.bank: Tensor
        self.order: Tensor
        self.window: Tensor

    def forward(self, waveform: Tensor) -> Tensor:
        """Features (B, channels, frames, n_mels) of waveforms (B, T)."""
        power = self.power(waveform)
        if self.config.kind == "published":  # deltas along frequency, of the power
            along = power.index_select(1, self.order).transpose(1, 2)  # (B, frames, bins)
            kept = torch.stack(_with_deltas(along), dim=1)
            return self.logarithm(kept @ self.bank.index_select(1, self.order).T)
        log_mel = self.logarithm(self.bank @ power)  # (B, n_mels, frames)
        order = _with_deltas(log_mel) if self.config.kind == "delta" else [log_mel]
        batch, mels, frames = log_mel.shape
        rows = torch.stack(order, dim=2).reshape(batch, mels * len(order), frames)
        return rows.transpose(1, 2).reshape(batch, frames, mels, len(order)).permute(0, 3, 1, 2)

    def power(self, waveform: Tensor) -> Tensor:
        """Power spectra (B, bins in the steps' order, frames)."""
        size, hop = self.config.n_fft, self.config.hop_length
        if self.config.preemphasis:
            waveform = waveform[:, 1:] - self.config.preemphasis * waveform[:, :-1]
        batch, half = waveform.shape[0], size // 2
        frames = (waveform.shape[1] + 2 * half - size) // hop + 1
        pieces = -(-size // hop)  # of a hop each that a frame reaches over
        x = F.pad(waveform.unsqueeze(1), (half, half), mode="reflect").squeeze(1)
        x = F.pad(x, (0, hop))[:, : (frames + pieces - 1) * hop]
        x = x.reshape(batch, frames + pieces - 1, hop).transpose(1, 2)
        rows = [x[:, : size - n * hop, n : n + frames] for n in range(pieces)]
        x = torch.cat(rows, dim=1) * self.window  # (B, n_fft, frames)
        x = self.first @ x.reshape(batch, self.n1, self.n2 * frames)
        x = self.second @ x.reshape(batch, self.n1 // 2 + 1, 2 * self.n2, frames)
        squares = (x * x).reshape(batch, self.n1 // 2 + 1, 2, -1, frames)
        return squares.sum(dim=2).reshape(batch, -1, frames)


def _with_deltas(x: Tensor) -> list[Tensor]:
    """x (B, N, T) and its first three deltas along the last axis, window 5."""
    order = [x]
    for _ in range(3):
        y = F.pad(order[-1], (2, 2), mode="replicate")
        near, far = y[..., 3:-1] - y[..., 1:-3], y[..., 4:] - y[..., :-4]
        order.append((near + 2 * far) / 10)
    return order
