"""Records of what a network costs; `qaudio.compress.cost` measures it."""

from typing import Annotated

from msgspec import Meta

from qaudio.records import Number, Positive, Record, Text

# DCASE's challenge, task 1, low-complexity acoustic scene classification, 2022 to 2025.
DCASE_BYTES, DCASE_MACS = 128_000, 30_000_000  # of weights; for a second of sound
NUMBERS = {"float32": 4, "float16": 2, "int8": 1}  # bytes

Whole = Annotated[int, Meta(ge=1, le=2**63 - 1)]


class Latency(Record):
    """Median time of one clip, waveform to logits, batch 1, float32.

    Attributes:
        milliseconds: front-end and network.
        frontend_milliseconds: the front-end alone.
        device: processor and number of threads.
        optimized_milliseconds: front-end and network as `qaudio.optimize` gives them, where that
            was measured.
    """

    milliseconds: Positive
    frontend_milliseconds: Number
    device: Text
    method: Text
    optimized_milliseconds: Positive | None = None


class Cost(Record):
    """Cost of one clip.

    Attributes:
        macs: products of the network's convolutions, linear layers and attention, from the
            front-end's output on; norms are not counted.
        bytes: of parameters and buffers, as stored.
        latency: None where it was not measured.
    """

    params: Whole
    macs: Whole
    bytes: Whole
    seconds: Positive
    latency: Latency | None

    @property
    def within_dcase(self) -> str | None:
        """The widest type of weights in which DCASE's budget holds; None where in none."""
        if self.macs > DCASE_MACS * self.seconds:
            return None
        fits = (name for name, size in NUMBERS.items() if size * self.params <= DCASE_BYTES)
        return next(fits, None)
