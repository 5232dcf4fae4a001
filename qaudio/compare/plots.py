"""Pareto plots: score against what an entry costs, as PNG and SVG."""

from __future__ import annotations

import warnings
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from qaudio.cards.pictures import place_labels
from qaudio.compare.gather import MEASURES, Comparison, Group, Measure, Member
from qaudio.compare.tables import short_si, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLOTTED = ("params", "macs", "latency")
STYLES = {"quaternion": ("o", "#0b6e99"), "real": ("s", "#b4540a")}


def draw(comparison: Comparison) -> Figure:
    """A row of plots for each benchmark and protocol: log cost, score with its 95 % interval.

    Values measured under different conditions (seconds of sound, device) have fronts of their own.
    Needs no display.
    """
    from matplotlib.figure import Figure

    groups = comparison.groups
    figure = Figure(figsize=(16, 4.6 * max(len(groups), 1)), layout="constrained", dpi=110)
    if not groups:
        figure.text(0.5, 0.5, "no entry has results", ha="center")
        return figure
    axes = figure.subplots(len(groups), len(PLOTTED), squeeze=False)
    for row, group in zip(axes, groups, strict=True):
        for ax, key in zip(row, PLOTTED, strict=True):
            _plot(ax, group, MEASURES[key])
        title = shorten(f"{group.title}: {group.protocol}", 120)
        row[0].set_title(title, loc="left", fontweight="bold", parse_math=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # names in other scripts
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # the layout stays the one that labels are placed in
        for row, group in zip(axes, groups, strict=True):
            for ax, key in zip(row, PLOTTED, strict=True):
                _label(ax, group, MEASURES[key])
    return figure


def _shown(group: Group, measure: Measure) -> list[tuple[float, Member]]:
    return [(value, m) for m in group.members if (value := measure.of(m)) is not None]


def _plot(ax: Axes, group: Group, measure: Measure) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    shown = _shown(group, measure)
    conditions = group.conditions(measure)
    unit = ", ms" if measure.unit == "ms" else ""
    title = f"{measure.title}{unit}"
    alike = f" ({shorten(conditions[0], 50)})" if len(conditions) == 1 else ""
    ax.set_xlabel(f"{title}{alike}", parse_math=False)
    if not shown:
        ax.text(0.5, 0.5, f"no {measure.title} was measured", ha="center", transform=ax.transAxes)
        ax.set(xticks=[], yticks=[])
        return
    for n, front in enumerate(group.fronts(measure)):
        style: dict[str, Any] = {"color": "#555555", "linewidth": 1.2}
        if len(conditions) > 1:
            style |= {
                "linestyle": ("-", "--", "-.", ":")[n % 4],
                "label": shorten(conditions[n], 40),
            }
        ax.plot([value for value, _ in front], [100 * m.mean for _, m in front],
                drawstyle="steps-post", zorder=1, **style)  # fmt: skip
    for family, (marker, color) in STYLES.items():
        own = [(value, m) for value, m in shown if m.family == family]
        if own:
            ax.errorbar(
                [value for value, _ in own],
                [100 * m.mean for _, m in own],
                # From mean to bound; an interval may lie beside the mean over uneven folds.
                [[max(100 * (m.mean - m.low), 0) for _, m in own],
                 [max(100 * (m.high - m.mean), 0) for _, m in own]],
                fmt=marker, color=color, ecolor=f"{color}66", capsize=2, label=family,
            )  # fmt: skip
    ax.set_xscale("log")
    values = [value for value, _ in shown]
    ax.set_xlim(min(values) / 1.8, max(values) * 2.6)
    if max(values) / min(values) < 300:
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    plain = measure.unit == "ms"
    ax.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:g}" if plain else short_si(value))
    )
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.margins(y=0.12)
    ax.set_ylabel(f"{group.metric}, %", parse_math=False)
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    legend = ax.legend(loc="best", fontsize=8, framealpha=0.9)
    for line in legend.get_texts():
        line.set_parse_math(False)


def _label(ax: Axes, group: Group, measure: Measure) -> None:
    """Name the points, each where its name covers least of the marks and names there are."""
    from matplotlib.transforms import Bbox

    shown = _shown(group, measure)
    taken = []
    for value, member in shown:
        x, low = ax.transData.transform((value, 100 * member.low))
        _, y = ax.transData.transform((value, 100 * member.mean))
        _, high = ax.transData.transform((value, 100 * member.high))
        taken += [Bbox.from_bounds(x - 5, y - 5, 10, 10), Bbox([[x - 1, low], [x + 1, high]])]
    for front in group.fronts(measure):
        corners = [ax.transData.transform((value, 100 * m.mean)) for value, m in front]
        for (x0, y0), (x1, _) in pairwise(corners):
            taken.append(Bbox([[x0, y0 - 1], [x1, y0 + 1]]))
    if (legend := ax.get_legend()) is not None:
        taken.append(legend.get_window_extent())
    labels = [(shorten(member.name, 40), value, 100 * member.mean) for value, member in shown]
    place_labels(ax, labels, taken)
