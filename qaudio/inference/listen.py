"""A network over sound that never ends: sliding windows, constant memory, bounded lag."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qaudio.deploy.onnx.runtime import OnnxModel
from qaudio.errors import InputError
from qaudio.inference.sources import Block, Source, Waiting
from qaudio.prediction import Analysis, analyse

if TYPE_CHECKING:
    from qaudio.models.base import AudioModel


@dataclass(frozen=True)
class Heard:
    """What a network finds in a window of a stream.

    Attributes:
        analysis: of the window; its span is in seconds since the stream began.
        lag: seconds from when the window's last sample came to when the network was done.
    """

    analysis: Analysis
    lag: float


class Listener:
    """Runs a network on the windows of a source, as they become complete.

    Of a live source a window is skipped when the next one is complete as well: the lag is below a
    hop and the time of one run of the network, however slow that is. Of any other source every
    window is run. At the end a last window holds what no window held yet.

    Args:
        model: an entry's network or an exported one.
        source: where the sound comes from; read once.
        window, hop: seconds; hop ≤ window.
        live: whether sound comes at its own pace.

    Attributes:
        windows, skipped: how many were run, and not.
        heard, lost: seconds of sound that came, and that were lost before they were looked at.

    Raises:
        ValueError: for a window or hop out of range.
    """

    def __init__(
        self,
        model: AudioModel | OnnxModel,
        source: Source,
        *,
        window: float = 2.0,
        hop: float = 0.5,
        live: bool = False,
    ):
        if not 0.05 <= window <= 60:
            raise InputError(f"window must be 0.05 to 60 seconds, not {window}")
        if not 0.01 <= hop <= window:
            raise InputError(f"hop must be 0.01 seconds to the window of {window:g}, not {hop}")
        self.model, self.source, self.live = model, source, live
        self._rate = source.sample_rate
        self._size = max(1, round(window * self._rate))
        self._hop = max(1, round(hop * self._rate))
        self.windows = self.skipped = 0
        self._position = self._lost = 0
        self._lags, self._longest = 0.0, 0.0
        self._begun = time.monotonic(), time.process_time()

    @property
    def heard(self) -> float:
        """Seconds of sound that came, with those that were lost."""
        return self._position / self._rate

    @property
    def lost(self) -> float:
        """Seconds of sound that were lost."""
        return self._lost / self._rate

    def __iter__(self) -> Iterator[Heard]:
        """Windows in order of time.

        Raises:
            AudioError: where the source can give no more.
        """
        held = np.zeros(0, np.float32)
        if self.live:  # a first run takes longer
            self._analyse(np.zeros(self._size, np.float32))
        due = self._size  # position at which the next window is complete
        done = 0  # position up to which windows were run
        arrived = time.monotonic()
        for blocks in self._blocks():
            ready: list[tuple[int, np.ndarray, float]] = []
            for block in blocks:
                arrived = block.arrived
                if block.lost:  # a window does not reach over a gap
                    self._position += block.lost
                    self._lost += block.lost
                    held, due = held[:0], self._position + self._size
                rest = block.samples
                while len(rest):
                    part, rest = rest[: due - self._position], rest[due - self._position :]
                    held = np.concatenate((held, part))[-self._size :]
                    self._position += len(part)
                    if self._position == due:
                        ready.append((due, held, arrived))
                        due += self._hop
            if self.live:
                self.skipped += max(0, len(ready) - 1)
                ready = ready[-1:]
            for end, samples, when in ready:
                done = end
                yield self._run(end, samples, when)
        if self._position > done and len(held):
            yield self._run(self._position, held, arrived)

    def summary(self) -> str:
        """What happened so far, in one line."""
        wall, work = time.monotonic() - self._begun[0], time.process_time() - self._begun[1]
        gone = f", {self.skipped} skipped" if self.skipped else ""
        gone += f", {self.lost:.1f} s of sound lost" if self._lost else ""
        mean = self._lags / max(self.windows, 1)
        return (
            f"{self.heard:.1f} s of sound, {self.windows} windows{gone}; lag {1000 * mean:.0f} ms, "
            f"at most {1000 * self._longest:.0f} ms; {100 * work / max(wall, 1e-9):.0f} % of a core"
        )

    def _blocks(self) -> Iterator[list[Block]]:
        if self.live:
            yield from Waiting(self.source)
        else:
            for samples in self.source.blocks:
                yield [Block(samples, time.monotonic())]

    def _run(self, end: int, samples: np.ndarray, arrived: float) -> Heard:
        seconds = len(samples) / self._rate
        found = self._analyse(samples)
        span = np.array([[end / self._rate - seconds, end / self._rate]])
        lag = time.monotonic() - arrived
        self.windows += 1
        self._lags += lag
        self._longest = max(self._longest, lag)
        return Heard(Analysis(span, found.probabilities[:1], found.labels, found.task), lag)

    def _analyse(self, samples: np.ndarray) -> Analysis:
        seconds = len(samples) / self._rate
        return analyse(self.model, samples, sample_rate=self._rate, window=max(seconds, 0.05))
