"""Which classes of a sound are reported: the most probable, those above a threshold, or events."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from qaudio.errors import InputError
from qaudio.inference.events import find_events
from qaudio.prediction import Analysis, Prediction

TOP_K, THRESHOLD = 5, 0.5


@dataclass(frozen=True)
class Selection:
    """Chooses from the probabilities of a sound.

    Attributes:
        top_k: classes of the sound or of each window; None: 5, or all where there is a threshold.
        threshold: least probability, a number or one per class (C,); None: any, or 0.5 to merge.
        windows: of each window, not of the whole sound.
        merge: events, of consecutive windows of a class.
        low_threshold: down to which an event goes on; None: `threshold`.
        min_duration: of an event, in seconds.

    Raises:
        ValueError: for a setting out of range.
    """

    top_k: int | None = None
    threshold: Any = None
    windows: bool = False
    merge: bool = False
    low_threshold: Any = None
    min_duration: float = 0.0

    def __post_init__(self) -> None:
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"top_k must be at least 1, not {self.top_k}")
        for name in ("threshold", "low_threshold"):
            value = getattr(self, name)
            if (
                value is not None
                and not ((np.asarray(value) >= 0) & (np.asarray(value) <= 1)).all()
            ):
                raise InputError(f"{name} must be 0 to 1, not {value}")
        if not 0 <= self.min_duration < float("inf"):
            raise InputError(f"min_duration must be 0 seconds or more, not {self.min_duration}")
        if self.low_threshold is not None:
            high = THRESHOLD if self.threshold is None else self.threshold
            if (np.asarray(self.low_threshold) > np.asarray(high)).any():
                raise InputError(
                    f"low_threshold must be at most the threshold of {high}, not "
                    f"{self.low_threshold}"
                )

    def of(self, analysis: Analysis) -> list[Prediction]:
        """Most probable first, window after window; events in order of their start."""
        if self.merge:
            events = find_events(
                analysis.spans, analysis.probabilities,
                THRESHOLD if self.threshold is None else self.threshold,
                low_threshold=self.low_threshold, min_duration=self.min_duration,
            )  # fmt: skip
            return [
                Prediction(
                    analysis.labels[event.index], event.index, event.probability,
                    round(event.start, 3), round(event.end, 3),
                )
                for event in events
            ]  # fmt: skip
        every = len(analysis.labels) if self.threshold is not None else TOP_K
        count = every if self.top_k is None else self.top_k
        found = analysis.rows(count) if self.windows else analysis.clip(count)
        if self.threshold is None:
            return found
        least = np.broadcast_to(np.asarray(self.threshold, dtype=float), (len(analysis.labels),))
        return [p for p in found if p.probability >= least[p.index]]
