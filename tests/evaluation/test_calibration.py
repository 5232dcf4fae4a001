import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import f1_score, log_loss

from qaudio.errors import InputError
from qaudio.evaluation.calibration import (
    COLDEST,
    HOTTEST,
    NO_THRESHOLD,
    answered,
    calibrated,
    expected_calibration_error,
    fit_temperature,
    outside_scores,
    reliability,
    summarise,
    thresholds,
)
from qaudio.evaluation.predictions import Predictions


def drawn(count, temperature, classes=5, seed=0):
    """Logits that are too large by a factor, and labels drawn from the true probabilities."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.standard_normal((count, classes))
    label = np.array([rng.choice(classes, p=p) for p in softmax(logits, axis=1)])
    return logits * temperature, label


def folds_of(temperatures, count=400):
    """A run for each fold, each with logits that are off by another factor."""
    found = None
    for fold, temperature in enumerate(temperatures, 1):
        logits, label = drawn(count, temperature, seed=fold)
        names = [f"{fold}-{n:04}" for n in range(count)]
        run = Predictions.of_run(fold, 0, names, label, logits)
        found = run if found is None else found.merged(run)
    return found


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_temperature_is_found_again(temperature):
    logits, label = drawn(20000, temperature)
    assert fit_temperature(logits, label) == pytest.approx(temperature, rel=0.04)


def test_temperature_is_where_the_loss_is_least():
    logits, label = drawn(300, 2.5)
    found = fit_temperature(logits, label)
    losses = [
        log_loss(label, softmax(logits / t, axis=1)) for t in (found, found / 1.05, found * 1.05)
    ]
    assert losses[0] == min(losses)


def test_temperature_has_bounds():
    assert fit_temperature(np.eye(3) * 5, np.arange(3)) == COLDEST  # never wrong
    assert fit_temperature(np.eye(3) * 5, np.array([1, 2, 0])) == HOTTEST  # never right
    with pytest.raises(InputError, match="needs clips"):
        fit_temperature(np.empty((0, 3)), np.empty(0, int))


def test_calibration_of_a_fold_comes_from_the_other_folds():
    """Labels of the scored fold have no part in its probabilities."""
    predictions = folds_of([1.0, 3.0, 3.0])
    before = calibrated(predictions)
    own = predictions.fold == 1
    logits = predictions.logits.astype(float)
    others = fit_temperature(logits[~own], predictions.label[~own])
    assert before[own] == pytest.approx(softmax(logits[own] / others, axis=1))
    predictions.label[own] = (predictions.label[own] + 1) % 5
    after = calibrated(predictions)
    assert np.array_equal(before[own], after[own])
    assert not np.allclose(before[~own], after[~own])


def test_calibration_error_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.42, 0.58], [0.0, 1.0]])
    label = np.array([0, 1, 1, 1])
    # 0.9: right in half of two clips; 0.58 and 1.0: right.
    expected = (2 * 0.4 + 0.42 + 0) / 4
    assert expected_calibration_error(probabilities, label) == pytest.approx(expected)
    rows = reliability(probabilities, label)
    assert sum(row[0] for row in rows) == 4
    assert rows[-1][0] == 1
    assert rows[13] == (2, pytest.approx(0.9), 0.5)


def test_temperature_lowers_the_calibration_error():
    found = summarise(folds_of([3.0, 3.0, 3.0], 1000), 1, 0)
    assert found.ece > 0.1
    assert found.ece_calibrated < 0.03
    assert found.loss_calibrated < found.loss


def test_thresholds_have_the_best_f1():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 200)
    probabilities = softmax(rng.standard_normal((200, 4)) + 1.5 * np.eye(4)[label], axis=1)
    found = thresholds(probabilities, label)
    for n in range(3):
        column = probabilities[:, n]
        best = max(f1_score(label == n, column >= t) for t in column)
        assert f1_score(label == n, column >= found[n]) == pytest.approx(best, abs=0.01)
    assert found[3] == NO_THRESHOLD  # of a class without clips


def test_answered_clips_are_as_often_right_as_wanted():
    predictions = folds_of([1.0] * 4, 2000)
    rows = answered(predictions, calibrated(predictions))
    assert [row.wanted for row in rows] == [0.9, 0.95, 0.99]
    shares = [row.share for row in rows]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.2
    for row in rows:
        assert row.precision == pytest.approx(row.wanted, abs=0.02)


def test_answered_says_where_no_precision_is_reached():
    label = np.arange(40) % 4
    names = [f"{n:02}" for n in range(20)]
    wrong = 3 * np.eye(4)[(label + 1) % 4]
    predictions = Predictions.of_run(1, 0, names, label[:20], wrong[:20]).merged(
        Predictions.of_run(2, 0, [f"x{n}" for n in names], label[20:], wrong[20:])
    )
    for row in answered(predictions, softmax(wrong, axis=1)):
        assert (row.share, row.precision) == (0, None)


def test_outside_sounds_are_told_by_the_better_score():
    inside, label = drawn(200, 2.0)
    known = Predictions.of_run(1, 0, [str(n) for n in range(200)], label, inside)
    outside = 0.1 * np.random.default_rng(1).standard_normal((50, 5)) - 3
    names = [f"{'noise' if n % 2 else 'music'}/{n}" for n in range(50)]
    found = outside_scores(known, Predictions.of_run(1, 0, names, np.zeros(50, int), outside))
    assert found.sources == {"music": 25, "noise": 25}
    assert found.inside_clips == 200
    assert min(found.auroc.values()) > 0.9
    assert found.auroc[found.best] == max(found.auroc.values())
    same = outside_scores(
        known, Predictions.of_run(1, 0, [f"a/{n}" for n in range(200)], label, inside)
    )
    assert set(same.auroc.values()) == {0.5}


def test_summarise_refuses_what_gives_no_calibration():
    one = folds_of([1.0])
    with pytest.raises(InputError, match="two folds at least"):
        summarise(one, 1, 0)
    several = Predictions(one.clip, np.eye(5)[one.label], one.fold, one.seed, one.logits)
    with pytest.raises(InputError, match="one class"):
        summarise(several, 1, 0)
