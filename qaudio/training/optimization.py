"""Optimizers, and how the learning rate goes over the steps of a training."""

import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR

from qaudio.errors import InputError

Optimizer = Literal["adamw", "adam"]
Schedule = Literal["cosine", "one_cycle", "trapezoidal", "constant"]


def make_optimizer(
    name: Optimizer, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Adam as PANNs have it, or AdamW that leaves biases and norms out of its decay."""
    every = list(parameters)
    if name == "adam":
        return torch.optim.Adam(every, lr=lr, amsgrad=True)
    groups = [
        {"params": [p for p in every if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in every if p.ndim <= 1], "weight_decay": 0.0},
    ]
    # One pass over all parameters: small networks spend a tenth of a step here otherwise.
    return torch.optim.AdamW(groups, lr=lr, fused=True)


def make_scheduler(
    name: Schedule, optimizer: torch.optim.Optimizer, lr: float, steps: float, warmup: float,
    decay: float,
) -> Any:  # fmt: skip
    """The schedule of a training of so many steps.

    Args:
        name: any but "constant".
        optimizer: whose rate is set at every step.
        lr: the highest rate.
        steps: of the whole training.
        warmup, decay: shares of the steps in which the rate rises, and with "trapezoidal" falls.

    Raises:
        ValueError: for a training without end.
    """
    if math.isinf(steps):
        raise InputError(
            f"schedule {name!r} ends with the training: give --trainer.max_epochs or max_steps, or "
            "--model.schedule constant"
        )
    steps = int(steps)
    if name == "one_cycle":
        share = one_cycle_share(warmup, steps)
        return OneCycleLR(optimizer, lr, total_steps=steps, pct_start=share)
    if name == "trapezoidal":
        return LambdaLR(optimizer, lambda step: trapezoid(step, steps, warmup, decay))
    return LambdaLR(optimizer, lambda step: warmup_cosine(step, steps, warmup))


def trapezoid(step: int, steps: int, warmup: float, decay: float) -> float:
    """Learning-rate factor: linear to 1 over the first share, flat, linear to 0 over the last."""
    rising, falling = max(1, round(warmup * steps)), max(1, round(decay * steps))
    return min((step + 1) / rising, 1.0, max(0, steps - step) / falling)


def one_cycle_share(warmup: float, steps: int) -> float:
    """The share of warm-up next to the one asked for that torch's OneCycleLR takes.

    It divides by zero where the warm-up takes exactly one of the steps, or all of them.
    """
    share = min(warmup, 1 - 1 / steps) if steps > 1 else 0.0
    return share if abs(share * steps - 1) > 1e-6 else share + min(0.5, steps - 1.5) / steps


def warmup_cosine(step: int, steps: int, warmup: float) -> float:
    """Learning-rate factor: linear over the first `warmup` share, then a half cosine to zero."""
    start = max(1, round(warmup * steps))
    if step < start:
        return (step + 1) / start
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - start) / max(1, steps - start))))
