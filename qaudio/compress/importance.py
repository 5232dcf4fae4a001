"""Importance of filters: one function a criterion, a score for each (quaternion) filter.

A quaternion filter's r, i, j and k parts are kept or removed together, so they share one score:
the mean over its components' scores, over the layer's maximum. Where channels have several
producers (residual sums), their layers' scores are averaged.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qaudio.errors import InputError, check_choice
from qaudio.models.base import AudioModel, ChannelGroup, evaluating
from qaudio.quaternion.layers import QConv2d, QLinear

# Waveforms (B, T) and labels, (B,) or (B, C): in pairs, or as a DataModule's loader gives them.
Batches = Iterable[tuple[Tensor, Tensor] | Mapping[str, Any]]
TINY = 1e-30


def filters(model: AudioModel, layer: str, values: Tensor | None = None) -> Tensor:
    """Weights of a layer by filter: (components, filters, inputs, taps); components is 4 or 1.

    On the CPU, for not every device has float64; of half precision in float32, so that sums rank
    by the weights and not by their rounding.

    Args:
        values: of the weight's shape, to arrange in its place.
    """
    module = model.get_submodule(layer)
    weight: Tensor = module.weight.detach() if values is None else values  # type: ignore[operator]
    components = 4 if isinstance(module, (QConv2d, QLinear)) else 1
    weight = weight.cpu()
    weight = weight if weight.dtype == torch.float64 else weight.float()
    return weight.reshape(components, weight.shape[0] // components, weight.shape[1], -1)


def l1(weights: Tensor) -> Tensor:
    """Σ|W_f|: Li et al., *Pruning Filters for Efficient ConvNets*, ICLR 2017.

    QPANN's code sums the first of the nine taps only; this sums all.
    """
    return weights.abs().sum(dim=(-2, -1))


def l2(weights: Tensor) -> Tensor:
    """√Σ W_f²: He et al., *Soft Filter Pruning*, IJCAI 2018."""
    return weights.square().sum(dim=(-2, -1)).sqrt()


def gm_published(weights: Tensor) -> Tensor:
    """(gmean|W| − gmean|W_f|)²: the geometric *mean* of QPANN's code (Interspeech 2024).

    Not the field's geometric median, which is `fpgm`. What is ranked last is the filter whose size
    is nearest to the layer's: one of weights next to zero may come first.
    """
    log = weights.abs().clamp(min=TINY).log()
    by_filter, whole = log.mean(dim=(-2, -1)), log.mean(dim=(-3, -2, -1))
    return (whole.exp()[..., None] - by_filter.exp()).square()


def fpgm(weights: Tensor) -> Tensor:
    """Σ_g ‖W_f − W_g‖: distance from the geometric median (He et al., FPGM, CVPR 2019)."""
    flat = weights.flatten(-2).double()
    return torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist").sum(-1)


def operator_norm(weights: Tensor) -> Tensor:
    """(Σ_c ⟨W[f, c] − mean_c, prototype_c⟩)²: the operator-norm criterion of QPANN's code.

    For input channel c, A_c (filters × taps) is centred over its filters; the prototype is the
    first row of u vᵀ, its first singular pair, normalised: v with the sign of u's first entry.
    What is ranked last is the filter nearest to the layer's mean along the prototypes, which need
    not be one of weights next to zero.
    """
    by_input = weights.double().transpose(-3, -2)  # (components, inputs, filters, taps)
    centred = by_input - by_input.mean(dim=-2, keepdim=True)
    u, _, vh = torch.linalg.svd(centred, full_matrices=False)
    prototype = vh[..., 0, :] * u[..., 0, 0].sign()[..., None]
    along = (centred * prototype[..., None, :]).sum(dim=-1)  # (components, inputs, filters)
    return along.sum(dim=-2).square()


BY_WEIGHT: dict[str, Callable[[Tensor], Tensor]] = {
    "l1": l1,
    "l2": l2,
    "gm_published": gm_published,
    "fpgm": fpgm,
    "operator_norm": operator_norm,
}


def bn_scale(model: AudioModel, group: ChannelGroup) -> Tensor:
    """|γ| of the filters' BatchNorm channels (Liu et al., *Network Slimming*, ICCV 2017).

    Raises:
        ValueError: for channels without a BatchNorm.
    """
    if not group.norms:
        raise InputError(f"bn_scale: {group.name} has no BatchNorm")
    gammas = [model.get_submodule(norm).weight.detach() for norm in group.norms]  # type: ignore[operator]
    return _mean(
        [_normalised(gamma.cpu().float().abs().reshape(model.components, -1)) for gamma in gammas]
    )


def taylor(model: AudioModel, groups: Sequence[ChannelGroup], data: Batches) -> dict[str, Tensor]:
    """Mean over batches of (Σ_f W·∂L/∂W)²: Molchanov et al., *Importance Estimation*, CVPR 2019.

    The sum runs over all components of a filter, since the loss feels them together.

    Args:
        data: batches of waveforms (B, T) and labels, (B,) or (B, C).

    Raises:
        ValueError: when there is no batch.
    """
    layers = [layer for group in groups for layer in group.producers]
    totals: dict[str, Tensor] = {}
    for batch in data:
        waveform, label = (
            (batch["waveform"], batch["label"]) if isinstance(batch, Mapping) else batch
        )
        gradients = loss_gradients(model, waveform, label, [f"{layer}.weight" for layer in layers])
        for layer, gradient in zip(layers, gradients, strict=True):
            product = filters(model, layer) * filters(model, layer, gradient)
            change = product.double().sum(dim=(0, 2, 3)).square()
            totals[layer] = totals.get(layer, 0) + change
    if not totals:
        raise InputError("criterion 'taylor' needs at least one batch")
    return {
        group.name: _mean([_normalised(totals[layer][None]) for layer in group.producers])
        for group in groups
    }


def random(group: ChannelGroup, count: int, seed: int) -> Tensor:
    """Uniform draws, a function of (seed, layer): the control."""
    generator = torch.Generator().manual_seed(seed + zlib.crc32(group.name.encode()))
    return torch.rand(count, generator=generator)


CRITERIA = (*BY_WEIGHT, "bn_scale", "taylor", "random")


def scores(
    model: AudioModel,
    groups: Sequence[ChannelGroup],
    criterion: str,
    *,
    data: Batches | None = None,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Score of every filter of some groups, by group name: (filters,) each; higher stays.

    Args:
        data: batches of waveforms (B, T) and labels, (B,) or (B, C), for "taylor".
        seed: for "random".

    Raises:
        ValueError: for an unknown criterion, "taylor" without data, or weights or data that are
            not finite.
    """
    check_choice("criterion", criterion, CRITERIA)
    for group in groups:
        for layer in (*group.producers, *group.norms):
            if not all(p.isfinite().all() for p in model.get_submodule(layer).parameters()):
                raise InputError(f"{layer} has weights that are NaN or infinite: nothing to rank")
    if criterion == "taylor":
        if data is None:
            raise InputError("criterion 'taylor' needs data: batches of (waveforms, labels)")
        found = taylor(model, groups, data)
        if not all(score.isfinite().all() for score in found.values()):
            raise InputError("criterion 'taylor': NaN or infinite gradients; is the sound finite?")
        return found
    if criterion == "bn_scale":
        return {group.name: bn_scale(model, group) for group in groups}
    if criterion == "random":
        return {g.name: random(g, model.widths[g.name] // model.components, seed) for g in groups}
    measure = BY_WEIGHT[criterion]
    return {
        group.name: _mean(
            [_normalised(measure(filters(model, layer))) for layer in group.producers]
        )
        for group in groups
    }


def loss_gradients(
    model: AudioModel, waveform: Tensor, label: Tensor, names: Sequence[str]
) -> tuple[Tensor, ...]:
    """Gradients of the loss of a batch in eval mode.

    Args:
        model: left as it is; its frozen parameters have gradients, too.
        waveform: (B, T).
        label: (B,) class indices, or (B, C) where the task is multi-label.
    """
    parameters = [model.get_parameter(name) for name in names]
    with evaluating(model) as net, torch.enable_grad(), _learning(parameters):
        logits = net(waveform)
        if model.task == "multiclass":
            loss = F.cross_entropy(logits, label)
        else:
            loss = F.binary_cross_entropy_with_logits(logits, label.float())
        return torch.autograd.grad(loss, parameters)


@contextmanager
def _learning(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Frozen parameters have gradients inside."""
    frozen = [parameter for parameter in parameters if not parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def _normalised(by_component: Tensor) -> Tensor:
    """Scores (components, filters), averaged over components, over their maximum: (filters,)."""
    mean = by_component.mean(dim=0)
    return mean / mean.max().clamp(min=TINY)


def _mean(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts).mean(dim=0)
