"""Waveform to network input: log-mel spectrograms, alone or with deltas as components."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

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
from qaudio.resampling import whole_ratio

Kind = Literal["logmel", "delta", "published", "efficientat"]
MelScale = Literal["slaney", "kaldi"]

LOG_FLOOR = 1e-10  # power below which the logarithm is clamped: -100 dB
BLOCK_FRAMES = 336  # transformed at once, of all clips of a batch together
# Largest settings, so that no config asks for memory without end.
MOST = {"sample_rate": 10_000_000, "n_fft": 65536, "hop_length": 65536, "n_mels": 1024}
MOST_VALUES = 1_000_000  # mel bins × frames a second; PANNs' front-end has 6400
# What a kind changes of the defaults, where a dict of settings leaves them out: those of
# EfficientAT's code (Schmid et al., ICASSP 2023).
KIND_SETTINGS: dict[str, dict[str, Any]] = {
    "efficientat": {
        "n_mels": 128, "f_min": 0.0, "f_max": 15000.0, "win_length": 800, "preemphasis": 0.97,
        "mel_scale": "kaldi", "log_offset": 1e-5, "shift": 4.5, "scale": 5.0,
    },
}  # fmt: skip
MEL_BANDS = 4  # groups of mel bins, each multiplied with the FFT bins that it reaches only


@dataclass(frozen=True)
class FrontendConfig:
    """Settings of a front-end; part of every model's config.

    The defaults are those of PANNs (Kong et al., TASLP 2020).

    Attributes:
        kind: "logmel", one channel; "delta", log-mel and its first three deltas along time;
            "published", as QPANN's code has it: deltas of the power spectrum along *frequency*,
            mel and log on all four. Only there to load the published checkpoint: over a third of
            its delta values sit at the clamp, because negative deltas are logged; "efficientat",
            one channel, whose other settings `from_dict` fills in as EfficientAT's code has them.
        sample_rate: Hz.
        n_fft: FFT length in samples, and the window's (Hann) unless `win_length` is given.
        hop_length: samples.
        n_mels: mel bins.
        f_min, f_max: Hz.
        win_length: samples of a symmetric Hann window, centred in the FFT; None: a periodic one of
            `n_fft` samples.
        preemphasis: coefficient c of x[n] − c·x[n−1], which takes the first sample away; 0: none.
        mel_scale: "slaney" (Slaney's scale, triangles of equal area) or "kaldi" (Kaldi's scale,
            triangles of equal height on it).
        log_offset: natural logarithm of power + this; None: decibels, clamped at −100.
        shift, scale: the logarithm x becomes (x + shift) / scale.

    Raises:
        ValueError: for a setting out of range; says which.
    """

    kind: Kind = "logmel"
    sample_rate: int = 32000
    n_fft: int = 1024
    hop_length: int = 320
    n_mels: int = 64
    f_min: float = 50.0
    f_max: float = 14000.0
    win_length: int | None = None
    preemphasis: float = 0.0
    mel_scale: MelScale = "slaney"
    log_offset: float | None = None
    shift: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InputError(f"frontend kind must be one of {get_args(Kind)}, not {self.kind!r}")
        for name in ("sample_rate", "n_fft", "hop_length", "n_mels"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
                raise InputError(f"frontend {name} must be a positive integer, not {value!r}")
            if value > MOST[name]:
                raise InputError(f"frontend {name} must be at most {MOST[name]}, not {value}")
        window = self.win_length
        if window is not None and not (type(window) is int and 2 <= window <= self.n_fft):
            raise InputError(f"frontend win_length must be 2 to n_fft ({self.n_fft}), not {window}")
        if self.mel_scale not in get_args(MelScale):
            raise InputError(
                f"frontend mel_scale must be one of {get_args(MelScale)}, not {self.mel_scale!r}"
            )
        _check_number("preemphasis", self.preemphasis, 0, 1)
        _check_number("shift", self.shift, -1e6, 1e6)
        _check_number("scale", self.scale, 1e-6, 1e6)
        if self.log_offset is not None:
            _check_number("log_offset", self.log_offset, 1e-30, 1e30)
        if self.n_mels * self.sample_rate > MOST_VALUES * self.hop_length:
            raise InputError(
                f"frontend of {self.n_mels} mel bins every {self.hop_length} samples at "
                f"{self.sample_rate} Hz gives over {MOST_VALUES} values a second"
            )
        for name in ("f_min", "f_max"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not math.isfinite(value):
                raise InputError(f"frontend {name} must be a finite number of Hz, not {value!r}")
        if not 0 <= self.f_min < self.f_max <= self.sample_rate / 2:
            raise InputError(
                f"frontend needs 0 <= f_min < f_max <= sample_rate/2, got {self.f_min}, "
                f"{self.f_max} at {self.sample_rate} Hz"
            )

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> "FrontendConfig":
        """Build from a plain dict, whose gaps are filled by the kind's settings.

        Raises:
            ValueError: for unknown settings, by name, and as the class.
        """
        unknown = set(settings) - {field.name for field in fields(cls)}
        if unknown:
            raise InputError(f"unknown frontend settings: {', '.join(sorted(unknown))}")
        return cls(**{**KIND_SETTINGS.get(str(settings.get("kind")), {}), **settings})

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; of the settings of `LATER` those that are not at their default."""
        given = asdict(self)
        filled = KIND_SETTINGS.get(self.kind, {})
        for field in fields(self):
            later = field.name in LATER and field.name not in filled
            if later and given[field.name] == field.default:
                del given[field.name]
        return given


# Settings that the first entries' configs do not have.
LATER = ("win_length", "preemphasis", "mel_scale", "log_offset", "shift", "scale")


def _check_number(name: str, value: Any, low: float, high: float) -> None:
    """Raise ValueError unless a setting is a number within limits."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise InputError(f"frontend {name} must be {low:g} to {high:g}, not {value!r}")


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

    def _apply(self, fn: Callable, recurse: bool = True) -> "Frontend":
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
