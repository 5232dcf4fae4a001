"""What is a pretrained entry worth on a small folder of sounds that it never heard?

    python -m tests.benchmarks.finetune_study --gtzan data/GTZAN/genres --ravdess data/RAVDESS \
        --esc50 data/ESC-50 [--entry ENTRY]

On each of ten stratified splits in halves, grouped by clip, speaker or source recording, four ways
answer for the same held-out half: the entry fine-tuned, the same network trained from scratch for
as many epochs, a linear probe of the entry, and logistic regression on log-mel statistics. The
learning rates of the two that train are chosen, each for itself, on splits of other seeds. Writes
finetune_study.json beside this file after every task, goes on from it, and writes the table in
recipes/README.md.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lightning import Trainer, seed_everything
from scipy.stats import t as student

import qaudio
from qaudio.cards.tables import markdown_table, with_generated
from qaudio.data.audio import sound_files
from qaudio.data.augment import SpecAugment, WaveformAugment
from qaudio.data.splits import grouped_folds
from qaudio.evaluation.probe import LINEAR
from qaudio.training.baselines import STATISTICS, baselines
from qaudio.zoo.resolve import PRETRAINED_ENTRY

RESULTS = Path(__file__).with_suffix(".json")
README = Path(__file__).resolve().parents[2] / "recipes" / "README.md"
SCORED, CHOOSING = range(10), range(100, 102)
EPOCHS = 15
GENRES = ("classical", "hiphop", "rock")
EMOTIONS = {"03": "happy", "04": "sad", "05": "angry"}
ANIMALS = ("pig", "cow", "hen", "sheep", "crow")
TUNED, SCRATCH = "fine-tuned", "from scratch"
RATES = {TUNED: (0.0001, 0.0003), SCRATCH: (0.001, 0.003)}
Row = tuple[str, str, str]  # file, label, group


def gtzan(root: Path) -> Iterator[Row]:
    """Ten clips of each of three genres; every clip is cut into segments, so it is a group."""
    for genre in GENRES:
        for path in sorted(sound_files(root / genre))[:10]:
            yield str(path.resolve()), genre, path.stem


def ravdess(root: Path) -> Iterator[Row]:
    """Three emotions, strongly spoken, first repetition; a speaker is a group."""
    for path in sound_files(root):
        fields = path.stem.split("-")
        if fields[2] in EMOTIONS and fields[3] == "02" and fields[5] == "01":
            yield str(path.resolve()), EMOTIONS[fields[2]], fields[6]


def animals(root: Path) -> Iterator[Row]:
    """Five of ESC-50's animals, none of them in ESC-10; a source recording is a group."""
    with open(root / "meta" / "esc50.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["category"] in ANIMALS:
                path = root / "audio" / row["filename"]
                yield str(path.resolve()), row["category"], row["src_file"]


@dataclass(frozen=True)
class Task:
    """A small folder: its sounds, seconds of a clip, and clips of a class to learn from."""

    about: str
    data: str
    seconds: float
    shots: int | None = None

    def rows(self, root: Path) -> list[Row]:
        return sorted({"gtzan": gtzan, "ravdess": ravdess, "esc50": animals}[self.data](root))


ANIMALS_OF = "five animals of ESC-50 that are not in ESC-10"
TASKS = {
    "gtzan": Task("three genres of the GTZAN sample, ten clips each", "gtzan", 5.0),
    "ravdess": Task("three emotions of RAVDESS, speakers apart", "ravdess", 3.0),
    "animals": Task(f"{ANIMALS_OF}, 20 clips a class", "esc50", 5.0),  # half of them
    "animals_5": Task(f"{ANIMALS_OF}, 5 clips a class", "esc50", 5.0, 5),
    "animals_10": Task(f"{ANIMALS_OF}, 10 clips a class", "esc50", 5.0, 10),
}  # fmt: skip


class Scratch(qaudio.Classifier):
    """The source's network with random weights."""

    def build(self, labels, split):
        config = super().build(labels, split).config
        net = qaudio.create_model(
            config.architecture, num_classes=len(labels), frontend=config.frontend,
            widths=config.widths,
        )  # fmt: skip
        net.labels, net.task = labels, self.task
        return net


def write_table(path: Path, rows: list[Row], seed: int, shots: int | None) -> None:
    """A split in halves by `seed`, of whose first at most `shots` clips a class are kept."""
    classes = sorted({label for _, label, _ in rows})
    folds = grouped_folds(
        [(classes.index(label),) for _, label, _ in rows], [row[2] for row in rows], 2, seed
    )
    halves: dict[int, list[Row]] = {1: [], 2: []}
    for row, fold in zip(rows, folds, strict=True):
        halves[fold].append(row)
    if shots is not None:
        of_class = defaultdict(list)
        for row in halves[1]:
            of_class[row[1]].append(row)
        draw = random.Random(seed)
        halves[1] = [
            row for own in of_class.values() for row in draw.sample(own, min(shots, len(own)))
        ]
    with open(path, "w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(("file", "label", "group", "split"))
        out.writerows((*row, "train") for row in halves[1])
        out.writerows((*row, "test") for row in halves[2])


def folder(table: Path, seconds: float) -> qaudio.AudioFolder:
    return qaudio.AudioFolder(
        "/", table=str(table), seconds=seconds, segment_hop=seconds, batch_size=16,
        augment=WaveformAugment(roll=0.1, gain_db=6.0, speed=0.05),
    )  # fmt: skip


def trained(entry: str, way: str, lr: float, data: qaudio.AudioFolder, seed: int) -> float:
    """Accuracy of one way, over held-out clips.

    Settings are those of recipes/folder/finetune.yaml but for rate, epochs and masks, and that the
    probe never stands in for what was trained.
    """
    seed_everything(seed, verbose=False)
    own = {"probe_first": True, "freeze": "norms"} if way == TUNED else {}
    module = (qaudio.Classifier if way == TUNED else Scratch)(
        source=entry, lr=lr, head_dropout=0.2, spec_augment=SpecAugment(), class_weights=True, **own
    )
    options = {
        "accelerator": "cpu", "logger": False, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False, "precision": "bf16-mixed",
    }  # fmt: skip
    Trainer(max_epochs=EPOCHS, num_sanity_val_steps=0, **options).fit(module, data)
    Trainer(**options | {"precision": "32"}).test(module, data, verbose=False)
    right = [(batch["logits"].argmax(-1) == batch["label"]).numpy() for batch in module.scored]
    return float(np.concatenate(right).mean())


def untrained(entry: str, data: qaudio.AudioFolder) -> dict[str, float]:
    """Accuracy of the linear probe and of the statistics, over the same clips."""
    data.sample_rate = qaudio.load(entry).sample_rate
    data.setup()
    return {
        way: float((found.logits.argmax(-1) == found.label).mean())
        for way, found in baselines(entry, data).items()
    }


def study(entry: str, task: Task, root: Path) -> dict:
    rows = task.rows(root)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as parent:
        table = Path(parent) / "table.csv"

        def accuracy(seed: int, way: str, lr: float) -> float:
            write_table(table, rows, seed, task.shots)
            return trained(entry, way, lr, folder(table, task.seconds), seed)

        chosen = {
            way: max(
                rates, key=lambda lr, way=way: np.mean([accuracy(s, way, lr) for s in CHOOSING])
            )
            for way, rates in RATES.items()
        }
        scores = defaultdict(list)
        for seed in SCORED:
            for way, lr in chosen.items():
                scores[way].append(round(accuracy(seed, way, lr), 4))
            for way, score in untrained(entry, folder(table, task.seconds)).items():
                scores[way].append(round(score, 4))
            print(task.about, seed, {way: column[-1] for way, column in scores.items()}, flush=True)
    return {
        "about": task.about, "clips": len(rows), "splits": len(SCORED), "epochs": EPOCHS,
        "lr": chosen, "scores": scores, "wall_seconds": round(time.perf_counter() - start),
    }  # fmt: skip


def difference(scores: dict[str, list[float]], way: str, other: str) -> tuple[float, float, float]:
    """Mean of paired differences in points, and its 95 % interval by Student's t."""
    found = 100 * (np.array(scores[way]) - np.array(scores[other]))
    margin = student.ppf(0.975, len(found) - 1) * found.std(ddof=1) / np.sqrt(len(found))
    return found.mean(), found.mean() - margin, found.mean() + margin


def shown(found: dict) -> str:
    """What recipes/README.md says of the results."""
    ways = (TUNED, LINEAR, SCRATCH, STATISTICS)
    rows = []
    for task in found["tasks"].values():
        cells = [f"{100 * np.mean(task['scores'][way]):.1f} %" for way in ways]
        cells += [
            "{:+.1f} ({:+.1f} to {:+.1f})".format(*difference(task["scores"], TUNED, other))
            for other in (SCRATCH, STATISTICS)
        ]
        rows.append([task["about"], *cells])
    head = ["folder", *ways, "fine-tuned − scratch", "fine-tuned − statistics"]
    return (
        f"Accuracy on the held-out half, mean over {len(SCORED)} splits, from `{found['entry']}`; "
        "differences in points with 95 % intervals. Splits share clips, which makes the intervals "
        f"too narrow, if anything.\n\n{markdown_table(head, rows)}"
    )


def readme_with(text: str, found: dict) -> str:
    return with_generated(text, "fine-tuning study", shown(found))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--entry", default=PRETRAINED_ENTRY, help="%(default)s")
    parser.add_argument("--out", type=Path, default=RESULTS, help="%(default)s")
    for name in ("gtzan", "ravdess", "esc50"):
        parser.add_argument(f"--{name}", type=Path, required=True, help="folder of the benchmark")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), metavar="TASK")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    found = json.loads(options.out.read_text("utf-8")) if options.out.exists() else {}
    if found.get("entry") != Path(options.entry).name:
        found = {"entry": Path(options.entry).name, "tasks": {}}
    for name in options.tasks:
        if name not in found["tasks"]:
            task = TASKS[name]
            found["tasks"][name] = study(options.entry, task, getattr(options, task.data))
            options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if options.out == RESULTS:
        README.write_text(readme_with(README.read_text("utf-8"), found), encoding="utf-8")
    print(shown(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
