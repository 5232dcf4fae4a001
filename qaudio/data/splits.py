"""Splits of a user's own clips: stratified by class, a group never on two sides."""

import hashlib
import os
from collections.abc import Sequence

import numpy as np

from qaudio.errors import InputError


def grouped_folds(
    labels: Sequence[tuple[int, ...]], groups: Sequence[str], folds: int, seed: int
) -> list[int]:
    """A fold, from 1, for every clip; clips of one group get the same.

    Groups, the largest first, go one by one to the fold that leaves the counts of every class
    most even over the folds, as scikit-learn's StratifiedGroupKFold deals them. Groups of equal
    size come in order of a hash of seed and name, so the result does not depend on the clips'
    order.

    Args:
        labels: class indices of each clip.
        groups: source of each clip.
        seed: another seed gives another split.

    Raises:
        ValueError: for fewer groups than folds.
    """
    names = sorted(set(groups))
    if len(names) < folds:
        raise InputError(f"{len(names)} groups cannot fill {folds} folds")
    number = {name: n for n, name in enumerate(names)}
    classes = 1 + max(max(own, default=0) for own in labels)
    counts = np.zeros((len(names), classes))  # clips of each class in each group
    sizes = np.zeros(len(names))
    for own, group in zip(labels, groups, strict=True):
        counts[number[group], list(own)] += 1
        sizes[number[group]] += 1
    total = np.maximum(counts.sum(0), 1)

    def order(n: int) -> tuple[float, str]:
        # As bytes of a path: a file's name need not be text.
        return -sizes[n], hashlib.sha256(os.fsencode(f"{seed}:{names[n]}")).hexdigest()

    held, held_sizes = np.zeros((folds, classes)), np.zeros(folds)
    fold_of = {}
    for n in sorted(range(len(names)), key=order):
        # With a share of each class already dealt out, uneven folds have a larger sum of squares.
        uneven = [
            (((held[fold] + counts[n]) / total) ** 2 - (held[fold] / total) ** 2).sum()
            for fold in range(folds)
        ]
        best = min(range(folds), key=lambda fold: (round(uneven[fold], 12), held_sizes[fold], fold))
        held[best] += counts[n]
        held_sizes[best] += sizes[n]
        fold_of[names[n]] = best + 1
    return [fold_of[group] for group in groups]
