"""`qaudio push`: publish an entry on the Hugging Face Hub."""

from __future__ import annotations

import argparse

from qaudio.commands.common import Commands, usage
from qaudio.zoo.hub_cache import REPO


def register(command: Commands) -> None:
    """Add the subcommand."""
    sub = command(
        "push", _push, "publish an entry on the Hugging Face Hub, once it verifies",
        "qaudio push qcnn10_050.esc10_pruned50 your-name/qcnn10_050.esc10_pruned50",
    )  # fmt: skip
    sub.add_argument("entry", help="name or folder")
    sub.add_argument("repo", metavar="ORG/NAME", help="repository; made where it does not exist")
    sub.add_argument("--private", action="store_true", help="make it a private one")
    sub.add_argument("--create-pr", action="store_true", help="open a pull request")
    sub.add_argument("--revision", help="branch; made where it does not exist (main)")
    sub.add_argument("--license", help="of the weights, such as cc-by-4.0 (the entry's)")
    sub.add_argument(
        "--publish-names", action="store_true",
        help="publish the file names of your own recordings, in place of hashes",
    )  # fmt: skip
    sub.add_argument("--incomplete", action="store_true", help="publish an entry that lacks folds")


def _push(options: argparse.Namespace) -> int:
    from qaudio.cards.entries import push

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
        license=options.license,
        publish_names=options.publish_names,
        incomplete=options.incomplete,
    )
    print(pushed)
    return 0
