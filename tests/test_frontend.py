import time

import numpy as np
import pytest
import torch
import torchaudio
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from qaudio.frontend import Frontend, FrontendConfig, mel_bank, pad_to, resample
from tests.support import golden

N_FFT, HOP = 1024, 320


def make(kind: str = "logmel", **settings) -> Frontend:
    return Frontend(FrontendConfig(kind=kind, **settings))


def noise(*shape: int) -> torch.Tensor:
    return 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(0))


def power_by_hand(x: np.ndarray, n_fft: int = N_FFT, hop: int = HOP) -> np.ndarray:
    """Power spectrogram of x (T,): (frames, bins)."""
    padded = np.pad(x.astype(np.float64), n_fft // 2, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    starts = range(0, len(padded) - n_fft + 1, hop)
    frames = np.stack([window * padded[start : start + n_fft] for start in starts])
    return np.abs(np.fft.rfft(frames, axis=1)) ** 2


def mel_by_hand(power: np.ndarray, config: FrontendConfig) -> np.ndarray:
    bank = torchaudio.functional.melscale_fbanks(
        config.n_fft // 2 + 1,
        config.f_min,
        config.f_max,
        config.n_mels,
        config.sample_rate,
        norm="slaney",
        mel_scale="slaney",
    )
    return power @ bank.double().numpy()


def decibels(mel: np.ndarray) -> np.ndarray:
    return 10 * np.log10(np.maximum(mel, 1e-10))


def delta_by_hand(x: np.ndarray, axis: int) -> np.ndarray:
    """Σ n·(x[t+n] − x[t−n]) / 10 for n = 1, 2; the edge values are repeated."""
    x = np.moveaxis(x, axis, 0)
    last = len(x) - 1
    delta = np.zeros_like(x)
    for t in range(len(x)):
        for n in (1, 2):
            delta[t] += n * (x[min(t + n, last)] - x[max(t - n, 0)]) / 10
    return np.moveaxis(delta, 0, axis)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"n_fft": 512, "hop_length": 200, "n_mels": 40, "sample_rate": 16000, "f_max": 8000.0},
        {"n_fft": 511, "n_mels": 3},
        {"n_fft": 128, "n_mels": 30, "f_max": 700.0},  # most mel bins lie between two FFT bins
    ],
)
def test_logmel_matches_the_computation_by_hand(settings) -> None:
    frontend, x = make(**settings), noise(2, 5000)
    config = frontend.config
    result = frontend(x)
    assert frontend.channels == result.shape[1] == 1
    for clip, features in zip(x.numpy(), result[:, 0].numpy(), strict=True):
        power = power_by_hand(clip, config.n_fft, config.hop_length)
        np.testing.assert_allclose(features, decibels(mel_by_hand(power, config)), atol=2e-3)


def test_delta_channels_are_deltas_of_the_logmel_along_time() -> None:
    frontend, x = make("delta"), noise(2, 8000)
    result = frontend(x).numpy()
    assert frontend.channels == result.shape[1] == 4
    np.testing.assert_array_equal(result[:, 0], make("logmel")(x).numpy()[:, 0])
    expected = result[:, 0].astype(np.float64)
    for order in (1, 2, 3):
        expected = delta_by_hand(expected, axis=1)  # (B, frames, mels)
        np.testing.assert_allclose(result[:, order], expected, atol=1e-4)


def test_deltas_of_a_steady_sound_are_zero_and_of_a_swell_its_slope() -> None:
    period = noise(HOP)  # every frame holds the same samples, with energy in every mel bin
    inner = slice(12, -12)  # clear of the reflected edges
    steady = make("delta")(period.repeat(60)[None])[0, :, inner]
    assert steady[1:].abs().max() < 1e-3
    assert steady[0].diff(dim=1).abs().max() > 1  # while it does change along frequency
    step = 10 ** (0.25 / 20)  # each frame is the last one, a quarter of a decibel louder
    swell = torch.cat([period * 1e-2 * step**n for n in range(120)])
    swelling = make("delta")(swell[None])[0, :, inner]
    torch.testing.assert_close(swelling[1], torch.full_like(swelling[1], 0.25), rtol=0, atol=1e-2)
    assert swelling[2:].abs().max() < 1e-2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_in_another_precision_it_is_the_same_front_end(dtype) -> None:
    frontend, x = make("delta"), noise(1, 8000)
    expected = frontend(x)
    assert torch.equal(torch.nn.Sequential(frontend).to(dtype)[0](x), expected)
    assert {buffer.dtype for buffer in frontend.buffers()} == {torch.float32}


def test_published_deltas_run_along_frequency_before_mel_and_log() -> None:
    frontend, x = make("published"), noise(1, 8000)
    result = frontend(x)[0].double().numpy()
    assert frontend.channels == len(result) == 4
    power = power_by_hand(x[0].numpy())
    for order in range(4):
        mel = np.maximum(mel_by_hand(power, frontend.config), 1e-10)
        # Compared as power: the logarithm blows up the rounding of sums that nearly cancel.
        np.testing.assert_allclose(10 ** (result[order] / 10), mel, rtol=1e-3, atol=1e-6)
        power = delta_by_hand(power, axis=1)
    at_clamp = (result[1:] <= -99.99).mean()
    assert 0.35 < at_clamp < 0.6


@pytest.mark.parametrize("kind", ["logmel", "delta", "published"])
def test_silence_is_finite(kind) -> None:
    result = make(kind)(torch.zeros(1, 4000))
    assert result.isfinite().all()
    torch.testing.assert_close(result[:, 0], torch.full_like(result[:, 0], -100.0))
    if kind == "delta":
        assert not result[:, 1:].any()


@pytest.mark.parametrize("kind", ["logmel", "delta", "published"])
@pytest.mark.parametrize("samples", [513, 1024, 3199, 3200, 3201, 32000])
def test_number_of_frames(kind, samples) -> None:
    channels = 1 if kind == "logmel" else 4
    assert make(kind)(noise(2, samples)).shape == (2, channels, samples // HOP + 1, 64)


def test_a_sound_shorter_than_half_a_window_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 512 samples, not 512"):
        make()(noise(1, 512))


@pytest.mark.parametrize("kind", ["logmel", "delta", "published"])
def test_float32_under_autocast(kind) -> None:
    frontend, x = make(kind), noise(1, 4000)
    with torch.autocast("cpu", torch.bfloat16):
        result = frontend(x)
        rounded = frontend(x.bfloat16())
    assert result.dtype == rounded.dtype == torch.float32
    assert torch.equal(result, frontend(x))
    assert torch.equal(rounded, frontend(x.bfloat16().float()))


def test_float64_waveforms_are_taken() -> None:
    x = noise(1, 4000)
    assert torch.equal(make()(x.double()), make()(x))


def test_constants_are_not_stored_with_the_weights() -> None:
    assert make().state_dict() == {}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "mfcc"}, "kind must be one of .*logmel.*delta.*published.*'mfcc'"),
        ({"sample_rate": 0}, "sample_rate must be a positive integer, not 0"),
        ({"n_fft": -4}, "n_fft must be a positive integer, not -4"),
        ({"hop_length": 1.5}, "hop_length must be a positive integer, not 1.5"),
        ({"n_mels": "64"}, "n_mels must be a positive integer, not '64'"),
        ({"n_mels": True}, "n_mels must be a positive integer, not True"),
        ({"f_min": float("nan")}, "f_min must be a finite number of Hz, not nan"),
        ({"f_max": None}, "f_max must be a finite number of Hz, not None"),
        ({"f_min": -1.0}, "0 <= f_min < f_max <= sample_rate/2"),
        ({"f_min": 14000.0}, "0 <= f_min < f_max <= sample_rate/2"),
        ({"sample_rate": 16000}, "0 <= f_min < f_max <= sample_rate/2.*16000 Hz"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        FrontendConfig(**settings)


def test_config_goes_through_a_dict_and_back() -> None:
    config = FrontendConfig(kind="delta", sample_rate=22050, n_fft=512, n_mels=32, f_max=11025.0)
    assert FrontendConfig.from_dict(config.to_dict()) == config
    assert FrontendConfig.from_dict({}) == FrontendConfig()
    assert FrontendConfig().to_dict() == {
        "kind": "logmel",
        "sample_rate": 32000,
        "n_fft": 1024,
        "hop_length": 320,
        "n_mels": 64,
        "f_min": 50.0,
        "f_max": 14000.0,
    }
    with pytest.raises(ValueError, match="unknown frontend settings: hop, window"):
        FrontendConfig.from_dict({"window": "hann", "hop": 3, "n_mels": 64})


def test_resample_to_the_same_rate_gives_the_same_tensor() -> None:
    x = noise(3, 100)
    assert resample(x, 44100, 44100) is x


@pytest.mark.parametrize(
    ("source", "target", "samples"),
    [(8000, 32000, 8000), (48000, 32000, 4801), (44100, 32000, 44100), (22050, 32000, 7)],
)
def test_resample_keeps_the_duration(source, target, samples) -> None:
    shape = resample(noise(2, 3, samples), source, target).shape
    assert shape == (2, 3, -(-samples * target // source))


def test_resample_of_nothing_is_nothing() -> None:
    assert resample(torch.zeros(2, 0), 8000, 32000).shape == (2, 0)


def test_a_sine_stays_the_same_sine() -> None:
    def sine(rate: int) -> torch.Tensor:
        return torch.sin(2 * torch.pi * 440 * torch.arange(rate, dtype=torch.float64) / rate)

    up = resample(sine(8000), 8000, 32000)
    torch.testing.assert_close(up[500:-500], sine(32000)[500:-500], rtol=0, atol=5e-3)
    down = resample(sine(48000), 48000, 32000)
    torch.testing.assert_close(down[500:-500], sine(32000)[500:-500], rtol=0, atol=5e-3)


class LargestTensor(TorchDispatchMode):
    """Notes the largest tensor that operators made, in elements."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        made = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.elements = max([self.elements, *made])
        return result


@pytest.mark.parametrize("source", [44101, 47999, 31999])
def test_odd_rates_need_little_time_and_memory(source) -> None:
    x = torch.sin(2 * torch.pi * 1000 * torch.arange(source) / source)
    start = time.process_time()
    with LargestTensor() as largest:
        result = resample(x, source, 32000)
    assert time.process_time() - start < 2
    assert largest.elements < 4_000_000
    spectrum = torch.fft.rfft(result * torch.hann_window(len(result)))
    peak = spectrum.abs().argmax() * 32000 / len(result)
    assert peak.item() == pytest.approx(1000, abs=1)


@pytest.mark.parametrize(("source", "target"), [(99, 32000), (32000, 0), (-8000, 32000)])
def test_rates_out_of_range_are_refused(source, target) -> None:
    with pytest.raises(ValueError, match="outside 100 Hz to 10 MHz"):
        resample(noise(1, 100), source, target)


@pytest.mark.parametrize("rate", [10_000_001, float("nan"), float("inf")])
def test_rates_that_no_header_should_hold_are_refused(rate) -> None:
    with pytest.raises(ValueError, match=r"sample rate .* Hz is outside 100 Hz to 10 MHz"):
        resample(noise(1, 100), rate, 32000)


def test_pad_to_appends_zeros_and_never_cuts() -> None:
    x = noise(2, 5)
    padded = pad_to(x, 8)
    assert torch.equal(padded[:, :5], x)
    assert not padded[:, 5:].any() and padded.shape == (2, 8)
    assert torch.equal(pad_to(x, 3), x)


@pytest.mark.parametrize("kind", ["delta", "efficientat"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_frontend_and_resample_are_the_same_under_any_default_dtype(dtype, kind):
    sound = torch.randn(2, 100_000)
    config = FrontendConfig.from_dict({"kind": kind})
    expected = resample(sound, 44100, 32000), Frontend(config)(sound)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtype)
        found = resample(sound, 44100, 32000), Frontend(config)(sound)
    finally:
        torch.set_default_dtype(before)
    for one, two in zip(found, expected, strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, two)


@pytest.mark.parametrize("kind", ["delta", "efficientat"])
def test_mel_bank_and_bands_are_the_same_on_any_default_device(kind):
    config = FrontendConfig.from_dict({"kind": kind})
    expected, bands = mel_bank(config), Frontend(config).bands
    with torch.device("meta"):
        assert torch.equal(mel_bank(config), expected)
        laid_out = Frontend(config)
    assert laid_out.bands == bands
    assert {buffer.device.type for buffer in laid_out.buffers()} == {"meta"}


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_resample_works_in_float32(kind):
    sound = (0.5 * torch.randn(1, 2, 44100)).to(kind)
    expected = resample(sound.float(), 44100, 32000)
    assert torch.equal(resample(sound, 44100, 32000), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(resample(sound.float(), 44100, 32000), expected)


def test_mel_bank_and_resample_are_torchaudios():
    for settings in (
        {},
        {"n_fft": 512, "n_mels": 32},
        {"sample_rate": 22050, "f_min": 0.0, "f_max": 11025.0},
    ):
        config = FrontendConfig(**settings)
        expected = torchaudio.functional.melscale_fbanks(
            config.n_fft // 2 + 1, config.f_min, config.f_max, config.n_mels, config.sample_rate,
            norm="slaney", mel_scale="slaney",
        )  # fmt: skip
        assert torch.equal(mel_bank(config), expected)
    for settings in (
        {"n_mels": 128, "f_min": 0.0, "f_max": 15000.0},
        {"n_fft": 512, "f_max": 16000.0},
        {"n_fft": 400, "sample_rate": 22050, "f_max": 11025.0},
    ):
        config = FrontendConfig(mel_scale="kaldi", **settings)
        expected, _ = torchaudio.compliance.kaldi.get_mel_banks(
            config.n_mels, config.n_fft, float(config.sample_rate), config.f_min, config.f_max,
            100.0, -500.0, 1.0,
        )  # fmt: skip
        assert torch.equal(mel_bank(config)[:-1].T, expected)
        assert not mel_bank(config)[-1].any()  # at half the sample rate
    sound = torch.randn(3, 2, 12_345)
    for down, up in ((441, 320), (1, 4), (3, 2), (2, 3)):
        expected = torchaudio.functional.resample(sound, down, up)
        assert torch.equal(resample(sound, 1000 * down, 1000 * up), expected)


# EfficientAT's settings.


def efficientat(**settings) -> Frontend:
    return Frontend(FrontendConfig.from_dict({"kind": "efficientat"} | settings))


def test_efficientat_gives_the_features_of_the_authors_code() -> None:
    found = efficientat()(golden.sounds())[:, 0, :40].transpose(1, 2)
    expected = torch.from_numpy(golden.outputs("efficientat_frontend")["features"])
    assert (found - expected).abs().max() / expected.abs().max() < 1e-4


@pytest.mark.parametrize("samples", [1025, 8000, 32001])
def test_efficientat_matches_torchs_and_kaldis_functions(samples) -> None:
    x = noise(2, samples)
    emphasised = x[:, 1:] - 0.97 * x[:, :-1]
    window = torch.hann_window(800, periodic=False)
    spectrum = torch.stft(
        emphasised, 1024, 320, 800, window, center=True, return_complex=True
    )  # (2, bins, frames)
    bank, _ = torchaudio.compliance.kaldi.get_mel_banks(
        128, 1024, 32000.0, 0.0, 15000.0, 100.0, -500.0, 1.0
    )
    mels = bank @ spectrum.abs().square()[:, :-1]
    expected = ((mels + 1e-5).log() + 4.5) / 5
    torch.testing.assert_close(
        efficientat()(x)[:, 0], expected.transpose(1, 2), rtol=1e-4, atol=1e-4
    )


def test_settings_of_the_first_format_are_written_as_they_were() -> None:
    names = {"kind", "sample_rate", "n_fft", "hop_length", "n_mels", "f_min", "f_max"}
    assert set(FrontendConfig().to_dict()) == names
    assert set(FrontendConfig(preemphasis=0.9).to_dict()) == names | {"preemphasis"}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"n_mels": 64, "win_length": None},
        {"log_offset": None, "shift": 0.0, "scale": 1.0, "preemphasis": 0.0},
    ],
)
def test_settings_survive_their_own_json(settings) -> None:
    config = FrontendConfig.from_dict({"kind": "efficientat"} | settings)
    assert FrontendConfig.from_dict(config.to_dict()) == config


def test_deltas_follow_the_logarithm_that_is_set() -> None:
    plain = make("logmel", preemphasis=0.97, log_offset=1e-5, win_length=400)
    four = make("delta", preemphasis=0.97, log_offset=1e-5, win_length=400)
    x = noise(1, 8000)
    found = four(x)
    assert torch.equal(found[:, :1], plain(x))
    expected = delta_by_hand(found[0, 0].double().numpy(), axis=0)
    np.testing.assert_allclose(found[0, 1].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"win_length": 2000}, r"win_length must be 2 to n_fft \(1024\), not 2000"),
        ({"win_length": 512.0}, "win_length must be"),
        ({"preemphasis": 1.5}, "preemphasis must be 0 to 1, not 1.5"),
        ({"mel_scale": "htk"}, "mel_scale must be one of"),
        ({"log_offset": 0}, "log_offset must be"),
        ({"scale": 0}, "scale must be"),
        ({"shift": float("nan")}, "shift must be"),
    ],
)
def test_settings_of_the_logarithm_out_of_range_are_refused(settings, said) -> None:
    with pytest.raises(ValueError, match=said):
        FrontendConfig(**settings)
