from pathlib import Path

import pytest
import yaml

import qaudio
from qaudio.cli import main
from qaudio.training import classifier, distillation
from tests.support.networks import FRONTEND


@pytest.fixture
def recipe(tmp_path, esc50_tree):
    """Write a recipe for the made ESC-50 tree; returns the arguments that run it."""

    def write(name="qcnn6_006.esc10", model=None, **sections) -> list[str]:
        config = {
            "trainer": {
                "max_epochs": 2,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "accelerator": "cpu",
            },
            "model": model
            or {
                "class_path": "qaudio.Classifier",
                "init_args": {"arch": "qcnn6_006", "frontend": FRONTEND, "lr": 0.01},
            },
            "data": {
                "class_path": "qaudio.ESC50",
                "init_args": {
                    "root": str(esc50_tree),
                    "esc10": True,
                    "seconds": 0.5,
                    "batch_size": 8,
                },
            },
            "writer": {
                "entry": name,
                "folder": str(tmp_path / "zoo"),
                "keep_folds": True,
                "license": "cc0-1.0",
                "latency": False,
            },
        }
        for section, changes in sections.items():
            target = config[section]
            target.get("init_args", target).update(changes)
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config))
        return ["--config", str(path), "--runs", str(tmp_path / "runs")]

    return write


@pytest.fixture
def known(tmp_path, monkeypatch):
    """Save a network as an entry that may be used for any fold; returns its folder."""

    def save(net, name="known.esc10"):
        return str(qaudio.save(net, tmp_path / "zoo" / name))

    for module in (classifier, distillation):
        monkeypatch.setattr(
            module, "load_for_split", lambda source, split, seed: qaudio.load(source)
        )
    return save


@pytest.fixture
def zoo(tmp_path) -> Path:
    return tmp_path / "zoo"


@pytest.fixture
def parent(recipe, zoo) -> Path:
    """A cross-validated entry with two folds and all their weights."""
    assert main(["crossval", *recipe(), "--folds", "[1,2]"]) == 0
    return zoo / "qcnn6_006.esc10"
