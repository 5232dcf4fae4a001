"""A sound made here, for trying the command where no recording is at hand."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import soundfile

from qaudio.paths import replacing

RATE = 32000


def clock_ticks(seconds: float = 5.0) -> np.ndarray:
    """A wall clock, two ticks a second: short damped resonances over faint noise, (T,) float32."""
    rng = np.random.default_rng(0)
    samples = 2e-4 * rng.standard_normal(round(seconds * RATE))
    time = np.arange(round(0.03 * RATE)) / RATE
    for n, start in enumerate(np.arange(0.2, seconds - 0.1, 0.5)):
        modes = (2300, 3700, 5200) if n % 2 == 0 else (2000, 3300, 4800)
        tick = sum(np.sin(2 * np.pi * f * time) * np.exp(-time * f / 8) for f in modes)
        tick = tick + 0.5 * rng.standard_normal(len(time)) * np.exp(-time * 900)
        at = round(start * RATE)
        samples[at : at + len(time)] += 0.15 * tick
    return samples.astype(np.float32)


def write_demo(path: str | os.PathLike) -> Path:
    """Write `clock_ticks` as a WAV file and return its path; raises OSError."""
    with replacing(path) as file:
        soundfile.write(file, clock_ticks(), RATE, format="WAV")
    return Path(path)
