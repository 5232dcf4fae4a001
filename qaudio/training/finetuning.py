"""Fine-tuning: which parts of a network learn, and the classifier that it begins with."""

from typing import Literal

import torch
from torch import nn

from qaudio.data.datamodule import AudioDataModule
from qaudio.data.split import Split
from qaudio.errors import InputError
from qaudio.evaluation.probe import GENTLE, fit_linear
from qaudio.models.base import AudioModel, evaluating
from qaudio.text import one_line
from qaudio.training.metrics import clip_means

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


def set_dropout(net: AudioModel, name: str, rate: float | None) -> None:
    """Set the rate of one of a network's dropouts; None leaves it, 0 also where it has none.

    Raises:
        ValueError: for another rate of a dropout that the network has not.
    """
    layer = getattr(net, name, None)
    if isinstance(layer, nn.Dropout) and rate is not None:
        layer.p = rate
    elif rate:
        raise InputError(f"{net.architecture} has no {name}: leave --model.{name} out")


def check_classes(source: str, net: AudioModel, labels: list[str], split: Split) -> None:
    """Raise InputError where a source that is scored untrained has other classes than the data."""
    # None: imported without their names
    if net.labels not in (labels, None) or net.num_classes != len(labels):
        own = ", ".join(net.labels or [f"{net.num_classes} without names"])
        raise InputError(
            f"{source} has other classes ({one_line(own, 80)}) than {split.dataset} "
            f"({one_line(', '.join(labels), 80)}), so there is nothing to score: fine-tune it "
            "(`qaudio train`), or give --ckpt_path"
        )


@torch.no_grad()
def probe_classifier(net: AudioModel, data: AudioDataModule) -> None:
    """Give a network the classifier that a linear probe of its own features finds.

    "Linear probing, then fine-tuning" (Kumar et al., ICLR 2022): a random classifier's first
    gradients would spoil what the network knows.

    Args:
        net: left in the mode that it is in.
        data: whose training clips are taken, without augmentation.
    """
    features, labels = [], []
    with evaluating(net) as view:
        for batch in data.whole_clips("training"):
            rows = view.hidden(view.embed(batch["waveform"].to(net.classifier.weight.device)))
            features.append(clip_means(rows.float().cpu(), batch))
            labels.append(batch["label"])
    weight, bias = fit_linear(
        torch.cat(features).numpy(), torch.cat(labels).numpy(), net.num_classes, **GENTLE
    )
    net.classifier.weight.copy_(torch.from_numpy(weight))
    net.classifier.bias.copy_(torch.from_numpy(bias))
