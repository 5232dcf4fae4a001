"""What others published of their networks: shown apart, because nothing of it was measured here."""

import json
from importlib.resources import files
from typing import Any

from qaudio.compare.tables import WIDTH, short_si, shorten, wrapped
from qaudio.data.benchmarks.registry import about
from qaudio.records import Count, Record, Share, Text, parse

INDENT = "    "
HEADING = "Published by others, not measured here"
REMARK = (
    "Read in the papers and code named, or computed from their architectures; data, splits and "
    "training differ, so compare them with caution and never as columns of one table."
)


class Peer(Record):
    """What others say of a network.

    Attributes:
        score: a fraction; two: a range; None: no figure.
        macs: for 10 s.
        basis: how the figures were got.
    """

    model: Text
    benchmark: Text
    metric: Text
    score: list[Share] | None
    params: Count | None
    macs: Count | None
    basis: Text
    note: Text | None
    source: Text


def read() -> list[Peer]:
    """The records of peers.json."""
    document = files("qaudio.compare").joinpath("peers.json").read_text(encoding="utf-8")
    return parse(json.loads(document), list[Peer])


def cells(peer: Peer) -> list[str]:
    """A record as shown: model, score, parameters, MACs, note."""
    score = " to ".join(f"{100 * share:.1f}" for share in peer.score or ())
    costs = [short_si(value) if value else "" for value in (peer.params, peer.macs)]
    return [peer.model, f"{score} %" if score else "", *costs, peer.note or ""]


def by_benchmark(peers: list[Peer]) -> dict[str, list[Peer]]:
    """Records by the title of benchmark and metric; the best first."""
    found: dict[str, list[Peer]] = {}
    for peer in sorted(peers, key=lambda peer: -max(peer.score or [0])):
        title = f"{about(peer.benchmark).title}, {peer.metric}"
        found.setdefault(title, []).append(peer)
    return dict(sorted(found.items()))


def text(peers: list[Peer]) -> str:
    """A block for a terminal: tables, then sources."""
    lines = [HEADING, *wrapped(REMARK, INDENT)]
    for title, members in by_benchmark(peers).items():
        sources = {peer.source: n for n, peer in enumerate(members, 1)}
        numbers = {source: n for n, source in enumerate(sources, 1)}
        rows = [[f"[{numbers[peer.source]}]", *cells(peer)] for peer in members]
        head = ["", "model", "score", "params", "MACs (10 s)", "note"]
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        lines += ["", title, ""]
        for row in (head, *rows):
            left = [row[0].ljust(widths[0]), row[1].ljust(widths[1])]
            right = [cell.rjust(width) for cell, width in zip(row[2:5], widths[2:5], strict=True)]
            lines.append(shorten("  ".join([*left, *right, row[5]]).rstrip(), WIDTH))
        lines.append("")
        lines += [
            line for source, n in numbers.items() for line in wrapped(f"[{n}] {source}", INDENT)
        ]
    return "\n".join(lines)


def document(peers: list[Peer]) -> dict[str, Any]:
    """The records for a JSON document; nothing where none were asked for."""
    rows = [peer.to_dict() for peer in peers]
    return {"published_by_others_not_measured_here": rows} if rows else {}
