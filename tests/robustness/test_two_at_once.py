"""Several processes or threads at one entry, one cache."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import qaudio
from qaudio.compress.cost import macs_by_layer
from qaudio.deploy.onnx.export import export_onnx
from qaudio.evaluation.predictions import Predictions
from qaudio.zoo.io import load_weights
from qaudio.zoo.store import check_hash, read_config
from qaudio.zoo.verify import check_entry
from tests.support.esc50 import SETTINGS
from tests.support.hub import Repository
from tests.support.networks import same_state, small_model

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


def load_half(folder: Path, replace):
    model = load_weights(folder)
    replace()
    return model


def check_half(folder: Path, replace):
    config = read_config(folder)
    replace()
    check_hash(folder, config, "model.safetensors")


@pytest.mark.parametrize(
    ("verb", "place", "whole", "half"),
    [
        (qaudio.load, "qaudio.zoo.io.load_weights", load_weights, load_half),
        (qaudio.verify, "qaudio.cards.entries.check_entry", check_entry, check_half),
    ],
    ids=["load", "verify"],
)
def test_what_reads_two_files_of_two_entries_starts_again(
    two_commits, tmp_path, monkeypatch, verb, place, whole, half
):
    out, reads = qaudio.pull(two_commits[0][0], tmp_path / "out"), []

    def replaced_meanwhile(folder: Path):
        reads.append(folder)
        if len(reads) == 1:
            return half(folder, lambda: qaudio.pull(two_commits[1][0], out))
        return whole(folder)

    monkeypatch.setattr(place, replaced_meanwhile)
    found = verb(out)
    assert len(reads) == 2 and found
    assert verb is qaudio.verify or torch.equal(found.classifier.weight, two_commits[1][1])


def answers(model) -> dict:
    """What every call that runs a shared network gives."""
    noise = 0.1 * np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    return {
        "predict": [p.probability for p in qaudio.predict(model, noise, top_k=4)],
        "cost": qaudio.cost(model, seconds=1.0),
        "macs": macs_by_layer(model, 1.0),
        "plan": qaudio.plan(model, ratio=0.5),
    }


def assert_alike(found: list[dict], right: dict) -> None:
    """The same answers, as far as sums in another order go: threads share the processor."""
    for one in found:
        assert one | {"predict": pytest.approx(one["predict"], rel=1e-5)} == right


def test_threads_that_share_a_network_get_the_answers_of_one():
    """In whatever mode it is; a counter of torch's hooks into every module of the process."""
    model, twin = small_model("qcnn6_025").train(), small_model("qcnn6_025")
    right = answers(model)
    for found in together(*[lambda: [answers(model) for _ in range(3)]] * 4):
        assert_alike(found, right)
    assert same_state(model, twin)
    assert all(module.training for module in model.modules())


def test_threads_may_optimize_and_run_a_network_at_once():
    model, twin = small_model("qcnn6_025").train(), small_model("qcnn6_025")
    right = answers(model)
    optimize = lambda: qaudio.optimize(model, seconds=1.0, compile=False)  # noqa: E731
    one, other, found = together(optimize, optimize, lambda: [answers(model) for _ in range(3)])
    assert_alike(found, right)
    assert max(one.difference, other.difference) < 1e-5
    assert same_state(model, twin)
    assert all(module.training for module in model.modules())


@pytest.mark.slow
def test_threads_may_export_and_run_a_network_at_once(tmp_path):
    model, twin = small_model("qcnn6_025").train(), small_model("qcnn6_025")
    right = answers(model)
    first, second, found = together(
        lambda: export_onnx(model, tmp_path / "1.onnx"),
        lambda: export_onnx(model, tmp_path / "2.onnx"),
        lambda: [answers(model) for _ in range(20)],
    )
    assert_alike(found, right)
    assert max(one.metadata["check"]["largest_difference"] for one in (first, second)) < 1e-4
    assert same_state(model, twin)


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
