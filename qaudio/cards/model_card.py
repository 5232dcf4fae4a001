"""Model cards: README.md of an entry, from its config, results and predictions alone."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import yaml

from qaudio.cards.confusion import FILE as PICTURE
from qaudio.cards.confusion import pictured
from qaudio.cards.tables import (
    dependence,
    difference_text,
    giga,
    interval,
    percent,
    points,
    spread,
    titled,
)
from qaudio.data.benchmarks.registry import about
from qaudio.evaluation.metrics import most_confused_class, scores_by_class
from qaudio.evaluation.predictions import Predictions
from qaudio.evaluation.result import Metric
from qaudio.text import markdown
from qaudio.zoo.schema import HUB_PREFIX, Config, HubBenchmark, Results

if TYPE_CHECKING:
    from jinja2 import Template

FORMAT = 7  # of the card, in config.json; a change of the numbers that it shows is a new one
FOLDED = 20  # a table of more classes than that is folded away


def documents(config: Config, results: Results, predictions: Predictions | None) -> dict[str, str]:
    """The texts of an entry that follow from its results, by file name."""
    made = {"README.md": render(config, results, predictions)}
    if board := results.hub_benchmark:
        made[f".eval_results/{results.benchmark}.yaml"] = _eval_results(results, board)
    return made


def render(config: Config, results: Results, predictions: Predictions | None = None) -> str:
    """The card of an entry, README.md.

    Args:
        predictions: what they were computed from; without them the card has no table of classes.
    """
    seconds, classes = results.training.wall_seconds, []
    if predictions is not None:
        classes = _classes(config.labels, predictions, results.result.metric)
    text = _template().render(
        config=config,
        results=results,
        benchmark=about(results.benchmark),
        metadata=_metadata(config, results),
        family=config.card.title,
        scratch=config.card.scratch,
        shared=dependence(results.benchmark),
        classes=classes,
        classes_folded=config.num_classes > FOLDED,
        picture=PICTURE if predictions is not None and pictured(config, results) else None,
        duration=f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours",
        citations=papers(config, results.benchmark),
    )
    while "\n\n\n" in text:  # where the template leaves something out
        text = text.replace("\n\n\n", "\n\n")
    return text


@cache
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {
        "percent": percent, "points": points, "interval": interval, "spread": spread,
        "difference": difference_text, "markdown": markdown, "giga": giga, "commas": "{:,}".format,
        "titled": titled,
    }  # fmt: skip
    return environment.get_template("model_card.md.jinja")


def papers(config: Config, benchmark: str) -> list[str]:
    """BibTeX of what a network and its data come from."""
    return [*config.card.papers, *filter(None, [about(benchmark).citation])]


def _metadata(config: Config, results: Results) -> str:
    """What the Hub reads, as YAML."""
    from huggingface_hub import EvalResult, ModelCardData

    result, data, parent = results.result, about(results.benchmark), results.parent
    tags = ["audio", "audio-classification", config.architecture, results.benchmark]
    if config.is_quaternion:
        tags.insert(2, "quaternion")
    if parent:
        tags.append(parent.how.partition(" ")[0])  # pruned, distilled, fine-tuned
    score = EvalResult(
        task_type="audio-classification", task_name="Audio classification",
        dataset_name=data.title, dataset_type=data.hub or results.benchmark,
        dataset_config=results.benchmark, dataset_split=results.protocol,
        metric_type=result.metric, metric_value=result.mean,
        metric_name=f"{result.metric}, mean over folds",
    )  # fmt: skip
    return ModelCardData(
        license=config.license,
        library_name="qaudio",
        pipeline_tag="audio-classification",
        tags=tags,
        datasets=[data.hub] if data.hub else None,
        metrics=[result.metric],
        base_model=parent.name.removeprefix(HUB_PREFIX).partition("@")[0] if parent else None,
        model_name=results.entry,
        eval_results=[score],
    ).to_yaml()


def _eval_results(results: Results, board: HubBenchmark) -> str:
    """The score for the leaderboard of a benchmark that the recipe names on the Hub."""
    entry = {
        "dataset": {"id": board.dataset_id, "task_id": board.task_id},
        "value": results.result.mean,
        "notes": results.protocol,
    }
    return yaml.safe_dump([entry], sort_keys=False, allow_unicode=True)


def _classes(labels: list[str] | None, predictions: Predictions, metric: Metric) -> list[list[str]]:
    """A row for each class: clips, score and, of accuracy, what it is most often taken for."""
    scores, single = scores_by_class(predictions, metric), metric == "accuracy"
    names = [markdown(name) for name in labels or (f"class {n}" for n in range(len(scores)))]
    confused = most_confused_class(predictions) if single else []
    rows = []
    for n, (name, score) in enumerate(zip(names, scores, strict=True)):
        if score is None and len(scores) > FOLDED:
            continue  # of hundreds of classes those that no clip has
        held = predictions.label == n if single else predictions.label[:, n] > 0
        clips = len(np.unique(predictions.clip[held]))
        row = [name, str(clips), "" if score is None else percent(score)]
        if single:
            other, share = confused[n]
            row.append("" if other is None else f"{names[other]} ({percent(share)})")
        rows.append(row)
    return rows
