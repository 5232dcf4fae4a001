"""Average precision: of one network's logits, for any number of times that each clip counts."""

import numpy as np


def average_precision(label: np.ndarray, logits: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Σ (R_n − R_{n−1})·P_n over the distinct logits, falling: scikit-learn's definition.

    Many weightings at once, as a bootstrap draws them; libraries take one at a time.

    Args:
        label: 0 or 1 of each clip, (N,).
        logits: of one class by one network, (N,).
        counts: how often each clip was drawn, (draws, N).

    Returns:
        (draws,); NaN for a draw without a positive clip.
    """
    order = np.argsort(-logits.astype(np.float64), kind="stable")
    falling, drawn = logits[order], counts[:, order]
    last = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))  # of equal logits
    found = np.cumsum(drawn * (label[order] > 0), axis=1)[:, last]
    given = np.cumsum(drawn, axis=1)[:, last]
    gained = np.diff(found, axis=1, prepend=0)
    with np.errstate(invalid="ignore"):
        return (gained * (found / np.maximum(given, 1))).sum(1) / found[:, -1]


def average_precisions(label: np.ndarray, logits: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """`average_precision` of every class: (draws, C), of labels and logits (N, C)."""
    classes = range(logits.shape[1])
    return np.stack([average_precision(label[:, c], logits[:, c], counts) for c in classes], 1)


def mean_known(values: np.ndarray, axis: int) -> np.ndarray:
    """The mean of what is not NaN; NaN where nothing is."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0).sum(axis) / known.sum(axis)
