"""Augmentation. Every draw comes from a generator the caller seeds: (seed, epoch, clip)."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from qaudio.errors import InputError


# A function, not a class above the others: a recipe would then have to name the class it means.
def check_settings(settings: Any, **limits: tuple[float, float]) -> None:
    """Raise ValueError for a setting outside its limits; None is within all."""
    for name, (low, high) in limits.items():
        value = getattr(settings, name)
        if value is not None and not low <= value <= high:
            kind = type(settings).__name__
            raise InputError(f"{kind}: {name} must be {low:g} to {high:g}, not {value}")


@dataclass
class WaveformAugment:
    """Changes of a single waveform, drawn anew for every clip and epoch.

    Attributes:
        roll: rotate either way by up to half this share of the length (1.0: anywhere). For sounds
            without order; use small values for speech.
        gain_db: change level by up to ± this many dB.
        speed: play up to this share faster or slower (0.1: ±10 %; at most 0.9), pitch and all.
        noise_db: add white noise at a level drawn from −80 dB to this, relative to full scale;
            None: no noise.
        flip: change the sign of every second clip.
    """

    roll: float = 0.0
    gain_db: float = 0.0
    speed: float = 0.0
    noise_db: float | None = None
    flip: bool = False

    def __post_init__(self) -> None:
        check_settings(self, roll=(0, 1), gain_db=(0, 100), speed=(0, 0.9), noise_db=(-80, 0))

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Augmented copy of (T,) float32; its length changes with `speed`."""
        if self.speed:
            # Linear interpolation: a hundredth of a resampler's time, and what it folds back at
            # such small changes is far below the sound.
            length = max(1, round(len(waveform) / (1 + rng.uniform(-self.speed, self.speed))))
            sound = torch.from_numpy(np.ascontiguousarray(waveform))[None, None]
            waveform = F.interpolate(sound, length, mode="linear")[0, 0].numpy()
        if self.roll and len(waveform) > 1:
            span = self.roll * len(waveform) / 2
            waveform = np.roll(waveform, round(rng.uniform(-span, span)))
        if self.gain_db:
            waveform = waveform * np.float32(10 ** (rng.uniform(-self.gain_db, self.gain_db) / 20))
        if self.noise_db is not None:
            level = 10 ** (rng.uniform(-80, self.noise_db) / 20)
            waveform = waveform + np.float32(level) * rng.standard_normal(
                len(waveform), dtype=np.float32
            )
        if self.flip and rng.random() < 0.5:
            waveform = -waveform
        return waveform


@dataclass
class SpecAugment:
    """Masks bands of time and frequency (Park et al., Interspeech 2019), each clip its own.

    Masked values become the clip's mean in that channel.

    Attributes:
        time_masks, time_width: number of masks and their largest width, as a share of the frames.
        mel_masks, mel_width: the same over mel bins.
    """

    time_masks: int = 2
    time_width: float = 0.06
    mel_masks: int = 2
    mel_width: float = 0.12

    def __post_init__(self) -> None:
        check_settings(
            self, time_masks=(0, 1000), time_width=(0, 1), mel_masks=(0, 1000), mel_width=(0, 1)
        )

    def __call__(self, features: Tensor, generator: torch.Generator) -> Tensor:
        """Masked copy of features (B, channels, frames, n_mels)."""
        batch, _, frames, mels = features.shape
        masked = torch.zeros(batch, 1, frames, mels, dtype=torch.bool)
        for _ in range(self.time_masks):
            masked |= _bands(batch, frames, self.time_width, generator)[:, None, :, None]
        for _ in range(self.mel_masks):
            masked |= _bands(batch, mels, self.mel_width, generator)[:, None, None, :]
        mean = features.mean(dim=(2, 3), keepdim=True)
        return torch.where(masked.to(features.device), mean, features)


def _bands(batch: int, length: int, share: float, generator: torch.Generator) -> Tensor:
    """A random band for each clip: (batch, length), True inside."""
    width = torch.rand(batch, 1, generator=generator) * share * length
    start = torch.rand(batch, 1, generator=generator) * (length - width)
    position = torch.arange(length)[None]
    return (position >= start.floor()) & (position < (start + width).floor())


@dataclass
class Mixup:
    """Mixes clips of a batch and their targets (Zhang et al., ICLR 2018).

    Attributes:
        alpha: of the Beta distribution that the weights come from; 0 switches mixup off.
        probability: share of the clips that are mixed.
    """

    alpha: float = 0.0
    probability: float = 1.0

    def __post_init__(self) -> None:
        check_settings(self, alpha=(0, 1000), probability=(0, 1))

    def draw(self, batch: int, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
        """One mixture of a batch with a permutation of itself.

        Args:
            batch: clips, B.
            generator: decides about weights and permutation.

        Returns:
            What mixes tensors (B, …), features and float targets alike.
        """
        if not self.alpha:
            return lambda x: x
        rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        weight = rng.beta(self.alpha, self.alpha, batch)
        weight = np.where(rng.random(batch) < self.probability, np.maximum(weight, 1 - weight), 1)
        order, share = torch.from_numpy(rng.permutation(batch)), torch.from_numpy(weight)

        def mix(x: Tensor) -> Tensor:
            w = share.to(x).reshape(-1, *[1] * (x.ndim - 1))
            return w * x + (1 - w) * x[order.to(x.device)]

        return mix


def fit_length(
    waveform: np.ndarray,
    samples: int,
    rng: np.random.Generator | None = None,
    crop: Literal["start", "center"] = "start",
) -> np.ndarray:
    """Crop or zero-pad (T,) to `samples` at a random place.

    Without `rng` the crop is the start or the center, and zeros go to the end.
    """
    spare = len(waveform) - samples
    if spare > 0:
        fixed = spare // 2 if crop == "center" else 0
        start = int(rng.integers(spare + 1)) if rng else fixed
        return waveform[start : start + samples]
    before = int(rng.integers(-spare + 1)) if rng and spare else 0
    return np.pad(waveform, (before, -spare - before))


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Float targets (B, classes) of class indices (B,); targets (B, classes) pass through."""
    return labels.float() if labels.ndim == 2 else F.one_hot(labels, classes).float()


def item_seed(*parts: int) -> int:
    """A 63-bit seed from numbers such as (seed, epoch, clip)."""
    words = np.random.SeedSequence([len(parts), *parts]).generate_state(1, np.uint64)
    return int(words[0]) >> 1


def global_seed() -> int:
    """The seed given to Lightning's `seed_everything`; 0 without one."""
    return int(os.environ.get("PL_GLOBAL_SEED", 0))
