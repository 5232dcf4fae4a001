"""Pruning as a part of training: at once before it, or in steps while it goes on."""

import math
from collections.abc import Callable
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from qaudio.compress.prune import Plan, plan, plan_widths, prune, select_groups, slice_tensors
from qaudio.data.augment import global_seed
from qaudio.errors import InputError
from qaudio.models.base import AudioModel

Batches = list[tuple[Tensor, Tensor]]  # waveforms (B, T) and labels


class StepwisePruning(Callback):
    """Prunes a network before it is trained, or a little at a time while it is.

    In steps, the final widths are those that `qaudio.plan` gives for the network as training
    begins; at each step a layer's width goes an equal part of the way, and the filters that stay
    are chosen by the weights as they are by then. Moments of the optimizer and averaged weights
    (`WeightAveraging`) lose the same filters. A checkpoint holds widths and steps done, so a
    resumed run is the run that was not interrupted.

    Args:
        request: arguments of `qaudio.plan`.
        steps: 1 prunes at once; of more, each is at the start of an epoch, the first before
            training.
        share: of the epochs over which the steps are spread; the rest fine-tunes.
    """

    def __init__(self, request: dict[str, Any], steps: int, share: float = 0.5):
        if steps < 1 or not 0 < share <= 1:
            raise InputError(f"steps must be at least 1 and share in 0…1, not {steps} and {share}")
        self.request, self.steps, self.share = request, steps, share
        self.done = 0
        self.whole: Plan | None = None

    @property
    def final_widths(self) -> dict[str, int]:
        """Widths of the pruned layers at the end of pruning in steps; {} before it has begun."""
        return self.whole.after if self.whole else {}

    def before_training(self, net: AudioModel, batches: Callable[[], Batches]) -> AudioModel:
        """The network to begin with: pruned, or whole where it is pruned in steps.

        Args:
            batches: gives what criterion "taylor" looks at.
        """
        if self.steps > 1:
            return net
        data = batches() if self.request["criterion"] == "taylor" else None
        return prune(net, **self.request, data=data, seed=global_seed())

    def resizes_embedding(self, net: AudioModel) -> list[str]:
        """Layers whose pruning changes the size of the embedding while training goes on."""
        groups = select_groups(net, self.request["layers"]) if self.steps > 1 else []
        return [group.name for group in groups if "classifier" in group.consumers]

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        if stage != "fit" or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if trainer.world_size > 1:
            raise InputError("pruning in steps runs on one device: give --trainer.devices 1")
        epochs = trainer.max_epochs or 0
        if epochs < 0:
            raise InputError(
                "pruning in steps needs --trainer.max_epochs, to spread its steps over"
            )
        if epochs * self.share < self.steps:
            raise InputError(
                f"{self.steps} steps do not fit into {self.share:g} of {epochs} epochs: at least "
                f"{math.ceil(self.steps / self.share)} epochs are needed, or fewer steps"
            )

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        per_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        before = self._epoch(trainer, self.steps - 1) * per_epoch
        if 0 <= trainer.max_steps <= before:
            raise InputError(
                f"max_steps {trainer.max_steps} ends the training before its last pruning step, "
                f"which comes after {before}: give --trainer.max_steps -1, or fewer epochs"
            )
        if self.whole is None:
            data = self._batches(pl_module)
            self.whole = plan(pl_module.net, **self.request, data=data, seed=global_seed())

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        if self.done == self.steps or trainer.current_epoch < self._epoch(trainer, self.done):
            return
        assert self.whole is not None
        self.done += 1
        chosen = plan_widths(
            pl_module.net,
            self._widths(self.whole, pl_module.net.widths),
            criterion=self.whole.criterion,
            data=self._batches(pl_module),
            seed=global_seed(),
        )
        before = pl_module.net
        for module in (pl_module, *averaged(trainer)):
            module.adopt(prune(module.net, chosen))
        for optimizer in trainer.optimizers:
            follow(optimizer, before, pl_module.net, chosen)

    def _epoch(self, trainer: Trainer, step: int) -> int:
        """The epoch, from 0, at whose start a step, from 0, is due."""
        return int(step * self.share * (trainer.max_epochs or 0) / self.steps)

    def _widths(self, whole: Plan, present: dict[str, int]) -> dict[str, int]:
        """Widths of the pruned layers after the step that is due."""
        multiple, part = whole.request["multiple_of"], self.done / self.steps
        widths = {}
        for name in whole.kept:
            before, after = whole.before[name], whole.after[name]
            wanted = round((before + part * (after - before)) / multiple) * multiple
            widths[name] = after if part == 1 else min(present[name], max(wanted, after))
        return widths

    def _batches(self, pl_module: Any) -> Batches | None:
        return pl_module.first_batches() if self.request.get("criterion") == "taylor" else None

    def state_dict(self) -> dict[str, Any]:
        return {"done": self.done, "whole": self.whole and self.whole.to_json()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.done = state_dict["done"]
        self.whole = Plan.from_json(state_dict["whole"]) if state_dict["whole"] else None


def averaged(trainer: Trainer) -> list[Any]:
    """Copies of the module that callbacks keep averages in."""
    callbacks = [c for c in trainer.callbacks if isinstance(c, WeightAveraging)]  # type: ignore[attr-defined]
    return [c._average_model.module for c in callbacks if c._average_model is not None]


def take_averages(trainer: Trainer, module: LightningModule) -> None:
    """Put averaged weights in the place of the last ones.

    Lightning does so at the end of a training, but not where one is resumed that had reached it.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, WeightAveraging) and callback._average_model is not None:
            callback._copy_average_to_current(module)


def follow(
    optimizer: torch.optim.Optimizer, before: AudioModel, after: AudioModel, plan: Plan
) -> None:
    """Hand an optimizer the parameters of a pruned network, and cut its moments alike.

    Args:
        optimizer: of `before`'s parameters; others that it has stay.
        before: the network that the plan was made for.
        after: the network that the plan gave.
        plan: what stays.
    """
    names: dict[Tensor, str] = {parameter: name for name, parameter in before.named_parameters()}
    fresh = dict(after.named_parameters())
    moments: dict[str, dict[str, Tensor]] = {}
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if parameter in names and isinstance(value, Tensor) and value.shape == parameter.shape:
                moments.setdefault(key, {})[names[parameter]] = value
    for key, tensors in moments.items():
        moments[key] = slice_tensors(before, plan, tensors)
    for group in optimizer.param_groups:
        for n, parameter in enumerate(group["params"]):
            if parameter not in names:
                continue
            name = names[parameter]
            fresh[name].requires_grad_(parameter.requires_grad)
            state = optimizer.state.pop(parameter, {})
            cut = {key: tensors[name] for key, tensors in moments.items() if name in tensors}
            group["params"][n], optimizer.state[fresh[name]] = fresh[name], state | cut
