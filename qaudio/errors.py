"""What a user did or has that cannot be used, each said in one line."""

from __future__ import annotations

from qaudio.text import one_line


class EntryError(Exception):
    """An entry that cannot be found, read or trusted; the message, a line, names file and fault."""

    def __init__(self, message: str):
        super().__init__(one_line(message))


class DataError(Exception):
    """A data set that cannot be used; the message says what is expected where."""
