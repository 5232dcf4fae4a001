"""Small networks in training on the made ESC-50."""

import json
from pathlib import Path

import torch
import yaml
from lightning import Trainer, seed_everything

import qaudio
from tests.support.networks import FRONTEND

LABELS = ["dog", "rain", "clock_tick"]
PRUNING = {"ratio": 0.5, "min_channels": 4}


def network(arch="qcnn6_006", seed=1, labels=LABELS, **frontend):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = qaudio.create_model(arch, num_classes=len(labels), frontend=FRONTEND | frontend)
        for _ in range(10):  # norms that fit the sounds
            net.train()(0.1 * torch.randn(4, 8000))
    net.labels = list(labels)
    return net.eval()


def classifier(**settings):
    return qaudio.Classifier("qcnn6_006", frontend=FRONTEND, **({"lr": 0.01} | settings))


def data(root, **settings):
    return qaudio.ESC50(str(root), **{"esc10": True, "seconds": 0.5, "batch_size": 8} | settings)


def trainer(epochs=1, **settings):
    return Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0,
        **({"enable_checkpointing": False} | settings),
    )  # fmt: skip


def fitted(module, sounds, epochs=2, seed=0, **settings):
    seed_everything(seed, verbose=False)
    run = trainer(epochs, **{k: v for k, v in settings.items() if k != "ckpt_path"})
    run.fit(module, sounds, ckpt_path=settings.get("ckpt_path"))
    return run


def on_folder(folder: Path, root: Path, model: dict, **data) -> list[str]:
    """Arguments of a command that trains zoo/qcnn6_006.tones, in `folder`, on recordings."""
    settings = {"root": str(root), "name": "tones", "folds": 2, "seconds": 0.5, "batch_size": 4}
    recipe = {
        "trainer": {"max_epochs": 1, "enable_progress_bar": False, "accelerator": "cpu",
                    "enable_model_summary": False},
        "model": {"class_path": "qaudio.Classifier", "init_args": model},
        "data": {"class_path": "qaudio.AudioFolder", "init_args": settings | data},
        "writer": {"entry": "qcnn6_006.tones", "folder": str(folder / "zoo"), "latency": False,
                   "license": "cc0-1.0"},
    }  # fmt: skip
    (folder / "tones.yaml").write_text(yaml.safe_dump(recipe))
    return ["--config", str(folder / "tones.yaml"), "--runs", str(folder / "runs")]


def results_of(entry: Path) -> dict:
    return json.loads((entry / "results.json").read_text())


def pruned(parent, **settings) -> dict:
    arguments = {"source": str(parent), "ratio": 0.5, "min_channels": 4, "lr": 0.01}
    return {"class_path": "qaudio.PrunedClassifier", "init_args": arguments | settings}


def distilled(teacher, **settings) -> dict:
    arguments = {"teacher": str(teacher), "arch": "qcnn6_006", "frontend": FRONTEND, "lr": 0.01}
    return {"class_path": "qaudio.DistilledClassifier", "init_args": arguments | settings}
