"""The picture of a study: paired differences of its cells to one of them, as an SVG."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qaudio.cards.pictures import shows, to_svg
from qaudio.cards.tables import difference_text
from qaudio.data.benchmarks.registry import about
from qaudio.evaluation.result import Difference
from qaudio.study.answers import Findings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, FAINT = "#0b6e99", "#d0d0d0"

# Of a cell in words, and its differences by benchmark; {}: a heading.
Row = tuple[str, dict[str, Difference]]


def follows(svg: str, findings: Findings) -> bool:
    """Whether a picture shows the present results, whoever drew it."""
    return shows(svg, _described(_rows(findings)))


def draw(findings: Findings) -> str:
    """The picture as SVG text, its numbers once more in the description."""
    return to_svg(figure(findings), _described(_rows(findings)))


def figure(findings: Findings) -> Figure:
    """Paired differences to the study's reference, a panel for each benchmark.

    A cell's mark lies at the difference, its line is the 95 % interval; the mark is filled where
    that leaves zero out. Cells that were not run are left out.
    """
    from matplotlib.figure import Figure

    study, rows = findings.study, _rows(findings)
    panels = len(study.benchmarks)
    drawn = Figure(figsize=(4 + 3.2 * panels, 1.4 + 0.25 * len(rows)), layout="constrained")
    axes = drawn.subplots(1, panels, sharey=True, squeeze=False)[0]
    for ax, benchmark in zip(axes, study.benchmarks, strict=True):
        ax.axvline(0, color="#333333", linewidth=1)
        for y, (_, pairs) in enumerate(rows):
            if pair := pairs.get(benchmark):
                low, high = pair.interval95
                ax.plot([100 * low, 100 * high], [y, y], color=INK)
                ax.plot(100 * pair.mean, y, "o", color=INK, mfc=INK if pair.decided else "white")
        ax.set_title(about(benchmark).title, parse_math=False)
        ax.grid(axis="x", color=FAINT)
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.tick_params(left=False)
    axes[0].set_yticks(range(len(rows)), [label for label, _ in rows], parse_math=False)
    axes[0].set_ylim(max(len(rows), 1) - 0.5, -0.5)
    for text, (_, pairs) in zip(axes[0].get_yticklabels(), rows, strict=True):
        text.set_fontweight("normal" if pairs else "bold")
    drawn.supxlabel(
        f"points more than {study.cells[study.reference].what}", fontsize=10, parse_math=False
    )
    return drawn


def _rows(findings: Findings) -> list[Row]:
    """Headings and the cells under them, those that were scored on a benchmark at least."""
    study, rows = findings.study, []
    for title, names in study.tables:
        found = [(study.cells[name].what, _differences(findings, name)) for name in names]
        if any(pairs for _, pairs in found):
            rows += [(title, {}), *(row for row in found if row[1])]
    return rows


def _differences(findings: Findings, name: str) -> dict[str, Difference]:
    """The difference of a cell to the reference on each benchmark where both were scored."""
    study = findings.study
    if name == study.reference:
        return {}
    pairs = {one: findings.difference(name, study.reference, one) for one in study.benchmarks}
    return {one: pair for one, pair in pairs.items() if pair is not None}


def _described(rows: list[Row]) -> str:
    """The numbers of the picture, in words."""
    return "; ".join(
        f"{label}, {benchmark}: {difference_text(pair)}"
        for label, pairs in rows
        for benchmark, pair in pairs.items()
    )
