"""Log-mel statistics of a clip: the plain baseline, which needs no network."""

import torch
from torch import Tensor


def log_mel_statistics(features: Tensor, frames: int | None = None) -> Tensor:
    """Mean and standard deviation over time of each log-mel bin of a clip.

    Fed to a logistic regression, they are what a network has to beat.

    Args:
        features: front-end output of the clip's segments, (segments, channels, frames, n_mels),
            whose first channel is the log-mel spectrogram.
        frames: of each segment to look at, from its start; the others are padding. None: all.

    Returns:
        Means, then deviations (of the population), over the frames of all segments: (2 n_mels,).
    """
    rows = features[:, 0, :frames].float().flatten(0, 1)  # (segments * frames, n_mels)
    return torch.cat([rows.mean(0), rows.std(0, correction=0)])
