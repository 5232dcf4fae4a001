"""Comparisons as text for a terminal, as CSV and as a JSON document; how figures are written."""

import csv
import io
import textwrap
import unicodedata
from collections.abc import Iterable
from typing import Any

from qaudio.cards.tables import difference_text, interval, missing, percent, spread
from qaudio.compare.gather import MEASURES, Comparison, Group, Measure, Member
from qaudio.text import spreadsheet_safe

WIDTH = 100  # columns of a terminal that the tables fit
SHORTEST_NAME = 16  # columns
TO_BEST = (
    "to the best: paired difference on the same clips in points, with its 95 % interval; an "
    "interval that holds 0 leaves open which is better"
)


def si(value: float, unit: str = "") -> str:
    """Three digits and an SI prefix: 85.8 k, 1.24 M, 349 kB."""
    scaled, prefix = value, ""
    for step in ("k", "M", "G", "T"):
        if float(f"{scaled:.3g}") < 1000:
            break
        scaled, prefix = scaled / 1000, step
    digits = max(0, 2 - len(str(int(float(f"{scaled:.3g}")))) + 1)
    return f"{scaled:.{digits}f} {prefix}{unit}".rstrip()


def short_si(value: float) -> str:
    """As `si`, with no more digits than say something: 20 k, 9.9 G."""
    number, _, prefix = si(value).partition(" ")
    return f"{number.rstrip('0').rstrip('.') if '.' in number else number} {prefix}".rstrip()


def cost_text(member: Member, measure: Measure) -> str:
    """A member's value of a measure, as shown; empty where it was not measured."""
    value = measure.of(member)
    if value is None:
        return ""
    if measure.unit != "ms":
        return si(value, measure.unit)
    return f"{value:.1f} ms" if value < 1000 else f"{value / 1000:.1f} s"


def score_text(member: Member) -> str:
    """Mean and spread over folds, in percent; remarks on folds that are to come."""
    remark = missing(member.complete, member.runs)
    return f"{percent(member.mean)}{spread(member.std)}{remark}"


def interval_text(member: Member) -> str:
    """The 95 % interval in percent."""
    return interval((member.low, member.high))


def to_best(group: Group, member: Member) -> str:
    """The paired difference to the group's best; empty for itself and where there is none."""
    if member is group.members[0]:
        return ""
    difference = group.difference(member, group.members[0])
    return difference_text(difference) if difference else ""


def marks(group: Group, measure: Measure) -> dict[str, str]:
    """A letter for every condition of a measure, where there are several: they do not compare."""
    conditions = group.conditions(measure)
    if len(conditions) < 2:
        return dict.fromkeys(conditions, "")
    return {condition: f"[{_letters(n)}]" for n, condition in enumerate(conditions)}


def condition_notes(group: Group, measures: Iterable[Measure] = MEASURES.values()) -> list[str]:
    """What MACs and latencies of a group were measured on, a line for each."""
    notes = []
    for measure in measures:
        named = marks(group, measure)
        if named:
            parts = [f"{mark} {condition}".strip() for condition, mark in named.items()]
            apart = "; values of different letters do not compare" if len(parts) > 1 else ""
            notes.append(f"{measure.title}: {'; '.join(parts)}{apart}")
    return notes


def text(comparison: Comparison, sort: str = "score") -> str:
    """Tables for a terminal, one for each benchmark and protocol, at most 100 columns wide.

    Args:
        sort: "score" (best first), "name", or a key of MEASURES (smallest first).
    """
    parts = [_group_text(group, sort) for group in comparison.groups]
    if comparison.unscored:
        names = [f"  {shorten(name, WIDTH - 2)}" for name in comparison.unscored]
        parts.append("\n".join(["Without results, so not compared:", *names]))
    return "\n\n".join(parts)


def ordered(group: Group, sort: str) -> list[Member]:
    """The members of a group in the order of `sort`; those without a value last."""
    if sort == "score":
        return list(group.members)
    if sort == "name":
        return sorted(group.members, key=lambda member: member.name)
    measure = MEASURES[sort]
    return sorted(group.members, key=lambda m: (measure.of(m) is None, measure.of(m) or 0, -m.mean))


def _group_text(group: Group, sort: str) -> str:
    shown = {key: MEASURES[key] for key in ("params", "macs", "latency")}
    named = {key: marks(group, measure) for key, measure in shown.items()}
    rows = []
    for member in ordered(group, sort):
        costs = [
            f"{cost_text(member, m)}{named[key].get(m.condition(member), '')}"
            if m.of(member) is not None
            else "-"
            for key, m in shown.items()
        ]
        score = f"{100 * member.mean:.1f}{spread(member.std)}{'' if member.complete else '*'}"
        bounds = interval_text(member).removesuffix(" %")
        rows.append([score, bounds, *costs, to_best(group, member)])
    heads = [f"{group.metric} %", "interval", *shown, "to the best"]
    if not any(row[-1] for row in rows):
        heads, rows = heads[:-1], [row[:-1] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    room = WIDTH - sum(widths) - 2 * len(widths)
    members = ordered(group, sort)
    longest = max(columns(member.name) for member in members)
    name_width = min(longest, max(room, SHORTEST_NAME))
    lines = [_row("", name_width, heads, widths)]
    lines += [
        _row(shorten(member.name, name_width), name_width, row, widths)
        for member, row in zip(members, rows, strict=True)
    ]
    notes = [
        f"{group.metric}: ± over folds; interval: 95 %, over clips",
        *condition_notes(group, shown.values()),
    ]
    if heads[-1] == "to the best":
        notes.append(TO_BEST)
    if not all(member.complete for member in members):
        notes.append("*: some folds are still to be trained")
    title = shorten(f"{group.title}: {group.protocol}", WIDTH)
    return "\n".join([title, "", *lines, "", *(line for note in notes for line in wrapped(note))])


def _row(name: str, name_width: int, cells: list[str], widths: list[int]) -> str:
    padded = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
    return "  ".join([name + " " * (name_width - columns(name)), *padded]).rstrip()


def columns(text: str) -> int:
    """Columns that a text takes in a terminal."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


def shorten(text: str, width: int) -> str:
    """Text cut in its middle to fit a width: an entry's variant stands at its name's end."""
    if columns(text) <= width:
        return text
    start, end = (width - 1) // 2, len(text) - (width - 1) // 2
    while columns(f"{text[:start]}…{text[end:]}") > width:
        start, end = start - 1, end + 1
    return f"{text[:start]}…{text[end:]}"


def wrapped(note: str, indent: str = "  ") -> list[str]:
    """Lines of a note that fit the terminal."""
    return textwrap.wrap(note, WIDTH, subsequent_indent=indent)


def _letters(n: int) -> str:
    """a, b, …, z, aa, ab, …"""
    return (_letters(n // 26 - 1) if n >= 26 else "") + chr(ord("a") + n % 26)


FIELDS = ("benchmark", "protocol", "name", "metric", "mean", "std", "low", "high", "runs", "clips",
          "complete", "params", "macs", "bytes", "seconds", "latency", "optimized", "device",
          "license", "parent")  # fmt: skip


def rows(comparison: Comparison) -> list[dict[str, Any]]:
    """A flat record of every member; the paired difference to its group's best among the fields."""
    found = []
    for group in comparison.groups:
        for member in group.members:
            record = {name: getattr(member, name) for name in FIELDS}
            best = group.members[0]
            difference = None if member is best else group.difference(member, best)
            low, high = difference.interval95 if difference else (None, None)
            record |= {
                "best": None if member is best else best.name,
                "difference": difference.mean if difference else None,
                "difference_low": low,
                "difference_high": high,
            }
            found.append(record)
    return found


def to_csv(comparison: Comparison) -> str:
    """The records as CSV; scores as fractions, latency in milliseconds.

    A text that a spreadsheet would take for a formula gets an apostrophe before it.
    """
    file = io.StringIO()
    names = [*FIELDS, "best", "difference", "difference_low", "difference_high"]
    table = csv.DictWriter(file, names, lineterminator="\n")
    table.writeheader()
    for record in rows(comparison):
        texts = {key: spreadsheet_safe(one) for key, one in record.items() if isinstance(one, str)}
        table.writerow(record | texts)
    return file.getvalue()


def document(comparison: Comparison) -> dict[str, Any]:
    """The comparison as plain data for JSON: groups, members, paired differences, classes."""
    flat = iter(rows(comparison))
    groups = []
    for group in comparison.groups:
        pairs = [
            {"of": one.name, "less": other.name, **difference.to_dict()}
            for n, other in enumerate(group.members)
            for one in group.members[n + 1 :]
            if (difference := group.difference(one, other)) is not None
        ]
        members = [next(flat) | {"by_class": by_class(member)} for member in group.members]
        groups.append(
            {
                "benchmark": group.benchmark,
                "protocol": group.protocol,
                "metric": group.metric,
                "entries": members,
                "paired_differences": pairs,
            }
        )
    return {
        "groups": groups,
        "without_results": comparison.unscored,
        "failed": [{"source": source, "error": error} for source, error in comparison.faults],
    }


def by_class(member: Member) -> list[dict[str, Any]] | None:
    """Label and score of every class, in order of index."""
    if member.by_class is None:
        return None
    labels = member.labels or [f"class {n}" for n in range(len(member.by_class))]
    return [
        {"label": label, "score": score}
        for label, score in zip(labels, member.by_class, strict=True)
    ]
