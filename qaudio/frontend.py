"""Waveform to network input: log-mel spectrograms, alone or with deltas as components."""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn

from qaudio.resampling import whole_ratio

Kind = Literal["logmel", "delta", "published"]

LOG_FLOOR = 1e-10  # power below which the logarithm is clamped: -100 dB
DELTA_WINDOW = 5


@dataclass(frozen=True)
class FrontendConfig:
    """Settings of a front-end; part of every model's config.

    The defaults are those of PANNs (Kong et al., TASLP 2020).

    Attributes:
        kind: "logmel", one channel; "delta", log-mel and its first three deltas along time;
            "published", as QPANN's code has it: deltas of the power spectrum along *frequency*,
            mel and log on all four. Only there to load the published checkpoint: over a third of
            its delta values sit at the clamp, because negative deltas are logged.
        sample_rate: Hz.
        n_fft: window and FFT length in samples (Hann window).
        hop_length: samples.
        n_mels: mel bins (Slaney scale and norm).
        f_min, f_max: Hz.

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

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"frontend kind must be one of {get_args(Kind)}, not {self.kind!r}")
        for name in ("sample_rate", "n_fft", "hop_length", "n_mels"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
                raise ValueError(f"frontend {name} must be a positive integer, not {value!r}")
        for name in ("f_min", "f_max"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not math.isfinite(value):
                raise ValueError(f"frontend {name} must be a finite number of Hz, not {value!r}")
        if not 0 <= self.f_min < self.f_max <= self.sample_rate / 2:
            raise ValueError(
                f"frontend needs 0 <= f_min < f_max <= sample_rate/2, got {self.f_min}, "
                f"{self.f_max} at {self.sample_rate} Hz"
            )

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> "FrontendConfig":
        """Build from a plain dict; raises ValueError naming unknown settings."""
        unknown = set(settings) - {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(f"unknown frontend settings: {', '.join(sorted(unknown))}")
        return cls(**settings)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Frontend(nn.Module):
    """Turns waveforms into network input, in float32 also under autocast.

    Shape:
        (B, T) at `config.sample_rate` -> (B, channels, frames, n_mels) in dB (deltas: dB per
        frame), frames = T // hop_length + 1. T must exceed n_fft/2 (reflect padding).
    """

    def __init__(self, config: FrontendConfig):
        super().__init__()
        self.config = config
        self.channels = 1 if config.kind == "logmel" else 4
        # Log-mels and deltas differ in scale tenfold, so `delta` wants a norm for each of its
        # channels; the published checkpoint shares one over its four.
        self.norm_features = config.n_mels * (4 if config.kind == "delta" else 1)
        bank = torchaudio.functional.melscale_fbanks(
            n_freqs=config.n_fft // 2 + 1,
            f_min=config.f_min,
            f_max=config.f_max,
            n_mels=config.n_mels,
            sample_rate=config.sample_rate,
            norm="slaney",
            mel_scale="slaney",
        )
        self.register_buffer("mel_bank", bank, persistent=False)
        self.register_buffer("window", torch.hann_window(config.n_fft), persistent=False)
        self.mel_bank: Tensor
        self.window: Tensor

    def forward(self, waveform: Tensor) -> Tensor:
        """Network input for waveforms (B, T): (B, channels, frames, n_mels)."""
        with torch.autocast(waveform.device.type, enabled=False):
            power = torchaudio.functional.spectrogram(
                waveform.float(),
                pad=0,
                window=self.window.float(),
                n_fft=self.config.n_fft,
                hop_length=self.config.hop_length,
                win_length=self.config.n_fft,
                power=2.0,
                normalized=False,
            ).transpose(1, 2)  # (B, frames, bins)
            if self.config.kind == "published":
                return self._log_mel(torch.stack(_with_deltas(power), dim=1))
            log_mel = self._log_mel(power)
            if self.config.kind == "logmel":
                return log_mel.unsqueeze(1)
            along_time = _with_deltas(log_mel.transpose(1, 2))
            return torch.stack(along_time, dim=1).transpose(2, 3)

    def _log_mel(self, power: Tensor) -> Tensor:
        return 10 * torch.log10(torch.clamp(power @ self.mel_bank.float(), min=LOG_FLOOR))


def _with_deltas(x: Tensor) -> list[Tensor]:
    """x and its first three deltas along the last axis."""
    order = [x]
    for _ in range(3):
        order.append(torchaudio.functional.compute_deltas(order[-1], win_length=DELTA_WINDOW))
    return order


def resample(waveform: Tensor, source_rate: int, target_rate: int) -> Tensor:
    """Resample along the last axis.

    Args:
        waveform: (..., T).
        source_rate, target_rate: Hz; their ratio is taken by `whole_ratio`.

    Raises:
        ValueError: for a rate below 100 Hz or above 10 MHz.
    """
    down, up = whole_ratio(source_rate, target_rate)
    if down == up or waveform.shape[-1] == 0:
        return waveform
    return torchaudio.functional.resample(waveform, down, up)


def pad_to(waveform: Tensor, samples: int) -> Tensor:
    """Append zeros along the last axis up to `samples`."""
    return F.pad(waveform, (0, max(0, samples - waveform.shape[-1])))
