"""Weights that others published, in this package's names and layout."""

from __future__ import annotations

import torch
from torch import Tensor

# Constants of the published front-ends; ours are made from its settings.
_FRONTEND = ("spectrogram_extractor.", "logmel_extractor.")
_COMPONENTS = ("r_weight", "i_weight", "j_weight", "k_weight")


def convert_published(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of PANNs' or QPANN's code as our networks load it, strictly.

    The classifier's name changes, the front-end's constants are left out, and the four component
    tensors of a quaternion layer become one weight with rows r|i|j|k. The published linear layers
    store (in/4, out/4) and are transposed; the convolutions store (out/4, in/4, kH, kW) as ours.

    Args:
        state: what a published file holds under "model" (Kong et al., PANNs, TASLP 2020;
            Chaudhary et al., Interspeech 2024).

    Returns:
        A new dictionary; unchanged tensors are shared with `state`.

    Raises:
        ValueError: when a quaternion layer lacks a component, or its components differ in shape.
    """
    converted: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.startswith(_FRONTEND):
            continue
        layer, _, leaf = name.rpartition(".")
        if leaf in _COMPONENTS:
            if f"{layer}.weight" not in converted:
                converted[f"{layer}.weight"] = _joined(layer, state)
        elif layer == "fc_audioset":
            converted[f"classifier.{leaf}"] = tensor
        else:
            converted[name] = tensor
    return converted


def _joined(layer: str, state: dict[str, Tensor]) -> Tensor:
    """The four component tensors of a quaternion layer as one weight: (out, in/4, *kernel)."""
    missing = [leaf for leaf in _COMPONENTS if f"{layer}.{leaf}" not in state]
    if missing:
        raise ValueError(f"quaternion layer {layer!r} lacks {', '.join(missing)}")
    parts = [state[f"{layer}.{leaf}"] for leaf in _COMPONENTS]
    shapes = [tuple(part.shape) for part in parts]
    if len(set(shapes)) > 1:
        raise ValueError(f"components of {layer!r} must have one shape, not {shapes}")
    return torch.cat([part.T if part.ndim == 2 else part for part in parts])
