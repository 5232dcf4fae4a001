"""The comparison as one HTML page that needs nothing else: no network, no other files.

Tables are in the template, so that the page can be read without JavaScript; the script sorts and
filters them, draws the charts and sets two entries side by side. Names and labels come from other
people's files: markup is escaped, the data block holds no "<", and the page's policy runs no script
but its own.
"""

import base64
import hashlib
import re
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from qaudio import __version__
from qaudio.cards.tables import difference_text
from qaudio.compare import peers as published
from qaudio.compare.gather import MEASURES, Comparison, Group, Member
from qaudio.compare.peers import Peer
from qaudio.compare.tables import (
    TO_BEST,
    condition_notes,
    cost_text,
    interval_text,
    marks,
    score_text,
    to_best,
)
from qaudio.progress import progress

FIRST_ASCENDING = ("entry", "licence", *(m.title for m in MEASURES.values()))


PEER_HEADS = ("model", "score", "parameters", "MACs (10 s)", "note", "source", "how known")


def render(comparison: Comparison, peers: list[Peer] | None = None) -> str:
    """The page."""
    groups = comparison.groups
    style, script = _part("report.css"), _part("report.js")
    count = sum(len(group.members) for group in groups)
    faults = [(name, fault.removeprefix(name).lstrip(": ")) for name, fault in comparison.faults]
    return _template().render(
        policy=(
            f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
            "img-src data:; base-uri 'none'; form-action 'none'"
        ),
        version=__version__,
        style=style,
        script=script,
        data={"groups": [_data(group) for group in groups]},
        count=f"{count} entries" if count != 1 else "one entry",
        benchmarks={group.benchmark: group.title for group in groups},
        groups=groups,
        titles=_titles,
        cells=_cells,
        notes=lambda group: [*condition_notes(group), TO_BEST],
        measures=MEASURES,
        first_ascending=FIRST_ASCENDING,
        texts=("entry", "licence"),
        left_out=[*((name, "without results") for name in comparison.unscored), *faults],
        published={
            title: [[*published.cells(peer), peer.source, peer.basis] for peer in members]
            for title, members in published.by_benchmark(peers or []).items()
        },
        heading=published.HEADING,
        remark=published.REMARK,
        peer_heads=PEER_HEADS,
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, autoescape=True,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"unbroken": _unbroken, "breakable": _breakable}
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment.get_template("report.html.jinja")


def _part(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _hash(source: str) -> str:
    digest = hashlib.sha256(source.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _titles(group: Group) -> list[str]:
    """Heads of a group's table."""
    costs = [measure.title for measure in MEASURES.values()]
    return ["entry", group.metric, "95 % interval", *costs, "to the best", "licence"]


def _cells(group: Group, member: Member) -> list[tuple[str, Any, str]]:
    """Title, value to sort by and text of a member's cells, the first apart."""
    cells: list[tuple[Any, str]] = [
        (member.mean, score_text(member)), (member.low, interval_text(member)),
    ]  # fmt: skip
    for measure in MEASURES.values():
        value = measure.of(member)
        mark = marks(group, measure).get(measure.condition(member), "")
        cells.append((value, "" if value is None else f"{cost_text(member, measure)}{mark}"))
    best = group.members[0]
    difference = None if member is best else group.difference(member, best)
    text = "the best" if member is best else to_best(group, member)
    cells.append((0 if member is best else difference and difference.mean, text))
    cells.append((member.license, member.license or "not stated"))
    return [(title, *cell) for title, cell in zip(_titles(group)[1:], cells, strict=True)]


def _unbroken(text: str) -> str:
    """A figure whose unit and ± stay on the line of their number."""
    return re.sub(
        r"(?<=\d) (?=(?:%|ms|[kMGT]B?|B)(?!\w))| (?=±)|(?<=±) ", "\N{NO-BREAK SPACE}", text
    )


def _breakable(name: str) -> str:
    """A name as markup that may break into lines after its dots and underscores."""
    return escape(name).replace(".", ".<wbr>").replace("_", "_<wbr>")


def _data(group: Group) -> dict[str, Any]:
    """What the script needs of a group: numbers, and every figure as text, written here once."""
    index = {member: n for n, member in enumerate(group.members)}
    return {
        "benchmark": group.benchmark,
        "metric": group.metric,
        "members": [_member(member, group.metric) for member in group.members],
        "facts": [{"title": title, "key": key} for title, key, _ in _facts(group.members[0])],
        "measures": {
            key: {
                "title": measure.title,
                "unit": measure.unit,
                "conditions": group.conditions(measure),
                "fronts": [[index[m] for _, m in front] for front in group.fronts(measure)],
            }
            for key, measure in MEASURES.items()
        },
        "pairs": _pairs(group),
    }


def _member(member: Member, metric: str) -> dict[str, Any]:
    facts = _facts(member)
    scores = member.by_class
    labels = member.labels or [f"class {n}" for n in range(len(scores or ()))]
    parent = f" ({member.parent})" if member.parent else ""
    details = "; ".join(f"{title} {_unbroken(text)}" for title, _, text in facts if text)
    return {
        "name": member.name,
        "family": member.family,
        "search": f"{member.name} {member.parent or ''} {member.license or ''} {member.family}"
        .lower(),
        "score": member.mean,
        "low": member.low,
        "high": member.high,
        "costs": {key: measure.of(member) for key, measure in MEASURES.items()},
        "conditions": {key: measure.condition(member) for key, measure in MEASURES.items()},
        "facts": [_unbroken(text) for *_, text in facts],
        "details": f"{member.name}{parent}: {details}",
        "labels": labels,
        "classes": scores,
        "clips": _clips_by_class(member),
    }  # fmt: skip


def _facts(member: Member) -> list[tuple[str, str | None, str]]:
    """Title, key of the measure, and text of what is known of a member."""
    return [
        (member.metric, None, score_text(member)),
        ("95 % interval", None, interval_text(member)),
        *((m.title, key, cost_text(member, m)) for key, m in MEASURES.items()),
        ("licence", None, member.license or "not stated"),
    ]


def _clips_by_class(member: Member) -> list[int] | None:
    if member.predictions is None:
        return None
    predictions = member.predictions
    _, first = np.unique(predictions.clip, return_index=True)
    label = predictions.label[first]
    if label.ndim == 2:
        return [int(count) for count in label.sum(0)]
    return [int(count) for count in np.bincount(label, minlength=predictions.logits.shape[1])]


def _pairs(group: Group) -> dict[str, dict[str, Any]]:
    """The paired difference of every two members, in both directions."""
    found = {}
    for i, one in enumerate(progress(group.members, "pairs")):
        for j, other in enumerate(group.members):
            difference = group.difference(one, other) if i != j else None
            if difference is not None:
                low, high = difference.interval95
                found[f"{i},{j}"] = {
                    "low": low, "high": high, "clips": difference.clips,
                    "text": _unbroken(difference_text(difference)),
                }  # fmt: skip
    return found
