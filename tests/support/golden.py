"""Weights and sounds whose outputs by the authors' own code lie in tests/golden/.

golden/NAME.npz holds `embedding` (2, D) and `clipwise_output` (2, 527, after the sigmoid) of PANNs'
(QCNN14: QPANN's) network in eval mode, for `sounds()`; golden/NAME.shapes.json the names and shapes
of its state dict. The weights are a function of those, so that nothing large needs storing.
"""

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from qaudio.models.base import AudioModel

FOLDER = Path(__file__).parents[1] / "golden"
SECONDS, SEED, RATE = 3.17, 20251121, 32000


def outputs(name: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f"{name}.npz") as stored:
        return dict(stored)


def assert_outputs(model: AudioModel, name: str) -> None:
    """That a network gives what the authors' own code does."""
    with torch.inference_mode():
        found = model(sounds()).sigmoid().numpy()
    expected = outputs(name)["clipwise_output"]
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < 1e-4


def published_state(name: str) -> dict[str, Tensor]:
    """State dict in the published names and layout."""
    shapes = json.loads((FOLDER / f"{name}.shapes.json").read_text())
    return {key: torch.from_numpy(_values(key, shapes)) for key in shapes}


def published_file(name: str, path: Path) -> Path:
    """A checkpoint file as published, with the constants of the front-end that it also holds."""
    state = published_state(name)
    state["spectrogram_extractor.stft.conv_real.weight"] = torch.zeros(513, 1, 1024)
    state["logmel_extractor.melW"] = torch.zeros(513, 64)
    torch.save({"iteration": 600000, "model": state}, path)
    return path


def _values(key: str, shapes: dict[str, list[int]]) -> np.ndarray:
    shape = shapes[key]
    module, leaf = key.rsplit(".", 1)
    normal = np.random.RandomState(zlib.crc32(key.encode())).standard_normal
    uniform = np.random.RandomState(zlib.crc32(key.encode())).uniform
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    gain = leaf == "weight" and f"{module}.running_mean" in shapes
    if key == "bn0.running_mean":  # a log-mel's mean and spread, in dB
        made = 5 * normal(shape) - 40
    elif key == "bn0.running_var":
        made = uniform(200, 600, shape)
    elif gain or leaf == "running_var":
        made = uniform(0.5, 1.5, shape)
    elif len(shape) == 1:
        made = normal(shape) / 10
    else:
        scale = 0.02 if module == "fc_audioset" else (2 / np.prod(shape[1:])) ** 0.5
        components = 2 if leaf[1:] == "_weight" else 1  # √4: a quaternion's norm, as a real's
        made = normal(shape) * scale / components
    if module.startswith("resnet.") and key.endswith(".bn2.weight"):
        made *= 0.2  # residual sums must not grow from block to block
    return made.astype(np.float32)


def sounds() -> Tensor:
    """White noise and a rising chirp, (2, T)."""
    samples = int(RATE * SECONDS)
    time = np.arange(samples) / RATE
    noise = np.random.RandomState(SEED).standard_normal(samples) / 10
    chirp = np.sin(2 * np.pi * (100 + 1250 * time) * time) / 2
    return torch.from_numpy(np.stack((noise, chirp)).astype(np.float32))
