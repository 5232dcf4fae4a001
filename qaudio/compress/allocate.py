"""How wide each layer becomes: uniform or global allocation, at a ratio or towards a budget.

An allocation is a function of one number x, the share to remove, 0 ≤ x ≤ 1: it gives the widths
of the chosen layers, ever smaller as x grows. A budget that is counted is met by bisecting x; one
that is measured has a search of its own (latency.py).
"""

import warnings
from collections.abc import Callable, Iterable
from itertools import combinations, product

import torch
from torch import Tensor

from qaudio.compress.cost import macs_by_layer
from qaudio.errors import InputError
from qaudio.models.base import AudioModel

Widths = dict[str, int]
Allocation = Callable[[float], Widths]
Meter = Callable[[Widths], float]

REFERENCE_SECONDS = 10.0  # clip length at which MACs and latency are budgeted
TOLERANCE = 0.02  # of a target; missed by more, it is said
RATIO_TOLERANCE = 0.05  # of the channels, for a ratio


def allowed_widths(width: int, multiple_of: int, min_channels: int) -> list[int]:
    """Widths that a layer may get, ascending; the present one always."""
    least = min(width, -(-min_channels // multiple_of) * multiple_of)
    return sorted({*range(least, width, multiple_of), width})


def uniform(widths: Widths, allowed: dict[str, list[int]]) -> Allocation:
    """Every chosen layer loses the same share of its channels."""

    def allocate(share: float) -> Widths:
        return {
            name: _nearest(choices, (1 - share) * widths[name]) for name, choices in allowed.items()
        }

    return allocate


def globally(
    widths: Widths, allowed: dict[str, list[int]], ranked: dict[str, Tensor]
) -> Allocation:
    """The lowest scores go, wherever they are: layers with many unimportant filters lose more.

    Args:
        ranked: scores of their filters, comparable between layers: each over its layer's mean.
    """
    names = list(allowed)
    weights = torch.cat([torch.full((len(ranked[n]),), widths[n] / len(ranked[n])) for n in names])
    pooled = torch.cat([ranked[n].double() / ranked[n].double().mean().clamp(min=1e-30)
                        for n in names])  # fmt: skip
    owner = torch.cat([torch.full((len(ranked[n]),), i) for i, n in enumerate(names)])
    order = torch.argsort(pooled, stable=True)

    def allocate(share: float) -> Widths:
        gone = owner[order[: round(share * len(order))]]
        return {
            name: _nearest(
                allowed[name],
                widths[name] - float(weights[owner == i][0]) * int((gone == i).sum()),
            )
            for i, name in enumerate(names)
        }

    return allocate


def at_ratio(ratio: float, widths: Widths, by: Allocation) -> Widths:
    """Widths of the chosen layers without a share of their channels.

    Warns where floors and multiples leave it away from the share by more than 5 points.
    """
    chosen = by(ratio)
    before, after = sum(widths[name] for name in chosen), sum(chosen.values())
    removed = 1 - after / before
    if abs(removed - ratio) > RATIO_TOLERANCE:
        warnings.warn(
            f"ratio {ratio:g} is missed, {removed:.2f} of the channels go: a smaller multiple_of "
            "or min_channels, or other layers, may come nearer",
            stacklevel=3,
        )
    return chosen


def _nearest(choices: list[int], wanted: float) -> int:
    return min(choices, key=lambda width: (abs(width - wanted), width))


def towards(
    name: str, meter: Meter, target: float, widths: Widths, allowed: dict[str, list[int]],
    by: Allocation,
) -> Widths:  # fmt: skip
    """Widths of the chosen layers that bring what a meter counts closest to a target.

    Warns where 2 % are missed.

    Args:
        name: the argument of `qaudio.plan` that asked for it.
        target: a share of the present value (≤ 1), or a value.

    Raises:
        ValueError: for a target out of reach; says what is possible.
    """
    least = meter(widths | {name: choices[0] for name, choices in allowed.items()})
    wanted = within_reach(name, target, least, meter(widths))
    chosen = closest(meter, wanted, widths, allowed, by)
    warn_if_missed(name, wanted, meter(widths | chosen), TOLERANCE)
    return chosen


def closest(
    meter: Meter, wanted: float, widths: Widths, allowed: dict[str, list[int]], by: Allocation
) -> Widths:
    """Widths of the chosen layers that bring what a meter counts closest to a value.

    Bisects the allocation, then moves single layers by single steps while that comes closer, and
    pairs of layers where that is not close enough.
    """

    def error(candidate: Widths) -> float:
        return abs(meter(widths | candidate) - wanted)

    def moved(chosen: Widths, layers: int) -> Widths:
        """The best of the widths that are one step away in so many layers."""
        steps = {}
        for name, choices in allowed.items():
            index = choices.index(chosen[name])
            steps[name] = choices[max(index - 1, 0) : index] + choices[index + 1 : index + 2]
        candidates = (
            chosen | dict(zip(names, new, strict=True))
            for names in combinations(allowed, layers)
            for new in product(*(steps[name] for name in names))
        )
        return min(candidates, key=error, default=chosen)

    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        if meter(widths | by(middle)) > wanted:
            low = middle
        else:
            high = middle
    chosen = by(high)
    while True:
        best = moved(chosen, 1)
        if error(best) >= error(chosen) > TOLERANCE * wanted:
            best = moved(chosen, 2)
        if error(best) >= error(chosen):
            return chosen
        chosen = best


def within_reach(name: str, target: float, least: float, whole: float) -> float:
    """The value that a target, a share (≤ 1) or a value, stands for.

    Warns, at the line that called `plan`, where it is the whole, as 1 is.

    Raises:
        ValueError: when it lies outside of what is possible.
    """
    wanted = target * whole if 0 <= target <= 1 else target
    if not least <= wanted <= whole:
        raise InputError(
            f"{name} {wanted:.4g} cannot be met over the chosen layers: from {least:.4g} "
            f"({least / whole:.1%}) to {whole:.4g} are possible"
        )
    if wanted == whole:
        share = " (up to 1 it is a share)" if target == 1 else ""
        warnings.warn(f"{name} {target:g} is the whole{share}: nothing is removed", stacklevel=4)
    return wanted


def warn_if_missed(name: str, wanted: float, found: float, tolerance: float) -> None:
    """Warn, at the line that called `plan`, of a value that is off by more than a share."""
    off = abs(found / wanted - 1)
    if off > tolerance:
        warnings.warn(
            f"{name} {wanted:.4g} is missed by {off:.1%}: a smaller multiple_of or min_channels, "
            "or other layers, may come nearer",
            stacklevel=4,
        )


class WidthMeter:
    """A count as a function of widths.

    Args:
        model: whose widths the parts are counted at.
        parts: of the count, each with the groups of channels that it is proportional to.
    """

    def __init__(self, model: AudioModel, parts: Iterable[tuple[int, list[str]]]):
        self.widths, self.parts = dict(model.widths), list(parts)

    def __call__(self, widths: Widths) -> int:
        total = 0
        for count, groups in self.parts:
            for group in groups:
                count = count * widths[group] // self.widths[group]
            total += count
        return total


def mac_meter(model: AudioModel) -> WidthMeter:
    """MACs of a 10 s clip as a function of widths: each layer's are proportional to in × out."""
    macs = macs_by_layer(model, REFERENCE_SECONDS)
    factors: dict[str, list[str]] = {layer: [] for layer in macs}
    for group in model.channel_groups():
        for layer in (*group.producers, *group.consumers):
            factors[layer].append(group.name)
    return WidthMeter(model, zip(macs.values(), factors.values(), strict=True))


def param_meter(model: AudioModel) -> WidthMeter:
    """Parameters as a function of widths."""
    parts: list[tuple[int, list[str]]] = []
    makes: dict[str, str] = {}
    takes: dict[str, str] = {}
    for group in model.channel_groups():
        makes |= dict.fromkeys((*group.producers, *group.norms), group.name)
        takes |= dict.fromkeys(group.consumers, group.name)
    for name, parameter in model.named_parameters():
        layer = name.rpartition(".")[0]
        groups = [makes[layer]] if layer in makes else []
        if parameter.ndim > 1 and layer in takes:
            groups.append(takes[layer])
        parts.append((parameter.numel(), groups))
    return WidthMeter(model, parts)
