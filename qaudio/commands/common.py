"""What the subcommands share: how one is added, and how failures are printed."""

import argparse
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn

from qaudio import paths
from qaudio.errors import EntryError, InputError, QaudioError, UsageError
from qaudio.text import cut, one_line, shown, similar
from qaudio.zoo.resolve import DEFAULT_ENTRY
from qaudio.zoo.store import PACKAGE

REPORT = (
    "this is an error in qaudio, not in what you gave it: please report it, with the lines above "
    "and the command"
)

_format_warning = warnings.formatwarning


class Parser(argparse.ArgumentParser):
    """Tells of wrong usage in one line, as all of `qaudio` does."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and end with exit code 2."""
        self.exit(2, f"{self.prog}: {one_line(message)}; see {self.prog} --help\n")

    def refuse_command(self, name: str, known: Iterable[str]) -> NoReturn:
        """Say that there is no such command, and end with exit code 2."""
        self.error(f"no command {shown(name)!r}{similar(name, known)}")

    def refuse(self, arguments: list[str]) -> NoReturn:
        """Say which arguments it does not know, and end with exit code 2."""
        name = arguments[0].partition("=")[0]
        close = similar(name, self._option_string_actions) if name.startswith("-") else ""
        self.error(f"unrecognized arguments: {' '.join(arguments)}{close}")


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
        add_debug(sub)
        sub.set_defaults(run=run, parser=sub)
        return sub


def add_debug(parser: argparse.ArgumentParser) -> None:
    """The option of every command; without a default, which a subcommand's would put over it."""
    parser.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS,
        help="show the traceback of whatever goes wrong",
    )  # fmt: skip


def positive(text: str) -> int:
    """An argument type: a whole number above zero."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a positive whole number, not {text!r}")
    return value


def amount(text: str) -> float:
    """An argument type: a number above zero, as in 100000, 100k, 0.5M or 1.2e9."""
    factor = {"k": 1e3, "M": 1e6, "G": 1e9}.get(text[-1:])
    try:
        value = float(text[:-1]) * factor if factor else float(text)
    except ValueError:
        value = 0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number such as 100k or 0.5M, not {text!r}")
    return value


def numbers(text: str) -> list[int]:
    """An argument type: whole numbers, as in 1, 1,2 or [1,2]."""
    body = text.strip().removeprefix("[").removesuffix("]")
    try:
        found = [int(part) for part in body.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 0:
        raise argparse.ArgumentTypeError(f"must be whole numbers such as [1,2], not {text!r}")
    return found


def usage(command: str, message: str) -> int:
    """Tell of wrong usage; the exit code."""
    print(f"qaudio {command}: {one_line(message)}; see qaudio {command} --help", file=sys.stderr)
    return 2


def is_user_error(error: BaseException) -> bool:
    """Whether a user can mend what went wrong, so that one line says it better than a traceback.

    That is a `QaudioError`; what the operating system refuses, such as to write to a full disk, but
    for files of the package; and a device whose memory is too small.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return not Path(str(error.filename or "")).is_relative_to(PACKAGE)
    torch = sys.modules.get("torch")  # not imported here: `qaudio list` goes without
    no_memory = torch is not None and isinstance(error, torch.OutOfMemoryError)
    return isinstance(error, QaudioError) or no_memory


def print_error(error: Exception | str) -> int:
    """Tell of a failure in one line; the exit code."""
    print(f"qaudio: {one_line(error)}", file=sys.stderr)
    return 2 if isinstance(error, UsageError) else 1


def warning_line(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """A warning of this package as one line, whose source nobody needs to see."""
    if Path(filename).is_relative_to(PACKAGE):
        return f"qaudio: {shown(str(message))}\n"
    return _format_warning(message, category, filename, lineno, line)


def say_beside_bar(message: str) -> None:
    """A line on stderr that leaves a progress bar whole."""
    from tqdm import tqdm

    with tqdm.external_write_mode(file=sys.stderr):
        print(f"qaudio: {cut(message)}", file=sys.stderr, flush=True)


def add_entry(sub: argparse.ArgumentParser) -> None:
    """The entry that a subcommand is about."""
    sub.add_argument("entry", help="name, folder or hf-hub:org/name")


def add_model(sub: argparse.ArgumentParser, exported: bool = False) -> None:
    """The network that a subcommand runs; `exported`: it takes .onnx files, too."""
    kinds = "entry (name, folder or hf-hub:org/name)" + " or .onnx file" * exported
    sub.add_argument(
        "--model", "--entry", default=DEFAULT_ENTRY, metavar="ENTRY", help=f"{kinds} (%(default)s)"
    )


def add_windows(sub: argparse.ArgumentParser, window: str, hop: str = "half a window") -> None:
    """Length and distance of the windows that a sound is cut into; texts say the defaults."""
    sub.add_argument("--window", type=float, metavar="S", help=f"seconds of each window ({window})")
    sub.add_argument(
        "--hop", type=float, metavar="S", help=f"seconds from window to window ({hop})"
    )


def wrong_windows(options: argparse.Namespace) -> str | None:
    """What is wrong with `--window` and `--hop`."""
    if options.window is not None and not 0.05 <= options.window <= 3600:
        return "--window must be 0.05 to 3600 seconds"
    if options.hop is not None and not 0 < options.hop <= (options.window or 10):
        return "--hop must be above 0 and at most the window"
    return None


def wrong_file(out: Path, suffixes: tuple[str, ...]) -> str | None:
    """What is wrong with an `--out` that is to be a file of one of some kinds."""
    if out.suffix.lower() not in suffixes:
        kinds = f"{', '.join(suffixes[:-1])} or {suffixes[-1]}"
        return f"--out must end in {kinds}, not {shown(out.name)}"
    return f"--out {shown(str(out))} is a folder: give a file" if out.is_dir() else None


def add_out(sub: argparse.ArgumentParser) -> None:
    """The options of a subcommand that makes an entry."""
    sub.add_argument("--out", required=True, help="folder of the new entry")
    sub.add_argument(
        "--overwrite", action="store_true", help="replace an entry that --out holds already"
    )


def check_out(options: argparse.Namespace) -> None:
    """Raise EntryError where `--out` holds an entry that is not to be replaced."""
    if (Path(options.out) / "config.json").exists() and not options.overwrite:
        raise EntryError(
            f"{options.out} holds an entry already: give another --out, or --overwrite to replace "
            "it with all its files"
        )


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """`qaudio.paths.replacing` that says at once what cannot be written.

    Raises:
        ValueError: before the block, when it could not be written there.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(paths.replacing(path))
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror or error}") from None
        yield file
