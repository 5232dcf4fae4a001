"""What the subcommands share: how one is added, and how a failure is told."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from qaudio.text import one_line


class Commands:
    """Adds subcommands to a parser, all in one form."""

    def __init__(self, parser: argparse.ArgumentParser):
        self.subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def __call__(
        self, name: str, run: Callable[[argparse.Namespace], int], help: str, example: str
    ) -> Any:
        """A new subcommand's parser; `run` takes the parsed options and returns the exit code."""
        sub = self.subparsers.add_parser(
            name, help=help, description=help, epilog=f"example: {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        sub.set_defaults(run=run)
        return sub


def positive(text: str) -> int:
    """An argument type: a whole number above zero."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a positive whole number, not {text!r}")
    return value


def usage(command: str, message: str) -> int:
    """Tell of wrong usage; the exit code."""
    print(f"qaudio {command}: {message}; see qaudio {command} --help", file=sys.stderr)
    return 2


def say_failed(error: Exception | str) -> int:
    """Tell of a failure in one line; the exit code."""
    print(f"qaudio: {one_line(error)}", file=sys.stderr)
    return 1


def say_beside_bar(message: str) -> None:
    """A line on stderr that leaves a progress bar whole."""
    from tqdm import tqdm

    with tqdm.external_write_mode(file=sys.stderr):
        print(f"qaudio: {message}", file=sys.stderr, flush=True)


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A new file that takes the place of `path` when the block ends well, and else leaves nothing.

    Raises:
        ValueError: at once, when it could not be written there.
    """
    path = path.expanduser().resolve()  # a link stays a link, to the new file
    try:
        if path.exists() and not path.is_file():
            raise OSError("there is something else than a file")
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", dir=path.parent)
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror or error}") from None
    new = Path(name)
    try:
        with open(descriptor, "wb") as file:
            yield file
        mask = os.umask(0)
        os.umask(mask)
        new.chmod(0o666 & ~mask)  # what a plainly opened file gets
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)
