"""Entries of three classes, small enough to be saved and checked in a moment."""

import json

import numpy as np
import torch

import qaudio
from qaudio.evaluation.bootstrap import summarise
from qaudio.evaluation.predictions import Predictions
from qaudio.zoo.store import file_hash, to_json

LABELS = ["low", "noise", "high"]
LOCK = ".zoo.lock"  # that writers of entries share


def tiny(seed=0, arch="qcnn6_006"):
    torch.manual_seed(seed)
    model = qaudio.create_model(
        arch, num_classes=3, frontend={"sample_rate": 8000, "f_max": 4000.0, "n_fft": 256}
    )
    model.labels, model.eval_seconds = LABELS, 1.0
    return model.eval()


def results_of(predictions, name="qcnn6_006.made"):
    return {
        "schema_version": 1,
        "entry": name,
        "benchmark": "made",
        "dataset": "made",
        "protocol": "two made folds",
        "epoch_choice": "fixed",
        "complete": True,
        "complete_runs_scored": 1,
        "seeds": [0],
        "card_fold": 1,
        "card_seed": 0,
        "result": summarise(predictions, "accuracy").to_dict(),
        "parent": None,
        "trained_on": ["made"],
        "cost": {"params": 1, "macs": 2, "bytes": 3, "seconds": 10.0, "latency": None},
        "recipe": {"command": "qaudio crossval", "sha256": "0", "commit": None},
        "git_commit": None,
        "training": {
            "wall_seconds": 1.0, "wall_seconds_of": {}, "device": "cpu", "precision": "32-true"
        },
        "versions": {},
    }  # fmt: skip


def made_entry(folder):
    """An entry with results over two folds and the weights of one of them, below a folder."""
    rng = np.random.default_rng(0)
    label = np.arange(30) % 3
    logits = rng.standard_normal((30, 3)) + 2 * np.eye(3)[label]
    names = [f"{n:02}" for n in range(30)]
    predictions = Predictions.of_run(1, 0, names, label, logits).merged(
        Predictions.of_run(2, 0, [f"x{n}" for n in names], label, -logits)
    )
    model = tiny()
    return qaudio.save(
        model,
        folder / "qcnn6_006.made",
        results=results_of(predictions),
        predictions=predictions,
        recipe="model: {}\n",
        license="cc-by-4.0",
        folds={"folds/1.safetensors": tiny().state_dict()},
    )


def write_records(folder, results, **config):
    """An entry's config.json and results.json alone, in a new folder."""
    folder.mkdir(parents=True)
    config = {
        "schema_version": 1, "qaudio_version": "0.1.0", "architecture": "qcnn6_006",
        "num_classes": 3, "widths": {}, "frontend": {}, "labels": None, "task": "multiclass",
        "eval_seconds": None, "license": "cc-by-4.0", "files": {}, **config,
    }  # fmt: skip
    (folder / "config.json").write_text(to_json(config))
    (folder / "results.json").write_text(to_json(results))


def rehash(entry, *names):
    """Make config.json agree with changed files, as a forger would."""
    config = json.loads((entry / "config.json").read_text())
    config["files"].update({name: file_hash(entry / name) for name in names})
    (entry / "config.json").write_text(to_json(config))


def change_config(entry, **changes):
    config = json.loads((entry / "config.json").read_text()) | changes
    (entry / "config.json").write_text(to_json({k: v for k, v in config.items() if v != "drop"}))
