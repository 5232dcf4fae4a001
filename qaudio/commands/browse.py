"""`qaudio list` and `qaudio info`: what there is."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from qaudio.commands.common import Commands
from qaudio.errors import EntryError
from qaudio.zoo.catalog import (
    DEFAULT_ENTRY,
    entries,
    entry_name,
    file_of,
    hosted,
    list_models,
    locate,
    read_config,
    read_json,
    read_results,
    read_source,
)


def register(command: Commands) -> None:
    """Add the subcommands of this module."""
    sub = command(
        "list", _list, "architectures and pretrained entries", "qaudio list 'qcnn10*' --pretrained"
    )
    sub.add_argument("pattern", nargs="?", default="*", help="shell-style pattern")
    sub.add_argument("--pretrained", action="store_true", help="only entries with weights")
    sub.add_argument("--benchmark", help="only entries of a benchmark, such as esc10")
    sub.add_argument("--json", action="store_true", help="print a JSON document")

    sub = command("info", _info, "what is known of an entry", f"qaudio info {DEFAULT_ENTRY}")
    sub.add_argument("entry", help="name, folder or hf-hub:org/name")
    sub.add_argument("--json", action="store_true", help="print config and results, whole")


def _list(options: argparse.Namespace) -> int:
    names = list_models(options.pattern, pretrained=options.pretrained, benchmark=options.benchmark)
    rows, shipped, others = [], entries(), hosted()
    for name in names:
        folder = shipped.get(name)
        row: dict[str, Any] = {"name": name, "pretrained": name in shipped or name in others}
        if folder is None and name in others:
            row |= {key: others[name][key] for key in ("license", "url", "citation")}
        if folder is not None:
            row["license"] = read_json(folder / "config.json")["license"]
            results = read_results(folder)
            if results is not None:
                row |= {
                    "metric": results["result"]["metric"],
                    "score": results["result"]["mean"],
                    "params": results["cost"]["params"],
                    "macs": results["cost"]["macs"],
                }
        rows.append(row)
    if options.json:
        print(json.dumps(rows, indent=1))
        return 0
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
        print(f"{row['name']:32} {about}")
    if not rows:
        of = "" if options.benchmark is None else f" of benchmark {options.benchmark!r}"
        print(f"nothing{of} matches {options.pattern!r}", file=sys.stderr)
    return 0 if rows else 1


def _info(options: argparse.Namespace) -> int:
    folder = locate(options.entry)
    config, results = read_config(folder), read_results(folder, whole=True)
    if options.json:
        print(json.dumps({"config": config, "results": results}, indent=1))
        return 0
    print(f"{entry_name(folder)}: {config['architecture']}, {config['num_classes']} classes")
    rows = [("licence", config["license"] or "not stated")]
    source = read_source(folder)
    if source:
        rows += [(key, source[key]) for key in ("file", "url", "citation") if key in source]
    if config["labels"]:
        rows.append(("classes", ", ".join(config["labels"])))
    settings = config["frontend"]
    rows.append(("front-end", ", ".join(f"{key} {value}" for key, value in settings.items())))
    if results:
        from qaudio.cards.tables import facts

        rows += facts(results)
    elif "results.json" in config["files"]:
        raise EntryError(f"{entry_name(folder)}: results.json is missing")
    else:
        rows += _unscored(folder)
    for name, value in rows:
        print(f"  {name:14}{value}")
    return 0


def _unscored(folder: Path) -> list[tuple[str, str]]:
    """What is shown of an entry without results: where it comes from and what it costs."""
    from qaudio.compress.cost import cost
    from qaudio.compress.prune import Plan
    from qaudio.zoo.entry import load

    rows, path = [("score", "none: it was not tested")], folder / "plan.json"
    if path.is_file():
        plan = Plan.from_json(file_of(folder, path.name).read_text(encoding="utf-8"))
        asked = [f"{name} {value}" for name, value in plan.request.items() if value is not None]
        rows.append(("pruned", f"by {plan.criterion}, {', '.join(asked)}; not fine-tuned"))
    costs = cost(load(folder))
    rows.append(("parameters", f"{costs.params:,} ({costs.bytes / 1e6:.2f} MB)"))
    rows.append(("MACs", f"{costs.macs / 1e9:.3f} G for {costs.seconds:g} s"))
    return rows
