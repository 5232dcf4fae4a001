"""Predictions of an evaluation, and the results that follow from them.

`results.json` is made from predictions alone, so `verify` can make it again.
"""

from __future__ import annotations

import math
import os
import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from qaudio.evaluation import average_precision

RESAMPLES = 2000
RANKED_RESAMPLES = 200  # of mAP, each of which ranks the clips of every class
MOST_BYTES = 1 << 29  # that predictions.npz may unpack to; AudioSet's evaluation takes 1/10
# Of predictions.npz: kinds (numpy's letters) and numbers of axes.
ARRAYS = {
    "clip": ("U", (1,)), "label": ("iub", (1, 2)), "fold": ("iu", (1,)), "seed": ("iu", (1,)),
    "logits": ("f", (2,)),
}  # fmt: skip
Z = 1.959964  # of a normal distribution, between -Z and Z of which 95 % lie
DIGITS = 6  # of every score in results.json: the last ones that all machines agree on
_MAPS: WeakKeyDictionary[Predictions, dict[Any, np.ndarray]] = WeakKeyDictionary()


@dataclass(eq=False)
class Predictions:
    """Logits of scored clips, a row each.

    Attributes:
        clip: ids, (N,) str.
        label: class indices (N,), or 0/1 per class (N, C).
        fold: the held-out fold (N,).
        seed: of the training run (N,).
        logits: (N, C) float16; every score is computed from these rounded values.
    """

    clip: np.ndarray
    label: np.ndarray
    fold: np.ndarray
    seed: np.ndarray
    logits: np.ndarray

    @classmethod
    def of_run(
        cls, fold: int, seed: int, clip: list[str], label: np.ndarray, logits: np.ndarray
    ) -> Predictions:
        """Predictions of one run; rows in order of clip id.

        Raises:
            ValueError: for logits that are not finite, or not in float16.
        """
        order = np.argsort(np.array(clip))
        count = len(clip)
        found = cls(
            clip=np.array(clip)[order],
            label=np.asarray(label)[order],
            fold=np.full(count, fold),
            seed=np.full(count, seed),
            logits=_half(logits)[order],
        )
        found.check_finite()
        return found

    @classmethod
    def load(cls, path: str | os.PathLike) -> Predictions:
        """Read `predictions.npz`; raises ValueError naming what is wrong with it."""
        try:
            _check_sizes(path)
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in cls.__dataclass_fields__}
        except (
            OSError, ValueError, KeyError, EOFError, NotImplementedError,
            SyntaxError, TypeError, RuntimeError, zipfile.BadZipFile, zlib.error,
        ) as error:  # fmt: skip
            raise ValueError(f"{Path(path).name}: not readable as predictions ({error})") from None
        for name, (kinds, axes) in ARRAYS.items():
            array = arrays[name]
            if array.dtype.kind not in kinds or array.ndim not in axes:
                raise ValueError(
                    f"{Path(path).name}: {name} is an array of {array.dtype} and {array.ndim} axes"
                )
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) != 1 or not len(arrays["clip"]):
            raise ValueError(f"{Path(path).name}: arrays of unequal or no length {lengths}")
        return cls(**arrays)

    def check(self, classes: int, task: str) -> None:
        """Raise ValueError unless these are logits and labels of so many classes."""
        several = task == "multilabel"
        shape = self.logits.shape if several else self.logits.shape[:1]
        top = 2 if several else classes
        if (
            self.logits.shape[1] != classes
            or self.label.shape != shape
            or not ((self.label >= 0) & (self.label < top)).all()
        ):
            raise ValueError(f"predictions.npz: not the logits and labels of {classes} classes")
        self.check_finite()

    def check_finite(self) -> None:
        """Raise ValueError where a logit is NaN or infinite, of which no score can be made."""
        wrong = ~np.isfinite(self.logits).all(1)
        if wrong.any():
            raise ValueError(
                f"logits of {wrong.sum()} of {len(wrong)} clips are NaN or infinite, of "
                f"{self.clip[wrong][0].item()!r} first: training diverged; a lower --model.lr may "
                "help"
            )

    def save(self, path: str | os.PathLike) -> None:
        np.savez_compressed(path, **self.__dict__)

    def runs(self) -> list[tuple[int, int]]:
        """(seed, fold) of every run, sorted."""
        return sorted({(int(s), int(f)) for s, f in zip(self.seed, self.fold, strict=True)})

    def select(self, mask: np.ndarray) -> Predictions:
        """The rows where `mask` is true."""
        return Predictions(**{name: array[mask] for name, array in self.__dict__.items()})

    def run(self, seed: int, fold: int) -> Predictions:
        return self.select((self.seed == seed) & (self.fold == fold))

    def merged(self, other: Predictions) -> Predictions:
        """Both together; runs of `other` replace the same runs of this one. Sorted by run."""
        redone = set(other.runs())
        keep = [(int(s), int(f)) not in redone for s, f in zip(self.seed, self.fold, strict=True)]
        ours = self.select(np.array(keep, bool))
        both = Predictions(
            **{name: np.concatenate([a, other.__dict__[name]]) for name, a in ours.__dict__.items()}
        )
        return both.select(np.lexsort((both.clip, both.fold, both.seed)))


def _check_sizes(path: str | os.PathLike) -> None:
    """Raise ValueError where an archive unpacks to too much, or an array claims more than it has.

    Before numpy makes room for it.
    """
    with zipfile.ZipFile(path) as archive:
        items = archive.infolist()
        if sum(item.file_size for item in items) > MOST_BYTES:
            raise ValueError(f"unpacks to over {MOST_BYTES} bytes")
        for item in items:
            with archive.open(item) as file:
                if np.lib.format.read_magic(file) != (1, 0):
                    raise ValueError(f"{item.filename}: not an array in numpy's format 1.0")
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            if math.prod(shape) * dtype.itemsize > item.file_size:
                raise ValueError(f"{item.filename}: claims {shape}, more than the file holds")


def accuracy(predictions: Predictions) -> float:
    """Share of clips whose largest logit is their label's."""
    return float(_correct(predictions).mean())


def mean_average_precision(predictions: Predictions) -> float:
    """Average precision, averaged over the classes that have a positive clip.

    Raises:
        ValueError: when no class has one.
    """
    if not predictions.label.any():
        raise ValueError("mAP needs at least one class with a positive clip")
    found = average_precision.average_precisions(
        predictions.label, predictions.logits, _once(predictions)
    )
    return float(average_precision.mean_known(found[0], 0))


METRICS = {"accuracy": accuracy, "mAP": mean_average_precision}


def scores_by_class(predictions: Predictions, metric: str) -> list[float | None]:
    """Score of every class; None for a class that no clip has.

    Where `metric` is accuracy, the share of a class's clips that were found (its recall) over all
    clips and runs; where it is mAP, the class's average precision, as `summarise` takes means.
    """
    if metric == "mAP":
        return average_precisions(predictions)
    correct, label = _correct(predictions), predictions.label
    return [
        float(correct[label == c].mean()) if (label == c).any() else None
        for c in range(predictions.logits.shape[1])
    ]


def average_precisions(predictions: Predictions) -> list[float | None]:
    """Of every class, the mean over folds of the mean over seeds: each network ranks for itself.

    Of the folds where the class has a positive clip; None where it has none at all.
    """
    runs = {}
    for run in predictions.runs():
        own = predictions.run(*run)
        runs[run] = average_precision.average_precisions(own.label, own.logits, _once(own))[0]
    by_fold = np.stack(list(_over_folds(runs).values()))
    return [None if np.isnan(x) else float(x) for x in average_precision.mean_known(by_fold, 0)]


def _once(predictions: Predictions) -> np.ndarray:
    """Every clip drawn once, as `qaudio.evaluation.average_precision` counts draws."""
    return np.ones((1, len(predictions.clip)), np.int64)


def confused_with(predictions: Predictions) -> list[tuple[int | None, float]]:
    """For each class, the other one that its clips are most often taken for, and how often.

    Over all clips and runs; the lowest index of equals; (None, 0) where that never happens.
    """
    given, classes = predictions.logits.argmax(-1), predictions.logits.shape[1]
    found: list[tuple[int | None, float]] = []
    for c in range(classes):
        held = given[predictions.label == c]
        counts = np.bincount(held[held != c], minlength=classes)
        other = int(counts.argmax())
        found.append((other, float(counts[other] / len(held))) if counts[other] else (None, 0.0))
    return found


def metric_of(task: str) -> str:
    """Name of the metric that a task is scored by."""
    return "accuracy" if task == "multiclass" else "mAP"


def of_a_folder(results: dict[str, Any]) -> bool:
    """Whether an entry was trained on somebody's own recordings, under a name of their choice."""
    return results["protocol"].startswith(f"{results['dataset']}: ")


def summarise(predictions: Predictions, metric: str) -> dict[str, Any]:
    """The "result" of results.json: mean, spread and interval of a metric.

    Each fold's score is the mean over its seeds; `mean` and `std` (n−1) are over folds;
    `interval95` is a percentile bootstrap of that mean over clips; of mAP, which is higher for
    clips that are drawn twice, without the difference of the draws' mean to the score. For mAP,
    `classes` says how many classes have a positive clip.
    """
    score = METRICS[metric]
    runs = {run: score(predictions.run(*run)) for run in predictions.runs()}
    by_fold = {fold: float(value) for fold, value in _over_folds(runs).items()}
    values = list(by_fold.values())
    # mAP is a mean over the classes that have a positive clip: how many those are.
    classes = {"classes": int(predictions.label.any(0).sum())} if metric == "mAP" else {}
    return {
        "metric": metric,
        "mean": round(float(np.mean(values)), DIGITS),
        "std": round(float(np.std(values, ddof=1)), DIGITS) if len(values) > 1 else None,
        "interval95": _interval(predictions, metric),
        "folds": {str(fold): round(value, DIGITS) for fold, value in by_fold.items()},
        "runs": {f"seed{s}_fold{f}": round(v, DIGITS) for (s, f), v in runs.items()},
        "clips": len(np.unique(predictions.clip)),
        **classes,
    }


def paired_difference(
    child: Predictions, parent: Predictions, shared: str | None = None
) -> dict[str, Any]:
    """Score of one entry less another's on the folds they share, with its interval.

    As `summarise` has it, the mean over folds of each fold's difference; the interval is over
    clips. A clip counts with the mean over an entry's own seeds, which need not be the other's: a
    network pruned with seed 1 may stem from weights trained with seed 0. `runs` are the child's.
    The score is accuracy, or mAP where a clip has several labels.

    Args:
        child: predictions of the one.
        parent: predictions of the other.
        shared: a regular expression. The interval is then not over clips but over what it finds in
            their ids, as the speaker; `groups` says how many of these there are.

    Raises:
        ValueError: when they share no fold, were scored on other clips in one, by other labels or
            another metric, or `shared` is not found in a clip's id.
    """
    both = sorted({fold for _, fold in child.runs()} & {fold for _, fold in parent.runs()})
    if not both:
        raise ValueError("the two entries share no fold that both were scored on")
    if child.label.ndim != parent.label.ndim:
        raise ValueError("the two entries were scored by other metrics")
    folds = []
    for fold in both:
        (clips, labels), (others, theirs) = (_of_fold(one, fold) for one in (child, parent))
        if not np.array_equal(clips, others):
            raise ValueError(f"the two entries were scored on other clips in fold {fold}")
        if not np.array_equal(labels, theirs):
            raise ValueError(f"the two entries were scored by other labels in fold {fold}")
        folds.append(np.full(len(clips), fold))
    clips = _clips_of(child, both)
    groups = None if shared is None else _groups(clips, shared)
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
        ours, theirs = (_maps_of(one, tuple(both), shared) for one in (child, parent))
        mean = float(ours[0] - theirs[0])
        interval = _centred(ours - theirs, drawn, (-1, 1))
    return {
        "metric": metric,
        "mean": round(mean, DIGITS),
        "interval95": interval,
        "runs": sum(fold in both for _, fold in child.runs()),
        "clips": len(clips),
        **({} if groups is None else {"groups": len(set(groups))}),
    }


def bootstrap_interval(
    values: np.ndarray,
    weights: np.ndarray | None = None,
    seed: int = 0,
    groups: np.ndarray | None = None,
    bounds: tuple[float, float] = (0, 1),
) -> list[float]:
    """95 % percentile-bootstrap interval of the mean of per-clip values (N,), over clips or groups.

    Where all draws give the same mean m, they tell nothing of clips that are unlike these N: of
    such there may be a share of Z² / (N + Z²), as in Wilson's interval (1927) of N right ones of N,
    with any value within the bounds. 4 right of 4 thus give 51-100 %, not 100-100 %.

    Args:
        values: one for each clip.
        weights: of the clips in the mean, (N,); None: all alike.
        seed: of the draws.
        groups: names (N,); clips of one name are drawn together, or not at all. None: each alone.
        bounds: of a value.
    """
    weights = np.ones(len(values)) if weights is None else weights
    weighted, means = values * weights, []
    if groups is not None:
        own = np.unique(groups, return_inverse=True)[1]
        weighted, weights = np.bincount(own, weighted), np.bincount(own, weights)
    rng, count = np.random.default_rng(seed), len(weights)
    for _ in range(RESAMPLES):
        drawn = rng.integers(count, size=count)
        means.append(weighted[drawn].sum() / weights[drawn].sum())
    return _ends(np.array(means), count, bounds)


def _ends(scores: np.ndarray, count: int, bounds: tuple[float, float]) -> list[float]:
    """Between which 95 % of the scores of some draws of so many clips lie; see above."""
    ends = [float(end) for end in np.percentile(scores, [2.5, 97.5])]
    if ends[1] - ends[0] < 10**-DIGITS:
        unlike = Z**2 / (count + Z**2)
        ends = [mean + unlike * (bound - mean) for mean, bound in zip(ends, bounds, strict=True)]
    return [round(end, DIGITS) for end in ends]


def _centred(scores: np.ndarray, count: int, bounds: tuple[float, float]) -> list[float]:
    """`_ends` of draws around the score of all clips, which is the first.

    A positive clip that is drawn twice ranks above more than it would alone: of a class with few
    positives, nearly every draw's average precision is higher than that of the clips drawn from.
    """
    known = scores[1:][~np.isnan(scores[1:])]
    moved = known - known.mean() + scores[0] if len(known) else scores[:1]
    return _ends(np.clip(moved, *bounds), count, bounds)


def _drawn_maps(predictions: Predictions, clips: np.ndarray, owner: np.ndarray) -> np.ndarray:
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
    return average_precision.mean_known(np.stack(list(_over_folds(runs).values())), 0)


def _maps_of(one: Predictions, folds: tuple[int, ...], shared: str | None) -> np.ndarray:
    """`_drawn_maps` over some folds, of clips or of what `shared` finds in their ids.

    Kept for as long as the predictions are: to compare M entries takes M of them, not one a pair.
    """
    kept = _MAPS.setdefault(one, {})
    if (folds, shared) not in kept:
        clips = _clips_of(one, folds)
        owner = np.arange(len(clips))
        if shared is not None:
            owner = np.unique(_groups(clips, shared), return_inverse=True)[1]
        kept[folds, shared] = _drawn_maps(one.select(np.isin(one.fold, folds)), clips, owner)
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
            raise ValueError(f"no {shared!r} in the id of clip {clip!r}")
        names.append(found[0])
    return np.array(names)


def _half(logits: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is told
        return np.asarray(logits, np.float32).astype(np.float16)


def _correct(predictions: Predictions) -> np.ndarray:
    return (predictions.logits.argmax(-1) == predictions.label).astype(np.float64)


def _correct_by_clip(predictions: Predictions, fold: int) -> np.ndarray:
    """For each clip of a fold, sorted by id, the share of the seeds that got it right."""
    held = predictions.select(predictions.fold == fold)
    _, own = np.unique(held.clip, return_inverse=True)
    return np.bincount(own, _correct(held)) / np.bincount(own)


def _over_folds(runs: dict[tuple[int, int], Any]) -> dict[int, Any]:
    """Each fold's score or scores, the mean over its seeds, of those of the runs (seed, fold)."""
    return {
        fold: np.mean([value for (_, other), value in runs.items() if other == fold], axis=0)
        for fold in sorted({fold for _, fold in runs})
    }


def _fold_weights(folds: np.ndarray) -> np.ndarray:
    """Weights of clips in a mean over folds: in a fold of few clips each weighs more.

    Args:
        folds: of each clip, (N,).
    """
    _, own, sizes = np.unique(folds, return_inverse=True, return_counts=True)
    return sizes.mean() / sizes[own]


def _interval(predictions: Predictions, metric: str) -> list[float]:
    """Of the mean over folds."""
    if metric == "mAP":
        clips = np.unique(predictions.clip)
        return _centred(_drawn_maps(predictions, clips, np.arange(len(clips))), len(clips), (0, 1))
    _, first, inverse = np.unique(predictions.clip, return_index=True, return_inverse=True)
    clip_of = np.argsort(np.argsort(first))[inverse]  # numbered as they come
    values = np.bincount(clip_of, _correct(predictions)) / np.bincount(clip_of)
    return bootstrap_interval(values, _fold_weights(predictions.fold[np.sort(first)]))
