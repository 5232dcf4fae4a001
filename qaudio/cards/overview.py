"""The README's picture: what a quaternion layer shares, and accuracy against milliseconds."""

from pathlib import Path
from typing import Any

from qaudio.cards.pictures import shows, to_svg
from qaudio.data.benchmarks.registry import about
from qaudio.zoo.store import entries, read_config, read_results

FILE = ".github/overview.svg"
# Rows of the real matrix of r + i·i + j·j + k·k: component and sign of each block.
HAMILTON = (
    ("r", "−i", "−j", "−k"),
    ("i", "r", "−k", "j"),
    ("j", "k", "r", "−i"),
    ("k", "−j", "i", "r"),
)
COLOURS = {"r": "#0b6e99", "i": "#b4540a", "j": "#3d7a3a", "k": "#7a3d78"}


def follows(text: str, folder: Path | None = None) -> bool:
    """Whether a picture shows the entries' present results, whoever drew it."""
    return shows(text, _described(_points(folder)[1]))


def draw(folder: Path | None = None) -> str:
    """The picture as SVG text, its figures once more in the description."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.6))
    _share(left)
    benchmark, points = _points(folder)
    _scatter(right, points, benchmark)
    return to_svg(figure, _described(points))


def _described(points: list[tuple[str, float, float, bool]]) -> str:
    """The figures of the picture, in words."""
    return "; ".join(f"{name}: {time:.1f} ms, {score:.1f} %" for name, time, score, _ in points)


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


def _points(folder: Path | None) -> tuple[str, list[tuple[str, float, float, bool]]]:
    """The benchmark and protocol that most entries were scored by, and a point for each of these.

    That is name, milliseconds after `optimize`, score in percent, quaternion or not.
    """
    found: dict[tuple[str, str], list[tuple[str, float, float, bool]]] = {}
    for path in entries(folder).values():
        one = read_results(path)
        if one and one.cost.latency:
            latency = one.cost.latency
            time = latency.optimized_milliseconds or latency.milliseconds
            name = one.entry.partition(".")[0] + _variant(one.entry)
            point = (name, time, 100 * one.result.mean, read_config(path).is_quaternion)
            found.setdefault((one.benchmark, one.protocol), []).append(point)
    (benchmark, _), points = max(found.items(), key=lambda item: len(item[1]))
    return benchmark, sorted(points, key=lambda point: point[1])


def _variant(name: str) -> str:
    """What follows the benchmark in an entry's name."""
    rest = name.partition(".")[2].partition("_")[2]
    return f" {rest}" if rest else ""


def _scatter(ax: Any, points: list[tuple[str, float, float, bool]], benchmark: str) -> None:
    for quaternion, marker, colour, label in (
        (True, "o", COLOURS["r"], "quaternion"), (False, "s", COLOURS["i"], "real"),
    ):  # fmt: skip
        own = [point for point in points if point[3] == quaternion]
        ax.scatter([p[1] for p in own], [p[2] for p in own], marker=marker, color=colour,
                   label=label)  # fmt: skip
    for n, (name, time, score, _) in enumerate(points):
        ax.annotate(name, (time, score), textcoords="offset points",
                    xytext=(5, 5 if n % 2 else -10), fontsize=7)  # fmt: skip
    ax.set_xlabel("milliseconds for 10 s (CPU, optimized)")
    ax.set_ylabel(f"{about(benchmark).title} accuracy, %")
    ax.margins(x=0.22)
    ax.set_xscale("log")
    for axis in (ax.xaxis.set_major_formatter, ax.xaxis.set_minor_formatter):
        axis("{x:g}")
    ax.grid(alpha=0.3, which="both")
    ax.legend(loc="lower left", fontsize=8)
