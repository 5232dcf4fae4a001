"""Whether one network is better than another by more than chance, among many comparisons."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest

from qaudio.errors import InputError
from qaudio.evaluation.metrics import correct
from qaudio.evaluation.predictions import Predictions


def mcnemar(ours: Predictions, theirs: Predictions) -> float:
    """Two-sided p-value of McNemar's exact test (1947), paired clip by clip.

    Of the clips that only one of two networks gets right, each is as often the one's as the
    other's where the networks are equally good.

    Raises:
        InputError: when they were scored on other clips, or have more than one run of a clip.
    """
    clips, right = zip(*(_by_clip(one) for one in (ours, theirs)), strict=True)
    if not np.array_equal(*clips):
        raise InputError("the two were scored on other clips")
    only_ours, only_theirs = (int((a & ~b).sum()) for a, b in (right, right[::-1]))
    split = only_ours + only_theirs
    return float(binomtest(only_ours, split).pvalue) if split else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjustment (1979): p-values below a level are, all together, wrong as rarely as it."""
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(order), 0, -1)
    stepped = np.maximum.accumulate(np.asarray(p_values, float)[order] * factors)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted.tolist()


def _by_clip(one: Predictions) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(one.clip)
    clips = one.clip[order]
    if len(np.unique(clips)) < len(clips):
        raise InputError("McNemar's test takes one answer for each clip, not several")
    return clips, correct(one)[order].astype(bool)
