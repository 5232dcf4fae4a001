"""`train` and `crossval` as two processes, which Lightning starts, score, write and end as one."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import qaudio
from qaudio.cli import main
from qaudio.evaluation.predictions import Predictions

ROOT = Path(qaudio.__file__).parents[1]
SECONDS = 20.0  # that two processes may take to end
TWO = {"devices": 2, "strategy": "ddp"}
pytestmark = pytest.mark.slow


@pytest.fixture
def started(tmp_path):
    """Start a command as a process; ends all that is left of it."""
    processes = []

    def start(arguments):
        process = subprocess.Popen(
            [sys.executable, "-m", "qaudio.cli", *map(str, arguments)],
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, cwd=tmp_path,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def running_in(group: int) -> list[str]:
    """Processes of a group that run; what has ended and nobody has asked for does not."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, pgrp = path.read_text().rpartition(")")[2].split()[:3]
            found += [path.parent.name] if int(pgrp) == group and state != "Z" else []
    return found


def finished(process, seconds=600.0) -> str:
    said, _ = process.communicate(timeout=seconds)
    assert process.returncode == 0, said
    return said


def test_ddp_train_scores_and_writes_what_one_process_scores(recipe, started, tmp_path, esc50_tree):
    finished(started(["train", *recipe(trainer=TWO)]))
    entry = tmp_path / "zoo" / "qcnn6_006.esc10"
    clips = Predictions.load(entry / "predictions.npz").run(0, 1).clip
    assert sorted(clips) == sorted(set(clips)) and len(clips) == 6
    assert main(["verify", str(entry)]) == 0
    assert main(["test", str(entry), f"--data.root={esc50_tree}"]) == 0  # the same, alone


def test_ddp_crossval_writes_every_fold(recipe, started, tmp_path):
    finished(started(["crossval", *recipe(trainer=TWO), "--folds=[1,2]"]))
    entry = tmp_path / "zoo" / "qcnn6_006.esc10"
    assert Predictions.load(entry / "predictions.npz").runs() == [(0, 1), (0, 2)]
    again = finished(started(["crossval", *recipe(trainer=TWO), "--folds=[1,2]"]))
    assert again.count("done before") == 2


def test_ddp_crossval_scores_validation_folds(recipe, started, tmp_path):
    arguments = ["--folds=[1,2]", "--data.holdout=validation"]
    finished(started(["crossval", *recipe(trainer=TWO), *arguments]))
    path = tmp_path / "runs" / "qcnn6_006.esc10.validation.json"
    assert len(json.loads(path.read_text())["validation"]) == 2


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("seed", range(3))
def test_ddp_signal_at_any_moment_ends_both_and_the_run_goes_on(
    recipe, started, tmp_path, signum, seed
):
    arguments = ["train", *recipe(trainer=TWO | {"max_epochs": 60})]
    process, runs = started(arguments), tmp_path / "runs"
    while not list(runs.rglob("last.ckpt")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    time.sleep(random.Random(seed).uniform(0, 2))
    process.send_signal(signum)
    said, _ = process.communicate(timeout=SECONDS)
    (last,) = runs.rglob("last.ckpt")
    assert process.returncode == 130, said
    assert f"interrupted: the same command goes on from {last}" in said
    time.sleep(0.5)
    assert not running_in(process.pid)
    finished(started(arguments))
    assert (tmp_path / "zoo" / "qcnn6_006.esc10" / "results.json").is_file()
