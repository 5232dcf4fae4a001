from collections import Counter

import numpy as np
import pytest

from qaudio.data.splits import grouped_folds


def made(seed, clips=300, groups=60, classes=3):
    rng = np.random.default_rng(seed)
    of = rng.integers(classes, size=groups)  # a source is mostly of one class
    own = rng.integers(groups, size=clips)
    labels = np.where(rng.random(clips) < 0.9, of[own], rng.integers(classes, size=clips))
    return [(int(label),) for label in labels], [f"g{n}" for n in own]


@pytest.mark.parametrize("seed", range(10))
def test_a_group_has_one_fold_and_classes_are_even(seed):
    labels, groups = made(seed)
    folds = grouped_folds(labels, groups, 5, seed)
    assert len(set(zip(groups, folds, strict=True))) == len(set(groups))
    assert set(folds) == {1, 2, 3, 4, 5}
    counts = Counter(zip(labels, folds, strict=True))
    for label in set(labels):
        own = [counts[label, fold] for fold in range(1, 6)]
        assert max(own) - min(own) <= 0.4 * np.mean(own)


def test_without_groups_every_class_is_dealt_evenly():
    labels = [(0,)] * 40 + [(1,)] * 10
    folds = grouped_folds(labels, [str(n) for n in range(50)], 5, 0)
    counts = Counter(zip(labels, folds, strict=True))
    assert {counts[(0,), fold] for fold in range(1, 6)} == {8}
    assert {counts[(1,), fold] for fold in range(1, 6)} == {2}


def test_it_is_as_even_as_scikit_learns():
    from sklearn.model_selection import StratifiedGroupKFold

    def uneven(labels, folds):
        counts = Counter(zip(labels, folds, strict=True))
        return sum(
            np.std([counts[label, fold] for fold in range(1, 6)]) for label in sorted(set(labels))
        )

    ours, theirs = 0.0, 0.0
    for seed in range(10):
        labels, groups = made(seed)
        ours += uneven(labels, grouped_folds(labels, groups, 5, seed))
        found = np.zeros(len(labels), int)
        split = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        plain = [label for (label,) in labels]
        for n, (_, test) in enumerate(split.split(plain, plain, groups), 1):
            found[test] = n
        theirs += uneven(labels, found.tolist())
    assert ours <= 1.1 * theirs


def test_the_split_depends_on_the_seed_and_not_on_the_order():
    labels, groups = made(0)
    folds = grouped_folds(labels, groups, 5, 0)
    assert folds == grouped_folds(labels, groups, 5, 0)
    assert folds != grouped_folds(labels, groups, 5, 1)
    assert folds[::-1] == grouped_folds(labels[::-1], groups[::-1], 5, 0)


def test_several_labels_are_stratified_together():
    labels = [(0,), (0, 1), (1,), ()] * 25
    folds = grouped_folds(labels, [str(n) for n in range(100)], 5, 0)
    for label in (0, 1):
        counts = Counter(f for own, f in zip(labels, folds, strict=True) if label in own)
        assert set(counts.values()) == {10}


def test_fewer_groups_than_folds_are_refused():
    with pytest.raises(ValueError, match="2 groups cannot fill 3 folds"):
        grouped_folds([(0,)] * 4, ["a", "a", "b", "b"], 3, 0)
