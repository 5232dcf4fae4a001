"""Tables of files and labels, CSV or Parquet, as rows of text; and names that look alike."""

import csv
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from qaudio.errors import DataError
from qaudio.text import UNSHOWN, shown

LARGEST = 1 << 28  # bytes of text: more is no table of clips
MOST_CELLS = 5_000_000


def read_rows(
    path: Path, delimiter: str = ",", columns: Collection[str] = ()
) -> list[dict[str, str]]:
    """The rows of a table, cell by column, all text; blanks around cells are none of it.

    Cells and columns are in Unicode's composed form (NFC), but for those of the column `file`: a
    file may have its name in the other.

    Args:
        path: of a CSV or Parquet file.
        delimiter: between the cells of a CSV file.
        columns: that it must have, and a row.

    Raises:
        DataError: for a table that is not there, not readable or too large, columns of one name,
            and rows of another length than the header; names the row.
    """
    if not path.is_file():
        raise DataError(f"{path} not found: --data.table must name a CSV or Parquet file")
    is_parquet = path.suffix.lower() in (".parquet", ".pq")
    rows = _parquet(path) if is_parquet else _csv(path, delimiter)
    names = [normal(name) for name in next(rows, [])]
    doubled = sorted({name for name in names if name and names.count(name) > 1})
    if doubled:
        raise DataError(f"{path}: two columns are named {shown(doubled[0])!r}: rename one")
    found = [
        {
            name: cell.strip() if name == "file" else normal(cell)
            for name, cell in zip(names, row, strict=True)
            if name
        }
        for row in rows
    ]
    if columns and not (found and set(columns) <= set(names)):
        raise DataError(f"{path}: expected columns {', '.join(sorted(columns))} and rows of them")
    return found


@lru_cache(1 << 16)  # columns of classes hold little else than 0 and 1
def normal(text: str) -> str:
    """Text without blanks around it, in Unicode's composed form."""
    return unicodedata.normalize("NFC", text).strip()


def look_alike(names: Iterable[str]) -> tuple[str, str] | None:
    """Two of several names that differ in case, blanks, what is unseen or a number's form alone."""
    seen: dict[str, str] = {}
    for name in names:
        plain = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
        plain = UNSHOWN.sub("", plain)
        if re.fullmatch(r"[+-]?\d+(\.\d*)?", plain):
            plain = str(float(plain))
        if plain in seen:
            return seen[plain], name
        seen[plain] = name
    return None


def _too_large(path: Path, cells: int, size: int) -> None:
    """Raise DataError for a table that nobody could mean: a small file may hold any number."""
    if cells > MOST_CELLS or size > LARGEST:
        raise DataError(
            f"{path}: over {MOST_CELLS} cells or {LARGEST >> 20} MB of text: give a table of the "
            "clips alone, or part the clips between several"
        )


def _csv(path: Path, delimiter: str) -> Iterator[list[str]]:
    """The header and then the rows, of which one at a time is held."""
    _too_large(path, 0, path.stat().st_size)
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            table = csv.reader(file, strict=True, delimiter=delimiter)
            columns = next(table, [])
            yield columns
            for number, row in enumerate(filter(None, table), start=1):
                if any("\0" in cell for cell in row):
                    raise csv.Error("it holds NUL: it is no text")
                if len(row) != len(columns):
                    raise DataError(
                        f"{path}: row {number + 1}: {len(row)} cells under {len(columns)} "
                        "columns: quote what has commas in it"
                    )
                _too_large(path, number * len(columns), 0)
                yield row
    except UnicodeDecodeError:
        raise DataError(f"{path} is not in UTF-8: save it as 'CSV UTF-8'") from None
    except csv.Error as error:
        raise DataError(f"{path}: line {table.line_num} is not readable: {error}") from None


def _parquet(path: Path) -> Iterator[list[str]]:
    """The names of the columns and then the rows, of which one batch at a time is held."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise DataError(f"{path}: reading Parquet needs pyarrow: pip install pyarrow") from None
    try:
        file = parquet.ParquetFile(path)
        names, size = file.schema_arrow.names, 0
        _too_large(path, file.metadata.num_rows * len(names), 0)
        yield names
        known: dict[str, str] = {}  # one object for a text, however often it stands there
        for batch in file.iter_batches(1 << 14):
            size += batch.nbytes
            _too_large(path, 0, size)
            columns = [column.to_pylist() for column in batch.columns]
            for row in zip(*columns, strict=True):
                yield [known.setdefault(text, text) for text in map(_text, row)]
    except (ArrowException, OSError, ValueError) as error:
        fault = str(error).partition("\n")[0]
        raise DataError(f"{path} is no whole Parquet file: {fault}") from None


def _text(value: Any) -> str:
    """A cell as a CSV file would have it: columns of numbers with gaps are floats in Parquet."""
    if value is None or (isinstance(value, float) and value != value):
        return ""
    whole = isinstance(value, bool) or (isinstance(value, float) and value.is_integer())
    return str(int(value) if whole else value)
