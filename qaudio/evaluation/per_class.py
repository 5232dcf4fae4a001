"""Scores of each class: report.json of an entry, made from its predictions."""

from typing import Any

import numpy as np

from qaudio.evaluation.metrics import DIGITS, average_precisions
from qaudio.evaluation.predictions import Predictions

FILE = "report.json"


def report(predictions: Predictions, labels: list[str] | None) -> dict[str, Any]:
    """Scores of every class over all clips and runs; average precisions are means over folds.

    One label a clip: precision, recall, their harmonic mean f1 and support (clips), as scikit-learn
    defines them; 0 where nothing was given or nothing is there. Several labels a clip: average
    precision, None for a class without a positive clip, and support (positive clips).
    """
    classes = predictions.logits.shape[1]
    names = labels or [str(c) for c in range(classes)]
    if predictions.label.ndim == 2:
        support = predictions.label.sum(0)
        rows = [
            {"average_precision": score, "support": int(count)}
            for score, count in zip(average_precisions(predictions), support, strict=True)
        ]
    else:
        given = predictions.logits.argmax(-1)
        rows = [_row(given == c, predictions.label == c) for c in range(classes)]
    return {
        "runs": len(predictions.runs()),
        "classes": {
            name: {key: round(x, DIGITS) if isinstance(x, float) else x for key, x in row.items()}
            for name, row in zip(names, rows, strict=True)
        },
    }


def _row(given: np.ndarray, true: np.ndarray) -> dict[str, Any]:
    found = int((given & true).sum())
    precision, recall = found / max(1, int(given.sum())), found / max(1, int(true.sum()))
    f1 = 2 * precision * recall / (precision + recall) if found else 0.0
    return {"precision": precision, "recall": recall, "f1": f1, "support": int(true.sum())}
