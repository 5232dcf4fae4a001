"""`qaudio info`: what is known of an entry."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from qaudio.cards.tables import facts, size_facts
from qaudio.commands.common import Commands, add_entry
from qaudio.errors import EntryError, entry_errors
from qaudio.text import one_line
from qaudio.zoo.resolve import DEFAULT_ENTRY, load, locate
from qaudio.zoo.store import entry_name, read_config, read_results, read_source, read_text

if TYPE_CHECKING:
    from qaudio.models.base import AudioModel

SECONDS = 10.0  # of the clip that MACs are counted for
NAMED = 50  # classes at most


def register(command: Commands) -> None:
    """Add the subcommand."""
    sub = command("info", _info, "what is known of an entry", f"qaudio info {DEFAULT_ENTRY}")
    add_entry(sub)
    sub.add_argument(
        "--layers", action="store_true", help="a table of its modules: parameters and MACs of each"
    )
    sub.add_argument("--json", action="store_true", help="print config and results, whole")


def _info(options: argparse.Namespace) -> int:
    folder = locate(options.entry)
    config, results = read_config(folder), read_results(folder)
    if options.json:
        document = {"config": config.to_dict(), "results": results and results.to_dict()}
        if options.layers:
            from qaudio.compress.cost import macs_by_layer

            document["macs_by_layer"] = macs_by_layer(load(folder), SECONDS)
        print(json.dumps(document, indent=1))
        return 0
    print(f"{entry_name(folder)}: {config.architecture}, {config.num_classes} classes")
    rows = [("licence", config.license or "not stated")]
    source = read_source(folder)
    if source:
        named = {"file": source.file, "url": source.url, "citation": source.citation}
        rows += [(key, value) for key, value in named.items() if value is not None]
    if labels := config.labels:
        more = [f"and {len(labels) - NAMED} more (--json)"] if len(labels) > NAMED else []
        rows.append(("classes", ", ".join([*labels[:NAMED], *more])))
    settings = config.frontend
    rows.append(("front-end", ", ".join(f"{key} {value}" for key, value in settings.items())))
    if results:
        rows += facts(results)
    elif "results.json" in config.files:
        raise EntryError(f"{entry_name(folder)}: results.json is missing")
    else:
        rows += _unscored(folder)
    for name, value in rows:
        print(f"  {name:14}{value}")
    if options.layers:
        _print_layers(load(folder))
    return 0


def _print_layers(model: AudioModel) -> None:
    """fvcore's table of a network's modules, and the totals as `cost` counts them."""
    from qaudio.compress.cost import cost
    from qaudio.compress.layers import layer_table

    print(f"\n{layer_table(model, SECONDS)}")
    total = cost(model, seconds=SECONDS)
    print(f"total: {total.params:,} parameters, {total.macs:,} MACs for {SECONDS:g} s, front-end "
          "not counted")  # fmt: skip


def _unscored(folder: Path) -> list[tuple[str, str]]:
    """What is shown of an entry without results: where it comes from and what it costs."""
    from qaudio.compress.cost import cost
    from qaudio.compress.prune import Plan

    rows, path = [("score", "none: it was not tested")], folder / "plan.json"
    if path.is_file():
        with entry_errors(f"{entry_name(folder)}: {path.name}"):
            plan = Plan.from_json(read_text(folder, path.name))
        given = {name: value for name, value in plan.request.items() if value is not None}
        asked = [one_line(f"{name} {value}", 200) for name, value in given.items()]
        rows.append(("pruned", f"by {plan.criterion}, {', '.join(asked)}; not fine-tuned"))
    return rows + size_facts(cost(load(folder)))
