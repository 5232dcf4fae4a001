"""`qaudio predict`: classes of sound files."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
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
from qaudio.commands.over_files import (
    Tally,
    add_options,
    fingerprint,
    open_model,
    over,
    record,
    say_faults,
    unfinished,
)
from qaudio.errors import DataError
from qaudio.text import shown

if TYPE_CHECKING:
    from qaudio.inference.files import FileResult
    from qaudio.inference.selection import Selection
    from qaudio.prediction import Analysis, Prediction

    Results = Iterator[FileResult[Analysis]]
    Run = Callable[[list[str]], Results]


def register(command: Commands) -> None:
    """Add the subcommands of this module."""
    sub = command(
        "predict", _predict, "the most probable classes of sound files",
        "qaudio predict your_file.wav --times\n"
        "         qaudio predict my_sounds --csv events.csv --merge --threshold 0.6\n"
        "         qaudio predict my_sounds --format audacity --out labels --window 2",
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
    from qaudio.inference.files import cores, find_sounds, threads_per_file
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
    paths, faults = find_sounds(files)
    say_faults(faults)
    jobs = options.jobs or cores()
    model = open_model(options.model, threads_per_file(jobs, len(paths)))
    if of_entry and model.thresholds is not None:
        selection = replace(selection, threshold=model.thresholds)
    elif of_entry:
        say_beside_bar(f"{shown(options.model)} has no thresholds of its own: {THRESHOLD} is taken")

    run = partial(over, model, analyse, options, jobs)

    tally = Tally(len(faults))
    if options.format or options.csv not in (None, "-"):
        write = _label_files if options.format else _csv_file
        failed = write(options, selection, model, paths, run, tally)
    else:
        failed = _printed(options, selection, paths, run, tally)
    return 1 if failed or faults else 0


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


def _printed(
    options: argparse.Namespace, selection: Selection, paths: list[str], run: Run, tally: Tally
) -> int:
    """Print what is found in each file; how many cannot be used."""
    import csv

    from tqdm import tqdm

    from qaudio.inference.labels import COLUMNS, csv_rows, record_of

    whole = replace(selection, windows=False, merge=False, low_threshold=None)
    table = csv.writer(sys.stdout, lineterminator="\n")
    if options.csv:
        table.writerow(COLUMNS)
    for result in run(paths):
        tally.add(result)
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
            if options.json:
                _print_json(options, result.path, analysis, whole.of(analysis), rows)
            else:
                _print_text(options, result.path, analysis, whole.of(analysis), rows)
    total, lost = len(paths) + tally.unread, tally.failed + tally.unread
    if total > 1 and not options.json and not options.csv:
        print(f"\n{tally.summary()}")
    elif lost > 1:
        say_beside_bar(f"{lost} of {total} files could not be used")
    return tally.failed


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


def _csv_file(
    options: argparse.Namespace,
    selection: Selection,
    model: Any,
    paths: list[str],
    run: Run,
    tally: Tally,
) -> int:
    """Write one table of all files; how many cannot be used."""
    import io

    from qaudio.inference.labels import record_of, write_csv

    out = Path(options.csv)
    settings = _settings(options, selection, model)
    with unfinished(Path(f"{out}.partial"), settings, options.resume, out) as journal:
        record(run, paths, journal, tally, lambda _, found: record_of(selection.of(found)))
        with replacing(out) as file:
            text = io.TextIOWrapper(file, encoding="utf-8", newline="")
            write_csv(text, journal.records())
            text.detach()  # flushed, and the file left open
        print(f"{shown(str(out))}: {tally.summary(journal)}")
        return journal.failed


def _label_files(
    options: argparse.Namespace,
    selection: Selection,
    model: Any,
    paths: list[str],
    run: Run,
    tally: Tally,
) -> int:
    """Write a label file for each sound; how many cannot be used."""
    from qaudio.inference.labels import label_file, label_paths

    folder = Path(options.out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{shown(options.out)} cannot be made: {error.strerror}") from None
    goals = label_paths(paths, folder, options.format)
    settings = _settings(options, selection, model) | {"format": options.format}

    def write(path: str, found: Analysis) -> dict[str, Any]:
        goals[path].parent.mkdir(parents=True, exist_ok=True)
        with replacing(goals[path]) as file:
            text = label_file(selection.of(found), options.format, model.sample_rate)
            file.write(text.encode())
        return {}

    with unfinished(folder / ".qaudio.partial", settings, options.resume, folder) as journal:
        record(run, paths, journal, tally, write)
        print(f"{shown(options.out)}: {tally.summary(journal)}")
        return journal.failed


def _settings(options: argparse.Namespace, selection: Selection, model: Any) -> dict[str, Any]:
    """What a run that goes on must have in common with the one before."""
    return {
        "command": "predict", "model": fingerprint(options.model, model), "window": options.window,
        "hop": options.hop, **vars(selection),
    }  # fmt: skip
