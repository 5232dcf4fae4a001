"""ONNX files: their latency against PyTorch's, and what int8 does to the answers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import torch

import qaudio
from qaudio.data.audio import load
from qaudio.data.clip import Clip
from qaudio.models.base import AudioModel
from qaudio.models.registry import lookup
from qaudio.training.leakage import fold_file
from qaudio.zoo.io import load_weights
from qaudio.zoo.resolve import DEFAULT_ENTRY, locate
from qaudio.zoo.store import read_results
from tests.benchmarks.speed.networks import SECONDS, network, sound
from tests.benchmarks.speed.table import Session, Table

PEERS = {"mn04": 1.0, "mn10": None}  # of EfficientAT, by the limit against each of its runtimes
MODELS = ("qcnn14", "qcnn10_050.esc10", "qcnn10_050.esc10_pruned50", "cnn10_050.esc10")


def model_of(name: str) -> AudioModel:
    """An entry, or an architecture with random weights."""
    return network(name) if lookup(name) else qaudio.load(name).eval()


@contextmanager
def made_sounds(rate: int) -> Iterator[str]:
    """A folder of noises, for ranges that no one will use."""
    with tempfile.TemporaryDirectory() as folder:
        for n in range(8):
            samples = 0.1 * np.random.default_rng(n).standard_normal(2 * rate)
            soundfile.write(Path(folder, f"{n}.wav"), samples, rate)
        yield folder


def exported(model: AudioModel, folder: str, sounds: str | None = None) -> Path:
    """A model's ONNX file; int8 if calibrated on sounds."""
    path = Path(folder, f"{'int8' if sounds else 'fp32'}.onnx")
    qaudio.export_onnx(model, path, calibrate=sounds)
    return path


def running(path: Path) -> qaudio.OnnxModel:
    """A file as onnxruntime runs it on as many threads as torch."""
    return qaudio.OnnxModel(path, torch.get_num_threads())


def latency(table: Table, names: tuple[str, ...] = MODELS) -> None:
    """onnxruntime against `optimize`, and its int8 against its fp32."""
    for name in names:
        model = model_of(name)
        waveform = 0.1 * torch.randn(1, SECONDS * model.sample_rate)
        with tempfile.TemporaryDirectory() as folder, made_sounds(model.sample_rate) as sounds:
            fast = qaudio.optimize(model)
            fp32, int8 = (
                Session(running(path), path, waveform.numpy())
                for path in (exported(model, folder), exported(model, folder, sounds))
            )
            table.pair(
                f"ONNX fp32 of {name}", "optimize of the same", 1.05,
                fp32, lambda fast=fast, waveform=waveform: fast(waveform),
            )  # fmt: skip
            table.pair(f"ONNX int8 of {name}", "ONNX fp32", 0.6, int8, fp32)


def tagger(table: Table) -> None:
    """The tagger that `qaudio predict` uses against EfficientAT's, in each of their runtimes.

    The time of a network does not depend on its weights: the peers' are random.
    """
    model = qaudio.load(DEFAULT_ENTRY).eval()
    ours, waveform = qaudio.optimize(model), sound(SECONDS, model.sample_rate)
    name = f"optimize({DEFAULT_ENTRY})"
    for arch, limit in PEERS.items():
        peer = network(arch, num_classes=model.num_classes)
        theirs = sound(SECONDS, peer.sample_rate)
        with tempfile.TemporaryDirectory() as folder, made_sounds(peer.sample_rate) as sounds:
            fast = qaudio.optimize(peer)
            files = exported(peer, folder), exported(peer, folder, sounds)
            fp32, int8 = (Session(running(path), path, theirs.numpy()) for path in files)
            for other, call in (
                (f"{arch} in PyTorch", partial(peer, theirs)),
                (f"optimize({arch})", partial(fast, theirs)),
                (f"ONNX fp32 of {arch}", fp32),
                (f"ONNX int8 of {arch}", int8),
            ):
                table.pair(name, other, limit, partial(ours, waveform), call)
    with tempfile.TemporaryDirectory() as folder:
        path = exported(model, folder)
        onnx = Session(running(path), path, waveform.numpy())
        table.pair(f"ONNX fp32 of {DEFAULT_ENTRY}", "optimize of the same", 1.05, onnx,
                   partial(ours, waveform))  # fmt: skip


def accuracy(table: Table, names: tuple[str, ...] = MODELS[1:3]) -> None:
    """int8 against fp32 on every test fold of ESC-10 that an entry keeps weights for."""
    if not table.measures:
        return
    if table.data is None:
        print("(accuracy in int8: needs --data, the folder of ESC-50)")
        return
    clips, _ = qaudio.ESC50(table.data, esc10=True).read_clips()
    for name in names:
        found = [answers(model, fold, clips) for fold, model in weights_by_fold(name)]
        labels, fp32, int8 = (np.concatenate(part) for part in zip(*found, strict=True))
        where = f"fp32, {len(labels)} clips of {len(found)} folds"
        scores = 100 * float((int8 == labels).mean()), 100 * float((fp32 == labels).mean())
        table.figure(
            f"accuracy in int8 of {name}", where, "%", -1.0, lambda scores=scores: scores,
            kind="difference", least=True,
        )  # fmt: skip
        same = 100 * float((int8 == fp32).mean())
        table.figure(
            f"top-1 agreement of int8 of {name}", where, "%", 97.0,
            lambda same=same: (same, None), kind="value", least=True,
        )  # fmt: skip


def weights_by_fold(name: str) -> Iterator[tuple[int, AudioModel]]:
    """An entry's networks by the fold that each never saw: every one, or the card's alone."""
    folder = locate(name, folds=True)
    results = read_results(folder)
    assert results is not None, f"{name} has no results"
    kept = {fold: fold_file(fold, 0) for fold in range(1, 6)}
    kept = {fold: file for fold, file in kept.items() if (folder / file).is_file()}
    for fold, file in (kept or {results.card_fold: "model.safetensors"}).items():
        yield fold, load_weights(folder, file).eval()


def answers(
    model: AudioModel, fold: int, clips: list[Clip]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels of a fold's clips, and the classes that fp32 and int8 give; int8 saw the others."""
    test = [clip for clip in clips if clip.fold == fold]
    with tempfile.TemporaryDirectory() as folder:
        sounds = Path(folder, "sounds")
        sounds.mkdir()
        for clip in clips:
            if clip.fold != fold:
                (sounds / Path(clip.path).name).symlink_to(Path(clip.path).resolve())
        paths = exported(model, folder), exported(model, folder, str(sounds))
        runs = [running(path) for path in paths]
        samples = [load(clip.path, model.sample_rate)[None] for clip in test]
        classes = [np.array([int(run.logits(x).argmax()) for x in samples]) for run in runs]
    return np.array([clip.label for clip in test]), classes[0], classes[1]
