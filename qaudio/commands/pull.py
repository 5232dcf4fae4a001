"""`qaudio pull`: fetch an entry from the Hugging Face Hub."""

import argparse

from qaudio.commands.common import Commands, usage
from qaudio.zoo.hub import pull
from qaudio.zoo.resolve import on_hub
from qaudio.zoo.store import entry_name


def register(command: Commands) -> None:
    """Add the subcommand."""
    sub = command(
        "pull", _pull, "fetch an entry from the Hugging Face Hub",
        "qaudio pull hf-hub:your-name/qcnn10_050.esc10_pruned50 --out my_entry",
    )  # fmt: skip
    sub.add_argument("source", help="hf-hub:org/name, or hf-hub:org/name@revision")
    sub.add_argument("--out", help="folder for a copy (default: the Hub's cache alone)")


def _pull(options: argparse.Namespace) -> int:
    if not on_hub(options.source):
        return usage("pull", f"write the source as hf-hub:org/name, not {options.source!r}")
    folder = pull(options.source, options.out)
    print(f"{options.source if options.out else entry_name(folder)}: {folder}")
    return 0
