"""`qaudio push`: publish an entry on the Hugging Face Hub."""

import argparse

from qaudio.commands.common import Commands, usage
from qaudio.zoo.hub_cache import REPO
from qaudio.zoo.resolve import DEFAULT_ENTRY

# Options that `qaudio.push` takes as they are.
HOW = ("private", "create_pr", "revision", "license", "publish_names", "incomplete")


def register(command: Commands) -> None:
    """Add the subcommand."""
    sub = command(
        "push", _push, "publish an entry on the Hugging Face Hub, once it verifies",
        "qaudio push qcnn10_050.esc10_pruned50 your-name/qcnn10_050.esc10_pruned50\n         "
        "qaudio push --space your-name/demo qcnn10_050.esc10",
    )  # fmt: skip
    sub.usage = (
        "qaudio push ENTRY ORG/NAME [options]\n       qaudio push --space ORG/NAME [ENTRY ...]"
    )
    sub.add_argument(
        "names", nargs="*", metavar="ENTRY ORG/NAME",
        help="an entry, by name or folder, and the repository, made where it does not exist; with "
        "--space entries alone",
    )  # fmt: skip
    sub.add_argument(
        "--space", metavar="ORG/NAME",
        help=f"publish the page of `qaudio demo` as a Space of that name ({DEFAULT_ENTRY})",
    )  # fmt: skip
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
    if options.space is not None:
        return _push_space(options)
    if len(options.names) != 2:
        return usage("push", "give an entry and a repository's name, your-name/entry; or --space")
    entry, repo = options.names
    from qaudio.cards.entries import push

    if not REPO.fullmatch(repo):
        return usage("push", f"{repo!r} is not a repository's name, your-name/entry")
    if options.create_pr and options.revision:
        return usage("push", "give --create-pr or --revision, not both")
    print(push(entry, repo, **{name: getattr(options, name) for name in HOW}))
    return 0


def _push_space(options: argparse.Namespace) -> int:
    if not REPO.fullmatch(options.space):
        return usage("push", f"--space {options.space!r} is not a name such as your-name/demo")
    if options.create_pr or options.revision or options.publish_names or options.incomplete:
        return usage("push", "--space goes with --private and --license alone")
    from qaudio.cards.space import push_space

    sources = list(dict.fromkeys(options.names)) or [DEFAULT_ENTRY]
    print(push_space(sources, options.space, private=options.private, license=options.license))
    return 0
