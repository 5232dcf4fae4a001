"""The comparison as one HTML page that needs nothing else: no network, no other files.

Tables are written here, so that the page can be read without JavaScript; the script sorts and
filters them, draws the charts and sets two entries side by side. Names and labels come from other
people's files: markup is escaped, the data block holds no "<", and the page's policy runs no script
but its own.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np
from tqdm import tqdm

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

FIRST_ASCENDING = ("entry", "licence", *(m.title for m in MEASURES.values()))
WORDS = ' class="words"'  # may break into lines, as figures may not
NOTHING = '<span class="none">–</span>'


def render(comparison: Comparison, peers: list[Peer] | None = None) -> str:
    """The page.

    Args:
        comparison: what to show.
        peers: what others published, shown in a block of its own.
    """
    groups = comparison.groups
    style, script = _part("report.css"), _part("report.js")
    sections = [_section(n, group) for n, group in enumerate(groups)]
    data = {"groups": [_data(group) for group in groups]}
    benchmarks = {group.benchmark: group.title for group in groups}
    count = sum(len(group.members) for group in groups)
    return Template(_part("report.html")).substitute(
        policy=(
            f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
            "img-src data:; base-uri 'none'; form-action 'none'"
        ),
        version=__version__,
        style=style,
        script=script,
        data=_json(data),
        count=f"{count} entries" if count != 1 else "one entry",
        benchmarks="".join(
            f'<option value="{escape(key)}">{escape(title)}</option>'
            for key, title in benchmarks.items()
        ),
        sections="\n".join([*sections, *_left_out(comparison), *_published(peers or [])]),
    )


def _part(name: str) -> str:
    return files("qaudio.compare").joinpath(name).read_text(encoding="utf-8")


def _hash(source: str) -> str:
    digest = hashlib.sha256(source.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _json(data: dict[str, Any]) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _section(number: int, group: Group) -> str:
    options = "".join(
        f'<option value="{n}">{escape(member.name)}</option>'
        for n, member in enumerate(group.members)
    )
    axes = "".join(
        f'<option value="{key}">{escape(measure.title)}</option>'
        for key, measure in MEASURES.items()
    )
    notes = "".join(
        f"<li>{escape(note)}.</li>" for note in [*condition_notes(group), TO_BEST]
    )  # fmt: skip
    title = escape(group.title)
    pair = f"""
<div class="panel pair" hidden>
<h3>Two entries of {title} side by side</h3>
<div class="choices">
<label>first <select>{options}</select></label>
<label>second <select>{_selected(options, 1)}</select></label>
</div>
<p class="verdict" role="status"></p>
<div class="outcome"></div>
</div>"""
    return f"""<section id="group{number}" data-title="{title}" aria-labelledby="title{number}">
<h2 id="title{number}">{title}</h2>
<p class="protocol">Protocol: {escape(group.protocol)}</p>
{_table(group)}
<ul class="notes">{notes}</ul>
<figure class="panel chart" hidden>
<figcaption class="choices"><strong>{title}: {escape(group.metric)} against</strong>
<label>cost <select>{axes}</select></label></figcaption>
<div class="canvas"></div>
<ol class="numbers"></ol>
<ul class="legend"></ul>
<p class="details"></p>
</figure>{pair if len(group.members) > 1 else ""}
</section>"""


def _selected(options: str, number: int) -> str:
    return options.replace(f'value="{number}"', f'value="{number}" selected', 1)


def _table(group: Group) -> str:
    titles = ["entry", group.metric, "95 % interval", *(m.title for m in MEASURES.values()),
              "to the best", "licence"]  # fmt: skip
    heads = []
    for title in titles:
        first = "ascending" if title in FIRST_ASCENDING else "descending"
        sort = ' aria-sort="descending"' if title == group.metric else ""
        kind = ' data-text="yes"' if title in ("entry", "licence") else ""
        heads.append(
            f'<th scope="col" role="columnheader" data-first="{first}"{sort}{kind}>'
            f"{escape(title)}</th>"
        )
    named = {key: marks(group, measure) for key, measure in MEASURES.items()}
    rows = []
    for n, member in enumerate(group.members):
        best = group.members[0]
        cells: list[tuple[Any, str]] = [(member.mean, score_text(member)),
                                        (member.low, interval_text(member))]  # fmt: skip
        for key, measure in MEASURES.items():
            mark = named[key].get(measure.condition(member), "")
            value = measure.of(member)
            shown = f"{cost_text(member, measure)}{mark}" if value is not None else ""
            cells.append((value, shown))
        if member is best:
            cells.append((0, "the best"))
        else:
            difference = group.difference(member, best)
            cells.append((difference.mean if difference else None, to_best(group, member)))
        cells.append((member.license, member.license or "not stated"))
        under = f'<span class="sub">{escape(member.parent)}</span>' if member.parent else ""
        columns = "".join(
            f'<td role="cell"{WORDS if title == "licence" else ""} data-title="{escape(title)}" '
            f'data-value="{"" if value is None else escape(str(value))}">'
            f"{escape(_unbroken(text)) or NOTHING}</td>"
            for title, (value, text) in zip(titles[1:], cells, strict=True)
        )
        rows.append(
            f'<tr role="row" data-member="{n}"><th scope="row" role="rowheader" '
            f'data-value="{escape(member.name)}">{_breakable(member.name)}{under}</th>{columns}</tr>'
        )
    # Roles are stated because small screens lay the table out as blocks, which would drop them.
    return f"""<table class="entries" role="table">
<caption>{escape(group.title)}, {escape(group.protocol)}: {len(group.members)} measured</caption>
<thead role="rowgroup"><tr role="row">{"".join(heads)}</tr></thead>
<tbody role="rowgroup">
{chr(10).join(rows)}
</tbody>
</table>"""


def _unbroken(text: str) -> str:
    """A figure whose unit and ± stay on the line of their number."""
    return re.sub(
        r"(?<=\d) (?=(?:%|ms|[kMGT]B?|B)(?!\w))| (?=±)|(?<=±) ", "\N{NO-BREAK SPACE}", text
    )


def _breakable(name: str) -> str:
    """A name as markup that may break into lines after its dots and underscores."""
    return escape(name).replace(".", ".<wbr>").replace("_", "_<wbr>")


def _left_out(comparison: Comparison) -> list[str]:
    lines = [f"<li>{escape(name)}: without results</li>" for name in comparison.unscored]
    lines += [
        f"<li>{escape(source)}: {escape(fault.removeprefix(source).lstrip(': '))}</li>"
        for source, fault in comparison.faults
    ]
    if not lines:
        return []
    return [f"<section><h2>Left out, or in part</h2><ul>{''.join(lines)}</ul></section>"]


def _published(peers: list[Peer]) -> list[str]:
    if not peers:
        return []
    tables = []
    for title, members in published.by_benchmark(peers).items():
        heads = ("model", "score", "parameters", "MACs (10 s)", "note", "source", "how known")
        rows = []
        for peer in members:
            cells = [*published.cells(peer), peer.source, peer.basis]
            columns = "".join(
                f'<td role="cell" data-title="{head}">{escape(_unbroken(cell)) or "–"}</td>'
                for head, cell in zip(heads[1:], cells[1:], strict=True)
            )
            rows.append(
                f'<tr role="row"><th scope="row" role="rowheader">{escape(cells[0])}</th>'
                f"{columns}</tr>"
            )
        top = "".join(f'<th scope="col" role="columnheader">{head}</th>' for head in heads)
        tables.append(
            f'<table class="entries peers" role="table"><caption>{escape(title)}</caption>'
            f'<thead role="rowgroup"><tr role="row">{top}</tr></thead>'
            f'<tbody role="rowgroup">{"".join(rows)}</tbody></table>'
        )
    return [
        f'<section id="peers"><h2>{published.HEADING}</h2><p class="protocol">{published.REMARK}'
        f"</p>{''.join(tables)}</section>"
    ]


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
    for i, one in enumerate(tqdm(group.members, desc="pairs", delay=2, leave=False, disable=None)):
        for j, other in enumerate(group.members):
            difference = group.difference(one, other) if i != j else None
            if difference is not None:
                low, high = difference.interval95
                found[f"{i},{j}"] = {
                    "low": low, "high": high, "clips": difference.clips,
                    "text": _unbroken(difference_text(difference)),
                }  # fmt: skip
    return found
