"""Sample rates: which are sound, the small ratio of two, and resampling without torch."""

import math
from fractions import Fraction
from functools import lru_cache

import numpy as np

from qaudio.errors import InputError

ZEROS, ROLLOFF = 6, 0.99  # of the filter: zero crossings on each side, cut-off over Nyquist's
_BLOCK = 1 << 22  # samples of the filter's overlapping windows held at once


def check_rate(rate: float) -> None:
    """Raise ValueError for a rate below 100 Hz, above 10 MHz, or that is no whole number."""
    if not 100 <= rate <= 10_000_000:
        raise InputError(f"sample rate {rate} Hz is outside 100 Hz to 10 MHz")
    if rate != int(rate):
        raise InputError(f"sample rate {rate} Hz is no whole number")


def whole_ratio(source_rate: int, target_rate: int) -> tuple[int, int]:
    """Small whole numbers in about the ratio of two rates.

    A ratio of larger terms than 1000 (44 101 to 32 000 Hz, say) is replaced by the nearest one
    of terms up to 1000, or of 1 to a whole number, less than 0.1 % off in pitch: the exact one
    would need a filter of gigabytes.

    Raises:
        ValueError: for a rate out of range.
    """
    check_rate(source_rate)
    check_rate(target_rate)
    slow, fast = sorted((int(source_rate), int(target_rate)))
    ratio = Fraction(slow, fast)  # at most 1, so the denominator is the larger term
    if ratio.denominator > 1000 and ratio.numerator > 1:
        close = ratio.limit_denominator(1000)
        far = fast > 500 * slow  # few fractions are near: 1/998, 1/999, 1/1000, then none
        ratio = Fraction(1, round(fast / slow)) if far else close
    terms = (ratio.numerator, ratio.denominator)
    return terms if source_rate < target_rate else terms[::-1]


def resampled_length(length: int, source_rate: int, target_rate: int) -> int:
    """Samples that resampling makes of `length` samples; raises ValueError as `whole_ratio`."""
    down, up = whole_ratio(source_rate, target_rate)
    return -(-length * up // down)


def resample_array(samples: np.ndarray, source_rate: int, target_rate: int) -> np.ndarray:
    """`qaudio.frontend.resample` in numpy, equal to rounding: a windowed sinc, a phase a row.

    Args:
        samples: (B, T) float32.
        source_rate, target_rate: Hz.

    Returns:
        (B, T') float32.

    Raises:
        ValueError: for a rate below 100 Hz or above 10 MHz.
    """
    down, up = whole_ratio(source_rate, target_rate)
    if down == up or samples.shape[-1] == 0:
        return samples
    kernel = _sinc_kernel(down, up)  # (taps, up)
    taps = len(kernel)
    width = (taps - down) // 2
    rows = []
    for row in samples:
        padded = np.pad(row, (width, width + down))
        views = np.lib.stride_tricks.sliding_window_view(padded, taps)[::down]
        step = max(1, _BLOCK // taps)
        # Copies: BLAS takes no rows that overlap.
        parts = [views[n : n + step].copy() @ kernel for n in range(0, len(views), step)]
        rows.append(np.concatenate(parts).reshape(-1)[: -(-up * len(row) // down)])
    return np.stack(rows)


@lru_cache(maxsize=4)
def _sinc_kernel(down: int, up: int) -> np.ndarray:
    """torchaudio's `sinc_interp_hann` filter, (2·width + down, up), a column for each phase."""
    cutoff = ROLLOFF * min(down, up)
    width = math.ceil(ZEROS * down / cutoff)
    # In float32 and in torchaudio's order: its rounding of the phases is -80 dB, and is repeated.
    taps = np.arange(-width, width + down, dtype=np.float32)[:, None] / np.float32(down)
    phases = np.arange(0, -up, -1, dtype=np.float32) / np.float32(up)
    time = np.clip((phases + taps) * np.float32(cutoff), -ZEROS, ZEROS)
    window = np.cos(time * np.float32(np.pi) / ZEROS / 2) ** 2
    angle = time * np.float32(np.pi)
    sinc = np.divide(np.sin(angle), angle, out=np.ones_like(angle), where=angle != 0)
    return sinc * (window * np.float32(cutoff / down))
