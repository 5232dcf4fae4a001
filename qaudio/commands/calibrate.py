"""`qaudio calibrate`: how far an entry's probabilities can be trusted, and thresholds for them."""

import argparse
import json

from qaudio.commands.common import Commands, add_entry, positive, usage
from qaudio.errors import EntryError
from qaudio.evaluation.result import Calibration
from qaudio.progress import progress
from qaudio.text import shown
from qaudio.zoo.resolve import load, locate
from qaudio.zoo.store import entry_name, file_of, read_results


def register(command: Commands) -> None:
    """Add the subcommand."""
    sub = command(
        "calibrate", _calibrate,
        "temperature and thresholds of an entry's probabilities, from its held-out predictions",
        "qaudio calibrate qcnn10_050.esc10\n"
        "         qaudio calibrate my_entry --outside GTZAN --outside RAVDESS --write\n"
        "         qaudio calibrate qcnn10_050.audioset_kd_long --benchmark esc26",
    )  # fmt: skip
    add_entry(sub)
    sub.add_argument(
        "--benchmark", metavar="NAME",
        help="look at the entry's probes and zero-shot scores of a benchmark in place of its own "
        "results; nothing is written",
    )  # fmt: skip
    sub.add_argument(
        "--outside", action="append", metavar="FOLDER",
        help="sounds of none of its classes, to measure how well they are separated from its own",
    )  # fmt: skip
    sub.add_argument(
        "--most", type=positive, default=200, metavar="N", help="files of each folder (200)"
    )
    sub.add_argument(
        "--write", action="store_true",
        help="store them in the entry, where `qaudio predict` and `qaudio export` use them, and on "
        "its card",
    )  # fmt: skip
    sub.add_argument("--json", action="store_true", help="print them as JSON")


def _calibrate(options: argparse.Namespace) -> int:
    if options.benchmark is not None:
        if options.write or options.outside:
            return usage("calibrate", "--benchmark goes with neither --write nor --outside")
        return _transferred(options)
    import numpy as np

    from qaudio.cards.entries import calibrate
    from qaudio.evaluation.calibration import check, summarise
    from qaudio.evaluation.predictions import Predictions
    from qaudio.inference.outside import outside_logits

    folder = locate(options.entry)
    results = read_results(folder)
    if results is None:
        raise EntryError(f"{entry_name(folder)}: has no results to calibrate")
    predictions = Predictions.load(file_of(folder, "predictions.npz"))
    check(predictions)
    fold, seed = results.card_fold, results.card_seed
    outside = None
    if options.outside:
        with progress(what="sounds", unit="file") as bar:
            names, logits = outside_logits(
                load(folder), options.outside, most=options.most,
                progress=lambda done: bar.update(done - bar.n),
            )  # fmt: skip
        labels = np.zeros(len(names), int)  # which say nothing: none of the classes is theirs
        outside = Predictions.of_run(fold, seed, names, labels, logits)
    found = calibrate(folder, outside) if options.write else summarise(
        predictions, fold, seed, outside
    )  # fmt: skip
    if options.json:
        print(json.dumps(found.to_dict()))
        return 0
    print(_line(entry_name(folder), found))
    for row in found.answered:
        right = "" if row.precision is None else f", of which {row.precision:.1%} are right"
        print(f"  for a precision of {row.wanted:.0%}: answers {row.share:.1%}{right}")
    if found.outside:
        for name, value in found.outside.auroc.items():
            print(f"  sounds of none of its classes, by {name}: AUROC {value:.3f}")
    if not options.write:
        print("  --write stores this in the entry")
    return 0


def _transferred(options: argparse.Namespace) -> int:
    """What a temperature does for scores on a benchmark that the entry was not trained on."""
    from qaudio.evaluation.calibration import summarise
    from qaudio.evaluation.predictions import Predictions

    folder = locate(options.entry)
    results = read_results(folder)
    every = results.transfer if results else []
    rows = [one for one in every if one.benchmark == options.benchmark]
    if not rows:
        held = ", ".join(sorted({one.benchmark for one in every})) or "none"
        raise EntryError(
            f"{entry_name(folder)}: has no probe of {shown(options.benchmark)}; it has: {held}"
        )
    found = {}
    for row in rows:
        predictions = Predictions.load(file_of(folder, row.predictions))
        seed, fold = predictions.runs()[0]
        found[row.protocol] = summarise(predictions, fold, seed)
    if options.json:
        print(json.dumps({protocol: one.to_dict() for protocol, one in found.items()}))
        return 0
    for protocol, one in found.items():
        print(_line(f"{options.benchmark}, {protocol}", one))
    return 0


def _line(name: str, found: Calibration) -> str:
    return (
        f"{shown(name)}: temperature {found.temperature:g}; expected calibration error "
        f"{found.ece_calibrated:.3f}, {found.ece:.3f} without"
    )
