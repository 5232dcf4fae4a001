import numpy as np
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, recall_score

from qaudio.evaluation.bootstrap import summarise
from qaudio.evaluation.metrics import accuracy, mean_average_precision, scores_by_class
from qaudio.evaluation.predictions import Predictions
from tests.support.predictions import made, tagged


def test_accuracy_is_scikit_learns():
    one = made()
    assert accuracy(one) == accuracy_score(one.label, one.logits.argmax(-1))


def test_mean_average_precision_is_scikit_learns_over_classes_with_a_positive():
    rng = np.random.default_rng(1)
    label = (rng.random((50, 6)) < 0.3).astype(int)
    label[:, 2] = 0  # a class that no clip has
    logits = rng.standard_normal((50, 6)) + label
    one = Predictions.of_run(1, 0, [f"{n:03}" for n in range(50)], label, logits)
    present = [0, 1, 3, 4, 5]
    expected = average_precision_score(
        one.label[:, present], one.logits[:, present].astype(np.float32), average="macro"
    )
    assert mean_average_precision(one) == pytest.approx(expected, abs=1e-6)


def test_scores_by_class_are_scikit_learns():
    one = made(skill=1.0)
    expected = recall_score(one.label, one.logits.argmax(-1), average=None)
    assert scores_by_class(one, "accuracy") == pytest.approx(expected)
    one = one.run(0, 1)
    label = np.eye(5, dtype=int)[one.label]  # a fifth class that no clip has
    logits = np.pad(one.logits, ((0, 0), (0, 1)))
    *found, absent = scores_by_class(
        Predictions(**vars(one) | {"label": label, "logits": logits}), "mAP"
    )
    assert absent is None
    expected = average_precision_score(label[:, :4], one.logits.astype(np.float32), average=None)
    assert found == pytest.approx(expected, abs=1e-6)


def test_each_network_ranks_for_itself():
    """Of two folds, one gives higher logits throughout; the third class is in one of them only."""
    one, rng = tagged(), np.random.default_rng(5)
    label = (rng.random((90, 3)) < 0.3) * np.array([1, 1, 0])
    other = Predictions.of_run(2, 0, [f"b{n}" for n in range(90)], label,
                               label + rng.normal(7, 1, label.shape))  # fmt: skip
    both = one.merged(other)
    each = [[average_precision_score(part.label[:, c], part.logits[:, c]) for c in (0, 1)]
            for part in (one, other)]  # fmt: skip
    found = scores_by_class(both, "mAP")
    assert found[:2] == pytest.approx(np.mean(each, 0), abs=1e-6)
    assert found[2] == pytest.approx(average_precision_score(one.label[:, 2], one.logits[:, 2]))
    assert summarise(both, "mAP").mean == pytest.approx(
        (mean_average_precision(one) + mean_average_precision(other)) / 2, abs=1e-6
    )


def test_mean_average_precision_without_positives_is_refused():
    one = Predictions.of_run(1, 0, ["a", "b"], np.zeros((2, 3), int), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="at least one class"):
        mean_average_precision(one)


def test_average_precision_ranks_logits_however_large():
    for scale in (1, 30, 300):  # probabilities of float32 are 1 above 17
        found = tagged(scale=scale)
        expected = average_precision_score(found.label, found.logits.astype(np.float64))
        assert mean_average_precision(found) == pytest.approx(expected, abs=1e-6)
