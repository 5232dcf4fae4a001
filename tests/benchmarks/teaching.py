"""Where the time of teaching without labels goes: clips a second, and the share of each part.

    python -m tests.benchmarks.teaching [--student qcnn10_050] [--teacher mn04] [--batch 32]

`--record` puts the table into recipes/README.md. Sounds are made, weights are random: neither
changes how long a step takes. Every part is the one that `qaudio train` runs, timed alone; `step`
is all of them together.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import soundfile
import torch

import qaudio
from qaudio.cards.tables import markdown_table, with_generated
from qaudio.compress.cost import device_name
from qaudio.compress.distill import bce, cosine
from qaudio.data.augment import WaveformAugment
from qaudio.data.benchmarks.audioset import AudioPool
from qaudio.data.pool import Mixing

README = Path(__file__).resolve().parents[2] / "recipes" / "README.md"
RATE, SOURCES, RECORDINGS = 32000, 4, 8


def pool(folder: Path, batch: int, seconds: float) -> AudioPool:
    """Sources of noise, half of them of recordings shorter than a crop."""
    rng = np.random.default_rng(0)
    for source in range(SOURCES):
        (folder / f"source{source}").mkdir()
        for n in range(RECORDINGS):
            length = RATE * (10 if source % 2 else 1)
            sound = 0.1 * rng.standard_normal(length)
            soundfile.write(folder / f"source{source}" / f"{n}.wav", sound, RATE)
    data = AudioPool(
        str(folder), test_sources=["source0"], seconds=seconds, sample_rate=RATE, seed=0,
        batch_size=batch, epoch_clips=100_000, mixing=Mixing(), cache_dir=str(folder / "cache"),
        augment=WaveformAugment(gain_db=6.0, speed=0.1),
    )  # fmt: skip
    data.setup()
    return data


def seconds_of(call: Callable[[], object], repeats: int) -> float:
    """Median over calls, after one that warms up."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return median(times[1:])


def measure(
    student: str, teacher: str, batch: int, seconds: float, precision: str, repeats: int
) -> dict[str, Any]:
    """Seconds a batch of every part, and clips a second of them together."""
    expert = qaudio.create_model(teacher, num_classes=527).eval().requires_grad_(False)
    expert = expert.to(memory_format=torch.channels_last)
    net = qaudio.create_model(student, num_classes=527, frontend={"hop_length": 640}).train()
    net = net.to(memory_format=torch.channels_last)
    mapped = torch.nn.Linear(net.num_features, expert.num_features, bias=False)
    parameters = [*net.parameters(), *mapped.parameters()]
    optimizer = torch.optim.AdamW(parameters, fused=True)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
    with tempfile.TemporaryDirectory() as folder:
        batches = iter(pool(Path(folder), batch, seconds).train_dataloader())
        waveform = next(batches)["waveform"]

        def teach(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            with torch.no_grad(), autocast:
                vectors = expert.embed_features(features)
                return vectors.float(), expert.classify(vectors).float()

        def learn(features: torch.Tensor, vectors: torch.Tensor, answers: torch.Tensor) -> None:
            with autocast:
                embedding = net.embed_features(features)
                loss = bce(net.classify(embedding).float(), answers)
                loss = loss + 0.05 * cosine(mapped(embedding).float(), vectors)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        def hear(model: qaudio.AudioModel) -> torch.Tensor:
            with torch.no_grad():
                return model.features(waveform)

        def step() -> None:
            nonlocal waveform
            waveform = next(batches)["waveform"]
            learn(hear(net), *teach(hear(expert)))

        theirs, ours = hear(expert), hear(net)
        answers = teach(theirs)
        parts = {
            "crops, mixing, augmentation": lambda: next(batches),
            "teacher's front-end": lambda: hear(expert),
            "teacher": lambda: teach(theirs),
            "student's front-end": lambda: hear(net),
            "student, forwards and backwards": lambda: learn(ours, *answers),
            "step": step,
        }
        times = {name: seconds_of(call, repeats) for name, call in parts.items()}
    return {
        "student": student, "teacher": teacher, "batch": batch, "seconds": seconds,
        "precision": precision, "threads": torch.get_num_threads(),
        "device": device_name(torch.device("cpu")), "parts": times,
        "clips_a_second": batch / times["step"],
    }  # fmt: skip


def shown(found: dict[str, Any]) -> str:
    """The measurement as a Markdown table."""
    step = found["parts"]["step"]
    rows = [
        [name, f"{1000 * value:.0f} ms", f"{value / step:.0%}"]
        for name, value in found["parts"].items()
    ]
    return (
        f"{found['clips_a_second']:.1f} clips of {found['seconds']:g} s a second: "
        f"{found['student']} from {found['teacher']}, {found['batch']} clips a batch, "
        f"{found['precision']}, {found['device']}; parts timed alone.\n\n"
        + markdown_table(["part", "a batch", "of a step"], rows)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--student", default="qcnn10_050")
    parser.add_argument("--teacher", default="mn04")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--record", action="store_true", help="write it into recipes/README.md")
    options = vars(parser.parse_args())
    record = options.pop("record")
    table = shown(measure(**options))
    if record:
        text = README.read_text(encoding="utf-8")
        README.write_text(with_generated(text, "speed of teaching", table), encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
