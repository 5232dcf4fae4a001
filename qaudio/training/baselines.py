"""What fine-tuning has to beat: scores of the same held-out clips that need no training of it."""

from pathlib import Path

import torch

from qaudio.cards.tables import interval, percent, points
from qaudio.data.augment import global_seed
from qaudio.data.benchmarks.folder import AudioFolder
from qaudio.evaluation.bootstrap import summarise
from qaudio.evaluation.metrics import metric_of
from qaudio.evaluation.predictions import Predictions
from qaudio.evaluation.probe import GENTLE, LINEAR, linear_probe
from qaudio.evaluation.result import Result
from qaudio.training.classifier import PROBED
from qaudio.training.leakage import load_for_split
from qaudio.training.transfer import embed
from qaudio.zoo.schema import Baseline, Results

STATISTICS = "log-mel statistics"


def baselines(source: str | Path, data: AudioFolder) -> dict[str, Predictions]:
    """Logistic regressions on an entry's embeddings and on log-mel statistics, by method.

    Both are fitted on the split's training clips, whole and not augmented, and answer for its
    scored ones. The state of torch's random numbers is left as it was.

    Args:
        source: an entry; its weights are some that never saw the held-out clips.
        data: set up, at the entry's rate.

    Raises:
        EntryError: when the entry has no such weights.
        ValueError: when the training clips are of one class.
    """
    split, seed = data.split, global_seed()
    with torch.random.fork_rng(devices=[]):
        model = load_for_split(source, split, seed)
        train, test = (
            embed(model, data, [(split.fold, data.whole_clips(role))])
            for role in ("training", "scored")
        )
    classes = len(data.labels)
    return {
        method: Predictions.of_run(
            split.fold, seed, test.clip, test.label,
            linear_probe(getattr(train, rows), train.label, getattr(test, rows), classes, **how),
        )
        for method, rows, how in ((LINEAR, "vectors", GENTLE), (STATISTICS, "statistics", {}))
    }  # fmt: skip


def scored(found: dict[str, Predictions], task: str) -> dict[str, Result]:
    """Results of baselines, as an entry's results have them."""
    return {method: summarise(one, metric_of(task)) for method, one in found.items()}


def comparison(rows: dict[str, Result]) -> list[str]:
    """Lines that set results side by side: method, score, interval."""
    width = max(map(len, rows))
    first = next(iter(rows.values()))
    return [
        f"{first.metric} on the same {first.clips} held-out clips, with 95 % intervals:",
        *(f"  {method:{width}}  {percent(one.mean):>7}  {interval(one.interval95)}"
          for method, one in rows.items()),
    ]  # fmt: skip


def beside_baselines(results: Results) -> list[str]:
    """Lines on a trained network beside its baselines, by its entry's results; [] without any."""
    if not results.baselines or results.parent is None:
        return []
    name, rows = results.parent.how.partition(" ")[0], results.baselines
    if results.parent.how == PROBED:  # which is that baseline
        name, rows = f"{LINEAR}, kept", [row for row in rows if row.method != LINEAR]
    every = {name: results.result} | {row.method: row.result for row in rows}
    return [*comparison(every), *map(verdict, rows)]


def verdict(baseline: Baseline) -> str:
    """Whether a trained network beats a baseline of its results, as far as the clips can tell."""
    found, method = baseline.difference, baseline.method
    low, high = found.interval95
    says = f"too close for {found.clips} clips to tell"
    if low > 0:
        says = "better"
    elif high < 0:
        says = "worse"
    return (
        f"against the {method}: {points(found.mean)} points ({points(low)} to {points(high)}): "
        f"{says}"
    )
