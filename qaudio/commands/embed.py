"""`qaudio embed`: the embeddings of sound files, in one table."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from qaudio.commands.common import (
    Commands,
    print_error,
    replacing,
    usage,
    wrong_file,
    wrong_windows,
)
from qaudio.commands.over_files import FilesRun, add_options
from qaudio.progress import progress
from qaudio.text import shown

if TYPE_CHECKING:
    from qaudio.inference.journal import Journal

SUFFIXES = (".npz", ".parquet", ".csv")


def register(command: Commands) -> None:
    """Add the subcommand."""
    sub = command(
        "embed", _embed, "the embeddings of sound files, a row per file or window",
        "qaudio embed my_sounds --out vectors.npz\n"
        "         qaudio embed my_sounds 'more/**/*.flac' --window 2 --hop 1 --out vectors.parquet",
    )  # fmt: skip
    add_options(sub)
    sub.add_argument(
        "--out", required=True, metavar="FILE",
        help="table to write: .npz (arrays file, start, end, vector, error), .parquet or .csv; "
        "a file that cannot be used is a row with the reason",
    )  # fmt: skip


def _embed(options: argparse.Namespace) -> int:
    out = Path(options.out)
    suffix = out.suffix.lower()
    if not options.files:
        return usage("embed", "give sound files or folders")
    if wrong := wrong_file(out, SUFFIXES) or wrong_windows(options):
        return usage("embed", wrong)
    if options.model.endswith(".onnx"):
        return usage("embed", "an exported file gives no embeddings: give an entry")
    if suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        return print_error(
            "a .parquet file needs pyarrow: pip install pyarrow; or give .npz or .csv"
        )
    from qaudio.inference.files import embedded
    from qaudio.inference.vectors import WRITERS, record_of, rows_of

    run = FilesRun(options, options.files, embedded)
    if not run.paths:
        return 1

    def finish(journal: Journal) -> None:
        with replacing(out) as file:
            WRITERS[suffix](
                file,
                lambda: progress(
                    rows_of(journal.records()), f"writing {shown(out.name)}", unit="row"
                ),
                run.model.num_features,
            )

    return run.write(out, Path(f"{out}.partial"), lambda _, found: record_of(found), finish)
