"""Model cards and the zoo's tables, generated from config.json and results.json alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from qaudio.zoo.catalog import EntryError, entries, read_json

TABLE_START, TABLE_END = "<!-- zoo table: generated -->", "<!-- end of zoo table -->"

DATASETS: dict[str, dict[str, str]] = {
    "esc10": {
        "title": "ESC-10",
        "about": "ten classes of environmental sounds, 40 clips of five seconds each, the "
        "subset of ESC-50 that its author released under CC BY",
        "limits": "It has seen 400 clips of ten classes and gives one of these for every sound, "
        "whatever it is: probabilities do not say that a sound is none of them. The clips come "
        "from freesound.org and are short, mostly clean and cut around one event; field "
        "recordings, mixtures and other microphones are outside what was measured.",
        "citation": "K. J. Piczak, *ESC: Dataset for Environmental Sound Classification*, "
        "ACM Multimedia 2015",
        "license": "CC BY 3.0",
    },
    "esc50": {
        "title": "ESC-50",
        "about": "fifty classes of environmental sounds, 40 clips of five seconds each",
        "limits": "It has seen 2000 clips of fifty classes and gives one of these for every sound, "
        "whatever it is. The clips come from freesound.org and are short, mostly clean and cut "
        "around one event; field recordings, mixtures and other microphones are outside what was "
        "measured.",
        "citation": "K. J. Piczak, *ESC: Dataset for Environmental Sound Classification*, "
        "ACM Multimedia 2015",
        "license": "CC BY-NC 3.0",
    },
    "gtzan": {
        "title": "GTZAN",
        "about": "ten genres of music, 100 clips of 30 seconds each, cut into segments whose "
        "logits are averaged",
        "limits": "GTZAN holds repeated, mislabelled and distorted clips (Sturm, arXiv 1306.1461); "
        "scores on its fault-filtered split and on ten folds are not comparable with one another, "
        "nor with splits that share songs or artists between training and test. One of ten genres "
        "is given for any sound.",
        "citation": "G. Tzanetakis, P. Cook, *Musical Genre Classification of Audio Signals*, "
        "IEEE Transactions on Speech and Audio Processing 10(5), 2002",
        "license": "no licence stated; research use",
    },
    "gtzan_sample": {
        "title": "GTZAN sample (100 clips)",
        "about": "ten clips of each of GTZAN's ten genres, cut into segments whose logits are "
        "averaged",
        "limits": "A tenth of GTZAN: its scores are not GTZAN's and not comparable with any. "
        "100 clips tell whether training works, not how well genres are told apart, and GTZAN's "
        "faults (repeats, mislabels; Sturm, arXiv 1306.1461) are in them.",
        "citation": "G. Tzanetakis, P. Cook, *Musical Genre Classification of Audio Signals*, "
        "IEEE Transactions on Speech and Audio Processing 10(5), 2002",
        "license": "no licence stated; research use",
    },
    "audioset": {
        "title": "AudioSet",
        "about": "527 classes of sound, several in each clip of ten seconds, from YouTube videos",
        "limits": "Copies of AudioSet lack videos that are gone, each copy others: scores on "
        "different copies differ for that reason alone, and the ids that were scored stand in "
        "`predictions.npz`. Labels are weak (of ten seconds, not of moments), incomplete, and of "
        "uneven quality from class to class; mAP is the mean over classes with a positive clip.",
        "citation": "J. F. Gemmeke et al., *Audio Set: An Ontology and Human-Labeled Dataset for "
        "Audio Events*, ICASSP 2017",
        "license": "labels CC BY 4.0; the videos' own licences vary",
    },
    "ravdess": {
        "title": "RAVDESS speech",
        "about": "24 actors speaking two sentences in eight emotions",
        "limits": "Acted emotions of 24 North American actors in two sentences: not a measure of "
        "what people feel, and not fit for decisions about people.",
        "citation": "S. R. Livingstone, F. A. Russo, *The Ryerson Audio-Visual Database of "
        "Emotional Speech and Song*, PLoS ONE 13(5), 2018",
        "license": "CC BY-NC-SA 4.0",
    },
}
PAPERS = (
    "A. Singh, V. Abrol, M. D. Plumbley, *Compressing Quaternion Convolutional Neural Networks "
    "for Audio Classification*, IEEE TASLP 34, 2026",
    "Q. Kong et al., *PANNs: Large-Scale Pretrained Audio Neural Networks for Audio Pattern "
    "Recognition*, IEEE/ACM TASLP 28, 2020",
)


def render(config: dict[str, Any], results: dict[str, Any]) -> str:
    """The card of an entry, README.md, from its config and results."""
    name, data = results["entry"], _dataset(results["benchmark"])
    parts = [
        _metadata(config, results),
        f"# {name}",
        _summary(config, results),
        "## Use",
        _usage(name, config),
        "## Results",
        _results(results),
        "## Size and cost",
        _cost(results),
        "## How it was trained",
        _training(results),
        "## Limits",
        data["limits"],
        "## Licence",
        f"Weights: {config['license'] or 'not stated'}. They were trained on {data['title']} "
        f"({data['license']}). Code: Apache-2.0.",
        "## Citation",
        "\n".join(f"- {paper}" for paper in (*PAPERS, data["citation"])),
    ]
    return "\n\n".join(parts) + "\n"


def _dataset(benchmark: str) -> dict[str, str]:
    plain = {"title": benchmark, "about": "your own recordings", "limits": "Not assessed."}
    return DATASETS.get(benchmark, plain | {"citation": benchmark, "license": "not stated"})


def _metadata(config: dict[str, Any], results: dict[str, Any]) -> str:
    result, data = results["result"], _dataset(results["benchmark"])
    metadata: dict[str, Any] = {
        "library_name": "qaudio",
        "pipeline_tag": "audio-classification",
        "tags": ["audio", "audio-classification", "quaternion", config["architecture"]],
        "metrics": [result["metric"]],
        "model-index": [
            {
                "name": results["entry"],
                "results": [
                    {
                        "task": {"type": "audio-classification", "name": "Audio classification"},
                        "dataset": {"type": results["benchmark"], "name": data["title"]},
                        "metrics": [
                            {
                                "type": result["metric"],
                                "value": result["mean"],
                                "name": f"{result['metric']} ({results['protocol']})",
                            }
                        ],
                    }
                ],
            }
        ],
    }
    if config["license"]:
        metadata = {"license": config["license"]} | metadata
    if results["parent"]:
        metadata["base_model"] = results["parent"]["name"]
    text = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{text}---"


def _summary(config: dict[str, Any], results: dict[str, Any]) -> str:
    data, parent = _dataset(results["benchmark"]), results["parent"]
    family = "quaternion CNN" if config["architecture"].startswith("q") else "CNN"
    how = f" It is {parent['how']} `{parent['name']}`." if parent else ""
    labels = config["labels"]
    known = f" Classes: {', '.join(labels)}." if labels and len(labels) <= 60 else ""
    return (
        f"A {family} (`{config['architecture']}`) for {data['title']}: {data['about']}.{how}"
        f" Waveform in, logits out; any sample rate and length.{known}"
    )


def _usage(name: str, config: dict[str, Any]) -> str:
    return f"""```python
import qaudio

model = qaudio.load("{name}")
for prediction in qaudio.predict(model, "your_file.wav"):
    print(prediction.label, prediction.probability)
```

The network works at {config["frontend"]["sample_rate"]} Hz; other rates are resampled."""


def _results(results: dict[str, Any]) -> str:
    result = results["result"]
    rows = [f"| {fold} | {percent(score)} |" for fold, score in result["folds"].items()]
    text = [
        f"{result['metric'].capitalize() if result['metric'] != 'mAP' else 'mAP'} "
        f"**{percent(result['mean'])}**{_spread(result)}, 95 % interval over clips "
        f"{interval(result['interval95'])}; {results['protocol']}, {result['clips']} clips, "
        f"seeds {', '.join(map(str, results['seeds']))}.",
        f"Epoch: {results['epoch_choice']}. Complete runs of this benchmark scored on its test "
        f"folds so far, over all recipes and entries: {results['complete_runs_scored']}.",
    ]
    if not results["complete"]:
        text.insert(0, "**Not complete: some folds are still to be trained.**")
    parent = results["parent"]
    if parent and parent.get("difference"):
        difference = parent["difference"]
        text.append(
            f"Difference to `{parent['name']}` on the same clips and seeds: "
            f"{points(difference['mean'])} points, 95 % interval "
            f"{points(difference['interval95'][0])} to {points(difference['interval95'][1])}."
        )
    text.append("\n".join(["| fold | " + result["metric"] + " |", "|---|---|", *rows]))
    text.append(
        f"`model.safetensors` holds the weights of fold {results['card_fold']}, seed "
        f"{results['card_seed']}, which never saw that fold, so that its score can be computed "
        f"again: `qaudio test {results['entry']} --data.root PATH`."
    )
    return "\n\n".join(text)


def _cost(results: dict[str, Any]) -> str:
    cost = results["cost"]
    lines = ["| | |", "|---|---|", f"| parameters | {cost['params']:,} |"]
    lines.append(f"| MACs, {cost['seconds']:g} s clip | {cost['macs'] / 1e9:.3f} G |")
    lines.append(f"| weights | {cost['bytes'] / 1e6:.2f} MB |")
    latency = cost["latency"]
    if latency:
        lines.append(
            f"| latency, {cost['seconds']:g} s clip, batch 1 | {latency['milliseconds']:.1f} ms, "
            f"of which front-end {latency['frontend_milliseconds']:.1f} ms ({latency['device']}; "
            f"{latency['method']}) |"
        )
    if results["parent"] and results["parent"].get("kept"):
        kept = results["parent"]["kept"]
        lines.append(
            f"| kept of its parent | {kept['params']:.1%} of the parameters, {kept['macs']:.1%} of "
            "the MACs |"
        )
    return "\n".join(lines)


def _training(results: dict[str, Any]) -> str:
    training, recipe = results["training"], results["recipe"]
    commit = recipe["commit"] or "not committed"
    return (
        f"```\n{recipe['command']}\n```\n\n"
        f"Recipe at commit `{commit}`, trained with the code of commit "
        f"`{results['git_commit'] or 'unknown'}`; {training['wall_seconds'] / 60:.0f} minutes in "
        f"all for {len(results['result']['runs'])} runs on {training['device']}, "
        f"{training['precision']}. The whole recipe is in `recipe.yaml`."
    )


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def points(difference: float) -> str:
    return f"{100 * difference:+.1f}"


def interval(bounds: list[float]) -> str:
    return f"{100 * bounds[0]:.1f}–{100 * bounds[1]:.1f} %"


def _spread(result: dict[str, Any]) -> str:
    return "" if result["std"] is None else f" ± {100 * result['std']:.1f} (over folds)"


def _missing(results: dict[str, Any]) -> str:
    """A remark on runs that are still to come."""
    return "" if results["complete"] else f" ({len(results['result']['runs'])} runs so far)"


def facts(results: dict[str, Any]) -> list[tuple[str, str]]:
    """What a terminal shows of an entry's results: name and value."""
    result, cost, parent = results["result"], results["cost"], results["parent"]
    rows = [
        (result["metric"], percent(result["mean"]) + _spread(result) + _missing(results)),
        ("95 % interval", f"{interval(result['interval95'])}, over {result['clips']} clips"),
        ("protocol", f"{results['protocol']}, seeds {', '.join(map(str, results['seeds']))}"),
        ("parameters", f"{cost['params']:,} ({cost['bytes'] / 1e6:.2f} MB)"),
        ("MACs", f"{cost['macs'] / 1e9:.3f} G for {cost['seconds']:g} s"),
    ]
    if cost["latency"]:
        latency = cost["latency"]
        rows.append(("latency", f"{latency['milliseconds']:.1f} ms ({latency['device']})"))
    if parent:
        rows.append(("parent", f"{parent['how']} {parent['name']}"))
        if parent.get("difference"):
            paired = parent["difference"]
            low, high = (points(bound) for bound in paired["interval95"])
            rows.append(("difference", f"{points(paired['mean'])} points ({low} to {high})"))
    return rows


def table(results: list[dict[str, Any]], link: str) -> str:
    """Markdown table of entries; `link` is put before each name."""
    head = "| entry | score | 95 % interval | parameters | MACs (10 s) | latency (10 s) | parent |"
    rows = [head, "|---|---|---|---|---|---|---|"]
    for one in results:
        result, cost, parent = one["result"], one["cost"], one["parent"]
        latency = f"{cost['latency']['milliseconds']:.1f} ms" if cost["latency"] else ""
        difference = ""
        if parent:
            difference = parent["name"]
            if parent.get("difference"):
                paired = parent["difference"]
                low, high = (points(bound) for bound in paired["interval95"])
                difference += f" ({points(paired['mean'])}; {low} to {high})"
        spread = _spread(result).removesuffix(" (over folds)") + _missing(one)
        cells = [
            f"[{one['entry']}]({link}{one['entry']}/README.md)",
            percent(result["mean"]) + spread,
            interval(result["interval95"]),
            f"{cost['params']:,}",
            f"{cost['macs'] / 1e9:.3f} G",
            latency,
            difference,
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def index(folder: Path | None = None) -> str:
    """MODEL_CARDS.md: every entry with results, benchmark by benchmark and protocol by protocol."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for path in _entry_folders(folder):
        if (path / "results.json").is_file():
            one = read_json(path / "results.json")
            found.setdefault((one["benchmark"], one["protocol"]), []).append(one)
    parts = [
        "# Model cards",
        "Generated from each entry's `results.json` by `qaudio verify --all --write`. Scores are "
        "means over folds ± their standard deviation; intervals are 95 % over clips; the last "
        "column is the paired difference to the parent in points with its interval.",
    ]
    for (benchmark, protocol), members in sorted(found.items()):
        members.sort(key=lambda one: -one["result"]["mean"])
        devices = {m["cost"]["latency"]["device"] for m in members if m["cost"]["latency"]}
        parts.append(f"## {_dataset(benchmark)['title']}: {protocol}")
        parts.append(table(members, "zoo/"))
        if devices:
            parts.append(f"Latency, batch 1, front-end included: {'; '.join(sorted(devices))}.")
    return "\n\n".join(parts) + "\n"


def readme_with_table(text: str, folder: Path | None = None) -> str:
    """A README with the table between its two markers made anew; raises EntryError without them."""
    if TABLE_START not in text or TABLE_END not in text:
        raise EntryError("README.md: the markers of the zoo's table are missing")
    members = [
        read_json(path / "results.json")
        for path in _entry_folders(folder)
        if (path / "results.json").is_file()
    ]
    members.sort(key=lambda one: (one["benchmark"], -one["result"]["mean"]))
    before, rest = text.split(TABLE_START, 1)
    after = rest.split(TABLE_END, 1)[1]
    return f"{before}{TABLE_START}\n{table(members, 'zoo/')}\n{TABLE_END}{after}"


def _entry_folders(folder: Path | None) -> list[Path]:
    if folder is None:
        return list(entries().values())
    return [path.parent for path in sorted(folder.glob("*/config.json"))]
