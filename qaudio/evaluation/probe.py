"""Scores of embeddings and of taggers without training the network.

Arrays in, logits out: nothing here knows where embeddings and labels come from.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from qaudio.errors import InputError

LINEAR, ZERO_SHOT = "linear probe", "zero-shot by label map"
REGULARISATION = 1.0  # scikit-learn's C, its default
# A classifier that training goes on from. Embeddings that are nearly always zero get huge weights
# from standardisation, and the smallest change of the network beneath would move every answer.
GENTLE: Mapping[str, float] = {"regularisation": 0.1, "least_deviation": 0.3}
LOWEST = -1e4  # logit of a class that the probe has not seen, within float16


def fit_linear(
    train: np.ndarray,
    label: np.ndarray,
    classes: int,
    *,
    regularisation: float = REGULARISATION,
    least_deviation: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Weight (classes, D) and bias (classes,) of a logistic regression on standardised embeddings.

    They take embeddings as they are: the standardisation is part of them. Classes without an
    embedding get a bias below every logit of the others.

    Args:
        train: embeddings, (N, D).
        label: their class indices, (N,); or, where several may apply, 0/1 per class (N, classes):
            then each class has a regression of its own.
        regularisation: scikit-learn's C; smaller is stronger.
        least_deviation: share of the root mean square of all deviations; a dimension that deviates
            less is standardised by that.

    Raises:
        InputError: when `label` holds fewer than two classes.
    """
    scaler = StandardScaler().fit(train)
    scaler.scale_ = np.maximum(scaler.scale_, least_deviation * np.sqrt(scaler.var_.mean()))
    standard = scaler.transform(train)
    weight, bias = np.zeros((classes, train.shape[1])), np.full(classes, LOWEST)
    if label.ndim == 2:
        bias[label.all(0)] = -LOWEST
        for n in np.flatnonzero(label.any(0) & ~label.all(0)):
            weight[[n]], bias[[n]] = _regression(standard, label[:, n], regularisation)
    else:
        present = np.unique(label)
        if len(present) < 2:
            raise InputError(
                f"a linear probe needs training clips of two classes at least, not {len(present)}: "
                "give some of another class, or another split"
            )
        rows, offsets = _regression(standard, label, regularisation)
        if len(present) == 2:  # one row, of the second class beside the first
            rows, offsets = (np.concatenate((-one, one)) / 2 for one in (rows, offsets))
        weight[present], bias[present] = rows, offsets
    weight = weight / scaler.scale_
    return weight, bias - weight @ scaler.mean_


def _regression(train: np.ndarray, label: np.ndarray, c: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows (C, D) and offsets (C,) of a logistic regression; of two classes, the second's alone."""
    model = LogisticRegression(C=c, max_iter=5000).fit(train, label)
    return model.coef_, model.intercept_


def linear_probe(
    train: np.ndarray, label: np.ndarray, test: np.ndarray, classes: int, **fit: float
) -> np.ndarray:
    """Logits (M, classes) of embeddings (M, D), by `fit_linear`, whose arguments the others are."""
    weight, bias = fit_linear(train, label, classes, **fit)
    return test @ weight.T + bias


def by_label_map(
    logits: np.ndarray,
    known: Sequence[str],
    names: Mapping[str, Sequence[str]],
    wanted: Sequence[str],
) -> np.ndarray:
    """A tagger's logits for classes that mean some of its own: the largest of those.

    Args:
        logits: of the tagger, (N, C).
        known: its class names, C of them.
        names: of each wanted class, the names that mean it.
        wanted: class names to score, in order.

    Returns:
        (N, len(wanted)).

    Raises:
        ValueError: for a class that the map lacks, or whose names the tagger does not know.
    """
    index = {name: n for n, name in enumerate(known)}
    columns = []
    for label in wanted:
        own = [index[name] for name in names.get(label, ()) if name in index]
        if not own:
            raise ValueError(f"no class of the tagger means {label!r}")
        columns.append(logits[:, own].max(axis=1))
    return np.stack(columns, axis=1)
