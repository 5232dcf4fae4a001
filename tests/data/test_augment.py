import numpy as np
import pytest
import torch

from qaudio.data.augment import (
    Mixup,
    SpecAugment,
    WaveformAugment,
    fit_length,
    global_seed,
    item_seed,
    one_hot,
)


@pytest.fixture
def sound():
    return np.random.default_rng(0).standard_normal(8000).astype(np.float32)


ALL = {
    "roll": {"roll": 1.0},
    "gain": {"gain_db": 6.0},
    "speed": {"speed": 0.1},
    "noise": {"noise_db": -30.0},
    "flip": {"flip": True},
    "together": {"roll": 0.5, "gain_db": 3.0, "speed": 0.2, "noise_db": -40.0, "flip": True},
}


def apply(settings, sound, seed):
    return WaveformAugment(**settings)(sound, np.random.default_rng(seed))


@pytest.mark.parametrize("settings", ALL.values(), ids=ALL)
def test_waveform_changes_are_a_function_of_the_generator(sound, settings):
    before = sound.copy()
    results = [apply(settings, sound, seed) for seed in range(8)]
    np.random.seed(1)
    torch.manual_seed(1)
    for seed, result in enumerate(results):
        assert result.dtype == np.float32
        assert np.array_equal(result, apply(settings, sound, seed))
    assert any(not np.array_equal(results[0], result) for result in results[1:])
    assert np.array_equal(sound, before)  # it may be a memory-mapped cache file


def test_no_change_by_default(sound):
    assert np.array_equal(apply({}, sound, 0), sound)


def test_roll_rotates_by_at_most_half_its_share_each_way(sound):
    shifts = []
    for seed in range(40):
        rolled = apply({"roll": 0.1}, sound, seed)
        shift = int(np.flatnonzero(rolled == sound[0])[0])
        assert np.array_equal(np.roll(rolled, -shift), sound)
        shifts.append(shift if shift < 4000 else shift - 8000)
    assert -400 <= min(shifts) < -200 < 200 < max(shifts) <= 400


def test_gain_scales(sound):
    levels = []
    for seed in range(40):
        louder = apply({"gain_db": 6.0}, sound, seed)
        level = louder[0] / sound[0]
        assert np.allclose(louder, level * sound)
        levels.append(20 * np.log10(level))
    assert -6.001 <= min(levels) < -3 < 3 < max(levels) <= 6.001


def test_speed_changes_length_and_pitch_by_its_share():
    rate = 8000
    tone = np.sin(2 * np.pi * 1000 * np.arange(rate) / rate).astype(np.float32)
    lengths = []
    for seed in range(30):
        faster = apply({"speed": 0.1}, tone, seed)
        peak = np.abs(np.fft.rfft(faster * np.hanning(len(faster)))).argmax() * rate / len(faster)
        assert peak == pytest.approx(1000 * rate / len(faster), rel=2e-3)
        lengths.append(len(faster))
    # Played at 90 to 110 % of its speed.
    assert rate / 1.1 - 1 < min(lengths) < 0.95 * rate
    assert 1.05 * rate < max(lengths) < rate / 0.9 + 1
    assert min(lengths) < 0.95 * rate < 1.05 * rate < max(lengths)


def test_noise_has_its_level():
    silence = np.zeros(8000, np.float32)
    levels = [20 * np.log10(apply({"noise_db": -40.0}, silence, seed).std()) for seed in range(40)]
    assert -80.5 <= min(levels) < -60 < max(levels) <= -39.5


def test_flip_turns_about_half_of_the_clips(sound):
    flipped = [apply({"flip": True}, sound, seed)[0] == -sound[0] for seed in range(100)]
    assert 30 <= sum(flipped) <= 70
    assert all(
        np.array_equal(apply({"flip": True}, sound, seed), -sound if turned else sound)
        for seed, turned in enumerate(flipped)
    )


# SpecAugment.


@pytest.fixture
def features():
    return torch.randn(16, 4, 50, 32, generator=torch.Generator().manual_seed(0))


def mask(augment, features, seed=0):
    return augment(features, torch.Generator().manual_seed(seed))


def test_spec_augment_is_a_function_of_its_generator(features):
    before = features.clone()
    first = mask(SpecAugment(), features)
    torch.manual_seed(5)
    assert torch.equal(first, mask(SpecAugment(), features))
    assert not torch.equal(first, mask(SpecAugment(), features, seed=1))
    assert torch.equal(features, before)


@pytest.mark.parametrize("axis", ["time", "mel"])
def test_spec_augment_masks_bands_no_wider_than_stated(features, axis):
    settings = {"time_masks": 0, "mel_masks": 0, f"{axis}_masks": 1, f"{axis}_width": 0.3}
    length = features.shape[2 if axis == "time" else 3]
    widths = []
    for seed in range(10):
        masked = mask(SpecAugment(**settings), features, seed) != features
        lines = masked.transpose(2, 3) if axis == "mel" else masked  # (B, C, length, other)
        assert torch.equal(lines.any(3), lines.all(3))  # whole frames or mel bins
        band = lines.any(3)
        assert torch.equal(band, band[:, :1].expand_as(band))  # the same in every channel
        edges = (band[:, 0].int().diff(dim=1) == 1).sum(1) + band[:, 0, 0]
        assert edges.max() == 1  # in one piece
        widths += band[:, 0].sum(1).tolist()
    assert max(widths) <= 0.3 * length + 1
    assert max(widths) > 0.2 * length
    assert len(set(widths)) > 5  # each clip its own


def test_spec_augment_masks_with_the_clips_mean_in_that_channel(features):
    result = mask(SpecAugment(2, 0.3, 2, 0.3), features)
    changed = result != features
    assert changed.any(dim=(1, 2, 3)).all()
    mean = features.mean(dim=(2, 3), keepdim=True).expand_as(features)
    assert torch.equal(result[changed], mean[changed])


def test_spec_augment_masks_at_most_what_its_settings_say(features):
    share = (mask(SpecAugment(2, 0.1, 1, 0.1), features) != features).float().mean(dim=(1, 2, 3))
    assert (share <= 2 * (0.1 + 1 / 50) + (0.1 + 1 / 32)).all()


def test_spec_augment_without_masks_is_the_identity(features):
    assert torch.equal(mask(SpecAugment(time_masks=0, mel_masks=0), features), features)
    assert torch.equal(mask(SpecAugment(time_width=0.0, mel_width=0.0), features), features)


# Mixup.


def mix(settings, features, targets, seed=0):
    drawn = Mixup(**settings).draw(len(features), torch.Generator().manual_seed(seed))
    return drawn(features), drawn(targets)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_mixup_mixes_targets_as_it_mixes_features(alpha):
    # Clip n's features are its one-hot target, spread over a map: the mixture can be read back.
    targets = torch.eye(8)
    features = targets[:, :, None, None].expand(8, 8, 3, 5)
    mixed, labels = mix({"alpha": alpha}, features, targets)
    assert torch.allclose(labels.sum(1), torch.ones(8))
    assert torch.equal(mixed, labels[:, :, None, None].expand_as(mixed))
    assert (labels.diagonal() >= 0.5).all()  # a clip stays mostly itself
    assert ((labels > 0).sum(1) == 2).any()


def test_mixup_is_a_function_of_its_generator():
    features, targets = torch.randn(8, 2, 3), torch.eye(8)
    first = mix({"alpha": 1.0}, features, targets)
    np.random.seed(3)
    torch.manual_seed(3)
    again = mix({"alpha": 1.0}, features, targets)
    other = mix({"alpha": 1.0}, features, targets, seed=1)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])


@pytest.mark.parametrize("settings", [{"alpha": 0.0}, {"alpha": 1.0, "probability": 0.0}])
def test_mixup_switched_off_is_the_identity(settings):
    features, targets = torch.randn(8, 2, 3), torch.eye(8)
    mixed, labels = mix(settings, features, targets)
    assert torch.equal(mixed, features)
    assert torch.equal(labels, targets)


def test_mixup_mixes_the_stated_share():
    targets = torch.eye(400)
    _, labels = mix({"alpha": 1.0, "probability": 0.25}, targets, targets)
    assert 0.15 < ((labels > 0).sum(1) == 2).float().mean() < 0.35


# The rest.


def test_fit_length_without_a_generator_crops_and_pads_at_the_end(sound):
    assert np.array_equal(fit_length(sound, 100), sound[:100])
    assert np.array_equal(fit_length(sound, 8000), sound)
    assert np.array_equal(fit_length(sound, 100, crop="center"), sound[3950:4050])
    padded = fit_length(sound, 9000, crop="center")
    assert np.array_equal(padded[:8000], sound)
    assert padded.shape == (9000,)
    assert not padded[8000:].any()


def test_fit_length_with_a_generator_chooses_a_place():
    sound = np.arange(1, 101, dtype=np.float32)
    crops, pads = set(), set()
    for seed in range(300):
        crop = fit_length(sound, 90, np.random.default_rng(seed))
        assert np.array_equal(crop, np.arange(crop[0], crop[0] + 90))
        crops.add(int(crop[0]) - 1)
        padded = fit_length(sound, 110, np.random.default_rng(seed))
        place = int(padded.argmax()) - 99
        assert np.array_equal(padded[place : place + 100], sound)
        assert padded.sum() == sound.sum()
        pads.add(place)
        assert np.array_equal(fit_length(sound, 100, np.random.default_rng(seed)), sound)
    assert crops == pads == set(range(11))


def test_one_hot():
    assert torch.equal(one_hot(torch.tensor([2, 0]), 3), torch.tensor([[0, 0, 1.0], [1, 0, 0]]))
    many = torch.tensor([[0, 1, 1]])
    assert torch.equal(one_hot(many, 3), many.float())


def test_item_seed_differs_between_neighbours():
    seeds = {item_seed(s, e, c) for s in range(6) for e in range(6) for c in range(20)}
    assert len(seeds) == 6 * 6 * 20
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert item_seed(1, 2, 3) == item_seed(1, 2, 3)


def test_item_seed_tells_an_epoch_from_its_first_clip():
    """The order of an epoch and the changes of clip 0 must not come from one generator."""
    assert item_seed(1, 2) != item_seed(1, 2, 0)


def test_global_seed_is_lightnings(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "17")
    assert global_seed() == 17
    monkeypatch.delenv("PL_GLOBAL_SEED")
    assert global_seed() == 0


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        (WaveformAugment, {"speed": 1.0}, "speed must be 0 to 0.9, not 1.0"),
        (WaveformAugment, {"roll": 1.5}, "roll must be 0 to 1"),
        (WaveformAugment, {"gain_db": -1.0}, "gain_db must be 0 to 100"),
        (WaveformAugment, {"noise_db": float("nan")}, "noise_db must be -80 to 0"),
        (SpecAugment, {"time_masks": -1}, "time_masks must be 0 to 1000"),
        (SpecAugment, {"mel_width": 1.1}, "mel_width must be 0 to 1"),
        (Mixup, {"alpha": -0.1}, "alpha must be 0"),
        (Mixup, {"probability": 2.0}, "probability must be 0 to 1"),
    ],
)
def test_settings_out_of_range_are_refused(kind, settings, said):
    with pytest.raises(ValueError, match=f"{kind.__name__}: {said}"):
        kind(**settings)
