"""`qaudio predict`: classes of sound files."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qaudio.commands.common import (
    Commands,
    positive,
    replacing,
    say_beside_bar,
    usage,
    wrong_windows,
)
from qaudio.commands.over_files import FilesRun, add_options
from qaudio.errors import DataError
from qaudio.text import shown

if TYPE_CHECKING:
    from qaudio.inference.journal import Journal
    from qaudio.inference.selection import Selection
    from qaudio.prediction import Analysis, Prediction


def register(command: Commands) -> None:
    """Add the subcommands of this module."""
    sub = command(
        "predict", _predict, "the most probable classes of sound files",
        "qaudio predict your_file.wav --times\n"
        "         qaudio predict my_sounds --csv events.csv --merge --threshold 0.2\n"
        "         qaudio predict my_sounds --format audacity --out labels --window 2 "
        "--threshold 0.2",
    )  # fmt: skip
    add_options(sub, exported=True)
    sub.add_argument(
        "--runtime", choices=("torch", "onnx"),
        help="onnx: run an exported file, without torch (default: by the model's name)",
    )  # fmt: skip
    sub.add_argument(
        "--top-k", type=positive, metavar="N", help="classes to show (5; all above a threshold)"
    )
    sub.add_argument(
        "--threshold",
        type=_threshold,
        metavar="P",
        help="only classes of at least this probability; entry: each class's own, where the entry "
        "has them (`qaudio calibrate`), 0.5 where it has none",
    )
    sub.add_argument("--times", action="store_true", help="add the classes of every window")
    sub.add_argument(
        "--merge", action="store_true",
        help="join consecutive windows of a class to events (--threshold: 0.5)",
    )  # fmt: skip
    sub.add_argument(
        "--low-threshold", type=float, metavar="P",
        help="an event that reached --threshold goes on down to this probability (--threshold)",
    )  # fmt: skip
    sub.add_argument(
        "--min-duration", type=float, metavar="S", help="drop events of fewer seconds (0)"
    )
    sub.add_argument(
        "--demo", action="store_true", help="make a sound, qaudio-demo.wav, and predict on it"
    )
    written = sub.add_mutually_exclusive_group()
    written.add_argument("--json", action="store_true", help="one JSON document a file")
    written.add_argument(
        "--csv", nargs="?", const="-", metavar="FILE.csv",
        help="a row per class of each file, or of each window with --times or --window, or per "
        "event with --merge; a file that cannot be used is a row with the reason",
    )  # fmt: skip
    written.add_argument(
        "--format", choices=("audacity", "raven"),
        help="a label track or selection table for each file, in the folder --out "
        "(--threshold: 0.5)",
    )  # fmt: skip
    sub.add_argument("--out", metavar="FOLDER", help="of the files of --format")


def _threshold(text: str) -> float | str:
    """An argument type: a number, or "entry"."""
    if text == "entry":
        return text
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be 0 to 1, or entry, not {text!r}") from None


def _predict(options: argparse.Namespace) -> int:
    if wrong := _wrong(options):
        return usage("predict", wrong)
    from qaudio.inference.selection import THRESHOLD, Selection
    from qaudio.prediction import analyse

    per_window = options.times or options.format or (options.csv and options.window is not None)
    unbounded = options.format and options.top_k is None and options.threshold is None
    of_entry = options.threshold == "entry"
    threshold = THRESHOLD if unbounded or of_entry else options.threshold
    try:
        selection = Selection(
            top_k=options.top_k, threshold=threshold,
            windows=bool(per_window), merge=options.merge, low_threshold=options.low_threshold,
            min_duration=options.min_duration or 0.0,
        )  # fmt: skip
    except ValueError as error:
        return usage("predict", f"--{str(error).replace('_', '-')}")
    files = list(options.files)
    if options.demo:
        from qaudio.data.demo import write_demo

        files.insert(0, str(write_demo("qaudio-demo.wav")))
    run = FilesRun(options, files, analyse)
    if of_entry and run.model.thresholds is not None:
        selection = replace(selection, threshold=run.model.thresholds)
    elif of_entry:
        say_beside_bar(f"{shown(options.model)} has no thresholds of its own: {THRESHOLD} is taken")
    if options.format:
        return _label_files(run, selection)
    return _printed(run, selection) if options.csv in (None, "-") else _csv_file(run, selection)


def _wrong(options: argparse.Namespace) -> str | None:
    """What is wrong with the options."""
    if options.csv not in (None, "-") and Path(options.csv).suffix.lower() != ".csv":
        return f"--csv takes a file that ends in .csv, not {shown(options.csv)}"
    if options.csv is not None and os.path.isdir(options.csv):
        return f"--csv {shown(options.csv)} is a folder: give a file"
    if not options.files and not options.demo:
        return "give sound files, or --demo"
    if wrong := wrong_windows(options):
        return wrong
    if bool(options.format) != bool(options.out):
        return "--format and --out go together"
    if options.out and os.path.exists(options.out) and not os.path.isdir(options.out):
        return f"--out {shown(options.out)} is a file: give a folder"
    if options.resume and not options.format and options.csv in (None, "-"):
        return "--resume goes with --csv FILE.csv or --format, which write files"
    if not options.merge and (options.low_threshold, options.min_duration) != (None, None):
        return "--low-threshold and --min-duration go with --merge"
    exported = options.model.endswith(".onnx")
    if options.runtime is not None and exported != (options.runtime == "onnx"):
        wanted = "an entry" if exported else "an .onnx file, which `qaudio export` makes"
        return f"--runtime {options.runtime} takes {wanted}, as --model"
    return None


def _printed(run: FilesRun, selection: Selection) -> int:
    """Print what is found in each file; the exit code."""
    import csv

    from tqdm import tqdm

    from qaudio.inference.labels import COLUMNS, csv_rows, record_of

    options = run.options
    whole = replace(selection, windows=False, merge=False, low_threshold=None)
    table = csv.writer(sys.stdout, lineterminator="\n")
    if options.csv:
        table.writerow(COLUMNS)
    for result in run.results():
        analysis = result.found
        if analysis is None:
            if options.csv:
                table.writerows(csv_rows({"path": result.path, "error": result.error}))
            continue
        with tqdm.external_write_mode():
            if options.csv:
                table.writerows(csv_rows({"path": result.path} | record_of(selection.of(analysis))))
                sys.stdout.flush()
                continue
            rows = selection.of(analysis) if options.times or options.merge else []
            write = _print_json if options.json else _print_text
            write(options, result.path, analysis, whole.of(analysis), rows)
    total, lost = len(run.paths) + run.faults, run.failed + run.faults
    if total > 1 and not options.json and not options.csv:
        print(f"\n{run.summary()}")
    elif lost > 1:
        say_beside_bar(f"{lost} of {total} files could not be used")
    return 1 if lost else 0


def _print_json(
    options: argparse.Namespace,
    path: str,
    analysis: Analysis,
    top: list[Prediction],
    rows: list[Prediction],
) -> None:
    from qaudio.data.audio import display_name

    document: dict[str, Any] = {"file": display_name(path), "predictions": [vars(p) for p in top]}
    if analysis.detects_none or (options.threshold is not None and not top):
        document["none_of_these"] = True
    if options.merge:
        document["events"] = [vars(p) for p in rows]
    elif options.times:
        document["times"] = [vars(p) for p in rows]
    print(json.dumps(document), flush=True)


def _print_text(
    options: argparse.Namespace,
    path: str,
    analysis: Analysis,
    top: list[Prediction],
    rows: list[Prediction],
) -> None:
    from qaudio.data.audio import display_name
    from qaudio.prediction import DETECTED

    print(f"{display_name(path)}  ({shown(Path(options.model).name)})")
    if analysis.detects_none:
        print(f"  none of its {len(analysis.labels)} classes reaches {DETECTED:.0%}; the nearest:")
    elif options.threshold is not None and not top:
        print(f"  none of its {len(analysis.labels)} classes reaches its threshold")
    for p in top:
        print(f"  {p.probability:6.1%}  {shown(p.label)}")
    if rows:
        print(f"  {'start':>8} {'end':>8}  label")
    for p in rows:
        print(f"  {p.start:8.2f} {p.end:8.2f}  {shown(p.label)} {p.probability:.1%}")


def _csv_file(run: FilesRun, selection: Selection) -> int:
    """Write one table of all files; the exit code."""
    import io

    from qaudio.inference.labels import record_of, write_csv

    out = Path(run.options.csv)

    def finish(journal: Journal) -> None:
        with replacing(out) as file:
            text = io.TextIOWrapper(file, encoding="utf-8", newline="")
            write_csv(text, journal.records())
            text.detach()  # flushed, and the file left open

    return run.write(
        out, Path(f"{out}.partial"), lambda _, found: record_of(selection.of(found)), finish,
        **vars(selection),
    )  # fmt: skip


def _label_files(run: FilesRun, selection: Selection) -> int:
    """Write a label file for each sound; the exit code."""
    from qaudio.inference.labels import label_file, label_paths

    folder, kind, rate = Path(run.options.out), run.options.format, run.model.sample_rate
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{shown(str(folder))} cannot be made: {error.strerror}") from None
    goals = label_paths(run.paths, folder, kind)

    def write(path: str, found: Analysis) -> dict[str, Any]:
        goals[path].parent.mkdir(parents=True, exist_ok=True)
        with replacing(goals[path]) as file:
            file.write(label_file(selection.of(found), kind, rate).encode())
        return {}

    return run.write(folder, folder / ".qaudio.partial", write, **vars(selection), format=kind)
