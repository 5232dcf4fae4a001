import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qaudio.errors import InputError
from qaudio.evaluation.predictions import Predictions
from qaudio.evaluation.significance import holm, mcnemar


def answered(right, clips=None) -> Predictions:
    """Predictions of clips, each of which is answered rightly or not."""
    label = np.arange(len(right)) % 3
    answer = np.where(right, label, (label + 1) % 3)
    names = clips or [f"clip{n}" for n in range(len(right))]
    return Predictions.of_run(1, 0, names, label, np.eye(3)[answer])


def test_mcnemar_counts_the_clips_that_one_alone_gets_right():
    ours = [True] * 9 + [False] + [True] * 5
    theirs = [False] * 9 + [True] + [True] * 5
    # 9 of 10 fair coins or more, or 1 or fewer: 2 * (10 + 1) / 2 ** 10
    assert mcnemar(answered(ours), answered(theirs)) == pytest.approx(22 / 1024)
    assert mcnemar(answered(theirs), answered(ours)) == pytest.approx(22 / 1024)


def test_mcnemar_of_equal_answers_is_one():
    assert mcnemar(answered([True, False, True]), answered([True, False, True])) == 1


def test_mcnemar_pairs_clips_by_name_in_any_order():
    names = ["a", "b", "c", "d", "e", "f"]
    right = np.array([True] * 6)
    wrong = np.array([False, True, True, True, True, True])
    turned = answered(wrong, names).select(np.arange(6)[::-1])
    assert mcnemar(answered(right, names), turned) == 1  # one clip differs


@pytest.mark.parametrize("theirs", [["a", "c"], ["a", "a"]])
def test_mcnemar_refuses_other_or_repeated_clips(theirs):
    with pytest.raises(InputError, match="clip"):
        mcnemar(answered([True, True], ["a", "b"]), answered([True, True], theirs))


def test_holm_is_as_its_paper_steps_down():
    # sorted: .01 * 4, .02 * 3, .03 * 2 (no less than the one before), .5
    assert holm([0.5, 0.01, 0.03, 0.02]) == pytest.approx([0.5, 0.04, 0.06, 0.06])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_lies_between_the_p_value_and_bonferronis(values):
    for adjusted, value in zip(holm(values), values, strict=True):
        assert value <= adjusted + 1e-12
        assert adjusted <= min(1, value * len(values)) + 1e-12
