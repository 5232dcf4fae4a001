"""Means over folds with bootstrap intervals, of one entry and of the difference of two.

`results.json` is made from predictions by `summarise` alone, so `verify` can make it again.
"""

import re
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from qaudio.errors import InputError
from qaudio.evaluation import average_precision
from qaudio.evaluation.metrics import DIGITS, METRICS, correct, over_folds
from qaudio.evaluation.predictions import Predictions
from qaudio.evaluation.result import Difference, Metric, Result

RESAMPLES = 2000
RANKED_RESAMPLES = 200  # of mAP, each of which ranks the clips of every class
Z = 1.959964  # of a normal distribution, between -Z and Z of which 95 % lie
_MAPS: WeakKeyDictionary[Predictions, dict[Any, np.ndarray]] = WeakKeyDictionary()


def summarise(predictions: Predictions, metric: Metric) -> Result:
    """Mean, spread and interval of a metric.

    Each fold's score is the mean over its seeds; `mean` and `std` (n−1) are over folds;
    `interval95` is a percentile bootstrap of that mean over clips; of mAP, which is higher for
    clips that are drawn twice, without the difference of the draws' mean to the score. For mAP,
    `classes` says how many classes have a positive clip.
    """
    score = METRICS[metric]
    runs = {run: score(predictions.run(*run)) for run in predictions.runs()}
    by_fold = {fold: float(value) for fold, value in over_folds(runs).items()}
    values = list(by_fold.values())
    # mAP is a mean over the classes that have a positive clip: how many those are.
    classes = int(predictions.label.any(0).sum()) if metric == "mAP" else None
    return Result(
        metric=metric,
        mean=round(float(np.mean(values)), DIGITS),
        std=round(float(np.std(values, ddof=1)), DIGITS) if len(values) > 1 else None,
        interval95=_interval(predictions, metric),
        folds={str(fold): round(value, DIGITS) for fold, value in by_fold.items()},
        runs={f"seed{s}_fold{f}": round(v, DIGITS) for (s, f), v in runs.items()},
        clips=len(np.unique(predictions.clip)),
        classes=classes,
    )


def paired_difference(
    child: Predictions, parent: Predictions, shared: str | None = None
) -> Difference:
    """Score of one entry less another's on the folds they share, with its interval.

    As `summarise` has it, the mean over folds of each fold's difference; the interval is over
    clips. A clip counts with the mean over an entry's own seeds, which need not be the other's: a
    network pruned with seed 1 may stem from weights trained with seed 0. `runs` are the child's.
    The score is accuracy, or mAP where a clip has several labels.

    Args:
        shared: a regular expression. The interval is then not over clips but over what it finds in
            their ids, as the speaker; `groups` says how many of these there are.

    Raises:
        ValueError: when they share no fold, were scored on other clips in one, by other labels or
            another metric, or `shared` is not found in a clip's id.
    """
    both = sorted({fold for _, fold in child.runs()} & {fold for _, fold in parent.runs()})
    if not both:
        raise InputError("the two entries share no fold that both were scored on")
    if child.label.ndim != parent.label.ndim:
        raise InputError("the two entries were scored by other metrics")
    folds = []
    for fold in both:
        (clips, labels), (others, theirs) = (_of_fold(one, fold) for one in (child, parent))
        if not np.array_equal(clips, others):
            raise InputError(f"the two entries were scored on other clips in fold {fold}")
        if not np.array_equal(labels, theirs):
            raise InputError(f"the two entries were scored by other labels in fold {fold}")
        folds.append(np.full(len(clips), fold))
    clips = _clips_of(child, both)
    groups = None if shared is None else _groups(clips, shared)
    metric: Metric
    if child.label.ndim == 1:
        metric, weights = "accuracy", _fold_weights(np.concatenate(folds))
        ours, theirs = (
            np.concatenate([_correct_by_clip(one, fold) for fold in both])
            for one in (child, parent)
        )
        mean = float(np.average(ours - theirs, weights=weights))
        interval = bootstrap_interval(ours - theirs, weights, groups=groups, bounds=(-1, 1))
    else:
        metric, drawn = "mAP", len(clips if groups is None else set(groups))
        ours, theirs = (_kept_bootstrap_maps(one, tuple(both), shared) for one in (child, parent))
        mean = float(ours[0] - theirs[0])
        interval = _centred_interval(ours - theirs, drawn, (-1, 1))
    return Difference(
        metric=metric,
        mean=round(mean, DIGITS),
        interval95=interval,
        runs=sum(fold in both for _, fold in child.runs()),
        clips=len(clips),
        groups=None if groups is None else len(set(groups)),
    )


def bootstrap_interval(
    values: np.ndarray,
    weights: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    bounds: tuple[float, float] = (0, 1),
) -> tuple[float, float]:
    """95 % percentile-bootstrap interval of the mean of per-clip values (N,), over clips or groups.

    Where all draws give the same mean m, they tell nothing of clips that are unlike these N: of
    such there may be a share of Z² / (N + Z²), as in Wilson's interval (1927) of N right ones of N,
    with any value within the bounds. 4 right of 4 thus give 51-100 %, not 100-100 %.

    Args:
        values: one for each clip.
        weights: of the clips in the mean, (N,); None: all alike.
        groups: names (N,); clips of one name are drawn together, or not at all. None: each alone.
    """
    weights = np.ones(len(values)) if weights is None else weights
    weighted, means = values * weights, []
    if groups is not None:
        own = np.unique(groups, return_inverse=True)[1]
        weighted, weights = np.bincount(own, weighted), np.bincount(own, weights)
    rng, count = np.random.default_rng(0), len(weights)
    for _ in range(RESAMPLES):
        drawn = rng.integers(count, size=count)
        means.append(weighted[drawn].sum() / weights[drawn].sum())
    return _percentile_interval(np.array(means), count, bounds)


def _percentile_interval(
    scores: np.ndarray, count: int, bounds: tuple[float, float]
) -> tuple[float, float]:
    """Between which 95 % of the scores of some draws of so many clips lie; see above."""
    low, high = (float(end) for end in np.percentile(scores, [2.5, 97.5]))
    if high - low < 10**-DIGITS:
        unlike = Z**2 / (count + Z**2)
        low, high = low + unlike * (bounds[0] - low), high + unlike * (bounds[1] - high)
    return round(low, DIGITS), round(high, DIGITS)


def _centred_interval(
    scores: np.ndarray, count: int, bounds: tuple[float, float]
) -> tuple[float, float]:
    """`_percentile_interval` of draws around the score of all clips, which is the first.

    A positive clip that is drawn twice ranks above more than it would alone: of a class with few
    positives, nearly every draw's average precision is higher than that of the clips drawn from.
    """
    known = scores[1:][~np.isnan(scores[1:])]
    moved = known - known.mean() + scores[0] if len(known) else scores[:1]
    return _percentile_interval(np.clip(moved, *bounds), count, bounds)


def _bootstrap_maps(predictions: Predictions, clips: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """mAP, the mean over folds, of all clips and then of each draw of them; NaN for one without.

    Args:
        predictions: of several labels a clip.
        clips: their ids, sorted within each fold as a whole or altogether, (N,).
        owner: number of what is drawn in a clip's place, such as its group, (N,).
    """
    rng, count = np.random.default_rng(0), owner.max() + 1
    draws = [rng.integers(count, size=count) for _ in range(RANKED_RESAMPLES)]
    counts = np.stack([np.bincount(drawn, minlength=count) for drawn in draws])
    counts = np.concatenate([np.ones((1, count), counts.dtype), counts])
    place = {clip: n for n, clip in enumerate(clips.tolist())}
    runs = {}
    for run in predictions.runs():
        own = predictions.run(*run)
        held = owner[[place[clip] for clip in own.clip.tolist()]]
        found = average_precision.average_precisions(own.label, own.logits, counts[:, held])
        runs[run] = average_precision.mean_known(found, 1)
    return average_precision.mean_known(np.stack(list(over_folds(runs).values())), 0)


def _kept_bootstrap_maps(
    one: Predictions, folds: tuple[int, ...], shared: str | None
) -> np.ndarray:
    """`_bootstrap_maps` over some folds, of clips or of what `shared` finds in their ids.

    Kept for as long as the predictions are: to compare M entries takes M of them, not one a pair.
    """
    kept = _MAPS.setdefault(one, {})
    if (folds, shared) not in kept:
        clips = _clips_of(one, folds)
        owner = np.arange(len(clips))
        if shared is not None:
            owner = np.unique(_groups(clips, shared), return_inverse=True)[1]
        kept[folds, shared] = _bootstrap_maps(one.select(np.isin(one.fold, folds)), clips, owner)
    return kept[folds, shared]


def _of_fold(predictions: Predictions, fold: int) -> tuple[np.ndarray, np.ndarray]:
    """The clips of a fold, sorted by id, and their labels."""
    held = predictions.select(predictions.fold == fold)
    clips, first = np.unique(held.clip, return_index=True)
    return clips, held.label[first]


def _clips_of(predictions: Predictions, folds: Sequence[int]) -> np.ndarray:
    """The clips of some folds, sorted by id within each."""
    return np.concatenate([_of_fold(predictions, fold)[0] for fold in folds])


def _groups(clips: np.ndarray, shared: str) -> np.ndarray:
    """What a regular expression finds in each clip's id (N,)."""
    names = []
    for clip in clips.tolist():
        found = re.search(shared, clip)
        if found is None:
            raise InputError(f"no {shared!r} in the id of clip {clip!r}")
        names.append(found[0])
    return np.array(names)


def _correct_by_clip(predictions: Predictions, fold: int) -> np.ndarray:
    """For each clip of a fold, sorted by id, the share of the seeds that got it right."""
    held = predictions.select(predictions.fold == fold)
    _, own = np.unique(held.clip, return_inverse=True)
    return np.bincount(own, correct(held)) / np.bincount(own)


def _fold_weights(folds: np.ndarray) -> np.ndarray:
    """Weights of clips in a mean over folds: in a fold of few clips each weighs more."""
    _, own, sizes = np.unique(folds, return_inverse=True, return_counts=True)
    return sizes.mean() / sizes[own]


def _interval(predictions: Predictions, metric: Metric) -> tuple[float, float]:
    """Of the mean over folds."""
    if metric == "mAP":
        clips = np.unique(predictions.clip)
        return _centred_interval(
            _bootstrap_maps(predictions, clips, np.arange(len(clips))), len(clips), (0, 1)
        )
    _, first, inverse = np.unique(predictions.clip, return_index=True, return_inverse=True)
    clip_of = np.argsort(np.argsort(first))[inverse]  # numbered as they come
    values = np.bincount(clip_of, correct(predictions)) / np.bincount(clip_of)
    return bootstrap_interval(values, _fold_weights(predictions.fold[np.sort(first)]))
