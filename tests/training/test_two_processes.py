"""Several processes score every clip once, and train on every clip once an epoch."""

import csv
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tests" / "support" / "two_processes.py"


@pytest.fixture
def found(tmp_path, write_sound):
    """What each process saw: by number of processes, one item a rank."""
    parts = ["test"] * 81 + ["validation"] * 81 + ["train"] * 41
    names = [f"{part}{n}" for n, part in enumerate(parts)]
    time = np.arange(1600) / 8000
    for n, name in enumerate(names):
        tone = 0.1 * np.sin(2 * np.pi * (300 + 40 * n) * time)
        write_sound(f"{name}.wav", samples=tone)
    for task, header, label in (
        ("multiclass", ["label"], lambda n: [f"class{n % 3}"]),
        ("multilabel", ["a", "b"], lambda n: [n % 2, (n // 3) % 2]),
    ):
        with open(tmp_path / f"table.{task}.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["file", "split", *header])
            writer.writerows([f"{name}.wav", parts[n], *label(n)] for n, name in enumerate(names))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for processes in (1, 2):
        command = [sys.executable, SCRIPT, tmp_path / "table", str(processes), tmp_path]
        done = subprocess.run(
            [str(part) for part in command], env=environment, capture_output=True, text=True,
            timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    return {
        processes: [
            json.loads((tmp_path / f"{processes}_{rank}.json").read_text())
            for rank in range(processes)
        ]
        for processes in (1, 2)
    }


@pytest.mark.slow
def test_two_processes_score_and_train_as_one(found):
    tested = {f"test{n}.wav" for n in range(81)}
    trained = {f"train{n}.wav" for n in range(162, 203)}
    for task in ("multiclass", "multilabel"):
        (alone,) = (one[task] for one in found[1])
        both = [one[task] for one in found[2]]
        for one in (alone, *both):
            assert len(one["ids"]) == 81
            assert set(one["ids"]) == tested
        for one in both:  # on each of them
            assert one["metrics"].keys() == alone["metrics"].keys()
            for name, value in alone["metrics"].items():
                assert abs(one["metrics"][name] - value) < 1e-6, name
        assert both[0]["weights"] == both[1]["weights"]
        orders = []
        for first, second in zip(*(one["trained"] for one in both), strict=True):
            assert len(first) == len(second)
            times = Counter(first + second)
            assert set(times) == trained
            assert times.total() <= 41 + 1
            orders.append(first)
        assert len(orders) == 2
        assert orders[0] != orders[1]
