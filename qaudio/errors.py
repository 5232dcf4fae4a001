"""What a user did or has that cannot be used, each said in one line.

`qaudio` prints these without a traceback; any other exception is an error of the package.
"""

import re
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from qaudio.text import one_line

# What numpy raises for a file that holds no array: it reads headers as Python.
NO_ARRAY = (
    OSError, ValueError, KeyError, EOFError, OverflowError, NotImplementedError, SyntaxError,
    TypeError, RuntimeError, MemoryError, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


class QaudioError(Exception):
    """Base of what a user can mend; the message, a line, says what is wrong and what to do."""


class InputError(QaudioError, ValueError):
    """An argument, setting or file that is out of range, malformed or contradicts another."""


class UsageError(InputError):
    """An option or setting that a command does not know or cannot read; its exit code is 2."""


class EntryError(QaudioError):
    """An entry that cannot be found, read or trusted; the message, a line, names file and fault."""

    def __init__(self, message: str):
        super().__init__(one_line(message))


@contextmanager
def entry_errors(where: str) -> Iterator[None]:
    """Let a ValueError of the block be an `EntryError` that says where."""
    try:
        yield
    except ValueError as error:
        raise EntryError(f"{where}: {error}") from None


class DataError(QaudioError):
    """A data set that cannot be used; the message says what is expected where."""


class AudioError(QaudioError):
    """A sound file that cannot be used; the message is one line naming file and fault."""


class DownloadError(QaudioError):
    """A file that cannot be had, or is not the expected one; the message says what to do."""


def refused_global(error: Exception) -> str | None:
    """What a pickle names and `torch.load` did not run, by what it raised; None for other faults.

    Args:
        error: of a load with `weights_only=True`.
    """
    named = re.search(r"GLOBAL (\S+) (?:was not|whose module)", str(error))
    return None if named is None else named[1]


def check_choice(name: str, value: object, known: Iterable[str]) -> None:
    """Raise InputError for a value that is none of the known ones."""
    if value not in (known := list(known)):
        raise InputError(f"{name} must be one of {', '.join(known)}, not {value!r}")
