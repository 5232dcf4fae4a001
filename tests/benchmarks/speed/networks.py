"""Latency of optimized networks and of front-ends, batch 1, 10 s of sound, waveform to logits."""

from __future__ import annotations

import statistics
import time
from functools import partial
from itertools import product

import torch
import torchaudio
from torch import nn

import qaudio
from qaudio.deploy.optimize import TOLERANCE, OptimizedModel
from qaudio.frontend import Frontend, FrontendConfig
from qaudio.models.base import AudioModel
from qaudio.quaternion import QConv2d, QLinear, real_matrix
from qaudio.zoo.store import entries
from tests.benchmarks.speed.table import Call, Row, Table, milliseconds

SECONDS, CLASSES = 10, 10


def network(arch: str, num_classes: int = CLASSES, **frontend) -> AudioModel:
    """An architecture with random weights, of a front-end with these settings."""
    torch.manual_seed(0)
    settings = FrontendConfig(**frontend) if frontend else None
    model = qaudio.create_model(arch, num_classes=num_classes, frontend=settings)
    return model.eval().to(memory_format=torch.channels_last)


def sound(seconds: float, rate: int) -> torch.Tensor:
    return 0.1 * torch.randn(1, round(seconds * rate))


def as_published(model: AudioModel) -> AudioModel:
    """A quaternion network that assembles its real matrices at each call."""
    for layer in model.modules():
        if isinstance(layer, (QConv2d, QLinear)):
            layer.matrix = lambda layer=layer: real_matrix(layer.weight)  # type: ignore
    return model


def against(
    table: Table, what: str, first: AudioModel, other: str, second: AudioModel, limit: float
) -> Row | None:
    """The row of two models, and of their networks alone."""
    waveforms = [sound(SECONDS, model.sample_rate) for model in (first, second)]
    with torch.inference_mode():
        features = [first.features(waveforms[0]), second.features(waveforms[1])]

    def alone(model: AudioModel, x: torch.Tensor) -> Call:
        return lambda: model.classifier(model.embed_features(x))

    return table.pair(
        what, other, limit, lambda: first(waveforms[0]), lambda: second(waveforms[1]),
        alone=(alone(first, features[0]), alone(second, features[1])),
    )  # fmt: skip


def differences(table: Table, *models: OptimizedModel) -> None:
    """The row of optimized networks' logits against their originals'."""
    table.figure(
        f"largest logit difference of the {len(models)} optimized", "originals", "of range",
        TOLERANCE, lambda: (max(model.difference for model in models), None), kind="value",
    )  # fmt: skip


def large(table: Table) -> None:
    """QCNN14 and its prunings against CNN14."""
    cnn, qcnn = network("cnn14"), network("qcnn14")
    fast, fast_q = qaudio.optimize(cnn), qaudio.optimize(qcnn)
    half = qaudio.optimize(qaudio.prune(qcnn, ratio=0.5, layers="blocks4-6"))
    quarter = qaudio.optimize(qaudio.prune(qcnn, target_macs=0.25))
    published = as_published(network("qcnn14"))
    name = "optimize(cnn14)"
    against(table, "optimize(qcnn14)", fast_q, name, fast, 0.55)
    against(table, "optimize(qcnn14)", fast_q, "qcnn14, matrix at each call", published, 0.30)
    against(table, "optimize(qcnn14 pruned .5, blocks 4-6)", half, name, fast, 0.33)
    against(table, "optimize(qcnn14 at 25 % of its MACs)", quarter, name, fast, 0.18)
    against(table, name, fast, "cnn14, channels_last", cnn, 1.0)
    differences(table, fast, fast_q, half, quarter)


def mobile(table: Table) -> None:
    """QCNN14 pruned throughout against a depthwise net of half its MACs (EfficientAT's shape)."""
    pruned = qaudio.optimize(qaudio.prune(network("qcnn14"), ratio=0.75))
    net = qaudio.optimize(network("timm:mobilenetv3_large_100", kind="logmel", n_mels=128))
    other = "optimize(timm:mobilenetv3_large_100), 128 mels"
    against(table, "optimize(qcnn14 pruned .75)", pruned, other, net, 0.70)
    differences(table, pruned, net)


def pruned_entries(table: Table) -> None:
    """Shipped pruned entries against themselves with the matrix cached."""
    rows, optimized = [], []
    for name in entries():
        if "_pruned" in name or "_macs" in name:
            model = qaudio.load(name).eval()
            fast = qaudio.optimize(model)
            optimized.append(fast)
            rows.append(against(table, f"optimize({name})", fast, "cached matrix", model, 1.0))
    ratios = [row.figure for row in rows if row]
    if ratios:
        table.figure(
            "geometric mean of the pruned entries", "cached matrix", "ratio", 0.80,
            lambda: (statistics.geometric_mean(ratios), None), kind="value",
        )  # fmt: skip
    differences(table, *optimized)


def budgets(table: Table) -> None:
    """How near `prune(target_latency=...)` comes, as measured afterwards, and how long it takes."""
    if not table.measures:
        return
    for arch, share in product(("qcnn10", "qcnn14"), (0.5, 0.25, 0.1)):
        model, start = network(arch), time.perf_counter()
        pruned = qaudio.prune(model, target_latency=share)
        seconds = time.perf_counter() - start
        waveform = sound(SECONDS, model.sample_rate)
        with torch.inference_mode():
            ours, theirs = milliseconds(
                partial(pruned, waveform), partial(model, waveform), 2 * table.budget
            )
        off = 100 * abs(ours / theirs / share - 1)
        what = f"{arch} pruned to {share:.0%} of its latency"
        table.figure(
            f"{what}, measured afterwards", "target", "% off", 10,
            lambda off=off: (off, None), kind="value",
        )  # fmt: skip
        table.figure(what, "", "s", 30, lambda seconds=seconds: (seconds, None), kind="value")


def frontends(table: Table) -> None:
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
    waveform = sound(SECONDS, settings.sample_rate)
    for kind, limit in (("delta", 0.55), ("logmel", None)):
        ours = Frontend(FrontendConfig(kind=kind))
        table.pair(
            f"front-end {kind}, {ours.channels} channels", "torchaudio's, one channel", limit,
            lambda ours=ours: ours(waveform), lambda: theirs(waveform),
        )  # fmt: skip
