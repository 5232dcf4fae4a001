"""Recording runs in an entry: predictions merged, results computed, card written."""

import re
import shlex
import tempfile
from pathlib import Path
from typing import Any

import torch

from qaudio.cards.entries import calibration_of, push, save
from qaudio.data.split import Split
from qaudio.data.usable import warn
from qaudio.errors import EntryError, InputError, entry_errors
from qaudio.evaluation import per_class
from qaudio.evaluation.predictions import Predictions
from qaudio.models.base import AudioModel
from qaudio.models.registry import from_config
from qaudio.paths import locked
from qaudio.records import InnerPath, check_fields, fits
from qaudio.text import one_line
from qaudio.training.leakage import fold_file
from qaudio.training.recipe import Recipe, epoch_choice
from qaudio.training.results import (
    ScoredRun,
    ScoredSets,
    baseline_file,
    baseline_row,
    compare_with_parent,
    cost_of,
    results_of,
)
from qaudio.zoo.hub_cache import check_repo
from qaudio.zoo.io import load_weights, new_config
from qaudio.zoo.resolve import find_local
from qaudio.zoo.schema import HubBenchmark, Results, parse_config
from qaudio.zoo.store import (
    check_hash,
    read_config,
    read_results,
    read_text,
    refuse_other,
    to_json,
)


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
        self.hub_benchmark = None
        if hub_dataset is not None and hub_task is not None:
            self.hub_benchmark = HubBenchmark(hub_dataset, hub_task)

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
        if read_results(self.path) is None:
            return set()
        try:
            changed = recipe.changed(read_text(self.path, "recipe.yaml"))
        except InputError as error:
            raise EntryError(f"{self.path}: {error}: delete it or name another entry") from None
        if changed:
            raise EntryError(
                f"{self.path}: holds runs of another recipe ({', '.join(changed)}); delete it or "
                "name another entry"
            )
        return set(Predictions.load(self.path / "predictions.npz").runs())

    def check(self, recipe: Recipe) -> None:
        """Refuse before a training what would be refused after it.

        Raises:
            EntryError: when no entry is named, the one named was made by another recipe or kept
                without weights, or something else has its name.
            OSError: when nothing can be written to the folder of entries.
        """
        held = self.done(recipe) and self.weights
        if held and "model.safetensors" not in read_config(self.path).files:
            raise EntryError(
                f"{self.path}: its weights are gone, only its results were kept: delete it or "
                "name another entry"
            )
        refuse_other(self.path)
        self._check_texts(
            recipe={"command": recipe.command, "sha256": recipe.sha256, "commit": None}
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            tempfile.TemporaryFile(dir=self.folder).close()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.folder)) from None

    def _check_texts(self, **texts: Any) -> None:
        """Raise EntryError for what could not be read again from results.json."""
        hub = self.hub_benchmark and self.hub_benchmark.to_dict()
        with entry_errors(f"{self.path}: could not be written"):
            check_fields(Results, {"entry": self.entry, "hub_benchmark": hub, **texts})

    def check_net(self, net: AudioModel) -> None:
        """Raise EntryError for a network whose config.json could not be read again."""
        with entry_errors(f"{self.path}: could not be written"):
            parse_config(new_config(net, self.license).to_dict())

    def check_split(self, split: Split) -> None:
        """Raise EntryError when the entry holds runs over other folds, or could hold none."""
        self._check_texts(benchmark=split.benchmark, dataset=split.dataset, protocol=split.protocol)
        results = read_results(self.path)
        if results is not None and results.protocol != split.protocol:
            raise EntryError(
                f"{self.path}: its runs are of {results.protocol!r}, the recordings now make "
                f"{split.protocol!r}; delete it or name another entry"
            )

    def check_widths(self, widths: dict[str, int]) -> None:
        """Raise EntryError when the entry's network is of other widths."""
        if read_results(self.path) and read_config(self.path).widths != widths:
            raise EntryError(
                f"{self.path}: this fold is pruned to other widths than the entry has: with "
                "allocation 'global' and target_latency each fold finds its own; take 'uniform' "
                "with another target, or an entry for each fold"
            )

    def record(self, run: ScoredRun, recipe: Recipe) -> Results:
        """Add a run to the entry (or replace the same one) and return its new results."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.path):
            return self._record(run, recipe)

    def _record(self, run: ScoredRun, recipe: Recipe) -> Results:
        card, predictions = (run.split.fold, run.seed), run.predictions
        net, earlier, stays = run.net, None, False
        kept: dict[str, dict[str, torch.Tensor] | Path] = {}
        if self.done(recipe):
            self.check_split(run.split)
            self.check_widths(run.net.widths)
            earlier, kept = read_results(self.path), self._kept()
            assert earlier is not None
            predictions = Predictions.load(self.path / "predictions.npz").merged(predictions)
            held = earlier.card_fold, earlier.card_seed
            stays = card not in {(self.card_fold, 0), held}
            if stays:  # the weights that are there stay the entry's
                net, card = self._net(), held
        if self.keep_folds:
            kept[fold_file(run.split.fold, run.seed)] = run.net.state_dict()
        results = results_of(
            run, recipe, predictions, entry=str(self.entry), earlier=earlier, card=card,
            latency=self.latency, scored_sets=ScoredSets(self.folder),
        )  # fmt: skip
        results.hub_benchmark = self.hub_benchmark
        before = self._more_predictions(earlier) if earlier else {}
        more: dict[str, Predictions] = {}
        if earlier and stays:
            more |= self._of_card(earlier, results, predictions, before)
        elif earlier and (earlier.transfer or earlier.calibration):
            warn(
                f"{self.path}: its weights are new: scores on other benchmarks and calibration "
                "went with the old ones; `qaudio probe` and `qaudio calibrate` give them again"
            )
        for method, found in run.baselines.items():
            name = baseline_file(method)
            more[name] = before[name].merged(found) if name in before else found
        results.baselines = [
            baseline_row(method, more[baseline_file(method)], predictions, run.net.task)
            for method in run.baselines
        ]
        self._save(net, results, predictions, kept, recipe.text, more)
        return results

    def refresh(self) -> Results:
        """Bring up to date what can change without training.

        That is latency, the paired difference to the parent, the count of scored sets, and how
        the choice of epoch is worded.
        """
        with locked(self.path):
            results, recipe = read_results(self.path), read_text(self.path, "recipe.yaml")
            assert results is not None
            predictions, net = Predictions.load(self.path / "predictions.npz"), self._net()
            results.cost = cost_of(net, self.latency, optimized=True)
            results.epoch_choice = epoch_choice(recipe)
            results.complete_runs_scored = ScoredSets(self.folder).count(results.benchmark)
            parent = results.parent and find_local(results.parent.name, self.folder)
            if parent:
                compare_with_parent(results, predictions, parent)
            more = self._more_predictions(results)
            self._save(net, results, predictions, self._kept(), recipe, more)
            return results

    def publish(self) -> str | None:
        """Push the entry to where the recipe says, once every fold is there.

        Returns:
            What was done, in words; None where the recipe names no repository.

        Raises:
            EntryError: when that fails. The entry stays as it is; the message holds the command
                that pushes it.
        """
        if self.push_to is None:
            return None
        results = read_results(self.path)
        if results is None or not results.complete:
            return f"{self.entry}: pushed once the other folds are there"
        try:
            return str(push(self.path, self.push_to))
        except EntryError as error:
            command = f"qaudio push {shlex.quote(str(self.path))} {self.push_to}"
            raise EntryError(
                f"{self.path}: written, but not pushed: {error}; then run `{command}`"
            ) from None

    def _more_predictions(self, results: Results) -> dict[str, Predictions]:
        """Those beside predictions.npz, by file name."""
        return {name: Predictions.load(self.path / name) for name in results.beside}

    @staticmethod
    def _of_card(
        earlier: Results,
        results: Results,
        predictions: Predictions,
        before: dict[str, Predictions],
    ) -> dict[str, Predictions]:
        """Carry over what was found out about weights that stay; returns its predictions.

        Calibration follows from all runs, and is fitted again.
        """
        results.transfer = earlier.transfer
        names = [one.predictions for one in earlier.transfer]
        if earlier.calibration:
            outside = before[earlier.outside] if earlier.outside else None
            results.calibration = calibration_of(results, predictions, outside)
            names += [earlier.outside] if earlier.outside else []
        return {name: before[name] for name in names}

    def _net(self) -> AudioModel:
        """The entry's network; one of its shape where no weights are kept."""
        if self.weights:
            return load_weights(self.path)
        return from_config(read_config(self.path).model)

    def _kept(self) -> dict[str, dict[str, torch.Tensor] | Path]:
        """Files of the folds' weights."""
        config = read_config(self.path)
        names = [name for name in config.files if name.startswith("folds/")]
        return {name: check_hash(self.path, config, name) for name in names}

    def _save(
        self,
        net: AudioModel,
        results: Results,
        predictions: Predictions,
        folds: dict[str, dict[str, torch.Tensor] | Path],
        recipe: str,
        more: dict[str, Predictions],
    ) -> None:
        report = to_json(per_class.report(predictions, net.labels))
        save(
            net, self.path, results=results, predictions=predictions, recipe=recipe,
            license=self.license, folds=folds, weights=self.weights,
            extra={per_class.FILE: report, **more},
        )  # fmt: skip


def check_name(entry: str) -> None:
    """Raise EntryError for what names no folder of an entry on every system."""
    usual = re.fullmatch(r"[\w.+=-]+(/[\w.+=-]+)*", entry)  # a study keeps cells in folders
    parts = entry.split("/")
    odd = any(len(part) > 100 or part.startswith(".") for part in parts)
    if not usual or not fits(entry, InnerPath) or odd:
        raise EntryError(
            f"writer.entry {one_line(repr(entry), 100)} is no entry's name: take letters, digits "
            "and -_.+, at most 100, such as qcnn10_050.my_sounds"
        )
