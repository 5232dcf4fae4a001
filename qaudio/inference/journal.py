"""The unfinished part of a long run: one line of JSON for each file that is done.

A run that is interrupted leaves its journal, and the next goes on after the last whole line; what
it makes is written from the journal at the end.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from qaudio.errors import DataError
from qaudio.text import shown

FORMAT = 1
BEGIN = b'{"format":'


class Journal:
    """An append-only file of records, with the settings that they were made with.

    Args:
        path: of the journal; its folder exists.
        settings: plain JSON; records made with others are not gone on with.
        resume: go on with a journal that is there; False: one that holds records is refused.

    Attributes:
        done: absolute paths of the files that have a record.
        failed: how many of the records have an `error`.
        windows: the sum of what the records call so.

    Raises:
        DataError: when there is a journal that is not to be resumed, has other settings, or is
            in use by another run.
        OSError: when it cannot be written.
    """

    def __init__(self, path: str | os.PathLike, settings: dict[str, Any], resume: bool):
        self.path = Path(path)
        self.done: set[str] = set()
        self.failed = self.windows = 0
        self._file: IO[bytes] = open(self.path, "a+b")  # noqa: SIM115
        try:
            self._lock()
            end = self._read(settings, resume)
            self._file.truncate(end)  # after a line that was cut off, or 0
            if end == 0:
                self._write({"format": FORMAT, "settings": settings})
        except BaseException:
            self._file.close()
            raise

    def add(self, path: str, record: dict[str, Any]) -> None:
        """Append the record of a file; it is kept whatever becomes of this process."""
        record = {"path": path} | record
        self._write(record)
        self._count(record)

    def records(self) -> Iterator[dict[str, Any]]:
        """All records, one after the other, each with its `path`."""
        with open(self.path, "rb") as file:
            next(file)
            for line in file:
                yield json.loads(line)

    def close(self, keep: bool = True) -> None:
        """Close the journal, and delete it unless it is to be kept."""
        self._file.close()
        if not keep:
            self.path.unlink(missing_ok=True)

    def _write(self, record: dict[str, Any]) -> None:
        self._file.write(json.dumps(record, separators=(",", ":")).encode() + b"\n")
        self._file.flush()

    def _count(self, record: dict[str, Any]) -> None:
        self.done.add(os.path.abspath(record["path"]))
        self.failed += "error" in record
        self.windows += record.get("windows", 0)

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"{shown(str(self.path))}: another run is writing it") from None
        except OSError:
            pass  # a file system without locks

    def _read(self, settings: dict[str, Any], resume: bool) -> int:
        """Fill `done`; the offset after the last whole record, 0 where there is none."""
        name = shown(str(self.path))
        self._file.seek(0)
        first = self._file.readline()
        end = len(first)
        header = _decoded(first)
        if header is None and BEGIN.startswith(first[: len(BEGIN)]):  # cut off before any record
            return 0
        before = header and header.get("settings")
        if header is None or header.get("format") != FORMAT or not isinstance(before, dict):
            raise DataError(f"{name}: is not the unfinished part of a run; move or delete it")
        for line in self._file:
            record = _decoded(line)
            if record is None or not _is_ours(record):
                break
            self._count(record)
            end += len(line)
        if not self.done:
            return 0
        if not resume:
            raise DataError(
                f"{name} holds {len(self.done)} files of an unfinished run: go on with --resume, "
                "or delete it to start again"
            )
        for key, value in settings.items():
            if before.get(key) != value:
                was = "not the same" if key == "model" else f"{before.get(key)}, not {value}"
                raise DataError(
                    f"{name}: {key.replace('_', ' ')} of the unfinished run was {was}: repeat its "
                    "options, or delete it to start again"
                )
        return end


def _is_ours(record: dict[str, Any]) -> bool:
    return isinstance(record.get("path"), str) and type(record.get("windows", 0)) is int


def _decoded(line: bytes) -> dict[str, Any] | None:
    """A line as a record; None for one that was cut off."""
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
