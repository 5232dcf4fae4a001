"""The picture of a study: how far every cell is from one of them, as an SVG.

Written here and not by a plotting library, because `verify` makes it anew byte for byte.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape

from qaudio.cards.tables import difference_text
from qaudio.data.benchmarks.registry import about
from qaudio.evaluation.result import Difference
from qaudio.study.answers import Findings
from qaudio.study.grid import FOLDER, Study

FILE = f"{FOLDER}/differences.svg"  # in the zoo's folder
LABELS, PANEL, GAP, LINE = 300, 250, 44, 21  # pixels: widths, and the height of a row
TOP, BOTTOM = 52, 46
TICKS = (1, 2, 5, 10, 20, 50, 100)  # points from one to the next
INK, FAINT = "#0b6e99", "#c8c8c8"

# Of a cell in words, and its differences by benchmark; None: a heading.
Row = tuple[str, dict[str, Difference] | None]


def draw(findings: Findings) -> str:
    """Paired differences to the study's reference, a panel for each benchmark.

    A cell's mark lies at the difference, its line is the 95 % interval; the mark is filled where
    that leaves zero out. Cells that were not run are left out.
    """
    study = findings.study
    rows: list[Row] = []
    for title, names in study.tables:
        found = [(study.cells[name].what, _differences(findings, name)) for name in names]
        if any(pairs for _, pairs in found):
            rows += [(title, None), *((what, pairs) for what, pairs in found if pairs)]
    bounds = [
        100 * bound
        for _, pairs in rows
        for pair in (pairs or {}).values()
        for bound in pair.interval95
    ]
    step = next(step for step in TICKS if max([0, *bounds]) - min([0, *bounds]) <= 8 * step)
    low = step * math.floor(min([-step, *bounds]) / step)
    high = step * math.ceil(max([step, *bounds]) / step)
    lefts = [LABELS + n * (PANEL + GAP) for n in range(len(study.benchmarks))]
    width, bottom = lefts[-1] + PANEL + GAP, TOP + LINE * len(rows)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {bottom + BOTTOM}" '
        f'width="{width}" height="{bottom + BOTTOM}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for benchmark, left in zip(study.benchmarks, lefts, strict=True):
        lines += _panel(study, benchmark, rows, left, bottom, (low, high, step))
    for n, (label, pairs) in enumerate(rows):
        # A heading runs over the grid, with a rim of white.
        heading = ' font-weight="bold" paint-order="stroke" stroke="white" stroke-width="5"'
        x, style = (8, heading) if pairs is None else (18, "")
        y = TOP + LINE * n + 15
        lines.append(f'<text x="{x}" y="{y}"{style}>{escape(label)}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def _differences(findings: Findings, name: str) -> dict[str, Difference]:
    """The difference of a cell to the reference on each benchmark where both were scored."""
    study = findings.study
    if name == study.reference:
        return {}
    pairs = {one: findings.difference(name, study.reference, one) for one in study.benchmarks}
    return {one: pair for one, pair in pairs.items() if pair is not None}


def _panel(
    study: Study,
    benchmark: str,
    rows: list[Row],
    left: int,
    bottom: int,
    scale: tuple[int, int, int],
) -> Iterator[str]:
    low, high, step = scale

    def x(points: float) -> str:
        return f"{left + PANEL * (points - low) / (high - low):.1f}"

    middle = left + PANEL / 2
    title = escape(about(benchmark).title)
    yield f'<text x="{middle}" y="20" text-anchor="middle" font-weight="bold">{title}</text>'
    for tick in range(low, high + 1, step):
        color = "#333333" if tick == 0 else FAINT
        yield (
            f'<line x1="{x(tick)}" x2="{x(tick)}" y1="{TOP - 8}" y2="{bottom}" stroke="{color}"/>'
        )
        for y in (TOP - 14, bottom + 15):
            number = f"{tick:+d}" if tick else "0"
            yield f'<text x="{x(tick)}" y="{y}" text-anchor="middle">{number}</text>'
    yield (
        f'<text x="{middle}" y="{bottom + 35}" text-anchor="middle">'
        f"points more than {escape(study.cells[study.reference].what)}</text>"
    )
    for n, (label, pairs) in enumerate(rows):
        pair = (pairs or {}).get(benchmark)
        if pair is None:
            continue
        start, end = pair.interval95
        fill = INK if pair.decided else "white"
        y = TOP + LINE * n + LINE // 2
        yield (
            f'<g stroke="{INK}" stroke-width="2"><title>{escape(label)}: {difference_text(pair)}'
            f'</title><line x1="{x(100 * start)}" x2="{x(100 * end)}" y1="{y}" y2="{y}"/>'
            f'<circle cx="{x(100 * pair.mean)}" cy="{y}" r="4.5" fill="{fill}"/></g>'
        )
