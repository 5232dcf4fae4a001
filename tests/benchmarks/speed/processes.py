"""Training steps, building, starts of the interpreter, and the memory of long files."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import nn

from tests.benchmarks.speed.memory import resident
from tests.benchmarks.speed.networks import network
from tests.benchmarks.speed.table import Call, Start, Table, environment

BATCH, FRAMES, MELS = 4, 500, 64  # of a training step: 5 s clips
MINUTES = (2, 10, 30)
LONG_FILES = "qcnn10_050.esc10"


def step(arch: str, precision: str) -> Call:
    """A training step on made features, in fp32 or bf16-mixed."""
    model = network(arch).train()
    optimizer = torch.optim.Adam(model.parameters())
    x = torch.randn(BATCH, model.frontend.channels, FRAMES, MELS)
    y = torch.arange(BATCH)

    def call() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
            loss = nn.functional.cross_entropy(model.classifier(model.embed_features(x)), y)
        loss.backward()
        optimizer.step()

    return torch.inference_mode(False)(torch.enable_grad()(call))


def step_memory(arch: str, precision: str, threads: int) -> float:
    """MB that a network and three of its training steps add to this process at their peak."""
    torch.set_num_threads(threads)
    before = resident("self", "VmRSS")
    call = step(arch, precision)
    for _ in range(3):
        call()
    return resident("self", "VmHWM") - before


def in_fresh_process(arch: str, precision: str) -> float:
    """`step_memory` where nothing ran before."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn) as pool:
        return pool.submit(step_memory, arch, precision, torch.get_num_threads()).result()


def training(table: Table) -> None:
    """A training step of qcnn10 against one of cnn10, of the same widths, by precision."""
    for precision, limit in (("fp32", 1.10), ("bf16-mixed", None)):
        ours, theirs = (step(arch, precision) for arch in ("qcnn10", "cnn10"))
        row = table.pair(
            f"training step of qcnn10, {BATCH} clips of 5 s, {precision}", "cnn10", limit,
            ours, theirs,
        )  # fmt: skip
        if row and row.second:
            clips = 1000 * BATCH / row.first, 1000 * BATCH / row.second
            what = f"training qcnn10, {precision}"
            table.figure(what, "cnn10", "clips/s", None, lambda clips=clips: clips)
        table.figure(
            f"peak memory of these steps, {precision}", "cnn10", "MB", limit,
            lambda precision=precision: (
                in_fresh_process("qcnn10", precision), in_fresh_process("cnn10", precision),
            ),
        )  # fmt: skip


def building(table: Table) -> None:
    """Networks from random weights."""
    first, second = (lambda: network("qcnn14")), (lambda: network("cnn14"))
    table.pair("building qcnn14", "building cnn14", 1.5, first, second)


def starts(table: Table) -> None:
    """What imports and short commands take, the interpreter's start included."""
    nothing, torch_alone = Start(("-c", "pass")), Start(("-c", "import torch"))
    table.pair("import qaudio", "pass", 150, Start(("-c", "import qaudio")), nothing,
               kind="difference")  # fmt: skip
    listed = Start(("-m", "qaudio.cli", "list"))
    table.pair("qaudio list", "pass", None, listed, nothing, kind="difference")
    code = "import sys; from qaudio.cli import main; main(['list']); print('torch' in sys.modules)"
    table.figure(
        "torch imported by qaudio list", "", "modules", 0,
        lambda: (float(Start(("-c", code))().stdout.endswith("True\n")), None), kind="value",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "clip.wav")
        write_noise(path, 5)
        table.pair(
            "qaudio predict CLIP, cold", "import torch", 1500,
            Start(("-m", "qaudio.cli", "predict", str(path))), torch_alone, kind="difference",
        )  # fmt: skip


def memory(table: Table) -> None:
    """Peak memory of `qaudio predict` on long files, windowed; held whole, they would show."""
    if not table.measures:
        return
    peaks: list[float] = []
    for minutes in MINUTES:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "long.wav")
            write_noise(path, 60 * minutes)
            peaks.append(predict_memory(path))
        what = f"peak memory of qaudio predict, {minutes} minutes"
        table.figure(what, LONG_FILES, "MB", 1200, lambda: (peaks[-1], None), kind="value")
    what = f"peak memory of qaudio predict, {MINUTES[-1]} minutes"
    table.figure(what, f"{MINUTES[0]} minutes", "MB", 1.03, lambda: (peaks[-1], peaks[0]))


def predict_memory(path: Path) -> float:
    """Peak resident MB of the command on a file."""
    process = subprocess.Popen(
        [sys.executable, "-m", "qaudio.cli", "predict", str(path), "--model", LONG_FILES],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, resident(process.pid, "VmHWM"))
        time.sleep(0.02)
    if process.returncode:
        raise RuntimeError(f"qaudio predict failed on {path}")
    return peak


def write_noise(path: Path, seconds: float, rate: int = 44100) -> None:
    """A mono file of faint noise, written second by second."""
    generator = np.random.default_rng(0)
    with soundfile.SoundFile(path, "w", rate, 1) as file:
        for _ in range(round(seconds)):
            file.write(0.1 * generator.standard_normal(rate))
