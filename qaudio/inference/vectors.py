"""Files of embeddings: a row per file or window, as npz, Parquet or CSV, written as a stream."""

import base64
import csv
import io
import zipfile
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import IO, Any

import numpy as np

from qaudio.data.audio import display_name
from qaudio.inference.files import Embedding
from qaudio.prediction import Embeddings
from qaudio.text import one_line, spreadsheet_safe

BATCH = 1024  # rows of a group in a Parquet file


Rows = Callable[[], Iterable[Embedding]]  # the same rows, from the first on, at each call


def record_of(found: Embeddings) -> dict[str, Any]:
    """The embeddings of a file as JSON."""
    return {
        "spans": found.spans.round(6).tolist(),
        "vectors": base64.b64encode(found.vectors.astype("<f4").tobytes()).decode(),
    }


def rows_of(records: Iterable[dict[str, Any]]) -> Iterator[Embedding]:
    """Rows of records, each `record_of` a file with its `path`, or its `error`."""
    for record in records:
        name = display_name(record["path"])
        if "error" in record:
            yield Embedding(name, None, None, None, one_line(record["error"]))
            continue
        values = np.frombuffer(base64.b64decode(record["vectors"]), "<f4")
        vectors = values.reshape(len(record["spans"]), -1)
        for (start, end), vector in zip(record["spans"], vectors, strict=True):
            yield Embedding(name, start, end, vector)


def write_npz(file: IO[bytes], rows: Rows, dimension: int) -> None:
    """Arrays of equal length: file, start, end, vector (N, D) and error.

    Of a file that cannot be used start, end and vector are NaN; of the others error is empty.
    """
    count, longest = 0, {"file": 1, "error": 1}
    for row in rows():
        count += 1
        longest["file"] = max(longest["file"], len(row.file))
        longest["error"] = max(longest["error"], len(row.error or ""))
    nothing = np.full(dimension, np.nan, "<f4").tobytes()
    columns: dict[str, tuple[str, Callable[[Embedding], bytes]]] = {
        "file": (f"<U{longest['file']}", lambda row: row.file.encode("utf-32-le")),
        "start": ("<f8", lambda row: _number(row.start)),
        "end": ("<f8", lambda row: _number(row.end)),
        "vector": (
            "<f4", lambda row: nothing if row.vector is None else row.vector.tobytes()
        ),
        "error": (f"<U{longest['error']}", lambda row: (row.error or "").encode("utf-32-le")),
    }  # fmt: skip
    with zipfile.ZipFile(file, "w") as archive:
        for name, (kind, encoded) in columns.items():
            shape = (count, dimension) if name == "vector" else (count,)
            size = np.dtype(kind).itemsize * (dimension if name == "vector" else 1)
            member = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            # Texts are as long as the longest; vectors hardly shrink.
            stored = zipfile.ZIP_STORED if name == "vector" else zipfile.ZIP_DEFLATED
            member.compress_type = stored
            with archive.open(member, "w", force_zip64=True) as out:
                np.lib.format.write_array_header_1_0(
                    out, {"descr": kind, "fortran_order": False, "shape": shape}
                )
                for row in rows():
                    out.write(encoded(row).ljust(size, b"\0"))


def _number(value: float | None) -> bytes:
    return np.array(np.nan if value is None else value, "<f8").tobytes()


def write_parquet(file: IO[bytes], rows: Rows, dimension: int) -> None:
    """Columns file, start, end, vector (a list of D float32) and error, null where there is none.

    Raises:
        ModuleNotFoundError: when pyarrow is not installed.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, number = pa.string(), pa.float64()
    schema = pa.schema(
        [
            ("file", text), ("start", number), ("end", number),
            ("vector", pa.list_(pa.float32(), dimension)), ("error", text),
        ]
    )  # fmt: skip
    stream = iter(rows())
    with pq.ParquetWriter(file, schema) as writer:
        while group := list(islice(stream, BATCH)):
            columns = [
                [row.file for row in group], [row.start for row in group],
                [row.end for row in group], [row.vector for row in group],
                [row.error for row in group],
            ]  # fmt: skip
            arrays = [
                pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def write_csv(file: IO[bytes], rows: Rows, dimension: int) -> None:
    """Columns file, start, end, error and v0, v1, …; empty where there is none."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["file", "start", "end", "error", *(f"v{n}" for n in range(dimension))])
    for row in rows():
        values = [] if row.vector is None else [f"{value:.9g}" for value in row.vector.tolist()]
        table.writerow(
            [
                spreadsheet_safe(row.file),
                "" if row.start is None else row.start,
                "" if row.end is None else row.end,
                spreadsheet_safe(row.error or ""),
                *(values or [""] * dimension),
            ]
        )
    text.detach()  # flushed, and the file left open


WRITERS: dict[str, Callable[[IO[bytes], Rows, int], None]] = {
    ".npz": write_npz, ".parquet": write_parquet, ".csv": write_csv,
}  # fmt: skip
