"""Checks of an entry: its files, weights and probe, and every score against its predictions."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qaudio.errors import EntryError
from qaudio.evaluation import per_class
from qaudio.evaluation.bootstrap import paired_difference, summarise
from qaudio.evaluation.metrics import metric_of
from qaudio.evaluation.predictions import Predictions
from qaudio.zoo.io import check_probe, load_weights
from qaudio.zoo.resolve import find_local
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
        config: content of config.json.
        results: content of results.json; None where it has none.
        predictions: that the results follow from; None without results.
        done: what was checked, a line each.
    """

    config: dict[str, Any]
    results: dict[str, Any] | None = None
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
    found.results = read_results(folder, whole=True)
    if found.results is None:
        return found
    found.predictions = check_results(folder, config, found.results)
    found.done.append("results.json follows from predictions.npz")
    if per_class.FILE in listed:  # entries of earlier versions have none
        report = per_class.report(found.predictions, config["labels"])
        if read_json(folder / per_class.FILE) != report:
            raise EntryError(
                f"{entry_name(folder)}: {per_class.FILE} is not what its predictions give"
            )
        found.done.append(f"{per_class.FILE} follows from predictions.npz")
    return found


def _check_files(folder: Path, config: dict[str, Any]) -> set[str]:
    """The files that config.json lists, once they are there and unchanged; raises EntryError."""
    present, listed = files_of(folder), set(config["files"])
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


def check_results(folder: Path, config: dict[str, Any], results: dict[str, Any]) -> Predictions:
    """Compute every score anew; the predictions. Raises EntryError where one differs."""
    try:
        predictions = Predictions.load(file_of(folder, "predictions.npz"))
        predictions.check(config["num_classes"], config["task"])
        again = summarise(predictions, metric_of(config["task"]))
    except ValueError as error:
        raise EntryError(
            f"{entry_name(folder)}: results cannot be computed anew ({error})"
        ) from None
    _compare(folder, "result", results["result"], again)
    for one in results.get("transfer", []):
        _compare(folder, one["protocol"], one["result"], _again(folder, one, "multiclass")[0])
    for one in results.get("baselines", []):
        result, kept = _again(folder, one, config["task"])
        _compare(folder, one["method"], one["result"], result)
        difference = _difference(folder, one["method"], predictions, kept)
        _compare(folder, f"difference to {one['method']}", one["difference"], difference)
    parent = results.get("parent")
    if parent and parent.get("difference"):
        theirs = find_local(parent["name"], folder.parent)
        if theirs is None:
            return predictions
        try:
            before = Predictions.load(file_of(theirs, "predictions.npz"))
        except ValueError as error:
            raise EntryError(f"{entry_name(folder)}: parent {parent['name']}: {error}") from None
        difference = _difference(folder, f"parent {parent['name']}", predictions, before)
        _compare(folder, "parent.difference", parent["difference"], difference)
    return predictions


def _again(folder: Path, one: dict[str, Any], task: str) -> tuple[dict[str, Any], Predictions]:
    """The result that follows from further predictions of an entry; and these."""
    try:
        predictions = Predictions.load(file_of(folder, one["predictions"]))
        predictions.check(predictions.logits.shape[1], task)
        return summarise(predictions, one["result"]["metric"]), predictions
    except (ValueError, KeyError) as error:
        raise EntryError(f"{entry_name(folder)}: {one['predictions']}: {error}") from None


def _difference(folder: Path, what: str, ours: Predictions, theirs: Predictions) -> dict[str, Any]:
    try:
        return paired_difference(ours, theirs)
    except ValueError as error:
        raise EntryError(f"{entry_name(folder)}: {what}: {error}") from None


def _compare(folder: Path, where: str, stated: Any, computed: Any) -> None:
    if isinstance(stated, dict) and isinstance(computed, dict):
        for key in sorted(stated.keys() | computed.keys()):
            _compare(folder, f"{where}.{key}", stated.get(key), computed.get(key))
    elif stated != computed:
        raise EntryError(
            f"{entry_name(folder)}: results.json: {where} says {stated!r}, predictions.npz gives "
            f"{computed!r}"
        )
