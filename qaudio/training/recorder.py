"""From trained runs to an entry: predictions merged, results computed, card written."""

from __future__ import annotations

import contextlib
import json
import platform
import re
import shlex
import subprocess
import tempfile
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from qaudio import __version__
from qaudio.cards.entries import push, save
from qaudio.compress.cost import cost, device_name, measure_latency
from qaudio.data.split import Split
from qaudio.deploy.optimize import optimize
from qaudio.errors import EntryError
from qaudio.evaluation import per_class
from qaudio.evaluation.bootstrap import paired_difference, summarise
from qaudio.evaluation.metrics import metric_of
from qaudio.evaluation.predictions import Predictions
from qaudio.models.base import AudioModel
from qaudio.models.registry import from_config
from qaudio.paths import locked, replacing
from qaudio.text import one_line
from qaudio.training.leakage import fold_file
from qaudio.training.recipe import Recipe, epoch_choice
from qaudio.zoo.hub import Pushed
from qaudio.zoo.hub_cache import check_repo
from qaudio.zoo.io import load_weights
from qaudio.zoo.resolve import find_local, locate
from qaudio.zoo.schema import RESULTS, SCHEMA_VERSION, check, check_config, inside
from qaudio.zoo.store import (
    PACKAGE,
    entry_name,
    read_config,
    read_json,
    read_results,
    read_text,
    refuse_other,
    to_json,
    trained_on,
)

LIBRARIES = ("torch", "torchaudio", "lightning", "torchmetrics", "timm", "numpy", "soundfile")


@dataclass(frozen=True)
class Run:
    """One trained and tested network.

    Attributes:
        net: its weights are those that were scored.
        split: what was held out.
        seed: of the run.
        predictions: of the held-out fold.
        wall_seconds: of training.
        precision: of training, as Lightning names it.
        device: that it was trained on.
        parent: name of the entry it comes from and how ("pruned from"); None from scratch.
        sources: every entry that it learnt from, by name or folder.
        facts: what else results.json says of the training.
        baselines: what the same clips score without training the network, by method.
    """

    net: AudioModel
    split: Split
    seed: int
    predictions: Predictions
    wall_seconds: float
    precision: str
    device: torch.device
    parent: tuple[str, str] | None
    sources: list[str]
    facts: dict[str, Any] = field(default_factory=dict)
    baselines: dict[str, Predictions] = field(default_factory=dict)


class EntryWriter:
    """Writes one entry, run by run.

    Every recorded run leaves a whole entry behind, marked incomplete until each fold is there,
    so nothing is lost when the next run fails.

    Args:
        entry: name, ARCH.BENCHMARK[_VARIANT]; None: runs are not written.
        folder: where entries live.
        keep_folds: keep every run's weights, so that other entries can be derived from this one.
        license: of the weights, as the Hub names it ("cc-by-3.0").
        card_fold: fold whose weights become model.safetensors (of seed 0).
        latency: measure it when an entry is written.
        weights: False keeps results and predictions alone: for cells of a study.
        hub_dataset, hub_task: id of the benchmark's dataset on the Hub and of the task in it, where
            that dataset keeps a leaderboard: the score is written for it (`.eval_results/`).
        push_to: repository on the Hugging Face Hub ("your-name/entry") to publish the entry in,
            once every fold is there.

    Raises:
        EntryError: when `entry` is no name of a folder; when `push_to` is no repository's name or
            comes without a licence, or one of `hub_dataset` and `hub_task` without the other.
    """

    def __init__(
        self,
        entry: str | None = None,
        folder: str = "zoo",
        keep_folds: bool = False,
        license: str | None = None,
        card_fold: int = 1,
        latency: bool = True,
        weights: bool = True,
        hub_dataset: str | None = None,
        hub_task: str | None = None,
        push_to: str | None = None,
    ):
        if entry is not None:
            check_name(entry)
        if (hub_dataset is None) != (hub_task is None):
            raise EntryError("writer.hub_dataset and writer.hub_task go together")
        if push_to is not None:
            check_repo(push_to)
            if not license:  # said before hours of training, not after
                raise EntryError("writer.push_to needs writer.license: the licence of the weights")
        self.entry, self.folder = entry, Path(folder)
        self.keep_folds, self.license, self.card_fold = keep_folds, license, card_fold
        self.latency, self.weights, self.push_to = latency, weights, push_to
        self.hub_benchmark = hub_dataset and {"dataset_id": hub_dataset, "task_id": hub_task}

    @property
    def path(self) -> Path:
        """The entry's folder; raises EntryError when the recipe names no entry."""
        if not self.entry:
            raise EntryError("the recipe names no entry: give --writer.entry NAME")
        return self.folder / self.entry

    def done(self, recipe: Recipe) -> set[tuple[int, int]]:
        """(seed, fold) of the runs that the entry already holds.

        Raises:
            EntryError: when it was made by another recipe.
        """
        if not (self.path / "results.json").is_file():
            return set()
        results = read_results(self.path)
        assert results is not None
        changed = recipe.changed(self._recipe())
        if changed:
            raise EntryError(
                f"{self.path}: holds runs of another recipe ({', '.join(changed)}); delete it or "
                "give another --writer.entry"
            )
        return set(Predictions.load(self.path / "predictions.npz").runs())

    def check(self, recipe: Recipe) -> None:
        """Refuse before a training what would be refused after it.

        Raises:
            EntryError: when no entry is named, the one named was made by another recipe, or
                something else has its name.
            OSError: when nothing can be written to the folder of entries.
        """
        self.done(recipe)
        refuse_other(self.path)
        self._check_texts({"recipe": {"command": recipe.command, "sha256": recipe.sha256}})
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            tempfile.TemporaryFile(dir=self.folder).close()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.folder)) from None

    def _check_texts(self, results: dict[str, Any]) -> None:
        """Raise EntryError for what could not be read again from results.json."""
        try:
            check(
                {"entry": self.entry, "hub_benchmark": self.hub_benchmark} | results, RESULTS, False
            )
        except ValueError as error:
            raise EntryError(f"{self.path}: could not be written: {error}") from None

    def check_net(self, net: AudioModel) -> None:
        """Raise EntryError for a network whose config.json could not be read again."""
        made = {"schema_version": SCHEMA_VERSION, "qaudio_version": __version__, **net.config}
        try:
            check_config(made | {"license": self.license, "files": {}})
        except ValueError as error:
            raise EntryError(f"{self.path}: could not be written: {error}") from None

    def check_split(self, split: Split) -> None:
        """Raise EntryError when the entry holds runs over other folds, or could hold none."""
        self._check_texts(
            {name: getattr(split, name) for name in ("benchmark", "dataset", "protocol")}
        )
        results = read_results(self.path) if (self.path / "results.json").is_file() else None
        if results is not None and results["protocol"] != split.protocol:
            raise EntryError(
                f"{self.path}: its runs are of {results['protocol']!r}, the recordings now make "
                f"{split.protocol!r}; delete it or give another --writer.entry"
            )

    def check_widths(self, widths: dict[str, int]) -> None:
        """Raise EntryError when the entry's network is of other widths."""
        held = (self.path / "results.json").is_file()
        if held and read_config(self.path)["widths"] != widths:
            raise EntryError(
                f"{self.path}: this fold is pruned to other widths than the entry has: with "
                "allocation 'global' and target_latency each fold finds its own; take 'uniform' "
                "with another target, or an entry for each fold"
            )

    def record(self, run: Run, recipe: Recipe) -> dict[str, Any]:
        """Add a run to the entry (or replace the same one) and return its new results."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.path):
            return self._record(run, recipe)

    def refresh(self) -> dict[str, Any]:
        """Bring up to date what can change without training.

        That is latency, the paired difference to the parent, the count of scored sets, and how
        the choice of epoch is worded.
        """
        with locked(self.path):
            results = read_results(self.path)
            assert results is not None
            predictions = Predictions.load(self.path / "predictions.npz")
            net = self._net()
            results["cost"] = self._cost(net, optimized=True)
            results["epoch_choice"] = epoch_choice(self._recipe())
            results["complete_runs_scored"] = self._count_scored(results["benchmark"], self._sets())
            parent = results["parent"] and find_local(results["parent"]["name"], self.folder)
            if parent:
                self._compare(results, predictions, parent)
            self._save(
                net, results, predictions, self._kept(), more=self._more_predictions(results)
            )
            return results

    def publish(self) -> Pushed | None:
        """Push the entry to where the recipe says, once every fold is there; else None.

        Raises:
            EntryError: when that fails. The entry stays as it is; the message holds the command
                that pushes it.
        """
        results = read_results(self.path) if self.push_to else None
        if self.push_to is None or results is None or not results["complete"]:
            return None
        try:
            return push(self.path, self.push_to)
        except EntryError as error:
            command = f"qaudio push {shlex.quote(str(self.path))} {self.push_to}"
            raise EntryError(
                f"{self.path}: written, but not pushed: {error}; then run `{command}`"
            ) from None

    def _record(self, run: Run, recipe: Recipe) -> dict[str, Any]:
        predictions = run.predictions
        earlier, kept = None, {}
        if self.done(recipe):
            self.check_split(run.split)
            self.check_widths(run.net.widths)
            earlier = read_results(self.path)
            kept = self._kept()
            predictions = Predictions.load(self.path / "predictions.npz").merged(predictions)
        is_card = (run.split.fold, run.seed) == (self.card_fold, 0)
        if self.keep_folds:
            kept[fold_file(run.split.fold, run.seed)] = run.net.state_dict()
        net = run.net if is_card or earlier is None else self._net()
        card = (run.split.fold, run.seed)
        if earlier is not None and not is_card:
            card = (earlier["card_fold"], earlier["card_seed"])
        results = self._results(run, recipe, predictions, earlier, card)
        more = self._baselines(run, results, predictions, earlier)
        self._save(net, results, predictions, kept, recipe.text, more)
        return results

    def _results(
        self,
        run: Run,
        recipe: Recipe,
        predictions: Predictions,
        earlier: dict[str, Any] | None,
        card: tuple[int, int],
    ) -> dict[str, Any]:
        split, runs = run.split, predictions.runs()
        seeds = sorted({seed for seed, _ in runs})
        complete = len(runs) == len(seeds) * split.folds
        walls = dict(earlier["training"]["wall_seconds_of"]) if earlier else {}
        walls[f"seed{run.seed}_fold{split.fold}"] = round(run.wall_seconds, 1)
        results: dict[str, Any] = {
            "schema_version": 1,
            "entry": self.entry,
            "benchmark": split.benchmark,
            "dataset": split.dataset,
            "protocol": split.protocol,
            "epoch_choice": epoch_choice(recipe.text),
            "complete": complete,
            "complete_runs_scored": self._count_complete(split, recipe, seeds, complete),
            "seeds": seeds,
            "card_fold": card[0],
            "card_seed": card[1],
            "result": summarise(predictions, metric_of(run.net.task)),
            "parent": dict(zip(("name", "how"), run.parent, strict=True)) if run.parent else None,
            "trained_on": [split.dataset],
            "cost": self._cost(run.net),
            "recipe": {
                "command": recipe.command,
                "sha256": recipe.sha256,
                "commit": commit_of(recipe.path) if recipe.path else None,
            },
            "git_commit": commit_of(PACKAGE),
            "training": {
                "wall_seconds": round(sum(walls.values()), 1),
                "wall_seconds_of": walls,
                "device": device_name(run.device),
                "precision": run.precision,
            },
            "versions": {"python": platform.python_version()}
            | {name: version(name) for name in LIBRARIES},
        }
        results |= run.facts
        if self.hub_benchmark:
            results["hub_benchmark"] = self.hub_benchmark
        if run.parent:
            folders = {entry_name(folder): folder for folder in map(locate, run.sources)}
            seen = [trained_on(folder) or [] for folder in folders.values()]
            results["trained_on"] = sorted({split.dataset}.union(*seen))
            parent = folders[run.parent[0]]
            results["parent"]["license"] = read_config(parent)["license"]
            self._compare(results, predictions, parent)
        return results

    def _baselines(
        self,
        run: Run,
        results: dict[str, Any],
        predictions: Predictions,
        earlier: dict[str, Any] | None,
    ) -> dict[str, Predictions]:
        """Put the baselines of all runs into the results; their predictions by file name."""
        before = {} if earlier is None else self._more_predictions(earlier)
        rows, more = [], {}
        for method, found in run.baselines.items():
            name = f"baselines/{method.lower().replace(' ', '_')}.npz"
            more[name] = before[name].merged(found) if name in before else found
            rows.append({
                "method": method,
                "result": summarise(more[name], metric_of(run.net.task)),
                "difference": paired_difference(predictions, more[name]),
                "predictions": name,
            })  # fmt: skip
        if rows:
            results["baselines"] = rows
        return more

    def _more_predictions(self, results: dict[str, Any]) -> dict[str, Predictions]:
        """Those beside predictions.npz, by file name."""
        rows = [*results.get("transfer", []), *results.get("baselines", [])]
        return {one["predictions"]: Predictions.load(self.path / one["predictions"])
                for one in rows}  # fmt: skip

    def _compare(self, results: dict[str, Any], predictions: Predictions, folder: Path) -> None:
        """Size and score beside the parent's, where the parent was scored on the same clips."""
        parent = results["parent"]
        theirs = read_results(folder)
        if not theirs or theirs["protocol"] != results["protocol"]:
            return
        parent["kept"] = {
            key: round(results["cost"][key] / theirs["cost"][key], 4) for key in ("params", "macs")
        }
        parent.pop("difference", None)
        before = Predictions.load(folder / "predictions.npz")
        with contextlib.suppress(ValueError):  # of other clips, as where a file was unreadable
            parent["difference"] = paired_difference(predictions, before)

    def _count_complete(
        self, split: Split, recipe: Recipe, seeds: list[int], complete: bool
    ) -> int:
        """Add a finished set of folds to the log of scored sets, and count the benchmark's."""
        sets = self._sets()
        for seed in seeds if complete else []:
            one = {
                "benchmark": split.benchmark,
                "entry": str(self.entry),
                "recipe": recipe.sha256[:12],
                "seed": str(seed),
            }
            if one not in sets:
                sets.append(one)
        with replacing(self._log) as file:
            file.write((json.dumps(sets, indent=1) + "\n").encode())
        return self._count_scored(split.benchmark, sets)

    @property
    def _log(self) -> Path:
        return self.folder / "scored.json"

    def _sets(self) -> list[dict[str, str]]:
        """Every complete set of folds that was ever scored: benchmark, entry, recipe, seed."""
        return read_json(self._log) if self._log.is_file() else []

    @staticmethod
    def _count_scored(benchmark: str, sets: list[dict[str, str]]) -> int:
        return sum(one["benchmark"] == benchmark for one in sets)

    def _cost(self, net: AudioModel, optimized: bool = False) -> dict[str, Any]:
        found = cost(net, latency=self.latency)
        if found.latency and optimized:
            fast = measure_latency(optimize(net), found.seconds).milliseconds
            found = replace(found, latency=replace(found.latency, optimized_milliseconds=fast))
        return found.to_dict()

    def _net(self) -> AudioModel:
        """The entry's network; one of its shape where no weights are kept."""
        return load_weights(self.path) if self.weights else from_config(read_config(self.path))

    def _recipe(self) -> str:
        return read_text(self.path, "recipe.yaml")

    def _kept(self) -> dict[str, dict[str, torch.Tensor]]:
        names = [name for name in read_config(self.path)["files"] if name.startswith("folds/")]
        return {name: load_weights(self.path, name).state_dict() for name in names}

    def _save(
        self,
        net: AudioModel,
        results: dict[str, Any],
        predictions: Predictions,
        folds: dict[str, dict[str, torch.Tensor]],
        recipe: str | None = None,
        more: dict[str, Predictions] | None = None,
    ) -> None:
        if recipe is None:
            recipe = self._recipe()
        report = to_json(per_class.report(predictions, net.labels))
        save(
            net, self.path, results=results, predictions=predictions, recipe=recipe,
            license=self.license, folds=folds, weights=self.weights,
            extra={per_class.FILE: report, **(more or {})},
        )  # fmt: skip


def check_name(entry: str) -> None:
    """Raise EntryError for what names no folder of an entry on every system."""
    usual = re.fullmatch(r"[\w.+=-]+(/[\w.+=-]+)*", entry)  # a study keeps cells in folders
    parts = entry.split("/")
    if not usual or not inside(entry) or any(len(p) > 100 or p.startswith(".") for p in parts):
        raise EntryError(
            f"writer.entry {one_line(repr(entry), 100)} is no entry's name: take letters, digits "
            "and -_.+, at most 100, such as qcnn10_050.my_sounds"
        )


def read_validation(path: Path, recipe: str) -> list[dict[str, Any]]:
    """Scores on validation folds by a recipe, of this hash; those of others are left out."""
    rows = read_json(path)["validation"] if path.is_file() else []
    return [row for row in rows if row.get("recipe") == recipe]


def write_validation(path: Path, row: dict[str, Any]) -> list[dict[str, Any]]:
    """Add a score on a validation fold, for choosing recipes; never part of an entry.

    Returns:
        The file's scores, one for each seed and fold; those of another recipe are dropped.
    """
    rows = read_validation(path, row["recipe"])
    rows = [one for one in rows if (one["seed"], one["fold"]) != (row["seed"], row["fold"])]
    rows = sorted([*rows, row], key=lambda one: (one["seed"], one["fold"]))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(to_json({"validation": rows}).encode())
    return rows


def commit_of(path: Path) -> str | None:
    """The commit that gave a file or folder its content.

    None outside the package's own clone, where it is not tracked, and where it was changed since.
    Of other folders nothing is asked: a repository's settings can name programs that git runs.
    """
    if not path.resolve().is_relative_to(PACKAGE.parent) or not (PACKAGE.parent / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments, "--", path.name], cwd=path.resolve().parent, check=True,
            capture_output=True, text=True,
        )  # fmt: skip
        return done.stdout.strip()

    try:
        return None if git("status", "--porcelain") else git("log", "-1", "--format=%H") or None
    except (OSError, subprocess.CalledProcessError):
        return None
