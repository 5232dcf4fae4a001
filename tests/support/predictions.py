"""Made predictions."""

import numpy as np

from qaudio.evaluation.predictions import Predictions


def made(seed=0, folds=(1, 2), seeds=(0,), clips=20, classes=4, skill=2.0) -> Predictions:
    """Predictions of every fold and seed: right more often the higher `skill` is."""
    rng, parts = np.random.default_rng(seed), None
    for s in seeds:
        for fold in folds:
            label = np.arange(clips) % classes
            logits = rng.standard_normal((clips, classes)) + skill * np.eye(classes)[label]
            names = [f"{fold}-{n}" for n in range(clips)]
            run = Predictions.of_run(fold, s, names, label, logits)
            parts = run if parts is None else parts.merged(run)
    return parts


def answered(right: int, clips: int = 9) -> Predictions:
    """Clips of three classes, of which the first so many are answered rightly."""
    label, numbers = np.arange(clips) % 3, np.arange(clips)
    answer = np.where(numbers < right, label, (label + 1) % 3)
    names = [str(n).zfill(len(str(clips - 1))) for n in numbers]
    return Predictions.of_run(1, 0, names, label, np.eye(3)[answer])


def tagged(clips=300, classes=3, seed=0, scale=1.0) -> Predictions:
    """Several classes in a clip, ranked not at random."""
    rng = np.random.default_rng(seed)
    label = (rng.random((clips, classes)) < 0.3).astype(np.int64)
    logits = scale * (label + rng.normal(0, 1, label.shape))
    return Predictions.of_run(1, 0, [f"{n:04}" for n in range(clips)], label, logits)
