"""`qaudio push` and `qaudio pull`: entries on the Hugging Face Hub."""

from __future__ import annotations

import argparse

from qaudio.commands.common import Commands, usage


def register(command: Commands) -> None:
    """Add the subcommands of this module."""
    sub = command(
        "push", _push, "publish an entry on the Hugging Face Hub, once it verifies",
        "qaudio push qcnn10_050.esc10_pruned50 your-name/qcnn10_050.esc10_pruned50",
    )  # fmt: skip
    sub.add_argument("entry", help="name or folder")
    sub.add_argument("repo", metavar="ORG/NAME", help="repository; made where it does not exist")
    sub.add_argument("--private", action="store_true", help="make it a private one")
    sub.add_argument("--create-pr", action="store_true", help="open a pull request")
    sub.add_argument("--revision", help="branch; made where it does not exist (main)")

    sub = command(
        "pull", _pull, "fetch an entry from the Hugging Face Hub",
        "qaudio pull hf-hub:your-name/qcnn10_050.esc10_pruned50 --out my_entry",
    )  # fmt: skip
    sub.add_argument("source", help="hf-hub:org/name, or hf-hub:org/name@revision")
    sub.add_argument("--out", help="folder for a copy (default: the Hub's cache alone)")


def _push(options: argparse.Namespace) -> int:
    from qaudio.zoo.hub import REPO, push

    if not REPO.fullmatch(options.repo):
        return usage("push", f"{options.repo!r} is not a repository's name, your-name/entry")
    if options.create_pr and options.revision:
        return usage("push", "give --create-pr or --revision, not both")
    pushed = push(
        options.entry,
        options.repo,
        private=options.private,
        create_pr=options.create_pr,
        revision=options.revision,
    )
    print(pushed)
    return 0


def _pull(options: argparse.Namespace) -> int:
    from qaudio.zoo.catalog import entry_name, on_hub
    from qaudio.zoo.hub import pull

    if not on_hub(options.source):
        return usage("pull", f"write the source as hf-hub:org/name, not {options.source!r}")
    folder = pull(options.source, options.out)
    print(f"{options.source if options.out else entry_name(folder)}: {folder}")
    return 0
