"""Importance of filters: one function a criterion, a score for each (quaternion) filter.

A quaternion filter's r, i, j and k parts are kept or removed together, so they share one score.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from qaudio.models.base import AudioModel, ChannelGroup
from qaudio.quaternion import QConv2d, QLinear


def filters(model: AudioModel, layer: str) -> Tensor:
    """Weights of a layer by filter: (filters, components, inputs × taps); components is 4 or 1."""
    module = model.get_submodule(layer)
    weight = module.weight.detach()  # type: ignore[operator]
    components = 4 if isinstance(module, (QConv2d, QLinear)) else 1
    return weight.reshape(components, weight.shape[0] // components, -1).transpose(0, 1)


def l1(model: AudioModel, group: ChannelGroup) -> Tensor:
    """Σ|W_f| over all taps, inputs and components, over the layer's maximum: (filters,).

    Li et al., *Pruning Filters for Efficient ConvNets*, ICLR 2017; per quaternion filter as in
    Chaudhary et al., Interspeech 2024. (Their code sums the first of the nine taps only.)
    """
    scores = [filters(model, layer).abs().sum(dim=(1, 2)) for layer in group.producers]
    return sum(score / score.max().clamp(min=1e-30) for score in scores) / len(scores)  # type: ignore[return-value]


CRITERIA: dict[str, Callable[[AudioModel, ChannelGroup], Tensor]] = {"l1": l1}
