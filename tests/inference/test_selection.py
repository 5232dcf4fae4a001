import numpy as np
import pytest

from qaudio.inference.selection import Selection
from qaudio.prediction import Analysis

ANALYSIS = Analysis(
    np.array([[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]]),
    np.array([[0.1, 0.9], [0.3, 0.7], [0.8, 0.2]]),
    ["dog", "rain"],
)


def told(**settings):
    return [(p.label, p.start, p.end, round(p.probability, 3)) for p in
            Selection(**settings).of(ANALYSIS)]  # fmt: skip


def test_selection_of_the_whole_sound():
    assert told() == [("rain", 0, 3, 0.6), ("dog", 0, 3, 0.4)]
    assert told(top_k=1) == [("rain", 0, 3, 0.6)]
    assert told(threshold=0.5) == [("rain", 0, 3, 0.6)]
    assert told(threshold=[0.4, 0.7]) == [("dog", 0, 3, 0.4)]
    assert told(threshold=0.7) == []


def test_selection_of_windows():
    assert told(windows=True, threshold=0.3) == [
        ("rain", 0, 1, 0.9), ("rain", 1, 2, 0.7), ("dog", 1, 2, 0.3), ("dog", 2, 3, 0.8),
    ]  # fmt: skip
    assert told(windows=True, threshold=0.75, top_k=1) == [("rain", 0, 1, 0.9), ("dog", 2, 3, 0.8)]


def test_selection_without_top_k_is_five_or_all_above_a_threshold():
    many = Analysis(np.array([[0.0, 1.0]]), np.full((1, 9), 0.6), list("abcdefghi"))
    assert len(Selection().of(many)) == 5
    assert len(Selection(threshold=0.5).of(many)) == 9


def test_selection_of_events():
    assert told(merge=True) == [("rain", 0, 2, 0.9), ("dog", 2, 3, 0.8)]
    assert told(merge=True, min_duration=1.5) == [("rain", 0, 2, 0.9)]
    assert told(merge=True, threshold=0.8, low_threshold=0.3) == [
        ("rain", 0, 2, 0.9), ("dog", 1, 3, 0.8),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"top_k": 0}, "top_k"),
        ({"threshold": 1.1}, "threshold must be 0 to 1"),
        ({"threshold": float("nan")}, "threshold must be 0 to 1"),
        ({"low_threshold": -1}, "low_threshold must be 0 to 1"),
        ({"low_threshold": 0.6}, "at most the threshold of 0.5"),
        ({"min_duration": -1}, "min_duration"),
        ({"min_duration": float("nan")}, "min_duration"),
    ],
)
def test_selection_names_what_is_out_of_range(settings, said):
    with pytest.raises(ValueError, match=said):
        Selection(merge=True, **settings)
