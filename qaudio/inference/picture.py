"""The picture of an explanation: spectrogram, class activation, probabilities over time."""

import warnings
from collections.abc import Sequence
from typing import IO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qaudio.inference.explain import Explanation
from qaudio.text import shown

SPECTROGRAM, HEAT = "gray_r", "inferno"
COLOURS = ("#b4540a", "#0b6e99", "#4f7d3a", "#8a4f9e", "#7a6a58")  # the explained class is first
TICKS = (50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000)  # Hz
COLUMNS = 2000  # of a picture; longer spectrograms are averaged


def draw(explanation: Explanation, title: str = "", width: float = 10.0) -> Figure:
    """Three panels over one time axis. Needs no display.

    Args:
        title: shown above; the file and the entry, say.
        width: inches; text keeps its size, so a narrow picture can be read on a phone.
    """
    figure = Figure(figsize=(width, 7.6), layout="constrained", dpi=110)
    panels = figure.subplots(3, 1, sharex=True, height_ratios=(1, 1, 0.9))
    if title:
        figure.suptitle(shown(title), x=0.01, ha="left", fontsize=12, parse_math=False)
    prediction = explanation.prediction
    name = shown(prediction.label).replace("_", " ")
    _spectrogram(panels[0], explanation)
    panels[0].set_title("Spectrogram", loc="left", fontsize=10)
    _spectrogram(panels[1], explanation)
    space = round(8 * width) - 20
    name = name if len(name) <= space else name[: space - 1] + "…"
    heading = f"Where it finds “{name}” ({prediction.probability:.0%} overall)"
    if explanation.heat is None:
        _note(panels[1], explanation.reason or "")
    elif not explanation.heat.any():
        _note(panels[1], "no part of the sound speaks for this class")
    else:
        _heat(panels[1], explanation)
    panels[1].set_title(heading, loc="left", fontsize=10, parse_math=False)
    _probabilities(panels[2], explanation, 3 if width > 8 else 2)
    panels[2].set_title("Probabilities over time", loc="left", fontsize=10)
    panels[2].set_xlabel("seconds")
    panels[2].set_xlim(*explanation.seconds)
    return figure


def write(figure: Figure, file: IO[bytes], kind: str = "png") -> None:
    """Write a figure as "png", "svg" or "pdf"."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # names in other scripts
        figure.savefig(file, format=kind)


def _image(values: np.ndarray) -> np.ndarray:
    """(frames, mels) as an image with at most `COLUMNS` columns, (mels, columns)."""
    if len(values) > COLUMNS:
        edges = np.linspace(0, len(values), COLUMNS + 1).astype(int)[:-1]
        values = np.add.reduceat(values, edges) / np.diff([*edges, len(values)])[:, None]
    return values.T


def _spectrogram(axes: Axes, explanation: Explanation) -> None:
    image = _image(explanation.spectrogram)
    # What is silent to the last digit would take the whole scale.
    loud = image[image > image.min() + 1e-3]
    low, high = np.percentile(loud, (2, 99.8)) if len(loud) else (0.0, 1.0)
    mels = image.shape[0]
    axes.imshow(
        image, origin="lower", aspect="auto", cmap=SPECTROGRAM,
        vmin=low, vmax=max(high, low + 1e-6),
        extent=(*explanation.seconds, -0.5, mels - 0.5),
    )  # fmt: skip
    hertz = explanation.hertz
    ticks = [hz for hz in TICKS if hertz[0] <= hz <= hertz[-1]]
    places = np.interp(ticks, hertz, np.arange(mels))
    kept = [n for n in range(len(ticks)) if n == 0 or places[n] - places[n - 1] > 0.04 * mels]
    axes.set_yticks(places[kept], [str(ticks[n]).replace("000", "k") for n in kept])
    axes.set_ylabel("Hz")


def _heat(axes: Axes, explanation: Explanation) -> None:
    """Heat over the spectrogram, the more opaque the hotter."""
    assert explanation.heat is not None
    heat = _image(explanation.heat)
    heat = heat / heat.max()
    axes.imshow(
        heat, origin="lower", aspect="auto", cmap=HEAT, vmin=0, vmax=1.15,
        alpha=np.clip(1.4 * heat, 0, 0.8), interpolation="bilinear",
        extent=(*explanation.seconds, -0.5, heat.shape[0] - 0.5),
    )  # fmt: skip


def _note(axes: Axes, text: str) -> None:
    axes.text(
        0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, fontsize=10, wrap=True,
        parse_math=False, bbox={"facecolor": "white", "edgecolor": "#999999", "pad": 6},
    )  # fmt: skip


def shown_classes(explanation: Explanation) -> list[int]:
    """Classes whose curves are drawn: the explained one, then those that reach highest."""
    peaks = explanation.times.probabilities.max(axis=0)
    first = explanation.prediction.index
    others: Sequence[int] = [int(n) for n in np.argsort(-peaks, kind="stable") if n != first]
    return [first, *others][: len(COLOURS)]


def _probabilities(axes: Axes, explanation: Explanation, columns: int) -> None:
    """A curve for each class, one value in the middle of each window; a legend below."""
    times = explanation.times
    for place, index in enumerate(shown_classes(explanation)):
        values = times.probabilities[:, index]
        label = shown(times.labels[index]).replace("_", " ")
        if len(times.spans) == 1:  # a point has no line
            at, values = times.spans[0], values.repeat(2)
        else:
            at = times.spans.mean(axis=1)
        width = 2.2 if place == 0 else 1.3
        axes.plot(at, values, label=label, color=COLOURS[place], linewidth=width)
    highest = float(times.probabilities.max())
    axes.set_ylim(0, 1.02 if highest > 0.5 else max(0.1, 1.15 * highest))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    legend = axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.28),
        fontsize=9,
        frameon=False,
        ncols=columns,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
