import numpy as np
import torch

from qaudio.evaluation.statistics import log_mel_statistics
from tests.support.networks import FRONTEND, noise, small_model


def test_log_mel_statistics_are_mean_and_deviation_of_each_bin_over_time() -> None:
    net = small_model("qcnn6_025", 3, frontend=FRONTEND)
    features = net.features(noise(1, 8000))  # log-mel, and its deltas
    found = log_mel_statistics(features).numpy()
    values = features[0, 0].numpy().astype(np.float64)
    mean = sum(values) / len(values)
    deviation = np.sqrt(sum((row - mean) ** 2 for row in values) / len(values))
    assert found.shape == (2 * FRONTEND["n_mels"],)
    np.testing.assert_allclose(found, np.concatenate([mean, deviation]), rtol=1e-4)


def test_log_mel_statistics_are_over_all_segments_and_no_padding() -> None:
    whole = torch.arange(24.0).reshape(1, 1, 12, 2)
    pieces = whole.reshape(3, 1, 4, 2)
    assert torch.allclose(log_mel_statistics(pieces), log_mel_statistics(whole))
    padded = torch.cat([whole, torch.full((1, 1, 5, 2), -100.0)], dim=2)
    assert torch.allclose(log_mel_statistics(padded, 12), log_mel_statistics(whole))
    assert not torch.allclose(log_mel_statistics(padded), log_mel_statistics(whole))
