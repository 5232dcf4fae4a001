"""Events from probabilities over time: consecutive windows of one class become one event."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qaudio.errors import InputError


@dataclass(frozen=True)
class Event:
    """A stretch of sound with one class.

    Attributes:
        start, end: seconds, to a microsecond.
        probability: the highest of its windows.
    """

    index: int
    start: float
    end: float
    probability: float


def find_events(
    spans: np.ndarray,
    probabilities: np.ndarray,
    threshold: float | Sequence[float] | np.ndarray,
    *,
    low_threshold: float | Sequence[float] | np.ndarray | None = None,
    min_duration: float = 0.0,
) -> list[Event]:
    """Events of every class, by hysteresis: they begin and end where windows fall below `low`.

    An event is a run of consecutive windows of at least `low_threshold`, one of which reaches
    `threshold`. Windows overlap where the hop is shorter than the window, and so can two runs with
    a window between them: such runs are one event. Events of a class never overlap.

    Args:
        spans: start and end of each window in seconds, (W, 2), both ascending.
        probabilities: of each window and class, (W, C).
        threshold: that one window of an event reaches; a number, or one per class (C,).
        low_threshold: that all windows of an event reach, at most `threshold`; None: `threshold`.
        min_duration: seconds; shorter events are dropped.

    Returns:
        In order of start, then of class.

    Raises:
        ValueError: for shapes that do not fit, or a low threshold above the threshold.
    """
    spans = np.round(np.asarray(spans, dtype=float), 6)
    probabilities = np.asarray(probabilities)
    if probabilities.ndim != 2 or spans.shape != (len(probabilities), 2):
        raise InputError(
            f"spans (W, 2) and probabilities (W, C) do not fit: {spans.shape} and "
            f"{probabilities.shape}"
        )
    classes = probabilities.shape[1]
    high = _per_class(threshold, classes, "threshold")
    low = high if low_threshold is None else _per_class(low_threshold, classes, "low_threshold")
    if (low > high).any():
        raise InputError("low_threshold must be at most the threshold")
    events = []
    for index in np.flatnonzero((probabilities >= high).any(axis=0)):
        column = probabilities[:, index]
        found: list[Event] = []
        for first, last in _runs(column >= low[index]):
            peak = float(column[first : last + 1].max())
            if peak < high[index]:
                continue
            event = Event(int(index), float(spans[first, 0]), float(spans[last, 1]), peak)
            if found and event.start < found[-1].end:
                before = found.pop()
                peak = max(before.probability, peak)
                event = Event(int(index), before.start, event.end, peak)
            found.append(event)
        events += [event for event in found if event.end - event.start >= min_duration - 1e-9]
    return sorted(events, key=lambda event: (event.start, event.index))


def _per_class(
    threshold: float | Sequence[float] | np.ndarray, count: int, name: str
) -> np.ndarray:
    values = np.asarray(threshold, dtype=float)
    if values.ndim == 0:
        values = np.full(count, float(values))
    if values.shape != (count,) or not ((values >= 0) & (values <= 1)).all():
        raise InputError(f"{name} must be 0 to 1, a number or one for each of {count} classes")
    return values


def _runs(active: np.ndarray) -> list[tuple[int, int]]:
    """First and last index of each run of consecutive True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], active, [False])).astype(np.int8)))
    return [
        (int(first), int(last) - 1) for first, last in zip(edges[::2], edges[1::2], strict=True)
    ]
