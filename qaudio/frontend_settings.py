"""Settings of the front-end, without torch: configs are read and compared without it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from qaudio.errors import InputError, check_choice

Kind = Literal["logmel", "delta", "published", "efficientat"]
MelScale = Literal["slaney", "kaldi"]

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
        check_choice("frontend kind", self.kind, get_args(Kind))
        check_choice("frontend mel_scale", self.mel_scale, get_args(MelScale))
        for name in ("sample_rate", "n_fft", "hop_length", "n_mels"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
                raise InputError(f"frontend {name} must be a positive integer, not {value!r}")
            if value > MOST[name]:
                raise InputError(f"frontend {name} must be at most {MOST[name]}, not {value}")
        window = self.win_length
        if window is not None and not (type(window) is int and 2 <= window <= self.n_fft):
            raise InputError(f"frontend win_length must be 2 to n_fft ({self.n_fft}), not {window}")
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
    def from_dict(cls, settings: dict[str, Any]) -> FrontendConfig:
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
