"""Scores that follow from predictions, of a whole network and class by class."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qaudio.errors import InputError
from qaudio.evaluation import average_precision
from qaudio.evaluation.predictions import Predictions
from qaudio.evaluation.result import Metric

DIGITS = 6  # of every score in results.json: the last ones that all machines agree on


def accuracy(predictions: Predictions) -> float:
    """Share of clips whose largest logit is their label's."""
    return float(correct(predictions).mean())


def mean_average_precision(predictions: Predictions) -> float:
    """Average precision, averaged over the classes that have a positive clip.

    Raises:
        ValueError: when no class has one.
    """
    if not predictions.label.any():
        raise InputError("mAP needs at least one class with a positive clip")
    found = average_precision.average_precisions(
        predictions.label, predictions.logits, _once(predictions)
    )
    return float(average_precision.mean_known(found[0], 0))


METRICS: dict[Metric, Callable[[Predictions], float]] = {
    "accuracy": accuracy, "mAP": mean_average_precision,
}  # fmt: skip


def metric_of(task: str) -> Metric:
    """Name of the metric that a task is scored by."""
    return "accuracy" if task == "multiclass" else "mAP"


def scores_by_class(predictions: Predictions, metric: Metric) -> list[float | None]:
    """Score of every class; None for a class that no clip has.

    Where `metric` is accuracy, the share of a class's clips that were found (its recall) over all
    clips and runs; where it is mAP, the class's average precision, as `summarise` takes means.
    """
    if metric == "mAP":
        return average_precisions(predictions)
    right, label = correct(predictions), predictions.label
    return [
        float(right[label == c].mean()) if (label == c).any() else None
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
    by_fold = np.stack(list(over_folds(runs).values()))
    return [None if np.isnan(x) else float(x) for x in average_precision.mean_known(by_fold, 0)]


def most_confused_class(predictions: Predictions) -> list[tuple[int | None, float]]:
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


def correct(predictions: Predictions) -> np.ndarray:
    """1 of each row whose largest logit is its label's, else 0: (N,)."""
    return (predictions.logits.argmax(-1) == predictions.label).astype(np.float64)


def over_folds(runs: dict[tuple[int, int], Any]) -> dict[int, Any]:
    """Each fold's score or scores, the mean over its seeds, of those of the runs (seed, fold)."""
    return {
        fold: np.mean([value for (_, other), value in runs.items() if other == fold], axis=0)
        for fold in sorted({fold for _, fold in runs})
    }


def _once(predictions: Predictions) -> np.ndarray:
    """Every clip drawn once, as `qaudio.evaluation.average_precision` counts draws."""
    return np.ones((1, len(predictions.clip)), np.int64)
