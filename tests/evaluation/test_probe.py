import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from qaudio.data.benchmarks.audioset_names import ESC50
from qaudio.errors import InputError
from qaudio.evaluation.probe import GENTLE, by_label_map, fit_linear, linear_probe


def clouds(count: int, seed: int = 0):
    """Points around three centres in four dimensions, of very different scales."""
    rng = np.random.default_rng(seed)
    label = np.arange(count) % 3
    centres = np.array([[2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0]])
    return (centres[label] + rng.standard_normal((count, 4))) * [1, 100, 0.01, 1], label


@pytest.mark.parametrize("classes", [2, 3])
def test_linear_probe_is_logistic_regression_on_standardised_embeddings(classes) -> None:
    (train, label), (test, _) = clouds(90), clouds(30, seed=1)
    train, label = train[label < classes], label[label < classes]
    mean, deviation = train.mean(0), train.std(0)
    model = LogisticRegression(max_iter=5000).fit((train - mean) / deviation, label)
    expected = model.predict_log_proba((test - mean) / deviation)
    found = linear_probe(train, label, test, classes)
    found = found - np.log(np.exp(found).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_linear_probe_gives_unseen_classes_the_lowest_logit() -> None:
    train, label = clouds(90)
    found = linear_probe(train, label + (label == 2), train, 5)  # classes 0, 1 and 3
    assert (found[:, [2, 4]] < found[:, [0, 1, 3]].min(axis=1, keepdims=True)).all()
    assert np.isfinite(found.astype(np.float16)).all()


def test_linear_probe_needs_two_classes() -> None:
    with pytest.raises(InputError, match="two classes at least, not 1: give some of another"):
        linear_probe(np.ones((4, 2)), np.zeros(4, int), np.ones((1, 2)), 3)


def test_label_map_takes_the_largest_logit_of_the_names_that_mean_a_class() -> None:
    logits = np.array([[1.0, 5.0, 3.0], [2.0, 0.0, -1.0]])
    names = {"dog": ("Dog", "Bark"), "cat": ("Meow", "Cat")}
    found = by_label_map(logits, ["Bark", "Meow", "Dog"], names, ["dog", "cat"])
    np.testing.assert_array_equal(found, [[3.0, 5.0], [2.0, 0.0]])
    with pytest.raises(ValueError, match="no class of the tagger means 'cow'"):
        by_label_map(logits, ["Bark", "Meow", "Dog"], names, ["cow"])


def test_label_map_of_esc50_has_all_its_classes() -> None:
    assert len(ESC50) == 50 and all(ESC50.values())
    assert all(len(set(names)) == len(names) for names in ESC50.values())


def test_linear_probe_of_several_labels_is_a_regression_for_each() -> None:
    (train, first), (test, _) = clouds(90), clouds(30, seed=1)
    label = np.stack([first == 0, first != 1, first < 0, first >= 0], axis=1).astype(int)
    found = linear_probe(train, label, test, 4)
    mean, deviation = train.mean(0), train.std(0)
    for n in (0, 1):
        model = LogisticRegression(max_iter=5000).fit((train - mean) / deviation, label[:, n])
        expected = model.decision_function((test - mean) / deviation)
        np.testing.assert_allclose(found[:, n], expected, atol=1e-6)
    assert (found[:, 2] < found[:, :2].min(1)).all() and (found[:, 3] > found[:, :2].max(1)).all()
    assert np.isfinite(found.astype(np.float16)).all()


def test_gentle_probe_gives_embeddings_that_are_nearly_always_zero_no_huge_weights() -> None:
    """One clip has a little of an embedding that the others lack."""
    rng = np.random.default_rng(0)
    label = np.arange(60) % 2
    train = rng.standard_normal((60, 4)) + 3 * label[:, None]
    train[:, 3] = 0
    train[7, 3] = 1e-3
    plain, gentle = (fit_linear(train, label, 2, **how)[0] for how in ({}, GENTLE))
    assert np.abs(plain[:, 3]).max() > 100 > 100 * np.abs(gentle[:, 3]).max()
    answers = linear_probe(train, label, train, 2, **GENTLE).argmax(1)
    assert (answers == label).mean() > 0.8
