"""The picture of a grid of taggers: scores against the minutes that training took, as an SVG."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from qaudio.cards.pictures import shows, to_svg
from qaudio.data.benchmarks.registry import about
from qaudio.evaluation.result import Result
from qaudio.study.answers import Findings
from qaudio.study.carried_over import title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0b6e99", "#b4540a", "#3d7a3a", "#7a3d78", "#555555")  # one for each table
MARKS = "os^Dv*P"
LENGTH = "trainer.max_epochs"  # cells that differ in it alone are joined by a line


class Point(NamedTuple):
    """A cell's scores and what they took."""

    cell: str
    what: str
    table: int
    minutes: float
    scores: dict[str, Result]
    family: str | None  # cells that differ in length alone


def follows(svg: str, findings: Findings) -> bool:
    """Whether a picture shows the present results, whoever drew it."""
    return shows(svg, _described(points(findings)))


def draw(findings: Findings) -> str:
    """The picture as SVG text, its numbers once more in the description."""
    found = points(findings)
    return to_svg(figure(found, findings.study.reference), _described(found))


def figure(points: list[Point], reference: str) -> Figure:
    """A panel for the score that the cells were taught to have, and for every other.

    A mark is a score with its 95 % interval; dashed is the reference.
    """
    from matplotlib.figure import Figure

    panels = list(dict.fromkeys(name for point in points for name in point.scores)) or [""]
    drawn = Figure(figsize=(3.6 * len(panels), 5), layout="constrained")
    axes = drawn.subplots(1, len(panels), squeeze=False)[0]
    for ax, panel in zip(axes, panels, strict=True):
        _panel(ax, panel, [point for point in points if panel in point.scores], reference)
    handles, labels = axes[0].get_legend_handles_labels()
    if handles:
        drawn.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
    return drawn


def _panel(ax: Axes, panel: str, points: list[Point], reference: str) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    joined = sorted(points, key=lambda one: (one.family or "", one.minutes))
    for family, members in groupby(joined, key=lambda one: one.family):
        if family:
            line = [(one.minutes, 100 * one.scores[panel].mean) for one in members]
            ax.plot(*zip(*line, strict=True), color="#d0d0d0", zorder=0)
    counts: dict[int, int] = {}
    for one in points:
        result, colour = one.scores[panel], COLOURS[one.table % len(COLOURS)]
        if one.cell == reference:
            ax.axhline(100 * result.mean, color="#333333", linestyle="--", linewidth=1,
                       label=one.what)  # fmt: skip
            continue
        number = counts[one.table] = counts.get(one.table, -1) + 1
        y, (low, high) = 100 * result.mean, result.interval95
        ax.plot([one.minutes] * 2, [100 * low, 100 * high], color=colour, linewidth=0.7)
        ax.plot(one.minutes, y, MARKS[number % len(MARKS)], color=colour, label=one.cell)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("minutes of training", fontsize=9)
    ax.set_title(panel.replace(": ", "\n"), fontsize=9, parse_math=False)
    ax.grid(color="#e8e8e8")
    ax.spines[["top", "right"]].set_visible(False)


def points(findings: Findings) -> list[Point]:
    """Of the first benchmark, with the scores on that of the probes that has the most clips."""
    study = findings.study
    benchmark, made = study.benchmarks[0], list[Point]()
    for number, (_, names) in enumerate(study.tables):
        for cell in (study.cells[name] for name in names):
            found = study.results(cell, benchmark, findings.zoo)
            if found is None:
                continue
            scores = {f"{about(benchmark).title}: {found.result.metric}": found.result}
            others = [one for one in found.transfer if one.benchmark in study.probes]
            most = max((one.result.clips for one in others), default=0)
            scores |= {
                title((one.benchmark, one.protocol)): one.result
                for one in others if one.result.clips == most
            }  # fmt: skip
            family = cell.recipe if cell.changes.keys() == {LENGTH} else None
            minutes = found.training.wall_seconds / 60
            made.append(Point(cell.name, cell.what, number, minutes, scores, family))
    return made


def _described(points: list[Point]) -> str:
    """The numbers of the picture, in words."""
    return "; ".join(
        f"{one.cell}: {one.minutes:.1f} minutes, "
        + ", ".join(f"{name} {100 * result.mean:.1f} %" for name, result in one.scores.items())
        for one in points
    )
