"""The confusion matrix of an entry as a picture, which carries its own numbers.

The bytes of a picture depend on the versions of the libraries that drew it. So its counts are
stored in it, as text, and `verify` compares those with what predictions.npz gives; the picture as a
whole is held by its sha256.
"""

from pathlib import Path

import numpy as np

from qaudio.cards.pictures import numbers_of, write_png
from qaudio.errors import EntryError
from qaudio.evaluation.predictions import Predictions
from qaudio.zoo.schema import Config, Results

FILE = "confusion.png"
MOST_CLASSES = 60  # beyond these, nobody reads them


def pictured(config: Config, results: Results) -> bool:
    """Whether an entry has the picture: all folds scored, one class a clip, names to write."""
    return (
        results.complete
        and results.result.metric == "accuracy"
        and config.labels is not None
        and len(config.labels) <= MOST_CLASSES
    )


def confusion(predictions: Predictions) -> np.ndarray:
    """Counts over all clips and runs: (true class, given class)."""
    classes = predictions.logits.shape[1]
    pairs = predictions.label.astype(np.int64) * classes + predictions.logits.argmax(-1)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def draw(predictions: Predictions, labels: list[str], path: Path) -> None:
    """Write the picture: each row, a true class, in percent of its clips."""
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    counts, names = confusion(predictions), [label.replace("_", " ") for label in labels]
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    cell, margin = 0.42, 0.4 + 0.08 * max(map(len, names))  # inches
    side = margin + cell * len(names) + 0.1
    figure = Figure(figsize=(side, side), dpi=110)
    low, span = margin / side, cell * len(names) / side
    axes = figure.add_axes((low, low, span, span))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    for (row, column), share in np.ndenumerate(shares):
        if share:
            colour = "white" if share > 55 else "black"
            axes.text(column, row, f"{share:.3g}", ha="center", va="center", color=colour, size=9)
    ticks = range(len(names))
    axes.set_xticks(ticks, names, rotation=90)
    axes.set_yticks(ticks, names)
    axes.set_xlabel("given class")
    axes.set_ylabel("true class (% of its clips)")
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # a name such as "$" is no formula
    write_png(figure, {"labels": labels, "counts": counts.tolist()}, path)


def check(path: Path, predictions: Predictions, labels: list[str]) -> None:
    """Raise EntryError unless the picture holds the counts that the predictions give."""
    if numbers_of(path) != {"labels": labels, "counts": confusion(predictions).tolist()}:
        raise EntryError(f"{path.parent.name}: {FILE} shows other counts than predictions.npz")
