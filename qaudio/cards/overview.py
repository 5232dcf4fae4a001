"""The README's picture: what a quaternion layer shares, and accuracy against milliseconds.

The second half is of the machine that was recorded last, and empty in what has no such records.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from qaudio.cards.choice import PROBE, Candidate, recorded
from qaudio.cards.pictures import PLACES, place_labels, shows, to_svg

FILE = ".github/overview.svg"
# Rows of the real matrix of r + i·i + j·j + k·k: component and sign of each block.
HAMILTON = (
    ("r", "−i", "−j", "−k"),
    ("i", "r", "−k", "j"),
    ("j", "k", "r", "−i"),
    ("k", "−j", "i", "r"),
)
COLOURS = {"r": "#0b6e99", "i": "#b4540a", "j": "#3d7a3a", "k": "#7a3d78"}
STYLES = {
    "quaternion": ("o", COLOURS["r"], "quaternion"),
    "real": ("s", COLOURS["i"], "real"),
    "peer": ("^", "#555555", "others' networks"),
}


def follows(text: str, file: Path | None = None) -> bool:
    """Whether a picture shows the figures of `recorded(file)`, whoever drew it."""
    return shows(text, _described(*_points(file)))


def draw(file: Path | None = None) -> str:
    """The picture as SVG text, its figures once more in the description."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.6))
    _share(left)
    machine, points = _points(file)
    if points:
        _scatter(right, points)
        right.set_xlabel(f"milliseconds for 10 s, fastest fp32 runtime\n({machine})", fontsize=9)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # the layout stays the one that labels are placed in
        _label(right, points)
    else:
        right.axis("off")
    return to_svg(figure, _described(machine, points))


def _points(file: Path | None) -> tuple[str, list[Candidate]]:
    """The machine and its candidates that have a score, the fastest first."""
    *_, (machine, found) = [("", []), *recorded(file).items()]
    scored = [one for one in found if PROBE in one.scores and one.runtimes]
    return machine, sorted(scored, key=lambda one: one.best.fastest)


def _described(machine: str, points: list[Candidate]) -> str:
    """The figures of the picture, in words."""
    found = [
        f"{_short(one.network)} ({one.best.runtime}): {one.best.fastest:.1f} ms, "
        f"{100 * one.scores[PROBE].mean:.1f} %"
        for one in points
    ]
    return "; ".join([machine, *found]) if found else ""


def _short(name: str) -> str:
    """An entry's name without what all of them are: taggers of AudioSet."""
    arch, _, rest = name.partition(".")
    return f"{arch} {rest.removeprefix('audioset').removeprefix('_kd').strip('_')}".strip()


def _place(one: Candidate) -> tuple[float, float]:
    return one.best.fastest, 100 * one.scores[PROBE].mean


def _share(ax: Any) -> None:
    """The sixteen blocks of a real weight that a quaternion weight's four fill."""
    from matplotlib.patches import Rectangle

    for row, blocks in enumerate(HAMILTON):
        for column, block in enumerate(blocks):
            colour = COLOURS[block[-1]]
            ax.add_patch(Rectangle((column, 3 - row), 0.95, 0.95, facecolor=colour))
            ax.text(column + 0.48, 3.48 - row, block, ha="center", va="center", color="white",
                    fontsize=15)  # fmt: skip
    ax.set(xlim=(-0.05, 4), ylim=(0, 4.05), aspect="equal")
    ax.axis("off")
    ax.set_title("16 blocks of a real layer, 4 weights", fontsize=10)


def _front(points: list[Candidate]) -> list[tuple[float, float]]:
    """Where the candidates are that no faster one reaches, the fastest first."""
    front: list[tuple[float, float]] = []
    for place in map(_place, points):
        if not front or place[1] > front[-1][1]:
            front.append(place)
    return front


def _scatter(ax: Any, points: list[Candidate]) -> None:
    ax.plot(*zip(*_front(points), strict=True), color="#999999", linewidth=1, zorder=1)
    for family, (marker, colour, label) in STYLES.items():
        own = [_place(one) for one in points if one.family == family]
        if own:
            ax.scatter(*zip(*own, strict=True), marker=marker, color=colour, label=label)
    ax.set_ylabel(f"{PROBE}, %")
    ax.set_xscale("log")
    ax.margins(y=0.15)
    low, high = points[0].best.fastest, points[-1].best.fastest
    spread = max(high / low, 2)
    ax.set_xlim(low / spread**0.5, high * spread**0.2)  # names stand on the left
    for axis in (ax.xaxis.set_major_formatter, ax.xaxis.set_minor_formatter):
        axis("{x:g}")
    ax.tick_params(axis="x", which="both", labelsize=8)
    ax.grid(alpha=0.3, which="both")
    ax.legend(loc="lower right", fontsize=8)


def _label(ax: Any, points: list[Candidate]) -> None:
    """Name the points beside marks, front and legend."""
    from matplotlib.transforms import Bbox

    marks = [ax.transData.transform(_place(one)) for one in points]
    front = [ax.transData.transform(place) for place in _front(points)]
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in marks]
    for start, end in pairwise(front):  # a box for each tenth of the line
        corners = start + (end - start) * np.linspace(0, 1, 11)[:, None]
        taken += [Bbox(pair) for pair in pairwise(corners)]
    taken.append(ax.get_legend().get_window_extent())
    labels = [(_short(one.network), *_place(one)) for one in points]
    best = set(_front(points))
    left = sorted(PLACES, key=lambda place: (place[0], abs(place[1]), -place[1]))
    # Left of the front there are no other points.
    place_labels(ax, [label for label in labels if label[1:] in best], taken, left)
    place_labels(ax, [label for label in labels if label[1:] not in best], taken)
