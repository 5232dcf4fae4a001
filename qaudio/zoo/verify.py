"""Checks of an entry: its files, weights and probe, and every score against its predictions."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qaudio.errors import EntryError, entry_errors
from qaudio.evaluation import calibration, per_class
from qaudio.evaluation.bootstrap import paired_difference, summarise
from qaudio.evaluation.metrics import metric_of
from qaudio.evaluation.predictions import Predictions
from qaudio.evaluation.result import Calibration, Result
from qaudio.records import Record
from qaudio.zoo.io import check_probe, load_weights
from qaudio.zoo.resolve import find_local
from qaudio.zoo.schema import Baseline, Config, Results, Transfer
from qaudio.zoo.store import (
    check_hash,
    entry_name,
    file_of,
    files_of,
    read_config,
    read_json,
    read_results,
)


@dataclass
class Checked:
    """An entry that holds, but for its card, which `qaudio.cards` checks.

    Attributes:
        results: of results.json; None where it has none.
        predictions: that the results follow from; None without results.
        done: what was checked, a line each.
    """

    config: Config
    results: Results | None = None
    predictions: Predictions | None = None
    done: list[str] = field(default_factory=list)


def check_entry(folder: Path) -> Checked:
    """Check all of an entry but its card.

    File hashes; strict load; the probe's logits; every score of results.json computed again from
    predictions.npz, and the difference to the parent where that is on this machine.

    Raises:
        EntryError: at the first thing that does not hold.
    """
    config = read_config(folder)
    listed = _check_files(folder, config)
    found = Checked(config, done=[f"{len(listed)} files match their sha256"])
    if "model.safetensors" in listed:
        model = load_weights(folder)
        for name in sorted(listed):
            if name.startswith("folds/"):
                load_weights(folder, name)
        found.done.append(
            f"probe logits within {check_probe(folder, model):.1e} of the stored ones"
        )
    found.results = read_results(folder)
    if found.results is None:
        return found
    found.predictions = check_results(folder, config, found.results)
    found.done.append("results.json follows from predictions.npz")
    if per_class.FILE in listed:  # entries of earlier versions have none
        report = per_class.report(found.predictions, config.labels)
        if read_json(folder / per_class.FILE) != report:
            raise EntryError(
                f"{entry_name(folder)}: {per_class.FILE} is not what its predictions give"
            )
        found.done.append(f"{per_class.FILE} follows from predictions.npz")
    return found


def _check_files(folder: Path, config: Config) -> set[str]:
    """The files that config.json lists, once they are there and unchanged; raises EntryError."""
    present, listed = files_of(folder), set(config.files)
    if not (folder / "folds").is_dir():  # wheels and downloads may leave them out, all of them
        listed = {name for name in listed if not name.startswith("folds/")}
    for wrong, why in (
        (listed - present, "files missing"),
        (present - listed - {"config.json"}, "files that config.json does not list"),
    ):
        if wrong:
            raise EntryError(f"{entry_name(folder)}: {why}: {', '.join(sorted(wrong))}")
    for name in sorted(listed):
        check_hash(folder, config, name)
    return listed


def check_results(folder: Path, config: Config, results: Results) -> Predictions:
    """Compute every score again; the predictions. Raises EntryError where one differs."""
    try:
        predictions = Predictions.load(file_of(folder, "predictions.npz"))
        predictions.check(config.num_classes, config.task)
        again = summarise(predictions, metric_of(config.task))
    except ValueError as error:
        raise EntryError(
            f"{entry_name(folder)}: results cannot be computed again ({error})"
        ) from None
    _compare(folder, "result", results.result, again)
    for one in results.transfer:
        _compare(folder, one.protocol, one.result, _again(folder, one, "multiclass")[0])
    for row in results.baselines:
        result, kept = _again(folder, row, config.task)
        _compare(folder, row.method, row.result, result)
        with entry_errors(f"{entry_name(folder)}: {row.method}"):
            difference = paired_difference(predictions, kept)
        _compare(folder, f"difference to {row.method}", row.difference, difference)
    if results.calibration:
        fitted = _calibration_again(folder, results, predictions)
        _compare(folder, "calibration", results.calibration, fitted)
        used = {"temperature": fitted.temperature, "thresholds": fitted.thresholds}
        stored = config.calibration and config.calibration.to_dict()
        _compare(folder, "calibration in config.json", stored, used)
    parent = results.parent
    if parent and parent.difference:
        theirs = find_local(parent.name, folder.parent)
        if theirs is None:
            return predictions
        with entry_errors(f"{entry_name(folder)}: parent {parent.name}"):
            before = Predictions.load(file_of(theirs, "predictions.npz"))
            difference = paired_difference(predictions, before)
        _compare(folder, "parent.difference", parent.difference, difference)
    return predictions


def _again(folder: Path, one: Transfer | Baseline, task: str) -> tuple[Result, Predictions]:
    """The result that follows from further predictions of an entry; and these."""
    with entry_errors(f"{entry_name(folder)}: {one.predictions}"):
        predictions = Predictions.load(file_of(folder, one.predictions))
        predictions.check(predictions.logits.shape[1], task)
        return summarise(predictions, one.result.metric), predictions


def _calibration_again(folder: Path, results: Results, predictions: Predictions) -> Calibration:
    """The calibration that follows from an entry's predictions; raises EntryError."""
    stated = results.calibration and results.calibration.outside
    name = stated.predictions if stated else None
    with entry_errors(f"{entry_name(folder)}: calibration"):
        outside = Predictions.load(file_of(folder, name)) if name else None
        again = calibration.summarise(predictions, results.card_fold, results.card_seed, outside)
    if again.outside:
        again.outside.predictions = name
    return again


def _compare(folder: Path, where: str, stated: Any, computed: Any) -> None:
    if isinstance(stated, Record):
        stated, computed = stated.to_dict(), computed.to_dict()
    if isinstance(stated, dict) and isinstance(computed, dict):
        for key in sorted(stated.keys() | computed.keys()):
            _compare(folder, f"{where}.{key}", stated.get(key), computed.get(key))
    elif stated != computed:
        raise EntryError(
            f"{entry_name(folder)}: results.json: {where} says {stated!r}, predictions.npz gives "
            f"{computed!r}"
        )
