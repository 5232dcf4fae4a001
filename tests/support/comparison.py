"""Predictions and texts that entries are made of."""

import numpy as np

from qaudio.evaluation.predictions import Predictions

LABELS = ["dog", "rain", "clock_tick", "siren"]
HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>\"'$x_{$&"
HOSTILE_NAME = HOSTILE.replace("/", "")  # where no slash may be


def made(seed=0, skill=2.0, folds=(1, 2), clips=24, prefix="clip") -> Predictions:
    """Predictions of every fold, right more often the higher `skill` is."""
    rng, parts = np.random.default_rng(seed), None
    for fold in folds:
        label = np.arange(clips) % len(LABELS)
        logits = rng.standard_normal((clips, len(LABELS))) + skill * np.eye(len(LABELS))[label]
        run = Predictions.of_run(
            fold, 0, [f"{prefix}{fold}-{n:02}" for n in range(clips)], label, logits
        )
        parts = run if parts is None else parts.merged(run)
    return parts
