"""What an entry's results.json says of its runs."""

import contextlib
import json
import platform
from collections.abc import Collection
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import torch

from qaudio.compress.cost import cost, device_name, measure_latency
from qaudio.compress.measured import Cost
from qaudio.data.split import Split
from qaudio.deploy.optimize import optimize
from qaudio.evaluation.bootstrap import paired_difference, summarise
from qaudio.evaluation.metrics import metric_of
from qaudio.evaluation.predictions import Predictions
from qaudio.models.base import AudioModel
from qaudio.paths import locked, write_whole
from qaudio.training.classifier import PROBED, TUNED, Classifier
from qaudio.training.recipe import Recipe, commit_of, epoch_choice
from qaudio.zoo.resolve import locate
from qaudio.zoo.schema import (
    Baseline,
    Kept,
    Parent,
    RecipeRun,
    Results,
    ScoredSet,
    Teaching,
    Training,
)
from qaudio.zoo.store import PACKAGE, entry_name, read_config, read_record, read_results, trained_on

MIXED = "fine-tuned or, in some folds, linear-probed from"
LIBRARIES = ("torch", "torchaudio", "lightning", "torchmetrics", "timm", "numpy", "soundfile")


@dataclass(frozen=True)
class ScoredRun:
    """One trained and tested network.

    Attributes:
        net: its weights are those that were scored.
        predictions: of the held-out fold.
        precision: of training, as Lightning names it.
        parent: name of the entry it comes from and how ("pruned from"); None from scratch.
        sources: every entry that it learnt from, by name or folder, the parent last.
        teaching: of a network taught on unlabelled sound.
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
    teaching: Teaching | None = None
    baselines: dict[str, Predictions] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the run, in results.json."""
        return f"seed{self.seed}_fold{self.split.fold}"


class ScoredSets:
    """The log of every complete set of folds that was ever scored: benchmark, entry, recipe, seed.

    Args:
        folder: of entries; the log is its scored.json.
    """

    def __init__(self, folder: Path):
        self.path = folder / "scored.json"
        self.sets = self._read()

    def _read(self) -> list[ScoredSet]:
        return read_record(self.path, list[ScoredSet]) or []

    def add(self, benchmark: str, entry: str, recipe: Recipe, seeds: Collection[int]) -> None:
        """Note sets of folds; those that are in the log already are counted once."""
        with locked(self.path):  # cells of studies, in folders below, have locks of their own
            self.sets = self._read()
            for seed in seeds:
                one = ScoredSet(benchmark, entry, recipe.sha256[:12], str(seed))
                if one not in self.sets:
                    self.sets.append(one)
            rows = [one.to_dict() for one in self.sets]
            write_whole(self.path, json.dumps(rows, indent=1) + "\n")

    def count(self, benchmark: str) -> int:
        """How many of them are of a benchmark."""
        return sum(one.benchmark == benchmark for one in self.sets)


def results_of(
    run: ScoredRun,
    recipe: Recipe,
    predictions: Predictions,
    *,
    entry: str,
    earlier: Results | None,
    card: tuple[int, int],
    latency: bool,
    scored_sets: ScoredSets,
) -> Results:
    """Results of an entry that a run was added to.

    Args:
        card: fold and seed of the weights that are model.safetensors.
        scored_sets: gets another where the entry is complete.
    """
    split, runs = run.split, predictions.runs()
    seeds = sorted({seed for seed, _ in runs})
    complete = len(runs) == len(seeds) * split.folds
    scored_sets.add(split.benchmark, entry, recipe, seeds if complete else [])
    walls = dict(earlier.training.wall_seconds_of) if earlier else {}
    walls[run.name] = round(run.wall_seconds, 1)
    results = Results(
        entry=entry,
        benchmark=split.benchmark,
        dataset=split.dataset,
        protocol=split.protocol,
        epoch_choice=epoch_choice(recipe.text),
        complete=complete,
        complete_runs_scored=scored_sets.count(split.benchmark),
        seeds=seeds,
        card_fold=card[0],
        card_seed=card[1],
        result=summarise(predictions, metric_of(run.net.task)),
        parent=None,
        trained_on=[split.dataset],
        cost=cost_of(run.net, latency),
        recipe=RecipeRun(
            command=recipe.command,
            sha256=recipe.sha256,
            commit=commit_of(recipe.path) if recipe.path else None,
        ),
        git_commit=commit_of(PACKAGE),
        training=Training(
            wall_seconds=round(sum(walls.values()), 1),
            wall_seconds_of=walls,
            device=device_name(run.device),
            precision=run.precision,
        ),
        versions={"python": platform.python_version()}
        | {name: version(name) for name in LIBRARIES},
        teaching=run.teaching,
    )
    if run.parent:
        name, how = run.parent
        if earlier and earlier.parent and {earlier.parent.how, how} & {MIXED, PROBED}:
            how = how if earlier.parent.how == how else MIXED
        folders = [locate(source) for source in run.sources]
        seen = [trained_on(folder) or [] for folder in folders]
        results.trained_on = sorted({split.dataset}.union(*seen))
        results.parent = Parent(name, how, license=read_config(folders[-1]).license)
        compare_with_parent(results, predictions, folders[-1])
    return results


def cost_of(net: AudioModel, latency: bool, optimized: bool = False) -> Cost:
    """Size and MACs, with `latency` milliseconds too, and with `optimized` also `optimize`'s."""
    found = cost(net, latency=latency)
    if found.latency and optimized:
        fast = measure_latency(optimize(net), found.seconds).milliseconds
        found.latency.optimized_milliseconds = fast
    return found


def compare_with_parent(results: Results, predictions: Predictions, folder: Path) -> None:
    """Set size and score beside the parent's, where it was scored on the same clips."""
    parent, theirs = results.parent, read_results(folder)
    if parent is None or theirs is None or theirs.protocol != results.protocol:
        return
    parent.kept = Kept(
        params=round(results.cost.params / theirs.cost.params, 4),
        macs=round(results.cost.macs / theirs.cost.macs, 4),
    )
    parent.difference = None
    before = Predictions.load(folder / "predictions.npz")
    with contextlib.suppress(ValueError):  # of other clips, as where a file was unreadable
        parent.difference = paired_difference(predictions, before)


def baseline_file(method: str) -> str:
    """Where an entry keeps a baseline's predictions."""
    return f"baselines/{method.lower().replace(' ', '_')}.npz"


def baseline_row(
    method: str, baseline: Predictions, predictions: Predictions, task: str
) -> Baseline:
    """A baseline of all runs as results.json has it, beside the entry's own predictions."""
    return Baseline(
        method=method,
        result=summarise(baseline, metric_of(task)),
        difference=paired_difference(predictions, baseline),
        predictions=baseline_file(method),
    )


def sources_of(module: Classifier) -> list[str]:
    """Entries that a network learns from: what they were trained on, it has seen too.

    The last is its parent: the teacher of a network that has one.
    """
    teachers = [] if module.distillation is None else [module.distillation.teacher]
    return [*([] if module.source is None else [module.source]), *teachers]


def parent_of(module: Classifier, probed: bool = False) -> tuple[str, str] | None:
    """Name of the entry that a network comes from, and how; None from scratch.

    Args:
        probed: nothing but its classifier was fitted.
    """
    found = [locate(source) for source in sources_of(module)]
    if not found:
        return None
    name, pruned = entry_name(found[-1]), module.pruning is not None
    if module.distillation is None:
        return name, "pruned from" if pruned else PROBED if probed else TUNED
    same = found[0].resolve() == found[-1].resolve()
    if module.source is None or (same and not pruned):
        return name, "distilled from"
    if same:
        return name, "pruned and distilled from"
    how = "pruned" if pruned else "fine-tuned"
    return name, f"{how} from {entry_name(found[0])}, distilled from"
