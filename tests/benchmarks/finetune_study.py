"""Does fine-tuning an entry beat training the same network from scratch on a small folder?

    python tests/benchmarks/finetune_study.py --gtzan data/GTZAN/genres --ravdess data/RAVDESS

For each of ten stratified splits in halves, grouped by clip or speaker, both networks train for the
same epochs with the same optimiser and order of clips, and score the other half. Epochs and
learning rate are chosen on splits of other seeds, by the mean score of both networks. Writes
finetune_study.json beside this file, and from it the line in recipes/README.md.
"""

import argparse
import csv
import json
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from lightning import Trainer, seed_everything

import qaudio
from qaudio.cards.tables import with_generated
from qaudio.data.audio import sound_files
from qaudio.data.augment import SpecAugment, WaveformAugment
from qaudio.models.registry import create_model
from qaudio.zoo.resolve import locate
from qaudio.zoo.store import read_config

ENTRY = "qcnn10_050.esc10_pruned50"
RESULTS = Path(__file__).with_suffix(".json")
README = Path(__file__).resolve().parents[2] / "recipes" / "README.md"
SCORED, CHOOSING = range(10), range(100, 102)
CHOICES = ({"epochs": 10, "lr": 0.001}, {"epochs": 10, "lr": 0.003})
GENRES = ("classical", "hiphop", "rock")
EMOTIONS = {"03": "happy", "04": "sad", "05": "angry"}


class Scratch(qaudio.Classifier):
    """The entry's network, freshly initialised."""

    def build(self, labels, split):
        config = read_config(locate(ENTRY))
        net = create_model(
            config["architecture"], num_classes=len(labels), frontend=config["frontend"],
            widths=config["widths"],
        )  # fmt: skip
        net.labels, net.task = labels, self.task
        return net


def gtzan(root):
    """Ten clips of each of three genres; every clip is cut into segments, so it is a group."""
    for genre in GENRES:
        for path in sorted(sound_files(root / genre))[:10]:
            yield path, genre, path.stem


def ravdess(root):
    """Three emotions, strongly spoken, first repetition; a speaker is a group."""
    for path in sound_files(root):
        fields = path.stem.split("-")
        if fields[2] in EMOTIONS and fields[3] == "02" and fields[5] == "01":
            yield path, EMOTIONS[fields[2]], fields[6]


TASKS = {
    "gtzan": ("three genres of the GTZAN sample, ten clips each", gtzan, 5.0),
    "ravdess": ("three emotions of RAVDESS, speakers apart", ravdess, 3.0),
}


def score(network, table, seconds, seed, epochs, lr):
    """Accuracy over the clips of the half that was not trained on."""
    seed_everything(seed, verbose=False)
    module = network(
        source=ENTRY, lr=lr, head_dropout=0.2, spec_augment=SpecAugment(), class_weights=True
    )
    data = qaudio.AudioFolder(
        "/", table=str(table), folds=2, split_seed=seed, seconds=seconds, segment_hop=seconds,
        batch_size=16, augment=WaveformAugment(roll=0.1, gain_db=6.0, speed=0.05),
    )  # fmt: skip
    options = {
        "accelerator": "cpu", "logger": False, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False,
    }  # fmt: skip
    Trainer(max_epochs=epochs, num_sanity_val_steps=0, **options).fit(module, data)
    Trainer(**options).test(module, data, verbose=False)
    right = [(batch["logits"].argmax(-1) == batch["label"]).numpy() for batch in module.scored]
    return float(np.concatenate(right).mean())


def study(name, root):
    about, files, seconds = TASKS[name]
    rows = [(str(path.resolve()), label, group) for path, label, group in files(root)]
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "table.csv"
        with open(table, "w", newline="") as file:
            csv.writer(file).writerows([("file", "label", "group"), *rows])

        def both(seed, choice):
            found = [score(kind, table, seconds, seed, **choice) for kind in NETWORKS.values()]
            print(f"{name} seed {seed} {choice}: " + ", ".join(f"{one:.3f}" for one in found),
                  flush=True)  # fmt: skip
            return found

        means = [np.mean([both(seed, choice) for seed in CHOOSING]) for choice in CHOICES]
        choice = CHOICES[int(np.argmax(means))]
        scores = np.array([both(seed, choice) for seed in SCORED])
    difference = scores[:, 0] - scores[:, 1]
    # Student's t, 9 degrees of freedom; splits share clips, so it is too narrow if anything.
    margin = 2.262 * difference.std(ddof=1) / np.sqrt(len(difference))
    return {
        "about": about, "clips": len(rows), "splits": len(SCORED), **choice,
        "chosen_from": {str(one): round(float(mean), 4) for one, mean in
                        zip(map(json.dumps, CHOICES), means, strict=True)},
        "scores": {kind: [round(float(x), 4) for x in column] for kind, column in
                   zip(NETWORKS, scores.T, strict=True)},
        "difference": round(float(difference.mean()), 4),
        "interval95": [round(float(difference.mean() + side * margin), 4) for side in (-1, 1)],
        "wall_seconds": round(time.perf_counter() - start),
    }  # fmt: skip


NETWORKS = {"fine-tuned": qaudio.Classifier, "scratch": Scratch}


def line(found):
    """What recipes/README.md says of the results."""
    parts = []
    for one in found["tasks"].values():
        tuned, scratch = (100 * np.mean(one["scores"][kind]) for kind in NETWORKS)
        low, high = (100 * bound for bound in one["interval95"])
        parts.append(
            f"{one['about']}: {tuned:.1f} % against {scratch:.1f} %, difference "
            f"{100 * one['difference']:+.1f} points (95 % interval {low:+.1f} to {high:+.1f}, "
            f"{one['splits']} splits)"
        )
    return (
        f"Fine-tuning `{found['entry']}` against training the same network from scratch, equally "
        f"long, on half of a small folder: {'; '.join(parts)}. Splits share clips, which "
        f"makes the intervals too narrow, if anything. Made by `{found['command']}`."
    )


def readme_with_line(text, found):
    return with_generated(text, "fine-tuning study", line(found))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in TASKS:
        parser.add_argument(f"--{name}", type=Path, required=True)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    found = {
        "entry": ENTRY,
        "command": "python tests/benchmarks/finetune_study.py --gtzan PATH --ravdess PATH",
        "tasks": {name: study(name, getattr(options, name)) for name in TASKS},
    }
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    text = README.read_text(encoding="utf-8")
    README.write_text(readme_with_line(text, found), encoding="utf-8")
    print(line(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
