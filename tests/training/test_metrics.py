import numpy as np
import torch
from sklearn.metrics import average_precision_score

from qaudio.training.metrics import clip_metric


def test_metrics_map_is_scikit_learns_over_the_classes_that_are_there():
    rng = np.random.default_rng(0)
    labels = (rng.random((60, 5)) < 0.3).astype(int)
    labels[:, 2] = 0
    logits = rng.standard_normal((60, 5)).astype(np.float32)
    metric = clip_metric("multilabel", 5)
    for part in range(0, 60, 20):
        rows = slice(part, part + 20)
        metric.update(torch.from_numpy(logits[rows]), torch.from_numpy(labels[rows]))
    kept = [0, 1, 3, 4]
    expected = average_precision_score(labels[:, kept], logits[:, kept])
    assert abs(metric.compute().item() - expected) < 1e-6


def test_metrics_accuracy_is_the_share_of_clips_not_of_classes():
    metric = clip_metric("multiclass", 2)
    metric.update(torch.tensor([[1.0, 0]] * 4), torch.tensor([0, 0, 0, 1]))
    assert metric.compute().item() == 0.75
