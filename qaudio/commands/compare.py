"""`qaudio compare`: entries side by side, as tables, plots and a page."""

import argparse
import json
from contextlib import ExitStack
from pathlib import Path

from qaudio.cards import pictures
from qaudio.commands.common import Commands, amount, print_error, replacing, usage
from qaudio.errors import EntryError
from qaudio.zoo.store import entries

PLOTS = (".png", ".svg")
LIMITS = {
    "params": "many parameters, such as 100k",
    "macs": "many MACs, such as 500M",
    "bytes": "many bytes of weights as stored, such as 128k",
    "macs_per_second": "many MACs for a second of sound, such as 30M",
    "latency": "many milliseconds, as measured on the machine that its card names",
}


def register(command: Commands) -> None:
    """Add the subcommands of this module."""
    sub = command(
        "compare", _compare, "entries side by side, by benchmark and protocol",
        "qaudio compare --html report.html --plot pareto.svg",
    )  # fmt: skip
    sub.add_argument("entry", nargs="*", help="names, folders or hf-hub:org/name (all that ship)")
    sub.add_argument(
        "--sort", choices=("score", "params", "macs", "latency", "name"), default="score",
        help="order of the tables (%(default)s)",
    )  # fmt: skip
    for key, what in LIMITS.items():
        sub.add_argument(
            f"--max-{key.replace('_', '-')}",
            type=amount,
            metavar="N",
            help=f"only entries of at most so {what}",
        )
    sub.add_argument("--json", action="store_true", help="print a JSON document, not the tables")
    sub.add_argument("--csv", metavar="FILE", help="write the entries as CSV")
    sub.add_argument("--plot", metavar="FILE.png|.svg", help="write Pareto plots")
    sub.add_argument("--html", metavar="FILE", help="write a page to sort, filter and compare in")
    sub.add_argument(
        "--peers", action="store_true",
        help="also show figures that others published, apart from what was measured here",
    )  # fmt: skip


def _compare(options: argparse.Namespace) -> int:
    outputs = {name: Path(path) for name in ("csv", "plot", "html")
               if (path := getattr(options, name)) is not None}  # fmt: skip
    if len({path.resolve() for path in outputs.values()}) < len(outputs):
        return usage("compare", "--csv, --plot and --html need files of their own")
    if "plot" in outputs and outputs["plot"].suffix.lower() not in PLOTS:
        return usage("compare", f"--plot must end in {' or '.join(PLOTS)}")
    with ExitStack() as stack:
        # Opened before the work, so that a path that cannot be written is reported at once.
        files = {name: stack.enter_context(replacing(path)) for name, path in outputs.items()}
        from qaudio.compare import peers, tables
        from qaudio.compare.gather import gather

        comparison = gather(options.entry or entries())
        limits = {key: most for key in LIMITS if (most := getattr(options, f"max_{key}"))}
        if limits and comparison.groups:
            comparison = comparison.within(limits)
        nothing = not comparison.groups and not comparison.unscored
        faults = [fault for _, fault in comparison.faults] or ["no entries to compare"] * nothing
        for fault in faults[: -1 if nothing else None]:
            print_error(fault)
        if nothing:
            raise EntryError(faults[-1])  # not a plain return, which would leave empty files
        others = peers.read() if options.peers else []
        if "csv" in files:
            files["csv"].write(tables.to_csv(comparison).encode())
        if "plot" in files:
            from qaudio.compare.plots import draw

            pictures.write(draw(comparison), files["plot"], outputs["plot"].suffix.lower()[1:])
        if "html" in files:
            from qaudio.compare.html import render

            files["html"].write(render(comparison, others).encode())
        if options.json:
            print(json.dumps(tables.document(comparison) | peers.document(others), indent=1))
        else:
            print(tables.text(comparison, options.sort))
            if others:
                print(f"\n{peers.text(others)}")
    return 1 if comparison.faults else 0
