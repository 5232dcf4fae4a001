from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qaudio.inference.events import Event, find_events


def spans_of(count, window=1.0, hop=1.0):
    starts = np.arange(count) * hop
    return np.stack([starts, starts + window], axis=1)


def events_of(probabilities, threshold=0.5, window=1.0, hop=1.0, **settings):
    """(start, end, highest) of the events of a single class."""
    column = np.array(probabilities, dtype=float)[:, None]
    found = find_events(spans_of(len(column), window, hop), column, threshold, **settings)
    return [(event.start, event.end, event.probability) for event in found]


def test_find_events_joins_consecutive_windows():
    assert events_of([0.1, 0.6, 0.9, 0.2, 0.7]) == [(1, 3, 0.9), (4, 5, 0.7)]
    assert events_of([0.1, 0.2]) == []
    assert events_of([0.5]) == [(0, 1, 0.5)]  # the threshold itself is enough


def test_find_events_goes_on_down_to_the_low_threshold():
    rows = [0.3, 0.4, 0.6, 0.4, 0.2, 0.4, 0.4]
    assert events_of(rows) == [(2, 3, 0.6)]
    assert events_of(rows, low_threshold=0.4) == [(1, 4, 0.6)]


def test_find_events_drops_short_ones():
    rows = [0.9, 0.1, 0.9, 0.9]
    assert events_of(rows, min_duration=2) == [(2, 4, 0.9)]
    assert events_of(rows, min_duration=1) == [(0, 1, 0.9), (2, 4, 0.9)]
    tenths = events_of([0.9] * 3, window=0.1, hop=0.1, min_duration=0.3)
    assert tenths == [(0, 0.3, 0.9)]  # 0.1 + 0.2 is more or less than 0.3, by rounding


def test_find_events_of_windows_that_overlap_are_one():
    assert events_of([0.9, 0.1, 0.8], window=4, hop=1) == [(0, 6, 0.9)]
    assert events_of([0.9, 0.1, 0.8], window=2, hop=1) == [(0, 2, 0.9), (2, 4, 0.8)]


def test_find_events_keeps_classes_apart_and_in_order_of_time():
    rows = np.array([[0.1, 0.9, 0.0], [0.7, 0.9, 0.0], [0.7, 0.1, 0.0]])
    found = find_events(spans_of(3), rows, 0.5)
    assert found == [Event(1, 0.0, 2.0, 0.9), Event(0, 1.0, 3.0, 0.7)]
    assert find_events(spans_of(3), rows, [0.8, 0.95, 0.0]) == [Event(2, 0.0, 3.0, 0.0)]


@pytest.mark.parametrize(
    ("spans", "settings", "said"),
    [
        (spans_of(2), {"threshold": 0.5}, "do not fit"),
        (spans_of(3), {"threshold": 1.5}, "threshold must be 0 to 1"),
        (spans_of(3), {"threshold": [0.5]}, "one for each of 2 classes"),
        (spans_of(3), {"threshold": float("nan")}, "threshold must be 0 to 1"),
        (spans_of(3), {"threshold": 0.5, "low_threshold": 0.6}, "at most the threshold"),
    ],
)
def test_find_events_refuses_what_does_not_fit(spans, settings, said):
    with pytest.raises(ValueError, match=said):
        find_events(spans, np.zeros((3, 2)), **settings)


@st.composite
def recordings(draw):
    """Spans and probabilities as windows over a sound give them, the last one shifted back."""
    count, classes = draw(st.integers(1, 30)), draw(st.integers(1, 3))
    rate = draw(st.sampled_from([8000, 22050, 44100]))
    window = draw(st.integers(1, 5 * rate))
    hop = draw(st.integers(1, window))
    starts = np.arange(count) * hop
    if count > 1:
        starts[-1] -= draw(st.integers(0, hop - 1))
    spans = np.stack([starts / rate, starts / rate + window / rate], axis=1)
    levels = st.lists(st.sampled_from([0.0, 0.2, 0.4, 0.6, 0.8, 1.0]), min_size=classes,
                      max_size=classes)  # fmt: skip
    return spans, np.array(draw(st.lists(levels, min_size=count, max_size=count)))


def covered(spans, times):
    """Whether each time lies within a span."""
    return ((times[:, None] > spans[:, 0]) & (times[:, None] < spans[:, 1])).any(axis=1)


@settings(deadline=None, max_examples=60)
@given(recordings(), st.sampled_from([0.1, 0.5, 0.9]))
def test_find_events_never_overlap_and_cover_the_windows_above_the_threshold(recording, threshold):
    spans, probabilities = recording
    found = find_events(spans, probabilities, threshold)
    # Between any two edges nothing changes: their midpoints stand for all times.
    edges = np.unique(np.round(spans, 6))
    times = (edges[:-1] + edges[1:]) / 2
    for index, column in enumerate(probabilities.T):
        events = [event for event in found if event.index == index]
        assert all(a.end <= b.start for a, b in pairwise(events))
        own = np.array([(event.start, event.end) for event in events]).reshape(-1, 2)
        expected = covered(np.round(spans[column >= threshold], 6), times)
        assert (covered(own, times) == expected).all()


@settings(deadline=None, max_examples=60)
@given(recordings(), st.sampled_from([0.5, 0.7, 0.9]), st.floats(0, 0.5), st.floats(0, 5))
def test_find_events_by_hysteresis_hold_those_without(recording, threshold, low, shortest):
    spans, probabilities = recording
    plain = find_events(spans, probabilities, threshold)
    found = find_events(spans, probabilities, threshold, low_threshold=low, min_duration=shortest)
    assert all(event.end - event.start >= shortest - 1e-6 for event in found)
    assert all(event.probability >= threshold for event in found)
    for event in plain:
        holders = [
            other for other in found if other.index == event.index
            and other.start <= event.start and event.end <= other.end
        ]  # fmt: skip
        assert len(holders) == (1 if event.end - event.start >= shortest else len(holders)) <= 1
