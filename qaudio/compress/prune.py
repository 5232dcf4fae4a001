"""Structured pruning: a plan of the filters that stay, and the smaller network it gives.

A pruned network is the same class with smaller widths: it saves, loads, trains and prunes again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor

from qaudio.compress.allocate import (
    WidthMeter,
    allowed_widths,
    at_ratio,
    globally,
    mac_meter,
    param_meter,
    towards,
    uniform,
)
from qaudio.compress.importance import Batches, scores
from qaudio.compress.latency import LatencyMeter, of_widths, towards_latency
from qaudio.errors import InputError, check_choice
from qaudio.models.base import AudioModel, ChannelGroup, check_model
from qaudio.quaternion.layers import QConv2d, QLinear
from qaudio.records import Count, Text, parse


@dataclass(frozen=True)
class Plan:
    """Which filters of each layer stay.

    Attributes:
        kept: by layer name, the indices that stay, ascending; quaternions in quaternion nets.
        before, after: widths in real channels.
        macs_before, macs_after: of a 10 s clip.
    """

    architecture: Text
    kept: dict[Text, list[Count]]
    before: dict[Text, Count]
    after: dict[Text, Count]
    criterion: Text
    request: dict[Text, Any]
    macs_before: Count
    macs_after: Count

    def to_json(self) -> str:
        """One JSON document; `from_json` gives an equal plan."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read `to_json`'s document; raises ValueError when it is not one."""
        try:
            document = json.loads(text)
            names = {field.name for field in fields(cls)}
            if not isinstance(document, dict) or set(document) != names:
                raise InputError(f"expected the keys {', '.join(sorted(names))}")
            return parse(document, cls)
        except (ValueError, RecursionError) as error:
            raise InputError(f"not a pruning plan: {error}") from None


def plan(
    model: AudioModel,
    *,
    ratio: float | None = None,
    target_macs: float | None = None,
    target_params: float | None = None,
    target_latency: float | None = None,
    layers: str | Sequence[str] = "all",
    criterion: str = "l1",
    allocation: Literal["uniform", "global"] = "uniform",
    multiple_of: int = 4,
    min_channels: int = 8,
    data: Batches | None = None,
    seed: int = 0,
) -> Plan:
    """Decide which filters stay. Exactly one of `ratio` and the targets is given.

    Args:
        ratio: share of the (quaternion) filters of the chosen layers to remove, 0 ≤ ratio < 1.
        target_macs: MACs to keep: a share of the model's (≤ 1), or a number, of a 10 s clip.
        target_params: parameters to keep: a share (≤ 1) or a number.
        target_latency: latency to keep: a share (≤ 1) or milliseconds, of a 10 s clip on this
            machine, measured for each width tried, as the model stands: on its device, in its
            dtype and memory format, with torch's number of threads.
        layers: "all" (every convolution; the MLPs of a transformer), "published" (the papers'
            blocks), "blocks4-6", "block4", or names of layers, as a list or separated by commas.
        criterion: one of `qaudio.compress.importance.CRITERIA`.
        allocation: "uniform", every chosen layer loses the same share; "global", the lowest
            scores over all chosen layers go, each over its layer's mean.
        multiple_of: kept channels (real) come in multiples of this.
        min_channels: fewest channels (real) that a layer keeps, or all it has where that is less.
        data: batches of waveforms (B, T) at the model's rate and labels, (B,) or (B, C), for
            criterion "taylor"; a DataModule's `train_dataloader()` or `first_batches()`.
        seed: for criterion "random".

    Warns where no widths that are allowed come within 2 % of a target, or 10 % of a latency, or
    remove a share within 5 points of the ratio, and where a target is the whole.

    Raises:
        ValueError: for a request that cannot be met (says what would be allowed), or weights or
            data that are not finite.
        TypeError: for something else than a model.
    """
    check_model(model, changed=True)
    ratio, target_macs, target_params, target_latency = (
        value if value is None or isinstance(value, int) else float(value)  # NumPy's, a tensor
        for value in (ratio, target_macs, target_params, target_latency)
    )
    targets = {
        "target_macs": target_macs,
        "target_params": target_params,
        "target_latency": target_latency,
    }
    given = [name for name, value in {"ratio": ratio, **targets}.items() if value is not None]
    if len(given) != 1:
        raise InputError(f"give exactly one of ratio, {', '.join(targets)}, not {given or 'none'}")
    check_choice("allocation", allocation, ("uniform", "global"))
    for name, value in (("multiple_of", multiple_of), ("min_channels", min_channels)):
        if not isinstance(value, int) or value < 1:
            raise InputError(f"{name} must be a positive whole number, not {value!r}")
    if model.quaternion and multiple_of % 4:
        raise InputError(f"multiple_of must be a multiple of 4 for a quaternion net: {multiple_of}")
    if ratio is not None and not 0 <= ratio < 1:
        raise InputError(f"ratio is the share removed, 0 <= ratio < 1, not {ratio}")
    groups = select_groups(model, layers)
    widths = dict(model.widths)
    allowed = {g.name: allowed_widths(widths[g.name], multiple_of, min_channels) for g in groups}
    ranked = scores(model, groups, criterion, data=data, seed=seed)
    by = uniform(widths, allowed) if allocation == "uniform" else globally(widths, allowed, ranked)
    macs = mac_meter(model)
    if ratio is not None:
        chosen = at_ratio(ratio, widths, by)
    elif target_latency is not None:
        chosen = towards_latency(LatencyMeter(model), target_latency, widths, allowed, by, macs)
    else:
        meter = macs if target_macs is not None else param_meter(model)
        chosen = towards(given[0], meter, targets[given[0]] or 0.0, widths, allowed, by)
    request = {
        "ratio": ratio,
        **targets,
        "layers": layers if isinstance(layers, str) else list(layers),
        "allocation": allocation,
        "multiple_of": multiple_of,
        "min_channels": min_channels,
        "seed": seed,
    }
    return _keep_highest(model, ranked, chosen, criterion, request, macs)


def plan_widths(
    model: AudioModel,
    widths: dict[str, int],
    *,
    criterion: str = "l1",
    data: Batches | None = None,
    seed: int = 0,
) -> Plan:
    """A plan for widths that are decided already, as the steps of a gradual pruning have them.

    Args:
        widths: real channels by layer name; layers left out stay.
        criterion, data, seed: as in `plan`.
    """
    groups = [group for group in model.channel_groups() if group.name in widths]
    ranked = scores(model, groups, criterion, data=data, seed=seed)
    return _keep_highest(model, ranked, widths, criterion, {"widths": widths}, mac_meter(model))


def _keep_highest(
    model: AudioModel,
    ranked: dict[str, Tensor],
    widths: dict[str, int],
    criterion: str,
    request: dict[str, Any],
    macs: WidthMeter,
) -> Plan:
    """The plan that keeps each layer's highest scores at the given widths."""
    before, after = dict(model.widths), model.widths | widths
    order = {n: torch.argsort(ranked[n], descending=True, stable=True) for n in widths}
    return Plan(
        architecture=model.architecture,
        kept={
            n: sorted(order[n][: width // model.components].tolist()) for n, width in widths.items()
        },
        before=before,
        after=after,
        criterion=criterion,
        request=request,
        macs_before=macs(before),
        macs_after=macs(after),
    )


def prune(model: AudioModel, plan_or_none: Plan | None = None, **request: Any) -> AudioModel:
    """A smaller copy of a model, without the filters that a plan drops.

    r, i, j and k of a quaternion filter go together, with their four BatchNorm channels and the
    matching inputs of the layers that follow.

    Args:
        plan_or_none: a plan made for this model; or give `plan`'s arguments by name.

    Raises:
        ValueError: when the plan does not fit the model, or as `plan` does.
        TypeError: for something else than a model or a plan.
    """
    check_model(model, changed=True)
    if not isinstance(plan_or_none, Plan | None):
        raise TypeError(
            f"prune takes a Plan or named arguments, such as ratio=0.5, not {plan_or_none!r}"
        )
    if (plan_or_none is None) == (not request):
        raise InputError("give either a plan or the arguments of qaudio.plan")
    chosen = plan_or_none or plan(model, **request)
    if chosen.architecture != model.architecture or chosen.before != model.widths:
        raise InputError(
            f"the plan was made for {chosen.architecture} with other widths than this "
            f"{model.architecture}"
        )
    _check(model, chosen)
    small = of_widths(model, chosen.after)
    small.load_state_dict(slice_tensors(model, chosen, model.state_dict()))
    if small.widths != chosen.after or sum(p.numel() for p in small.parameters()) > sum(
        p.numel() for p in model.parameters()
    ):
        raise RuntimeError("the pruned network does not have the planned widths")
    return small


def slice_tensors(model: AudioModel, plan: Plan, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Cut tensors as a plan cuts the parameters and buffers whose names they bear.

    Args:
        tensors: of the shapes that the model's own have: its state, or an optimizer's moments.
    """
    groups = {group.name: group for group in model.channel_groups()}
    cut = {name: tensor.detach() for name, tensor in tensors.items()}
    for name, kept in plan.kept.items():
        _slice(model, cut, groups[name], torch.tensor(kept))
    return cut


def select_groups(model: AudioModel, layers: str | Sequence[str]) -> list[ChannelGroup]:
    """Groups of channels that `layers` names; raises ValueError with what there is."""
    groups = model.channel_groups()
    if layers == "all":
        return [group for group in groups if group.prunable]
    if layers == "published":
        if not model.published_blocks:
            raise InputError(f"no paper prunes {model.architecture}: say 'all' or name layers")
        return [group for group in groups if group.block in model.published_blocks]
    names = [name.strip() for name in layers.split(",")] if isinstance(layers, str) else layers
    if not names:
        raise InputError("layers is empty: name some, or say 'all' or 'published'")
    selected: list[ChannelGroup] = []
    for name in names:
        match = re.fullmatch(r"blocks?(\d+)(?:-(\d+))?", name)
        if match:
            first, last = int(match[1]), int(match[2] or match[1])
            found = [g for g in groups if g.block is not None and first <= g.block <= last]
        else:
            found = [group for group in groups if group.name == name]
        if name in ("all", "published"):
            raise InputError(f"layers {name!r} stands alone, not in {', '.join(names)!r}")
        if not found:
            known = ", ".join(group.name for group in groups)
            raise InputError(
                f"{model.architecture} has no layers {name!r}; there are all, published, "
                f"blocksA-B, and {known}"
            )
        selected += [group for group in found if group not in selected]
    return selected


def _check(model: AudioModel, plan: Plan) -> None:
    """Raise ValueError unless a plan, perhaps edited by hand, can be carried out."""
    unknown = set(plan.kept) - set(model.widths)
    if unknown:
        raise InputError(f"the plan names unknown layers: {', '.join(sorted(unknown))}")
    for name, width in model.widths.items():
        count = width // model.components
        kept = plan.kept.get(name, list(range(count)))
        ascending = all(isinstance(n, int) for n in kept) and kept == sorted(set(kept))
        if not kept or not ascending or kept[0] < 0 or kept[-1] >= count:
            raise InputError(f"the plan's {name} must keep ascending indices from 0 to {count - 1}")
        stay, said = len(kept) * model.components, plan.after.get(name)
        if stay != said:
            raise InputError(f"the plan keeps {stay} channels of {name}, but says {said}")


def _slice(model: AudioModel, state: dict[str, Tensor], group: ChannelGroup, kept: Tensor) -> None:
    """Cut the tensors around a group of channels in place of the dictionary's."""
    count = model.widths[group.name] // model.components
    channels = torch.cat([kept + plane * count for plane in range(model.components)])
    for layer in (*group.producers, *group.norms):
        for name in [name for name in state if name.rpartition(".")[0] == layer]:
            if state[name].ndim:  # not num_batches_tracked
                state[name] = state[name][channels.to(state[name].device)]
    for layer in group.consumers:
        quaternion = isinstance(model.get_submodule(layer), (QConv2d, QLinear))
        weight = state.get(f"{layer}.weight")
        if weight is None:
            continue  # of a frozen layer an optimizer has no moments
        index = (kept if quaternion else channels).to(weight.device)
        state[f"{layer}.weight"] = weight[:, index]
