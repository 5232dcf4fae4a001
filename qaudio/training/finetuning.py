"""Which parts of a network learn: frozen backbones and gradual unfreezing."""

from __future__ import annotations

from typing import Literal

from torch import nn

Freeze = Literal["none", "norms", "backbone", "gradual"]


def stages(net: nn.Module) -> list[nn.Module]:
    """The parts of a network that hold parameters, from the input to the classifier."""
    children = [
        part
        for child in net.children()
        for part in (child if isinstance(child, nn.ModuleList) else [child])
    ]
    return [part for part in children if any(True for _ in part.parameters())]


def learning(count: int, freeze: Freeze, epoch: int, thaw_every: int) -> int:
    """How many of so many stages, counted from the classifier, learn in an epoch (from 0)."""
    if freeze in ("none", "norms"):
        return count
    return 1 if freeze == "backbone" else min(count, 1 + epoch // thaw_every)


def apply(net: nn.Module, freeze: Freeze, epoch: int, thaw_every: int) -> None:
    """Freeze and thaw the stages of a network in training, as an epoch (from 0) wants it.

    A function of the epoch, so that a resumed run goes on as it was. What is frozen keeps its
    BatchNorm statistics and drops nothing inside; dropout of the network's own, between stages,
    goes on.
    """
    parts = stages(net)
    frozen = parts[: len(parts) - learning(len(parts), freeze, epoch, thaw_every)]
    net.train().requires_grad_(True)
    for own in net.parameters(recurse=False):
        own.requires_grad_(not frozen)
    for part in frozen:
        part.eval().requires_grad_(False)
    if freeze == "norms":
        for layer in net.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.eval()
