"""Files of predictions: CSV, Audacity's label tracks and Raven's selection tables."""

import csv
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from qaudio.data.audio import display_name
from qaudio.prediction import Prediction
from qaudio.text import one_line, shown, spreadsheet_safe

COLUMNS = ("file", "start", "end", "label", "probability", "error")
RAVEN = (
    "Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)",
    "High Freq (Hz)", "Annotation", "Confidence",
)  # fmt: skip
# What the name of a sound file is followed by, in the name of its label file.
SUFFIXES = {"audacity": ".labels.txt", "raven": ".selections.txt"}


def record_of(rows: Iterable[Prediction]) -> dict[str, Any]:
    """What was found in a file as JSON."""
    return {"rows": [[row.start, row.end, row.label, row.probability] for row in rows]}


def write_csv(file: IO[str], records: Iterable[dict[str, Any]]) -> None:
    """A row per class, window or event of records, and one per file that cannot be used."""
    table = csv.writer(file, lineterminator="\n")
    table.writerow(COLUMNS)
    for record in records:
        table.writerows(csv_rows(record))


def csv_rows(record: dict[str, Any]) -> Iterator[list[Any]]:
    """Rows of a record, which is `record_of` a file with its `path`, or its `error`."""
    name = spreadsheet_safe(display_name(record["path"]))
    if "error" in record:
        yield [name, "", "", "", "", spreadsheet_safe(one_line(record["error"]))]
        return
    for start, end, label, probability in record["rows"]:
        yield [name, start, end, spreadsheet_safe(shown(label)), f"{probability:.6g}", ""]


def label_file(rows: Iterable[Prediction], kind: str, sample_rate: int) -> str:
    """The content of a label file.

    Args:
        kind: "audacity": start, end, and label with probability, for File > Import > Labels;
            "raven": a selection table.
        sample_rate: Hz, that the network works at: Raven's selections reach up to its half.
    """
    lines = []
    if kind == "raven":
        lines.append("\t".join(RAVEN))
    for number, row in enumerate(rows, 1):
        label = shown(row.label)
        if kind == "raven":
            lines.append(
                f"{number}\tSpectrogram 1\t1\t{row.start:.3f}\t{row.end:.3f}\t0.0\t"
                f"{sample_rate / 2:.1f}\t{label}\t{row.probability:.4f}"
            )
        else:
            lines.append(f"{row.start:.3f}\t{row.end:.3f}\t{label} {row.probability:.2f}")
    return "".join(f"{line}\n" for line in lines)


def label_paths(paths: list[str], folder: str | os.PathLike, kind: str) -> dict[str, Path]:
    """Where the label file of each sound goes: below `folder` as the sound is below the top.

    The top is the nearest folder that holds all sounds, so that no two label files meet.
    """
    full = {path: os.path.abspath(path) for path in paths}
    if not full:
        return {}
    top = os.path.commonpath([os.path.dirname(path) for path in full.values()])
    return {
        path: Path(folder, os.path.relpath(absolute, top) + SUFFIXES[kind])
        for path, absolute in full.items()
    }
