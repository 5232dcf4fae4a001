"""Waveform to network input: log-mel spectrograms, alone or with deltas as components."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.compliance.kaldi import mel_scale, mel_scale_scalar
from torchaudio.functional.functional import (
    _get_sinc_resample_kernel,
    _hz_to_mel,
    _mel_to_hz,
)

from qaudio.errors import InputError
from qaudio.frontend_settings import FrontendConfig
from qaudio.resampling import whole_ratio

LOG_FLOOR = 1e-10  # power below which the logarithm is clamped: -100 dB
BLOCK_FRAMES = 336  # transformed at once, of all clips of a batch together
MEL_BANDS = 4  # groups of mel bins, each multiplied with the FFT bins that it reaches only


class Frontend(nn.Module):
    """Turns waveforms into network input, in float32 also under autocast.

    Shape:
        (B, T) at `config.sample_rate` -> (B, channels, frames, n_mels) in dB (deltas: dB per
        frame) unless the settings say otherwise, frames = T // hop_length + 1, or of T − 1 with
        pre-emphasis or where n_fft is odd. T must exceed n_fft/2 (reflect padding).
    """

    def __init__(self, config: FrontendConfig):
        super().__init__()
        self.config = config
        self.channels = 4 if config.kind in ("delta", "published") else 1
        # Log-mels and deltas differ in scale tenfold, so `delta` wants a norm for each of its
        # channels; the published checkpoint shares one over its four.
        self.norm_features = config.n_mels * (4 if config.kind == "delta" else 1)
        bank = mel_bank(config)  # looked at below, also where a network is only laid out (meta)
        # First and last + 1 FFT bin of each group of mel bins.
        self.bands: list[tuple[int, int]] = []
        for n, group in enumerate(bank.chunk(MEL_BANDS, dim=1)):
            reached = group.any(dim=1).nonzero()
            start, stop = (int(reached[0]), int(reached[-1]) + 1) if len(reached) else (0, 1)
            self.bands.append((start, stop))
            band = group[start:stop].contiguous().to(torch.get_default_device())
            self.register_buffer(f"mel_band{n}", band, persistent=False)
        # Made on the CPU: for the meta device torch would import its compiler, a second's work.
        size = config.win_length or config.n_fft
        window = torch.hann_window(
            size, periodic=config.win_length is None, device="cpu", dtype=torch.float32
        )
        before = (config.n_fft - size) // 2
        window = F.pad(window, (before, config.n_fft - size - before))
        window = window.to(torch.get_default_device())
        self.register_buffer("window", window, persistent=False)
        self.window: Tensor

    def _apply(self, fn: Callable, recurse: bool = True) -> Frontend:
        """Move, but stay float32: with a rounded window or mel bank it would be another one."""
        before = dict(self.named_buffers())
        super()._apply(fn, recurse)
        for name, buffer in before.items():
            moved = self.get_buffer(name)
            if moved.dtype != buffer.dtype:
                self._buffers[name] = buffer.to(moved.device)
        return self

    def forward(self, waveform: Tensor) -> Tensor:
        """Network input for waveforms (B, T): (B, channels, frames, n_mels)."""
        with torch.autocast(waveform.device.type, enabled=False):
            log_mel = self._log_mels(waveform.float())
            if self.config.kind == "delta":
                return torch.stack(_with_deltas(log_mel.squeeze(1), dim=1), dim=1)
            return log_mel

    def _log_mels(self, waveform: Tensor) -> Tensor:
        """Log-mels of (B, T): (B, 1, frames, n_mels), or 4 channels of the `published` kind."""
        size, half = self.config.n_fft, self.config.n_fft // 2
        if self.config.preemphasis:
            waveform = waveform[:, 1:] - self.config.preemphasis * waveform[:, :-1]
        if waveform.shape[-1] <= half:
            raise InputError(
                f"the front-end needs more than {half} samples, not {waveform.shape[-1]}"
            )
        edges = waveform[:, 1 : half + 1].flip(1), waveform[:, -half - 1 : -1].flip(1)
        padded = torch.cat((edges[0], waveform, edges[1]), dim=1)
        frames = padded.unfold(1, size, self.config.hop_length)  # (B, frames, n_fft), a view
        # On CPUs block by block, as nothing then leaves the cache or asks the system for memory:
        # a quarter of the time. A compiled graph has no loop, for it would hold one length only.
        blocks = waveform.device.type == "cpu" and not torch.compiler.is_compiling()
        step = max(1, BLOCK_FRAMES // len(waveform)) if blocks else frames.shape[1]
        parts = []
        for block in frames.split(step, dim=1):
            spectrum = torch.view_as_real(torch.fft.rfft(block * self.window))
            real, imaginary = spectrum.square().unbind(-1)  # sum() over two is slower
            power = real + imaginary  # (B, step, bins)
            if self.config.kind == "published":
                parts.append(self._mels(torch.stack(_with_deltas(power, dim=2), dim=1)))
            else:
                parts.append(self._mels(power).unsqueeze(1))
        return self.logarithm(torch.cat(parts, dim=2))

    def logarithm(self, mels: Tensor) -> Tensor:
        """Mel powers on the scale that the network takes."""
        config = self.config
        if config.log_offset is None:
            found = 10 * torch.log10(torch.clamp(mels, min=LOG_FLOOR))
        else:
            found = torch.log(mels + config.log_offset)
        if config.shift == 0 and config.scale == 1:
            return found
        return (found + config.shift) / config.scale

    def _mels(self, power: Tensor) -> Tensor:
        """Mel bins of powers (..., n_fft // 2 + 1)."""
        mels = [
            power[..., start:stop] @ self.get_buffer(f"mel_band{n}")
            for n, (start, stop) in enumerate(self.bands)
        ]
        return torch.cat(mels, dim=-1)


def mel_bank(config: FrontendConfig) -> Tensor:
    """Triangles on the config's mel scale: (n_fft // 2 + 1, n_mels), on the CPU.

    In float32 step by step, as torchaudio has it, whatever torch's default dtype and device are.
    """
    return _kaldi_bank(config) if config.mel_scale == "kaldi" else _slaney_bank(config)


def _slaney_bank(config: FrontendConfig) -> Tensor:
    top = config.sample_rate // 2
    bins = torch.linspace(0, top, config.n_fft // 2 + 1, device="cpu", dtype=torch.float32)
    low, high = (_hz_to_mel(hz, "slaney") for hz in (config.f_min, config.f_max))
    mels = torch.linspace(low, high, config.n_mels + 2, device="cpu", dtype=torch.float32)
    edges = _mel_to_hz(mels, "slaney")  # of triangle n: n to n + 2
    slopes = edges - bins[:, None]
    rising, falling = -slopes[:, :-2] / edges.diff()[:-1], slopes[:, 2:] / edges.diff()[1:]
    return torch.min(rising, falling).clamp(min=0) * (2 / (edges[2:] - edges[:-2]))


def _kaldi_bank(config: FrontendConfig) -> Tensor:
    below = (config.n_fft + 1) // 2  # FFT bins below half the sample rate, which has no part
    hz = torch.arange(below, device="cpu", dtype=torch.float32)
    bins = mel_scale(config.sample_rate / config.n_fft * hz)[:, None]
    low, high = mel_scale_scalar(config.f_min), mel_scale_scalar(config.f_max)
    step = (high - low) / (config.n_mels + 1)
    number = torch.arange(config.n_mels, device="cpu", dtype=torch.float32)
    left, centre, right = (low + (number + n) * step for n in range(3))
    rising, falling = (bins - left) / (centre - left), (right - bins) / (right - centre)
    bank = torch.min(rising, falling).clamp(min=0)
    return F.pad(bank, (0, 0, 0, config.n_fft // 2 + 1 - below))


def _with_deltas(x: Tensor, dim: int) -> list[Tensor]:
    """x and its first three deltas along an axis: slopes over five values, the ends repeated."""
    order = [x]
    for _ in range(3):
        order.append(_delta(order[-1], dim))
    return order


def _delta(x: Tensor, dim: int) -> Tensor:
    size = x.shape[dim]
    first, last = x.narrow(dim, 0, 1), x.narrow(dim, size - 1, 1)
    padded = torch.cat((first, first, x, last, last), dim)
    step = [padded.narrow(dim, n, size) for n in range(5)]
    return torch.add(step[3] - step[1], step[4] - step[0], alpha=2) / 10


def resample(waveform: Tensor, source_rate: int, target_rate: int) -> Tensor:
    """Resample along the last axis.

    Args:
        waveform: (..., T).
        source_rate, target_rate: Hz; their ratio is taken by `whole_ratio`.

    Returns:
        (..., T'); float32 of half precision, and under autocast.

    Raises:
        ValueError: for a rate below 100 Hz or above 10 MHz.
    """
    down, up = whole_ratio(source_rate, target_rate)
    if down == up or waveform.shape[-1] == 0:
        return waveform
    if waveform.dtype in (torch.float16, torch.bfloat16):
        waveform = waveform.float()  # the front-end's precision: a rounded filter lets aliases in
    kernel, width = _get_sinc_resample_kernel(
        down, up, 1, device=waveform.device, dtype=waveform.dtype
    )
    length = waveform.shape[-1]
    padded = F.pad(waveform.reshape(-1, 1, length), (width, width + down))
    with torch.autocast(waveform.device.type, enabled=False):
        phases = F.conv1d(padded, kernel, stride=down)  # (N, up, blocks)
    flat = phases.transpose(1, 2).reshape(len(padded), -1)[:, : -(-up * length // down)]
    return flat.reshape(*waveform.shape[:-1], flat.shape[-1])


def pad_to(waveform: Tensor, samples: int) -> Tensor:
    """Append zeros along the last axis up to `samples`."""
    return F.pad(waveform, (0, max(0, samples - waveform.shape[-1])))
