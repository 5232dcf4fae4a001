"""Times of optimized networks against what they should beat: `python -m tests.benchmarks.speed`.

Each pair is measured in turn in one run, batch 1, 10 s of sound, waveform to logits; the networks
alone beside it. Ratios are what carries over to other machines.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torchaudio
from torch import nn

import qaudio
from qaudio.compress.cost import device_name
from qaudio.frontend import Frontend, FrontendConfig
from qaudio.models.base import AudioModel
from qaudio.quaternion import QConv2d, QLinear, real_matrix
from qaudio.zoo.catalog import entries

SECONDS, CLASSES = 10, 10
Call = Callable[[], object]


@dataclass
class Row:
    """A pair of calls, and the same with the networks alone."""

    what: str
    against: str
    target: float | None
    pair: tuple[Call, Call]
    alone: tuple[Call, Call] | None = None


def milliseconds(
    first: Call, second: Call, budget: float, clock: Callable[[], float]
) -> tuple[float, float]:
    """Medians of two calls, made in turn for so many seconds (5 to 40 times)."""
    times: tuple[list[float], list[float]] = ([], [])
    for call in (first, second) * 2:
        call()
    end = time.perf_counter() + budget
    while len(times[0]) < 5 or (time.perf_counter() < end and len(times[0]) < 40):
        for call, taken in zip((first, second), times, strict=True):
            start = clock()
            call()
            taken.append(1000 * (clock() - start))
    return statistics.median(times[0]), statistics.median(times[1])


class AsPublished(nn.Module):
    """A quaternion network that assembles its real matrices at each call."""

    def __init__(self, model: AudioModel):
        super().__init__()
        self.model = model
        for layer in model.modules():
            if isinstance(layer, (QConv2d, QLinear)):
                layer.matrix = lambda layer=layer: real_matrix(layer.weight)  # type: ignore


def models(first: AudioModel, second: AudioModel) -> dict[str, tuple[Call, Call]]:
    """Whole calls of two models, and calls of their networks alone."""
    sound = 0.1 * torch.randn(1, SECONDS * first.sample_rate)
    with torch.inference_mode():
        features = [model.features(sound) for model in (first, second)]

    def whole(model: AudioModel) -> Call:
        return lambda: model(sound)

    def alone(model: AudioModel, x: torch.Tensor) -> Call:
        return lambda: model.classifier(model.embed_features(x))

    return {
        "pair": (whole(first), whole(second)),
        "alone": (alone(first, features[0]), alone(second, features[1])),
    }


def network(arch: str) -> AudioModel:
    torch.manual_seed(0)
    return qaudio.create_model(arch, num_classes=CLASSES).eval()


def large_rows() -> Iterator[Row]:
    """QCNN14 and its prunings against CNN14."""
    cnn, qcnn = network("cnn14"), network("qcnn14")
    fast, fast_q = qaudio.optimize(cnn), qaudio.optimize(qcnn)
    yield Row("optimize(qcnn14)", "optimize(cnn14)", 0.60, **models(fast_q, fast))
    yield Row("optimize(cnn14)", "cnn14, channels_last", 1.0, **models(fast, cnn))
    published = AsPublished(network("qcnn14")).model
    yield Row("optimize(qcnn14)", "qcnn14 as published", 0.30, **models(fast_q, published))
    half = qaudio.optimize(qaudio.prune(qcnn, ratio=0.5, layers="blocks4-6"))
    yield Row("qcnn14 pruned .5, blocks 4-6", "optimize(cnn14)", 0.30, **models(half, fast))
    quarter = qaudio.optimize(qaudio.prune(qcnn, target_macs=0.25))
    yield Row("qcnn14 at 25 % of its MACs", "optimize(cnn14)", 0.15, **models(quarter, fast))


def entry_rows() -> Iterator[Row]:
    """Shipped pruned entries against themselves with the matrix cached."""
    for name in entries():
        if "_pruned" in name:
            model = qaudio.load(name).eval()
            yield Row(f"optimize({name})", "cached matrix", 1.0, **models(
                qaudio.optimize(model), model
            ))  # fmt: skip


def frontend_rows() -> Iterator[Row]:
    """Front-ends against torchaudio's, one channel."""
    settings = FrontendConfig()
    theirs = nn.Sequential(
        torchaudio.transforms.MelSpectrogram(
            settings.sample_rate, settings.n_fft, hop_length=settings.hop_length,
            f_min=settings.f_min, f_max=settings.f_max, n_mels=settings.n_mels,
            norm="slaney", mel_scale="slaney",
        ),
        torchaudio.transforms.AmplitudeToDB(),
    )  # fmt: skip
    sound = 0.1 * torch.randn(1, SECONDS * settings.sample_rate)
    for kind, target in (("delta", 0.60), ("logmel", None)):
        ours = Frontend(FrontendConfig(kind=kind))
        yield Row(f"front-end {kind}", "torchaudio's, one channel", target,
                  (lambda ours=ours: ours(sound), lambda: theirs(sound)))  # fmt: skip


def training_rows() -> Iterator[Row]:
    """A training step of qcnn10 against one of cnn10, on features of four 5 s clips."""

    def step(arch: str) -> Call:
        model = network(arch).train()
        optimizer = torch.optim.Adam(model.parameters())
        x = torch.randn(4, model.frontend.channels, 500, 64)
        y = torch.arange(4)

        def call() -> None:
            optimizer.zero_grad()
            logits = model.classifier(model.embed_features(x))
            nn.functional.cross_entropy(logits, y).backward()
            optimizer.step()

        return torch.inference_mode(False)(torch.enable_grad()(call))

    yield Row("training step of qcnn10", "cnn10", 1.10, (step("qcnn10"), step("cnn10")))


def process_rows() -> Iterator[Row]:
    """What starts of the interpreter cost."""

    def python(*arguments: str) -> Call:
        return lambda: subprocess.run([sys.executable, *arguments], check=True, capture_output=True)

    yield Row("import qaudio (+0.15 s)", "pass", None,
              (python("-c", "import qaudio"), python("-c", "pass")))  # fmt: skip
    yield Row("qaudio list", "pass", None,
              (python("-m", "qaudio.cli", "list"), python("-c", "pass")))  # fmt: skip
    yield Row("qaudio predict, cold (+1.5 s)", "import torch", None,
              (python("-m", "qaudio.cli", "predict", "--demo"),
               python("-c", "import torch")))  # fmt: skip
    yield Row("building qcnn14", "building cnn14", 1.5,
              (lambda: network("qcnn14"), lambda: network("cnn14")))  # fmt: skip


GROUPS = {
    "large": large_rows,
    "entries": entry_rows,
    "frontend": frontend_rows,
    "training": training_rows,
    "process": process_rows,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("groups", nargs="*", help=f"of {', '.join(GROUPS)}; all by default")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prepare", action="store_true", help="only measure and compile forms")
    parser.add_argument("--budget", type=float, default=4.0, help="seconds for each pair")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    # One thread's processor time hardly depends on what else the machine does.
    alone = options.threads == 1
    print(
        f"{device_name(torch.device('cpu'))}, torch {torch.__version__}; medians in ms of "
        f"{'processor' if alone else 'wall-clock'} time (process starts: wall-clock)"
    )
    print("| what | against | ms | ms | ratio | at most | networks alone |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for group in options.groups or GROUPS:
        ratios = []
        clock = time.process_time if alone and group != "process" else time.perf_counter
        for row in GROUPS[group]():
            if options.prepare:
                continue
            with torch.inference_mode():
                first, second = milliseconds(*row.pair, options.budget, clock)
                ratios.append(first / second)
                network_alone = ""
                if row.alone:
                    a, b = milliseconds(*row.alone, options.budget, clock)
                    network_alone = f"{a:.1f} / {b:.1f} = {a / b:.3f}"
            target = "" if row.target is None else f"{row.target:.2f}"
            print(f"| {row.what} | {row.against} | {first:.1f} | {second:.1f} | "
                  f"{first / second:.3f} | {target} | {network_alone} |", flush=True)  # fmt: skip
        if group == "entries" and ratios:
            print(f"| geometric mean | | | | {statistics.geometric_mean(ratios):.3f} | 0.80 | |")


if __name__ == "__main__":
    main()
