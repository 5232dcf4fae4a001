"""`qaudio list`: architectures and pretrained entries."""

import argparse
import json
import sys
from typing import Any

from qaudio.commands.common import Commands
from qaudio.zoo.resolve import list_models
from qaudio.zoo.store import entries, hosted, read_config, read_results


def register(command: Commands) -> None:
    """Add the subcommand."""
    sub = command(
        "list", _list, "architectures and pretrained entries", "qaudio list 'qcnn10*' --pretrained"
    )
    sub.add_argument("pattern", nargs="?", default="*", help="shell-style pattern")
    sub.add_argument("--pretrained", action="store_true", help="only entries with weights")
    sub.add_argument("--benchmark", help="only entries of a benchmark, such as esc10")
    sub.add_argument("--json", action="store_true", help="print a JSON document")


def _list(options: argparse.Namespace) -> int:
    names = list_models(options.pattern, pretrained=options.pretrained, benchmark=options.benchmark)
    rows, shipped, others = [], entries(), hosted()
    for name in names:
        folder = shipped.get(name)
        row: dict[str, Any] = {"name": name, "pretrained": name in shipped or name in others}
        if folder is None and name in others:
            other = others[name]
            row |= {"license": other.license, "url": other.url, "citation": other.citation}
        if folder is not None:
            row["license"] = read_config(folder).license
            results = read_results(folder)
            if results is not None:
                row |= {
                    "metric": results.result.metric,
                    "score": results.result.mean,
                    "params": results.cost.params,
                    "macs": results.cost.macs,
                }
        rows.append(row)
    if options.json:
        print(json.dumps(rows, indent=1))
        return 0
    longest = max((len(name) for name in names), default=0)
    for row in rows:
        about = "architecture, no weights"
        if row["pretrained"]:
            about = row["license"] or "licence not stated"
        if "url" in row:
            about = f"hosted by others, downloaded at first use  {about}"
        if "score" in row:
            about = (
                f"{row['metric']} {100 * row['score']:5.1f} %  {row['params'] / 1e3:8.1f} k params "
                f" {row['macs'] / 1e9:6.3f} GMACs  {about}"
            )
        print(f"{row['name']:{longest}} {about}")
    if not rows:
        of = "" if options.benchmark is None else f" of benchmark {options.benchmark!r}"
        whole = set(options.pattern).isdisjoint("*?[")
        hint = f": patterns match whole names, '*{options.pattern}*' a part" if whole else ""
        print(f"nothing{of} matches {options.pattern!r}{hint}", file=sys.stderr)
    return 0 if rows else 1
