"""Reliability of an entry's probabilities as a picture, which carries its own numbers."""

from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from qaudio.cards.pictures import numbers_of, write_png
from qaudio.errors import EntryError
from qaudio.evaluation.calibration import BINS, calibrated, reliability
from qaudio.evaluation.predictions import Predictions

FILE = "reliability.png"


def _curves(predictions: Predictions) -> dict[str, list[list[float | None]]]:
    """Clips, confidence and accuracy of each bin, before and after temperature."""
    raw = softmax(predictions.logits.astype(float), axis=1)
    curves = {"as trained": raw, "with temperature": calibrated(predictions)}
    return {
        name: [
            [None if value is None else round(value, 3) for value in row]
            for row in reliability(probabilities, predictions.label)
        ]
        for name, probabilities in curves.items()
    }


def draw(predictions: Predictions, path: Path) -> None:
    """Write the picture: accuracy against confidence, and how many clips have it."""
    from matplotlib.figure import Figure

    curves = _curves(predictions)
    figure = Figure(figsize=(5.6, 5.2), dpi=110, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle="--")
    for (name, rows), (colour, marker) in zip(
        curves.items(), (("#b4540a", "s"), ("#0b6e99", "o")), strict=True
    ):
        points = np.array([row[1:] for row in rows if row[0]], float)
        upper.plot(*points.T, marker=marker, color=colour, label=name)
        centres = (np.arange(BINS) + 0.5) / BINS
        lower.step(centres, [row[0] for row in rows], where="mid", color=colour)
    upper.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
    upper.legend(frameon=False, loc="upper left")
    lower.set(xlabel="confidence", ylabel="clips", ylim=(0, None))
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
    write_png(figure, curves, path)


def check(path: Path, predictions: Predictions) -> None:
    """Raise EntryError unless the picture holds what the predictions give."""
    if not _equal(numbers_of(path), _curves(predictions)):
        raise EntryError(f"{path.parent.name}: {FILE} shows other numbers than predictions.npz")


def _equal(stored: Any, made: dict[str, list[list[float | None]]]) -> bool:
    """Whether curves are the same to the last digit but one, which machines may round apart."""
    try:
        one, other = (
            np.array([curves[name] for name in sorted(made)], float) for curves in (stored, made)
        )
    except (LookupError, TypeError, ValueError):
        return False
    return one.shape == other.shape and np.allclose(one, other, atol=0.002, equal_nan=True)
