"""A sound made here, for trying the command where no recording is at hand."""

import os
from pathlib import Path

import numpy as np
import soundfile

from qaudio.paths import replacing

RATE, SECONDS = 32000, 5


def struck_bowl() -> np.ndarray:
    """A bowl struck once: partials that ring the shorter the higher they are, (T,) float32."""
    time = np.arange(SECONDS * RATE) / RATE
    partials = (  # Hz, amplitude, seconds to 1/e
        (220, 0.1, 3.0), (440, 0.2, 2.5), (528, 0.16, 2.0), (660, 0.12, 1.5), (880, 0.1, 1.2),
        (1174, 0.06, 0.8), (1760, 0.04, 0.5),
    )  # fmt: skip
    samples = sum(
        a * np.sin(2 * np.pi * f * time) * np.exp(-time / ring) for f, a, ring in partials
    )
    return np.asarray(samples, np.float32)


def write_demo(path: str | os.PathLike) -> Path:
    """Write `struck_bowl` as a WAV file and return its path; raises OSError."""
    with replacing(path) as file:
        soundfile.write(file, struck_bowl(), RATE, format="WAV")
    return Path(path)
