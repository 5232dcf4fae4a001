import shutil
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from lightning.pytorch.trainer.states import TrainerFn

from qaudio.data import audio
from qaudio.data.augment import WaveformAugment
from qaudio.data.benchmarks.esc50 import ESC50
from qaudio.errors import DataError
from tests.support.loaders import ids

RATE = 8000


def module(root, **settings):
    defaults = {"fold": 1, "seconds": 0.5, "batch_size": 8, "sample_rate": RATE, "seed": 1}
    data = ESC50(str(root), **defaults | settings)
    data.setup()
    return data


def folds(loader):
    return {int(name.split("-")[0]) for name in ids(loader)}


def epoch(data, number):
    """The training batches of an epoch."""
    loader = data.train_dataloader()
    loader.sampler.set_epoch(number)  # as Lightning does
    return list(loader)


def equal(left, right):
    return len(left) == len(right) and all(
        one["id"] == two["id"]
        and torch.equal(one["waveform"], two["waveform"])
        and torch.equal(one["label"], two["label"])
        and torch.equal(one["seed"], two["seed"])
        for one, two in zip(left, right, strict=True)
    )


# What is trained on, what is scored.


@pytest.mark.parametrize("fold", range(1, 6))
def test_training_never_holds_a_clip_of_the_test_fold(esc50_tree, fold):
    data = module(esc50_tree, fold=fold)
    assert folds(data.train_dataloader()) == {1, 2, 3, 4, 5} - {fold}
    assert folds(data.test_dataloader()) == {fold}
    assert data.val_dataloader() == []
    assert (data.split.fold, data.split.scored, data.split.folds) == (fold, fold, 5)


@pytest.mark.parametrize("fold", range(1, 6))
def test_validation_leaves_the_test_fold_alone(esc50_tree, fold):
    data = module(esc50_tree, fold=fold, holdout="validation")
    following = fold % 5 + 1
    assert folds(data.train_dataloader()) == {1, 2, 3, 4, 5} - {fold, following}
    assert folds(data.val_dataloader()) == {following}
    assert (data.split.fold, data.split.scored) == (fold, following)
    with pytest.raises(DataError, match="leaves the test fold alone"):
        data.test_dataloader()


def test_every_clip_is_scored_once_in_order_without_a_change(esc50_tree):
    data = module(esc50_tree, augment=WaveformAugment(roll=1.0, gain_db=6.0))
    scored = list(data.test_dataloader())
    assert ids(scored) == [clip.id for clip in data.read_clips()[0] if clip.fold == 1]
    assert [len(batch["id"]) for batch in scored] == [8]
    for name, waveform in zip(scored[0]["id"], scored[0]["waveform"], strict=True):
        samples, _ = audio.read(esc50_tree / "audio" / f"{name}.wav")
        assert np.array_equal(waveform.numpy(), samples[: RATE // 2])


def test_every_training_clip_comes_once_an_epoch(esc50_tree):
    data = module(esc50_tree)
    names = ids(epoch(data, 0))
    assert len(names) == len(set(names)) == 32


def test_labels_are_those_of_the_clips(esc50_tree):
    data = module(esc50_tree, esc10=True)
    numbers = {0: "dog", 10: "rain", 38: "clock_tick"}
    for batch in epoch(data, 0):
        for name, label in zip(batch["id"], batch["label"], strict=True):
            assert data.labels[label] == numbers[int(name.split("-")[3])]


def test_whole_clips_come_one_at_a_time(esc50_tree):
    long = next((esc50_tree / "audio").glob("1-*"))
    soundfile.write(long, np.zeros(3 * RATE), RATE)
    lengths = {
        len(batch["waveform"][0])
        for batch in module(esc50_tree, seconds=None).test_dataloader()
        if len(batch["id"]) == 1
    }
    assert lengths == {RATE, 3 * RATE}


def test_a_last_batch_of_one_is_dropped_in_training_only(esc50_tree):
    """BatchNorm has no variance of one clip."""
    data = module(esc50_tree, batch_size=31)  # 32 training clips
    assert [len(batch["id"]) for batch in epoch(data, 0)] == [31]
    assert (
        sum(len(batch["id"]) for batch in module(esc50_tree, batch_size=7).test_dataloader()) == 8
    )


def test_a_lone_clip_is_trained_on(esc50_tree):
    for path in (esc50_tree / "audio").iterdir():
        if path.name[0] != "1" and path.name != "2-2000-A-0.wav":
            path.unlink()
    with pytest.warns(UserWarning, match="left out"):
        data = module(esc50_tree)
    for size in (1, 8):
        data.batch_size = size
        assert [len(batch["id"]) for batch in epoch(data, 0)] == [1]


def heard_by(rate):
    return SimpleNamespace(
        lightning_module=SimpleNamespace(sample_rate=rate), world_size=1, global_rank=0
    )


def test_rate_is_the_models_or_asked_for(esc50_tree):
    data = ESC50(str(esc50_tree), seconds=1.0, seed=1)
    with pytest.raises(ValueError, match="sample_rate"):
        data.setup()
    for rate in (RATE, 16000, RATE):  # of one model after the other
        data.trainer = heard_by(rate)
        data.setup()
        assert {batch["waveform"].shape[1] for batch in epoch(data, 0)} == {rate}
        assert not data.pads


def test_another_rate_than_the_models_is_refused(esc50_tree):
    data = ESC50(str(esc50_tree), sample_rate=RATE)
    data.trainer = heard_by(32000)
    with pytest.raises(DataError, match="sample_rate is 8000 Hz, but the model hears 32000 Hz"):
        data.setup()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"seconds": 0.0}, "seconds must be above 0 and at most 3600"),
        ({"seconds": -1.0}, "seconds must be above 0"),
        ({"seconds": float("inf")}, "seconds must be above 0"),
        ({"seconds": 1e29}, "seconds must be above 0"),
        ({"seconds": 5.0, "segment_hop": 1e-9}, "segment_hop must be at most seconds"),
        ({"seed": -1}, "seed must be at least 0, not -1"),
    ],
)
def test_settings_out_of_range_are_refused(esc50_tree, settings, message):
    with pytest.raises(ValueError, match=message):
        ESC50(str(esc50_tree), **settings)


@pytest.mark.parametrize("fold", [0, 6, -1])
def test_a_fold_that_does_not_exist_is_refused_before_anything_is_read(esc50_tree, fold):
    with pytest.raises(DataError, match=f"fold must be 1 to 5 .*not {fold}"):
        module(esc50_tree / "nowhere", fold=fold)


def test_an_unknown_holdout_is_refused(esc50_tree):
    with pytest.raises(ValueError, match="holdout"):
        ESC50(str(esc50_tree), holdout="train")


# Order and augmentation are functions of (seed, epoch, clip).

AUGMENT = WaveformAugment(roll=1.0, gain_db=6.0, speed=0.1, noise_db=-30.0, flip=True)


def test_two_modules_give_the_same_epoch(esc50_tree):
    torch.manual_seed(1)
    np.random.seed(1)
    first = epoch(module(esc50_tree, augment=AUGMENT), 3)
    torch.manual_seed(2)
    np.random.seed(2)
    assert equal(first, epoch(module(esc50_tree, augment=AUGMENT), 3))


def test_an_epoch_does_not_depend_on_those_before_it(esc50_tree):
    data, fresh = module(esc50_tree, augment=AUGMENT), module(esc50_tree, augment=AUGMENT)
    for number in range(3):
        epoch(data, number)
    assert equal(epoch(data, 3), epoch(fresh, 3))


def test_epochs_and_seeds_differ_in_order_and_in_augmentation(esc50_tree):
    def by_id(batches):
        return {n: w for b in batches for n, w in zip(b["id"], b["waveform"], strict=True)}

    third = epoch(module(esc50_tree, augment=AUGMENT), 3)
    for other in (
        epoch(module(esc50_tree, augment=AUGMENT), 4),
        epoch(module(esc50_tree, augment=AUGMENT, seed=2), 3),
    ):
        assert ids(other) != ids(third)
        assert sorted(ids(other)) == sorted(ids(third))
        theirs = by_id(other)
        assert not any(torch.equal(w, theirs[name]) for name, w in by_id(third).items())


def test_the_center_of_a_longer_clip_is_scored_when_asked(esc50_tree):
    whole = next(iter(module(esc50_tree, seconds=None).test_dataloader()))["waveform"]
    part = module(esc50_tree, seconds=0.25, crop="center", batch_size=1).test_dataloader()
    size = round(0.25 * RATE)
    start = (whole.shape[1] - size) // 2
    assert torch.equal(next(iter(part))["waveform"], whole[:, start : start + size])
    with pytest.raises(ValueError, match="crop must be"):
        module(esc50_tree, crop="end")


def test_crops_are_drawn_anew_each_epoch(esc50_tree):
    data = module(esc50_tree)
    first = {n: w for b in epoch(data, 0) for n, w in zip(b["id"], b["waveform"], strict=True)}
    second = {n: w for b in epoch(data, 1) for n, w in zip(b["id"], b["waveform"], strict=True)}
    assert not all(torch.equal(first[name], second[name]) for name in first)


def test_workers_change_nothing(esc50_tree):
    alone = epoch(module(esc50_tree, augment=AUGMENT), 3)
    data = module(esc50_tree, augment=AUGMENT, num_workers=2)
    loader = data.train_dataloader()
    # Workers persist, so the epoch must reach those that are already running.
    for number in (2, 3):
        loader.sampler.set_epoch(number)
        batches = list(loader)
    assert equal(alone, batches)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_goes_on_where_it_was_left(esc50_tree, workers):
    whole = epoch(module(esc50_tree, augment=AUGMENT), 3)
    loader = module(esc50_tree, augment=AUGMENT, num_workers=workers).train_dataloader()
    loader.sampler.set_epoch(3)
    batches = iter(loader)
    first = [next(batches), next(batches)]
    fresh = module(esc50_tree, augment=AUGMENT, num_workers=workers).train_dataloader()
    fresh.sampler.set_epoch(3)
    fresh.load_state_dict(loader.state_dict())
    rest = list(fresh)
    assert equal(first + rest, whole)
    fresh.load_state_dict(loader.state_dict())
    fresh.sampler.set_epoch(4)  # another epoch begins at its beginning
    assert len(list(fresh)) == len(whole)


def test_weights_of_another_split_are_not_trained_on(esc50_tree):
    """What was trained on fold 1's training clips has seen fold 2, which is held out then."""
    kept = module(esc50_tree, fold=1).state_dict()
    for fold, fn, refused in (
        (2, TrainerFn.FITTING, True), (2, TrainerFn.TESTING, False), (1, TrainerFn.FITTING, False)
    ):  # fmt: skip
        data = module(esc50_tree, fold=fold)
        data.trainer = SimpleNamespace(
            state=SimpleNamespace(fn=fn), lightning_module=SimpleNamespace(sample_rate=data._rate())
        )
        if refused:
            with pytest.raises(DataError, match="fold 1, not 2; scored 1, not 2"):
                data.load_state_dict(kept)
        else:
            data.load_state_dict(kept)
    data.load_state_dict({})  # of a version that did not say


def test_batches_for_a_criterion_leave_the_training_where_it_is(esc50_tree):
    data = module(esc50_tree)
    loader = data.train_dataloader()
    loader.sampler.set_epoch(2)
    next(iter(loader))
    before = data.state_dict()
    assert len(data.first_batches(2)) == 2
    assert data.state_dict() == before != {}


def test_a_module_says_whether_it_pads(esc50_tree):
    data = module(esc50_tree, seconds=0.5)
    assert not data.pads
    assert module(esc50_tree, seconds=60.0).pads
    assert not module(esc50_tree, seconds=None).pads


def test_the_seed_is_lightnings_where_none_is_given(esc50_tree, monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    assert equal(epoch(module(esc50_tree, seed=None), 0), epoch(module(esc50_tree, seed=7), 0))


# Files that are not as they should be.


def spoil(root):
    """Five clips of fold 2 changed; the names of the two that cannot be used."""
    clips = sorted((root / "audio").glob("2-*"))
    clips[0].unlink()
    clips[1].write_text("not a sound")
    upper = clips[2].with_suffix(".WAV")
    clips[2].rename(upper)
    index = root / "meta" / "esc50.csv"
    index.write_text(index.read_text().replace(clips[2].name, upper.name))
    soundfile.write(clips[3], 0.1 * np.ones((RATE, 2)), RATE)
    soundfile.write(clips[4], 0.1 * np.ones(2 * 44100), 44100)
    return clips[0].name, clips[1].name


def test_usable_clips_are_used_and_the_others_named_once(esc50_tree):
    missing, undecodable = spoil(esc50_tree)
    data = ESC50(str(esc50_tree), seconds=0.5, sample_rate=RATE, seed=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data.prepare_data()
        data.setup("fit")
        data.setup("test")
    told = [str(w.message) for w in caught if "left out" in str(w.message)]
    assert len(told) == 1
    assert told[0].startswith("2 clips left out: ")
    assert f"{missing}: no such file" in told[0]
    assert f"{undecodable}: not a readable sound file" in told[0]
    names = ids(data.train_dataloader())
    assert len(names) == 30
    assert not {missing[:-4], undecodable[:-4]} & set(names)
    changed = {path.stem for path in sorted((esc50_tree / "audio").glob("2-*"))[1:4]}
    assert changed <= set(names)
    assert all(batch["waveform"].shape[1] == RATE // 2 for batch in data.train_dataloader())


@pytest.mark.parametrize("keep", ["nothing", "the scored fold", "the training folds"])
def test_nothing_left_to_train_on_or_score_is_an_error(esc50_tree, keep):
    for clip in (esc50_tree / "audio").iterdir():
        scored = clip.name.startswith("1-")
        if keep == "nothing" or scored == (keep == "the training folds"):
            clip.unlink()
    data = ESC50(str(esc50_tree), sample_rate=RATE)
    role = "scored" if keep == "the training folds" else "training"
    for _ in range(2):  # a second call must not take the half for the whole
        with (
            pytest.warns(UserWarning, match="left out"),
            pytest.raises(DataError, match=f"no usable {role} clips under {esc50_tree}"),
        ):
            data.setup()


def test_a_missing_audio_folder_is_an_error(esc50_tree):
    shutil.rmtree(esc50_tree / "audio")
    with (
        pytest.warns(UserWarning, match="40 clips left out"),
        pytest.raises(DataError, match="no usable training clips"),
    ):
        module(esc50_tree)


def test_clips_are_decoded_once(esc50_tree, monkeypatch):
    module(esc50_tree)
    monkeypatch.setattr(audio, "load", lambda *arguments: pytest.fail("decoded again"))
    epoch(module(esc50_tree), 0)
