"""The forms of a network's layers that are the fastest together on this machine."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from qaudio.deploy.fused_layers import SplitLinear, Stage, layout_of
from qaudio.deploy.timing import KnownTimes
from qaudio.quaternion.layers import QConv2d, QLinear


@dataclass(frozen=True)
class Unit:
    """A convolution and what may be fused with it.

    Attributes:
        ends: relu, pool and shortcut, as `Stage` takes them.
        beside: it takes what another takes too, not what the one before it gives.
    """

    name: str
    layer: nn.Conv2d | QConv2d
    norm_name: str | None
    norm: nn.BatchNorm2d | None
    ends: dict[str, Any] = field(default_factory=dict)
    beside: bool = False


@dataclass(frozen=True)
class Layer:
    """A unit where it stands in a network, and how long its forms take there."""

    unit: Unit
    names: list[str]  # of the forms
    shape: tuple[int, ...]  # of its input
    dtype: torch.dtype
    fused: bool
    known: KnownTimes

    def stage(self, form: str) -> Stage:
        unit = self.unit
        return Stage(
            unit.layer, unit.norm, form, self.shape, dtype=self.dtype, fused=self.fused, **unit.ends
        )

    def seconds(self) -> dict[str, float]:
        """By form, of an input in the form's layout; none where there is no choice."""
        if len(self.names) == 1:
            return {self.names[0]: 0.0}
        fused = "fused" if self.fused else "eager"
        key = f"{self.unit.layer} {self.unit.ends} {list(self.shape)} {self.dtype} {fused}"
        return self.known.of(key, self.names, self._calls)

    def move(self, layout: torch.memory_format) -> float:
        """Seconds that it takes to lay an input out so, which had the other layout."""

        def calls() -> dict[str, Callable]:
            planes = layout == torch.contiguous_format
            other = torch.channels_last if planes else torch.contiguous_format
            x = self._example().contiguous(memory_format=other)
            return {"move": partial(x.contiguous, memory_format=layout)}

        key = f"{layout} {list(self.shape)} {self.dtype}"
        return self.known.of(key, ["move"], calls)["move"]

    def _example(self) -> Tensor:
        return torch.randn(self.shape, device=self.unit.layer.weight.device, dtype=self.dtype)

    def _calls(self) -> dict[str, Callable]:
        examples = [self._example()]
        if self.unit.ends.get("shortcut"):
            examples.append(self.unit.layer(examples[0].float()).to(self.dtype))
        return {
            name: partial(
                self.stage(name), *(x.contiguous(memory_format=layout_of(name)) for x in examples)
            )
            for name in self.names
        }


def fastest_forms(path: list[Layer], layout: torch.memory_format) -> dict[str, str]:
    """The forms that take the least time together, changes of the layout between them included.

    Args:
        layout: of the first one's input.

    Returns:
        The form of each layer, by its name, in the path's order.
    """
    # By layout of a layer's result, the quickest way to it: seconds, and the forms on it.
    ways: dict[torch.memory_format, tuple[float, list[str]]] = {layout: (0.0, [])}
    for layer in path:
        further: dict[torch.memory_format, tuple[float, list[str]]] = {}
        for form, seconds in layer.seconds().items():
            taken = layout_of(form)
            for given, (before, forms_before) in ways.items():
                spent = before + seconds + (0.0 if given == taken else layer.move(taken))
                if taken not in further or spent < further[taken][0]:
                    further[taken] = spent, [*forms_before, form]
        ways = further
    _, chosen = min(ways.values())
    return {layer.unit.name: form for layer, form in zip(path, chosen, strict=True)}


def fastest_linear(
    layer: QLinear, shape: tuple[int, ...], known: KnownTimes
) -> tuple[str, nn.Module]:
    """The faster form of a quaternion linear layer.

    Args:
        shape: of its input; only (batch, in_features) has a choice of forms.
        known: where times are looked up and kept.

    Returns:
        The form's name, "matrix" or "split", and the module; for "matrix" the layer itself.
    """
    if len(shape) != 2:
        return "matrix", layer
    forms: dict[str, nn.Module] = {"matrix": layer, "split": SplitLinear(layer)}
    x = torch.randn(shape, device=layer.weight.device, dtype=layer.weight.dtype)
    times = known.of(
        f"{layer} {list(shape)}",
        forms,
        lambda: {name: partial(form, x) for name, form in forms.items()},
    )
    best = min(times, key=times.__getitem__)
    return best, forms[best]
