"""Honest probabilities: temperature, reliability, thresholds, and sounds of none of the classes.

Whatever is fitted for the clips of a fold is fitted on the held-out clips of the other folds.

Guo et al., *On Calibration of Modern Neural Networks*, ICML 2017 (temperature); Hendrycks & Gimpel,
ICLR 2017, and Liu et al., *Energy-based Out-of-distribution Detection*, NeurIPS 2020 (scores).
"""

from collections import Counter
from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq
from scipy.special import logsumexp, softmax
from sklearn.metrics import precision_recall_curve, roc_auc_score

from qaudio.errors import InputError
from qaudio.evaluation.predictions import Predictions
from qaudio.evaluation.result import Answered, Calibration, Outside

BINS = 15
COLDEST, HOTTEST = 0.05, 20.0  # temperatures
PRECISIONS = (0.9, 0.95, 0.99)  # asked of the clips that are answered
DIGITS = 4  # of every number: what all machines agree on
NO_THRESHOLD = 0.5  # of a class that no clip to fit on has
# Scores that separate known sounds from others; each (N, C) logits -> (N,), high for known ones.
SCORES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "max softmax": lambda logits: softmax(logits, axis=1).max(axis=1),
    "energy": lambda logits: logsumexp(logits, axis=1),
}


def fit_temperature(logits: np.ndarray, label: np.ndarray) -> float:
    """The temperature T by which softmax(logits / T) gives the labels the highest likelihood.

    Args:
        logits: (N, C).
        label: class indices (N,).

    Returns:
        `COLDEST` to `HOTTEST`, rounded.

    Raises:
        ValueError: without clips.
    """
    if not len(label):
        raise InputError("a temperature needs clips to be fitted on")
    logits = np.asarray(logits, float)
    own = logits[np.arange(len(label)), label]

    def slope(inverse: float) -> float:  # of the mean loss by 1 / T, which it rises with
        expected = (softmax(inverse * logits, axis=1) * logits).sum(axis=1)
        return float((expected - own).mean())

    low, high = 1 / HOTTEST, 1 / COLDEST
    if slope(low) >= 0:
        return HOTTEST
    if slope(high) <= 0:
        return COLDEST
    return round(1 / brentq(slope, low, high, xtol=1e-12), DIGITS)


def calibrated(predictions: Predictions) -> np.ndarray:
    """Probabilities (N, C) of every clip, each fold's by a temperature that it had no part in."""
    found = np.zeros(predictions.logits.shape)
    for seed, fold in predictions.runs():
        own = (predictions.seed == seed) & (predictions.fold == fold)
        logits, label = _others(predictions, seed, fold)
        found[own] = softmax(
            predictions.logits[own].astype(float) / fit_temperature(logits, label), axis=1
        )
    return found


def reliability(
    probabilities: np.ndarray, label: np.ndarray
) -> list[tuple[int, float | None, float | None]]:
    """Clips, mean confidence and accuracy of each of `BINS` equal ranges of confidence.

    Args:
        probabilities: (N, C); the confidence of a clip is its largest.
        label: class indices (N,).
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == label
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    rows: list[tuple[int, float | None, float | None]] = []
    for n in range(BINS):
        held = place == n
        if held.any():
            rows.append(
                (int(held.sum()), float(confidence[held].mean()), float(right[held].mean()))
            )
        else:
            rows.append((0, None, None))
    return rows


def expected_calibration_error(probabilities: np.ndarray, label: np.ndarray) -> float:
    """Mean distance of confidence and accuracy over clips, by `reliability`'s bins."""
    gaps = [
        count * abs(confidence - right)
        for count, confidence, right in reliability(probabilities, label)
        if confidence is not None and right is not None
    ]
    return sum(gaps) / len(label)


def thresholds(probabilities: np.ndarray, label: np.ndarray) -> list[float]:
    """For each class the least probability at which the F1 score of giving it is best.

    Args:
        probabilities: (N, C).
        label: class indices (N,).
    """
    found = []
    for n in range(probabilities.shape[1]):
        if not (label == n).any():
            found.append(NO_THRESHOLD)
            continue
        precision, recall, least = precision_recall_curve(label == n, probabilities[:, n])
        both = np.maximum(precision + recall, 1e-12)
        best = int((2 * precision * recall / both)[:-1].argmax())
        # Rounded down, so that the clip at the threshold is still in.
        found.append(float(np.floor(least[best] * 10**DIGITS) / 10**DIGITS))
    return found


def answered(predictions: Predictions, probabilities: np.ndarray) -> list[Answered]:
    """What share of clips is answered, and how often rightly, where a precision is wanted.

    A fold's clips are answered from the confidence on that reaches the precision on the others.

    Args:
        probabilities: of the same clips, (N, C).
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == predictions.label
    rows: list[Answered] = []
    for wanted in PRECISIONS:
        given = np.zeros(len(right), bool)
        for seed, fold in predictions.runs():
            own = (predictions.seed == seed) & (predictions.fold == fold)
            others = (predictions.seed == seed) & (predictions.fold != fold)
            least = _least_confidence(confidence[others], right[others], wanted)
            given[own] = confidence[own] >= least
        precision = round(float(right[given].mean()), DIGITS) if given.any() else None
        share = round(float(given.mean()), DIGITS)
        rows.append(Answered(wanted=wanted, share=share, precision=precision))
    return rows


def _least_confidence(confidence: np.ndarray, right: np.ndarray, wanted: float) -> float:
    """Confidence from which on a precision is reached by as many clips as possible."""
    order = np.argsort(-confidence, kind="stable")
    precision = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    enough = np.flatnonzero(precision >= wanted)
    return float(confidence[order[enough[-1]]]) if len(enough) else np.inf


def summarise(
    predictions: Predictions, fold: int, seed: int, outside: Predictions | None = None
) -> Calibration:
    """Calibration as `results.json` holds it.

    Args:
        predictions: held-out clips of all folds, one class each.
        fold, seed: of the run whose weights the entry carries: temperature and thresholds are
            fitted on its seed's other folds.
        outside: logits by these weights of sounds of none of the classes; ids are "SOURCE/CLIP".

    Raises:
        ValueError: for several labels a clip, or fewer than two folds.
    """
    check(predictions)
    logits, label = _others(predictions, seed, fold)
    temperature = fit_temperature(logits, label)
    before = softmax(predictions.logits.astype(float), axis=1)
    after = calibrated(predictions)
    return Calibration(
        temperature=temperature,
        thresholds=thresholds(softmax(logits / temperature, axis=1), label),
        ece=round(expected_calibration_error(before, predictions.label), DIGITS),
        ece_calibrated=round(expected_calibration_error(after, predictions.label), DIGITS),
        loss=round(_loss(before, predictions.label), DIGITS),
        loss_calibrated=round(_loss(after, predictions.label), DIGITS),
        answered=answered(predictions, after),
        outside=None if outside is None else outside_scores(predictions.run(seed, fold), outside),
    )


def outside_scores(inside: Predictions, outside: Predictions) -> Outside:
    """How well sounds of no class are separated from held-out clips, by each of `SCORES`."""
    known = inside.logits.astype(float), outside.logits.astype(float)
    is_known = np.repeat([1, 0], [len(rows) for rows in known])
    sources = Counter(str(clip).partition("/")[0] for clip in outside.clip)
    auroc = {
        name: round(float(roc_auc_score(is_known, np.concatenate(list(map(score, known))))), DIGITS)
        for name, score in SCORES.items()
    }
    return Outside(
        inside_clips=len(inside.clip), sources=dict(sorted(sources.items())), auroc=auroc,
        best=max(auroc, key=lambda name: auroc[name]),
    )  # fmt: skip


def check(predictions: Predictions) -> None:
    """Raise ValueError for predictions that no calibration can be fitted on."""
    if predictions.label.ndim != 1:
        raise InputError("calibration is for entries that give each clip one class")
    if len({fold for _, fold in predictions.runs()}) < 2:
        raise InputError("calibration needs held-out clips of two folds at least")


def _others(predictions: Predictions, seed: int, fold: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels of a seed's other folds."""
    held = (predictions.seed == seed) & (predictions.fold != fold)
    if not held.any():
        raise InputError(f"calibration of seed {seed} needs another fold than {fold}")
    return predictions.logits[held].astype(float), predictions.label[held]


def _loss(probabilities: np.ndarray, label: np.ndarray) -> float:
    """Mean cross-entropy."""
    own = probabilities[np.arange(len(label)), label]
    return float(-np.log(np.maximum(own, 1e-12)).mean())
