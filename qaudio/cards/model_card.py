"""Model cards, generated from an entry's config.json, results.json and predictions.npz alone.

The metadata is dumped here and not by huggingface_hub's ModelCardData, because a card is made
anew byte for byte years later: the tests hold that ModelCard reads it and gives it back the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import yaml

from qaudio.cards.confusion import FILE as PICTURE
from qaudio.cards.confusion import pictured
from qaudio.cards.papers import KINDS, papers
from qaudio.cards.tables import dependence, difference_text, interval, percent, points, spread
from qaudio.data.benchmarks.descriptions import about
from qaudio.evaluation.metrics import confused_with, scores_by_class
from qaudio.evaluation.predictions import Predictions
from qaudio.evaluation.result import Metric
from qaudio.models.registry import is_quaternion
from qaudio.text import markdown
from qaudio.zoo.schema import HUB_PREFIX, HubBenchmark, Results

FORMAT = 7  # of the card's text, in config.json; a change of the text is a new one
FOLDED = 20  # a table of more classes than that is folded away


def documents(
    config: dict[str, Any], results: Results, predictions: Predictions | None
) -> dict[str, str]:
    """The texts of an entry that follow from its results, by file name."""
    made = {"README.md": render(config, results, predictions)}
    if board := results.hub_benchmark:
        made[f".eval_results/{results.benchmark}.yaml"] = _eval_results(results, board)
    return made


def render(config: dict[str, Any], results: Results, predictions: Predictions | None = None) -> str:
    """The card of an entry, README.md.

    Args:
        config: content of config.json.
        results: content of results.json.
        predictions: what they were computed from; without them the card has no table of classes.
    """
    name, data = results.entry, about(results.benchmark)
    parts = [
        _metadata(config, results),
        f"# {name}",
        _summary(config, results),
        "## Model details",
        _details(config, results),
        "## What it is for",
        f"For {data['use']}; as a start for fine-tuning on sounds of your own; for comparing "
        f"networks by size and speed. Not for {data['not_for']}.",
        "## Use",
        _usage(results),
        "## Results",
        _results(config, results, predictions),
        "## Size and cost",
        _cost(results),
        "## How it was trained, and how to do it again",
        _training(results),
        *_teaching(results),
        *_transfer(results),
        "## Limits and biases",
        data["limits"],
        "## Licence",
        f"Weights: {config['license'] or 'not stated'}. They were trained on {data['title']} "
        f"({data['license']}).{_inherited(config, results)} Code: Apache-2.0.",
    ]
    cited = papers(config, results.benchmark)
    if cited:
        parts += ["## Citation", "```bibtex\n" + "\n\n".join(cited) + "\n```"]
    return "\n\n".join(parts) + "\n"


def _inherited(config: dict[str, Any], results: Results) -> str:
    """On the licence of the weights that these come from, where it is another."""
    parent = results.parent
    if not parent or parent.license in (None, config["license"]):
        return ""
    return (
        f" They come from those of `{parent.name}` ({parent.license}), whose terms hold for "
        "what is made of them."
    )


def _metadata(config: dict[str, Any], results: Results) -> str:
    result, data, parent = results.result, about(results.benchmark), results.parent
    tags = ["audio", "audio-classification", config["architecture"], results.benchmark]
    if is_quaternion(config):
        tags.insert(2, "quaternion")
    if parent:
        tags.append(parent.how.partition(" ")[0])  # pruned, distilled, fine-tuned
    metadata: dict[str, Any] = {
        "license": config["license"],
        "library_name": "qaudio",
        "pipeline_tag": "audio-classification",
        "tags": tags,
        "datasets": [data["hub"]] if "hub" in data else None,
        "metrics": [result.metric],
        "base_model": _repository(parent.name) if parent else None,
        "model-index": [
            {
                "name": results.entry,
                "results": [
                    {
                        "task": {"type": "audio-classification", "name": "Audio classification"},
                        "dataset": {
                            "name": data["title"],
                            "type": data.get("hub", results.benchmark),
                            "config": results.benchmark,
                            "split": results.protocol,
                        },
                        "metrics": [
                            {
                                "type": result.metric,
                                "value": result.mean,
                                "name": f"{result.metric}, mean over folds",
                            }
                        ],
                    }
                ],
            }
        ],
    }
    known = {key: value for key, value in metadata.items() if value is not None}
    text = yaml.safe_dump(known, sort_keys=False, allow_unicode=True, width=float("inf"))
    return f"---\n{text}---"


def _repository(name: str) -> str:
    """An entry's name as the Hub knows it."""
    return name.removeprefix(HUB_PREFIX).partition("@")[0]


def _eval_results(results: Results, board: HubBenchmark) -> str:
    """The score for the leaderboard of a benchmark that the recipe names on the Hub."""
    entry = {
        "dataset": {
            "id": board.dataset_id,
            "task_id": board.task_id,
        },
        "value": results.result.mean,
        "notes": results.protocol,
    }
    return yaml.safe_dump([entry], sort_keys=False, allow_unicode=True)


def _family(config: dict[str, Any]) -> str:
    arch = config["architecture"]
    for prefix, kind in KINDS.items():
        if arch.startswith(prefix):
            return kind["name"]
    return "quaternion CNN" if is_quaternion(config) else "CNN"


def _article(family: str) -> str:
    return f"{'An' if family[0] in 'aeiou' else 'A'} {family}"


def _scratch(config: dict[str, Any]) -> str:
    """Of networks that are known pretrained: that this one was not."""
    arch = config["architecture"]
    found = [kind["scratch"] for prefix, kind in KINDS.items() if arch.startswith(prefix)]
    return "".join(f" {text}" for text in found)


def _summary(config: dict[str, Any], results: Results) -> str:
    data, parent, result = about(results.benchmark), results.parent, results.result
    how = f" It is {parent.how} `{parent.name}`." if parent else _scratch(config)
    return (
        f"{_article(_family(config))} (`{config['architecture']}`) for {data['title']}: "
        f"{data['about']}.{how} {percent(result.mean)} {result.metric} with "
        f"{results.cost.params:,} parameters. Waveform in, logits out; any sample rate and "
        "length."
    )


def _details(config: dict[str, Any], results: Results) -> str:
    front, cost, labels = config["frontend"], results.cost, config["labels"]
    seen = ", ".join(map(markdown, results.trained_on))
    kind = {"delta": "log-mel with deltas along time as the other three channels",
            "published": "log-mel with deltas as QPANN computed them"}  # fmt: skip
    lines = [
        f"- **Type:** {_family(config)}, audio classification and embeddings",
        f"- **Parameters:** {cost.params:,}; **MACs:** {cost.macs / 1e9:.3f} G for "
        f"{cost.seconds:g} s",
        f"- **Input:** mono waveform at {front['sample_rate']} Hz; other rates are resampled and "
        "channels mixed inside",
        f"- **Front-end, part of the model:** {kind.get(front.get('kind'), 'log-mel')}, "
        f"{front.get('n_mels', 64)} mel bins",
        f"- **Output:** logits of {config['num_classes']} classes"
        + (f": {', '.join(map(markdown, labels))}" if labels and len(labels) <= 60 else ""),
        f"- **Recordings seen, with its parents:** {seen}",
    ]
    if results.parent:
        lines.append(f"- **{results.parent.how.capitalize()}:** `{results.parent.name}`")
    return "\n".join(lines)


def _usage(results: Results) -> str:
    name = results.entry
    # Other recordings than those it was trained on need another name.
    own = " --data.name my_sounds" if results.is_custom_dataset else ""
    start = f"--model.source {name} --writer.entry {name.partition('.')[0]}.my_sounds"
    return f"""```python
import qaudio

# A name, a folder, or an address on the Hub: "hf-hub:your-name/{name}"
model = qaudio.load("{name}")
for prediction in qaudio.predict(model, "your_file.wav"):
    print(prediction.label, prediction.probability)

logits = model(waveform, sample_rate=44100)  # (T,), (B, T) or (B, C, T) -> (B, classes)
vectors = model.embed(waveform, sample_rate=44100)
```

To fine-tune it on your own recordings, a folder for each class:

```bash
qaudio train --config recipes/folder/finetune.yaml --data.root my_sounds{own} {start}
```"""


def _results(config: dict[str, Any], results: Results, predictions: Predictions | None) -> str:
    result, metric = results.result, results.result.metric
    deviation = spread(result.std)
    rows = [f"| {fold} | {percent(score)} |" for fold, score in result.folds.items()]
    text = [
        f"{metric.capitalize() if metric != 'mAP' else 'mAP'} "
        f"**{percent(result.mean)}**{deviation and deviation + ' (over folds)'}, "
        "95 % interval over clips "
        f"{interval(result.interval95)}; {markdown(results.protocol)}, "
        f"{result.clips} clips, seeds {', '.join(map(str, results.seeds))}.",
        f"Epoch: {results.epoch_choice}. Complete runs of this benchmark scored on its test "
        "folds up to these results, over all recipes and entries: "
        f"{results.complete_runs_scored}.",
    ]
    if result.classes is not None:  # of mAP
        text.insert(
            1,
            "Several classes may apply to a clip. mAP is the mean over classes of average "
            "precision, in each fold over those with a positive clip there: "
            f"{result.classes} of {config['num_classes']} have one in some fold.",
        )
    if not results.complete:
        text.insert(0, "**Not complete: some folds are still to be trained.**")
    parent = results.parent
    if parent and parent.difference:
        difference = parent.difference
        # What was pruned went on training from where its parent stood.
        more = ", of what was removed and of the epochs after it"
        text.append(
            f"Difference to `{parent.name}`, paired clip by clip: "
            f"{points(difference.mean)} points, 95 % interval "
            f"{points(difference.interval95[0])} to {points(difference.interval95[1])}"
            f"{more if parent.how.startswith('pruned') else ''}."
        )
    if results.baselines:
        text.append(_baselines(results))
    text.append(dependence(results.benchmark))
    text.append("\n".join(["| fold | " + metric + " |", "|---|---|", *rows]))
    if predictions is not None:
        text.append(_classes(config, predictions, metric))
    if predictions is not None and pictured(config, results):
        text.append(
            f"![Confusion matrix: a row for each true class, in percent of its clips]({PICTURE})"
        )
    paths = "--data.root PATH"
    if "--data.table PATH" in results.recipe.command:
        paths += " --data.table PATH"
    text.append(
        f"`model.safetensors` holds the weights of fold {results.card_fold}, seed "
        f"{results.card_seed}, which never saw that fold, so that its score can be computed "
        f"again: `qaudio test {results.entry} {paths}`. Every score above follows from "
        f"`predictions.npz`: `qaudio verify {results.entry}`."
    )
    return "\n\n".join(filter(None, text))


def _baselines(results: Results) -> str:
    """What the same clips score without training the network."""
    rows = [
        f"| {one.method} | {percent(one.result.mean)} | "
        f"{interval(one.result.interval95)} | {difference_text(one.difference)} |"
        for one in results.baselines
    ]
    head = ["| baseline | score | 95 % interval | difference |", "|---|---|---|---|"]
    return (
        "The same held-out clips by logistic regression alone, on embeddings of the entry that "
        "training began from and on mean and deviation of every log-mel bin; the difference, in "
        "points, is how much better this network is, paired clip by clip.\n\n"
        + "\n".join([*head, *rows])
    )


def _classes(config: dict[str, Any], predictions: Predictions, metric: Metric) -> str:
    """A row for each class: clips, score, and what it is most often taken for."""
    scores = scores_by_class(predictions, metric)
    names = [markdown(name) for name in config["labels"] or []]
    names = names or [f"class {n}" for n in range(len(scores))]
    single = metric == "accuracy"
    confused = confused_with(predictions) if single else []
    lines = ["| class | clips | " + (f"{metric} | most often taken for |" if single else "AP |")]
    lines.append("|---|---|---|---|" if single else "|---|---|---|")
    for n, (name, score) in enumerate(zip(names, scores, strict=True)):
        if score is None and len(scores) > FOLDED:
            continue  # of hundreds of classes those that no clip has
        held = predictions.label == n if single else predictions.label[:, n] > 0
        clips = len(np.unique(predictions.clip[held]))
        cells = [name, str(clips), "" if score is None else percent(score)]
        if single:
            other, share = confused[n]
            cells.append("" if other is None else f"{names[other]} ({percent(share)})")
        lines.append(f"| {' | '.join(cells)} |")
    text = "\n".join(lines)
    if len(scores) <= FOLDED:
        return text
    return f"<details><summary>Class by class</summary>\n\n{text}\n\n</details>"


def _cost(results: Results) -> str:
    cost = results.cost
    lines = ["| | |", "|---|---|", f"| parameters | {cost.params:,} |"]
    lines.append(f"| MACs, {cost.seconds:g} s clip | {cost.macs / 1e9:.3f} G |")
    lines.append(f"| weights | {cost.bytes / 1e6:.2f} MB |")
    latency = cost.latency
    if latency:
        fast = latency.optimized_milliseconds
        optimized = f"; {fast:.1f} ms by `qaudio.optimize`" if fast else ""
        lines.append(
            f"| latency, {cost.seconds:g} s clip, batch 1 | {latency.milliseconds:.1f} ms, "
            f"of which front-end {latency.frontend_milliseconds:.1f} ms{optimized} "
            f"({markdown(latency.device)}; {markdown(latency.method)}) |"
        )
    if results.parent and results.parent.kept:
        kept = results.parent.kept
        lines.append(
            f"| kept of its parent | {kept.params:.1%} of the parameters, {kept.macs:.1%} of "
            "the MACs |"
        )
    return "\n".join(lines)


def _teaching(results: Results) -> list[str]:
    """Of nets that learned from another on unlabelled sound: what they heard."""
    teaching = results.teaching
    if not teaching:
        return []
    heard = teaching.heard
    rows = [
        f"| {markdown(name)} | {row.recordings} | {row.hours:.2f} | "
        f"{markdown(row.licence or 'not stated')} |"
        for name, row in sorted(heard.sources.items())
    ]
    checked = heard.overlap_check
    held_out = ", ".join(map(markdown, heard.held_out))
    cosine = teaching.embedding_cosine
    lines = [
        f"Taught by `{teaching.teacher}` on {heard.hours:.1f} hours of recordings without "
        f"labels. Sources held out: {held_out}. Its score compares it with its "
        f"teacher's tags there (probability from {teaching.tagged_from:g}, classes with "
        f"{teaching.least_tagged} clips or more)"
        + ("." if cosine is None else f"; mean cosine of the embeddings, {cosine:.3f}."),
        "Overlap with benchmarks: " + (f"{markdown(checked)}." if checked else "not checked."),
    ]
    table = ["| source | recordings | hours | licence |", "|---|---|---|---|", *rows]
    return ["## What it heard", "\n\n".join(lines), "\n".join(table)]


def _transfer(results: Results) -> list[str]:
    """Scores on benchmarks that the network was not trained on."""
    scores = results.transfer
    if not scores:
        return []
    rows = [
        f"| {markdown(one.protocol)} | "
        f"{percent(one.result.mean)} {one.result.metric} | "
        f"{interval(one.result.interval95)} |"
        for one in scores
    ]
    table = ["| protocol | score | 95 % interval |", "|---|---|---|", *rows]
    return [
        "## Carried over",
        "Without training the network: a linear probe is a logistic regression on its standardised "
        "embeddings, fitted for each fold on the others; a label map takes the classes of its own "
        "that mean the benchmark's.",
        "\n".join(table),
    ]


def _training(results: Results) -> str:
    training, recipe = results.training, results.recipe
    libraries = ", ".join(f"{name} {one}" for name, one in results.versions.items())
    seconds = training.wall_seconds
    time = f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
    # Elsewhere: where this entry lies, its runs are done.
    apart = "" if "--writer.folder" in recipe.command else " --writer.folder again"
    return (
        f"```bash\n{recipe.command}{apart}\n```\n\n"
        f"Recipe at commit `{recipe.commit or 'not committed'}`, trained with the code of "
        f"commit `{results.git_commit or 'unknown'}`; {time} in all for "
        f"{len(results.result.runs)} runs on {training.device}, {training.precision}. "
        "The whole recipe, every default written out, is [recipe.yaml](recipe.yaml)."
        + (f" Versions: {libraries}." if libraries else "")
    )
