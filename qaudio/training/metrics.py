"""Metrics that are logged; entries are scored by `qaudio.evaluation.predictions`."""

from typing import Any, Literal

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MultilabelAveragePrecision
from torchmetrics.utilities.data import dim_zero_cat


class MeanAveragePrecision(MultilabelAveragePrecision):
    """Mean over the classes with a positive clip, as results.json has it; NaN without any.

    torchmetrics counts a class without positives as 0.
    """

    def __init__(self, classes: int):
        super().__init__(classes, average="none")

    def compute(self) -> Tensor:  # type: ignore[override]
        present = dim_zero_cat(self.target).sum(0) > 0
        return super().compute()[present].mean()


class ClipMean(Metric):
    """Mean over clips of a loss, over all processes.

    Lightning's own mean over processes rounds the number of clips, and torchmetrics' changes its
    state in place, which a later loop outside inference mode may not.
    """

    total: Tensor
    clips: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("clips", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, loss: Tensor, clips: int) -> None:
        """Add the mean loss of so many clips."""
        self.total, self.clips = self.total + loss * clips, self.clips + clips

    def compute(self) -> Tensor:
        return self.total / self.clips


def clip_metric(task: Literal["multiclass", "multilabel"], classes: int) -> Metric:
    """Accuracy over clips, or mAP."""
    if task == "multilabel":
        return MeanAveragePrecision(classes)
    return MulticlassAccuracy(classes, average="micro")


def clip_means(rows: Tensor, batch: dict[str, Any]) -> Tensor:
    """Means (clips, D) of what a batch's segments gave, (segments, D)."""
    return torch.stack([own.mean(0) for own in rows.split(batch["segments"])])
