"""Several processes or threads at one entry, one cache."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
import yaml

import qaudio
from qaudio.evaluation.predictions import Predictions
from qaudio.zoo.io import load_weights
from tests.support.esc50 import SETTINGS
from tests.support.hub import Repository

ROOT = Path(__file__).resolve().parents[2]


def together(*functions) -> list:
    """Call each in a thread of its own; what they return. Raises what the first one raised."""
    results: list = [None] * len(functions)
    faults = []

    def call(n: int) -> None:
        try:
            results[n] = functions[n]()
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=call, args=(n,)) for n in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]
    return results


@pytest.fixture
def two_commits(hub, tmp_path):
    """Two entries as two commits of one repository: address by classifier weights."""
    repo, found = Repository(), []
    for seed in (1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = qaudio.create_model("qcnn6_006", num_classes=2, frontend=SETTINGS)
        folder = qaudio.save(model, tmp_path / f"made{seed}")
        files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")}
        commit = repo.commit("main", files)
        found.append((f"hf-hub:your-name/toy@{commit}", model.classifier.weight))
    hub.repos["your-name/toy"] = repo
    return found


def test_two_pulls_of_one_entry_give_a_whole_one(two_commits, tmp_path):
    source, weight = two_commits[0]
    out = tmp_path / "out"
    together(*[lambda: qaudio.pull(source, out)] * 2, lambda: qaudio.pull(source))
    qaudio.verify(out)
    assert torch.equal(qaudio.load(out).classifier.weight, weight)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".out")]


def test_a_load_during_pulls_gives_one_entry_or_the_other(two_commits, tmp_path):
    out, pulled = tmp_path / "out", threading.Event()
    qaudio.pull(two_commits[0][0], out)

    def pull() -> None:
        try:
            for n in range(20):
                qaudio.pull(two_commits[n % 2][0], out)
        finally:
            pulled.set()

    def load() -> int:
        count = 0
        while not pulled.is_set():
            weight = qaudio.load(out).classifier.weight
            assert any(torch.equal(weight, whole) for _, whole in two_commits)
            count += 1
        return count

    assert together(pull, load)[1] > 0


def test_a_load_between_two_files_of_two_entries_starts_again(two_commits, tmp_path, monkeypatch):
    out = qaudio.pull(two_commits[0][0], tmp_path / "out")
    loads = []

    def replaced_meanwhile(folder: Path):
        loads.append(folder)
        if len(loads) == 1:
            model = load_weights(folder)
            qaudio.pull(two_commits[1][0], out)
            return model
        return load_weights(folder)

    monkeypatch.setattr("qaudio.zoo.io.load_weights", replaced_meanwhile)
    assert torch.equal(qaudio.load(out).classifier.weight, two_commits[1][1])
    assert len(loads) == 2


@pytest.mark.slow
def test_two_trainings_share_a_cache_and_an_entry(esc50_tree, tmp_path):
    frontend = {"sample_rate": 8000, "n_fft": 256, "hop_length": 160, "n_mels": 32, "f_max": 4000.0}
    recipe = {
        "trainer": {"max_epochs": 2, "accelerator": "cpu", "enable_progress_bar": False},
        "model": {
            "class_path": "qaudio.Classifier",
            "init_args": {"arch": "qcnn6_006", "frontend": frontend},
        },
        "data": {
            "class_path": "qaudio.ESC50",
            "init_args": {"root": str(esc50_tree), "esc10": True, "seconds": 0.5},
        },
        "writer": {"entry": "toy.esc10", "folder": str(tmp_path / "zoo"), "latency": False},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "qaudio.cli", "train", f"--config={tmp_path / 'recipe.yaml'}",
             f"--data.fold={fold}", f"--runs={tmp_path / 'runs'}"],
            cwd=ROOT, env=os.environ | {"QAUDIO_CACHE": str(tmp_path / "cache")},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for fold in (1, 2)
    ]  # fmt: skip
    for process in processes:
        printed, _ = process.communicate()
        assert process.returncode == 0, printed
    entry = tmp_path / "zoo" / "toy.esc10"
    qaudio.verify(entry)
    assert Predictions.load(entry / "predictions.npz").runs() == [(0, 1), (0, 2)]
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert {path.suffix for path in kept} == {".npy"}
    assert len(kept) == 30
