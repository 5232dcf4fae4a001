"""What every export shares: how it fails, what it returns, and how far it is from PyTorch."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qaudio import __version__
from qaudio.errors import InputError
from qaudio.models.base import AudioModel, check_model, check_weights

TOLERANCE = 1e-4  # of the logits' range, fp32 in another runtime against PyTorch


class ExportError(InputError):
    """A model that cannot be exported, or whose file gave other logits; says which and why."""


@dataclass(frozen=True)
class Export:
    """What an export made: the file or folder, and what it says of the model and of its check."""

    path: Path
    metadata: dict[str, Any]


def prepared(model: AudioModel) -> AudioModel:
    """A copy of a model to export: in eval mode, float32 and on the CPU.

    Raises:
        ValueError: for weights that are NaN or infinite.
        TypeError: for something else than a model, or weights that are computed from others.
    """
    check_model(model, changed=True)
    check_weights(model.state_dict())
    return copy.deepcopy(model).cpu().float().eval()


def facts_of(model: AudioModel, entry: str | None, license: str | None) -> dict[str, Any]:
    """What every export says of a model."""
    said = {"qaudio_version": __version__, "entry": entry, "license": license}
    known = {"sample_rate": model.sample_rate, **model.config.to_dict(), **model.calibration}
    return said | known


def trial(samples: int) -> Tensor:
    """Noise, silence and a clipped sweep, (3, samples)."""
    generator = torch.Generator().manual_seed(samples)
    noise = 0.1 * torch.randn(samples, generator=generator, dtype=torch.float32)
    phase = torch.linspace(0, 1, samples, dtype=torch.float64).square() * samples / 8
    sweep = (2 * torch.sin(2 * torch.pi * phase)).clamp(-1, 1).float()
    return torch.stack([noise, torch.zeros_like(noise), sweep + 0.01 * noise])


def difference(expected: np.ndarray, found: np.ndarray) -> float:
    """Largest difference of logits, as a share of the expected ones' range."""
    return float(np.abs(expected - found).max() / (np.ptp(expected) or 1.0))


def checked(runtime: str, expected: np.ndarray, found: np.ndarray) -> float:
    """The `difference` of a runtime's logits.

    Raises:
        ExportError: for one above `TOLERANCE`.
    """
    share = difference(expected, found)
    if not share <= TOLERANCE:
        raise ExportError(
            f"{runtime}'s logits differ from PyTorch's by {share:.1e} of their range, "
            f"allowed {TOLERANCE:.0e}"
        )
    return share


def quantised_figures(task: str, expected: np.ndarray, found: np.ndarray) -> dict[str, Any]:
    """How far a quantised network's logits (clips, classes) are from fp32's, for the metadata.

    That is the largest difference, and how often both answer alike: of clips, how many have the
    same first class; with several labels, of all classes of all clips, how many have the same
    answer at a probability of .5.
    """
    name, same = "label_agreement", (expected > 0) == (found > 0)
    if task == "multiclass":
        name, same = "top1_agreement", expected.argmax(1) == found.argmax(1)
    share = difference(expected, found)
    return {"checked_on": len(expected), name: float(np.mean(same)), "largest_difference": share}
