"""Scores of embeddings and of taggers without training the network.

Arrays in, logits out: nothing here knows where embeddings and labels come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

LINEAR, ZERO_SHOT = "linear probe", "zero-shot by label map"
REGULARISATION = 1.0  # scikit-learn's C, its default


def linear_probe(
    train: np.ndarray, label: np.ndarray, test: np.ndarray, classes: int
) -> np.ndarray:
    """Logits of a logistic regression on standardised embeddings.

    Args:
        train: embeddings to fit on, (N, D); their mean and deviation standardise both sets.
        label: their class indices, (N,).
        test: embeddings to score, (M, D).
        classes: number of classes; those without an embedding get the lowest logit.

    Returns:
        Logarithms of the probabilities, (M, classes).

    Raises:
        ValueError: when `label` holds fewer than two classes.
    """
    present = np.unique(label)
    if len(present) < 2:
        raise ValueError(f"a probe needs clips of two classes at least, not {len(present)}")
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=REGULARISATION, max_iter=5000)
    ).fit(train, label)
    logits = np.full((len(test), classes), -100.0)
    logits[:, present] = np.maximum(model.predict_log_proba(test), -99.0)
    return logits


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
