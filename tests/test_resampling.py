import numpy as np
import pytest
import torch

from qaudio.frontend import resample
from qaudio.resampling import resample_array, whole_ratio


@pytest.mark.parametrize(
    ("source", "target"),
    [(44100, 32000), (48000, 32000), (8000, 32000), (22050, 16000), (192000, 32000), (44101, 32000),
     (100, 32000), (10_000_000, 32000)],
)  # fmt: skip
@pytest.mark.parametrize("samples", [1, 7, 30001])
def test_arrays_are_resampled_as_tensors_are(source, target, samples):
    x = np.random.default_rng(0).standard_normal((2, samples)).astype(np.float32)
    expected = resample(torch.from_numpy(x), source, target).numpy()
    found = resample_array(x, source, target)
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 3e-6


def test_the_same_rate_gives_the_same_array():
    x = np.ones((1, 10), np.float32)
    assert resample_array(x, 44100, 44100) is x
    assert resample_array(np.empty((1, 0), np.float32), 8000, 32000).shape == (1, 0)


def test_ratios_are_small_whole_numbers():
    assert whole_ratio(44100, 32000) == (441, 320)
    assert max(whole_ratio(44101, 32000)) <= 1000


@pytest.mark.parametrize("slow", [100, 7000, 8000, 44101])
@pytest.mark.parametrize("fast", [96_000, 999_983, 9_000_000, 10_000_000])
def test_ratios_are_near(slow, fast):
    down, up = whole_ratio(fast, slow)
    assert down / up == pytest.approx(fast / slow, rel=1e-3)
    assert whole_ratio(slow, fast) == (up, down)
    assert down <= 1000 or up == 1


def test_rates_are_whole_numbers_of_any_type():
    assert whole_ratio(44100.0, np.int64(32000)) == (441, 320)
    with pytest.raises(ValueError, match=r"44100\.5 Hz is no whole number"):
        whole_ratio(44100.5, 32000)


@pytest.mark.parametrize("rates", [(99, 32000), (32000, 10_000_001)])
def test_rates_out_of_range_are_refused(rates):
    with pytest.raises(ValueError, match="100 Hz to 10 MHz"):
        whole_ratio(*rates)
