"""Metrics that are logged while training; entries are scored by `qaudio.zoo.results`."""

from __future__ import annotations

from typing import Literal

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


def validation_metric(task: Literal["multiclass", "multilabel"], classes: int) -> Metric:
    """Accuracy over clips, or mAP."""
    if task == "multilabel":
        return MeanAveragePrecision(classes)
    return MulticlassAccuracy(classes, average="micro")
