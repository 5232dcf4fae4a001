"""Entries with their cards: save, verify, renew the card, push."""

import re
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from qaudio.cards import files as card_files
from qaudio.errors import EntryError
from qaudio.evaluation import per_class
from qaudio.evaluation.calibration import summarise
from qaudio.evaluation.predictions import Predictions
from qaudio.evaluation.result import Calibration, Result
from qaudio.models.base import AudioModel
from qaudio.paths import locked, replace_folder
from qaudio.records import parse
from qaudio.zoo import hub, io
from qaudio.zoo.hub_cache import check_repo
from qaudio.zoo.resolve import locate, of_one_version
from qaudio.zoo.schema import Config, Results, Transfer, own_recordings
from qaudio.zoo.store import (
    NOT_OURS,
    check_hash,
    copy_files,
    entry_name,
    file_hash,
    file_of,
    read_config,
    read_results,
    read_text,
    refuse_other,
    to_json,
)
from qaudio.zoo.verify import check_entry, check_results

OUTSIDE = "outside.npz"  # predictions on sounds of none of an entry's classes
SCORED = ("results.json", "predictions.npz", "recipe.yaml", "README.md")  # of what is published


def save(
    model: AudioModel,
    folder: str | Path,
    *,
    results: Results | dict[str, Any] | None = None,
    predictions: Predictions | None = None,
    recipe: str | None = None,
    license: str | None = None,
    folds: Mapping[str, dict[str, torch.Tensor] | Path] | None = None,
    extra: Mapping[str, str | Predictions] | None = None,
    weights: bool = True,
) -> Path:
    """Write an entry: all of it, or nothing.

    Args:
        model: its weights become model.safetensors.
        folder: replaced when it is an entry already, but for what git keeps there; folders that
            hold other files are refused.
        results: content of results.json; without it the entry has no score and no card.
        predictions: what the results were computed from.
        recipe: text of recipe.yaml.
        license: Hub identifier, such as "cc-by-4.0".
        folds: state dicts to keep beside the model's, or files of them to copy, by file name.
        extra: texts and further predictions to store beside them, by file name.
        weights: False leaves out weights, probe and card: results alone, for cells of a study.

    Raises:
        EntryError: when the folder holds something else, or the entry could not be read again,
            such as with a layer that its config does not know of.
    """
    extra = dict(extra or {})
    if predictions is not None:
        extra["predictions.npz"] = predictions
    if recipe is not None:
        extra["recipe.yaml"] = recipe
    write_card, scaling = None, None
    if results is not None:
        found = parse(results, Results) if isinstance(results, dict) else results
        extra["results.json"] = to_json(found)
        scaling = found.calibration and found.calibration.scaling
        if weights:
            write_card = partial(card_files.write, results=found, predictions=predictions)
    return io.write_entry(
        model, folder, license=license, calibration=scaling, folds=folds, extra=extra,
        weights=weights, write_card=write_card,
    )  # fmt: skip


def verify(source: str | Path) -> list[str]:
    """Check an entry from end to end.

    File hashes; strict load; the probe's logits; every score of results.json computed again from
    predictions.npz, and the difference to the parent where that is on this machine; the front
    matter of the card, and every number that it shows, compared with what the results give.

    Raises:
        EntryError: at the first thing that does not hold.
    """
    return of_one_version(locate(source), _checked)


def _checked(folder: Path) -> list[str]:
    found = check_entry(folder)
    if found.results is None or found.predictions is None:
        return found.done
    if "model.safetensors" not in found.config.files:
        return found.done
    card = card_files.check(folder, found.config, found.results, found.predictions)
    return [*found.done, card]


def push(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    create_pr: bool = False,
    revision: str | None = None,
    license: str | None = None,
    publish_names: bool = False,
    incomplete: bool = False,
    scored: bool = True,
) -> hub.Pushed:
    """Publish an entry as a repository on the Hub, in one commit.

    Nothing is sent of an entry that does not verify. What the repository holds already is not sent
    again, so a push can be repeated until it went through; files of an earlier entry that this one
    lacks are removed, other files in the repository stay. The folder stays as it is.

    Args:
        folder: entry name or folder.
        repo_id: "your-name/entry"; made where it does not exist.
        private: make the repository a private one.
        create_pr: open a pull request; the repository's main branch stays as it is.
        revision: branch to commit to, made where it does not exist; default: main.
        license: of the weights, Hub identifier, in place of the entry's.
        publish_names: keep the file names of your own recordings in the published predictions;
            else hashes stand there, the same for the same names.
        incomplete: publish an entry that lacks folds.
        scored: False also publishes weights that have no results, recipe or card.

    Raises:
        EntryError: when the entry does not verify, or has no licence, results, recipe or card, or
            lacks folds; when its texts hold folders of this machine; when the Hub refuses or cannot
            be reached. Says what to do.
    """
    check_repo(repo_id)
    if create_pr and revision is not None:
        raise EntryError("a pull request is made for the main branch: leave out the revision")
    folder = locate(folder)
    with tempfile.TemporaryDirectory() as scratch:
        ready = publishable(folder, Path(scratch) / folder.name, license, publish_names, incomplete)
        config = read_config(ready)
        lacking = [name for name in SCORED if scored and name not in config.files]
        if not config.license:
            lacking.insert(0, "a licence (push --license, writer.license, or save(license=…))")
        if lacking:
            raise EntryError(f"{ready.name}: is not fit to publish: it lacks {', '.join(lacking)}")
        verify(ready)
        return hub.push(ready, repo_id, private=private, create_pr=create_pr, revision=revision)


def publishable(
    folder: Path, copy: Path, license: str | None, publish_names: bool, incomplete: bool
) -> Path:
    """An entry as it may be published: itself, or the copy that is made of it.

    Raises:
        EntryError: for an entry that `push` refuses.
    """
    config, results = read_config(folder), read_results(folder)
    if results is None:
        return folder  # which is refused for it
    if not results.complete and not incomplete:
        raise EntryError(
            f"{entry_name(folder)}: lacks folds, {len(results.result.runs)} runs are there: "
            "`qaudio crossval` adds the others, --incomplete publishes it as it is"
        )
    refuse_folders(folder, list(config.files))
    named = [] if publish_names else _with_names(results)
    if not named and license in (None, config.license):
        return folder
    verify(folder)  # what is made of it is another
    copy_files(folder, ["config.json", *config.files], copy)
    found = {name: Predictions.load(file_of(folder, name)) for name in named}
    hidden = {
        name: one.without_names(keep_folders=name == results.outside) for name, one in found.items()
    }
    predictions = hidden.get("predictions.npz") or check_results(folder, config, results)
    config.license = license or config.license
    _rewrite(copy, config, results, predictions, hidden)
    return copy


def _with_names(results: Results) -> list[str]:
    """Files of predictions whose ids are names that somebody gave recordings of their own."""
    scored = [one.predictions for one in results.transfer if own_recordings(one)]
    if results.is_custom_dataset:
        scored += ["predictions.npz", *(one.predictions for one in results.baselines)]
    return scored if results.outside is None else [*scored, results.outside]


# A path of several folders from the root of a disk, or from somebody's home.
FOLDERS = re.compile(r"(?<![\w.:/<@)~*-])(?:~?(?:/[\w.+@~ -]+){2,}|[A-Za-z]:\\{1,2}[\w.]+)")
TEXTS = (".yaml", ".json", ".md")


def refuse_folders(folder: Path, names: list[str]) -> None:
    """Raise EntryError where an entry's texts name folders of the machine that made it."""
    for name in names:
        if not name.endswith(TEXTS) or not (folder / name).is_file():
            continue
        text = read_text(folder, name)
        found = FOLDERS.search(text)
        if found:
            raise EntryError(
                f"{entry_name(folder)}: {name} names a folder of your machine, {found[0]!r}, and "
                "would publish it: train with a relative path, or an entry's name"
            )


def renew_card(source: str | Path) -> bool:
    """Write an entry's card again, from its config, results and predictions; nothing else changes.

    Raises:
        EntryError: when results or predictions are not those that config.json lists, or do not
            agree: a card is not made of what does not verify.
    """
    folder = locate(source)
    with locked(folder):  # a run that is recorded meanwhile must not be lost
        config, results = read_config(folder), read_results(folder)
        if results is None or "model.safetensors" not in config.files:
            return False
        for name in ("results.json", "predictions.npz"):
            check_hash(folder, config, name)
        predictions = check_results(folder, config, results)
        if card_files.is_current(folder, config, results, predictions):
            return False
        _rewrite(folder, config, results, predictions)
    return True


def add_transfer(
    source: str | Path,
    *,
    benchmark: str,
    dataset: str,
    protocol: str,
    result: Result,
    predictions: Predictions,
) -> Path:
    """Put a score on a benchmark that an entry was not trained on into its results and card.

    Args:
        benchmark, dataset, protocol: as in its results; a score of the same benchmark and protocol
            is replaced.

    Raises:
        EntryError: for an entry without results, or that does not verify.
    """
    folder = locate(source)
    key = (benchmark, protocol)
    with locked(folder):
        config, results, own = _scored(folder)
        scores = {(one.benchmark, one.protocol): one for one in results.transfer}
        words = re.sub("[^a-z0-9]+", "_", " ".join(key).lower()).strip("_")
        name = scores[key].predictions if key in scores else f"transfer/{words}.npz"
        scores[key] = Transfer(
            benchmark=benchmark, dataset=dataset, protocol=protocol, result=result, predictions=name
        )  # fmt: skip
        results.transfer = [scores[key] for key in sorted(scores)]
        _rewrite(folder, config, results, own, {name: predictions})
    return folder


def drop_weights(source: str | Path) -> Path:
    """Leave results and predictions of an entry alone, as cells of studies are kept.

    Raises:
        EntryError: for an entry without results, or that does not verify.
    """
    folder = locate(source)
    with locked(folder):
        config, results, own = _scored(folder)
        extra: dict[str, str | Predictions] = {
            name: Predictions.load(file_of(folder, name)) for name in results.beside
        }
        for name in ("recipe.yaml", per_class.FILE):
            if name in config.files:
                extra[name] = file_of(folder, name).read_text(encoding="utf-8")
        return save(
            io.load_weights(folder), folder, results=results, predictions=own,
            license=config.license, extra=extra, weights=False,
        )  # fmt: skip


def calibrate(source: str | Path, outside: Predictions | None = None) -> Calibration:
    """Put calibration into an entry's config, results and card.

    Args:
        outside: as for `qaudio.evaluation.calibration.summarise`; None: what the entry has.

    Raises:
        EntryError: for an entry without results, or that does not verify.
        InputError: for one whose predictions give no calibration.
    """
    folder = locate(source)
    with locked(folder):
        config, results, predictions = _scored(folder)
        made = {} if outside is None else {OUTSIDE: outside}
        if outside is None and results.outside:
            outside = Predictions.load(file_of(folder, results.outside))
        results.calibration = calibration_of(results, predictions, outside)
        config.calibration = results.calibration.scaling
        _rewrite(folder, config, results, predictions, made)
    return results.calibration


def calibration_of(
    results: Results, predictions: Predictions, outside: Predictions | None
) -> Calibration:
    """Calibration of an entry's weights by its predictions; raises InputError as `calibrate`."""
    found = summarise(predictions, results.card_fold, results.card_seed, outside)
    if found.outside:
        found.outside.predictions = OUTSIDE
    return found


def _scored(folder: Path) -> tuple[Config, Results, Predictions]:
    """What an entry's scores are made of; raises EntryError where it has none, or they differ."""
    config, results = read_config(folder), read_results(folder)
    if results is None:
        raise EntryError(f"{entry_name(folder)}: has no results to add to")
    return config, results, check_results(folder, config, results)


def _rewrite(
    folder: Path,
    config: Config,
    results: Results,
    predictions: Predictions,
    more: dict[str, Predictions] | None = None,
) -> None:
    """Write an entry's results and card again, and more predictions; its other files stay."""
    refuse_other(folder)
    more = more or {}
    fresh = {*card_files.names(config), "results.json", *more}
    picture = card_files.sound_picture(folder, config, predictions)
    keep = [name for name in config.files if name not in fresh]

    def write(new: Path) -> None:
        copy_files(folder, keep, new)
        (new / "results.json").write_text(to_json(results), encoding="utf-8", newline="\n")
        for name, one in more.items():
            (new / name).parent.mkdir(exist_ok=True)
            one.save(new / name)
        written = [
            *card_files.write(new, config, results, predictions, picture), "results.json", *more
        ]  # fmt: skip
        files = {name: config.files[name] for name in keep}
        files |= {name: file_hash(new / name) for name in written}
        config.files = dict(sorted(files.items()))
        (new / "config.json").write_text(to_json(config), encoding="utf-8", newline="\n")

    replace_folder(folder, write, keep=NOT_OURS)
