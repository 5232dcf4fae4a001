from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from qaudio.data.benchmarks.ravdess import EMOBOX, EMOTIONS, RAVDESS, speech_names
from qaudio.errors import DataError
from tests.support.loaders import ids

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"


def file_of(name, extension=".wav"):
    return f"Actor_{name[-2:]}/{name}{extension}"


def actor(clip_id):
    return int(clip_id.split("-")[-1])


@pytest.fixture
def tree(sound_tree):
    """The whole of RAVDESS speech, by name."""
    return sound_tree("RAVDESS", [file_of(name) for name in speech_names()])


@pytest.fixture
def small(sound_tree):
    """Two emotions of each actor, a clip each."""
    names = [n for n in speech_names() if n[6:17] in ("03-01-01-01", "05-01-01-01")]
    return sound_tree("small", [file_of(name) for name in names])


def test_names_labels_and_counts(tree):
    clips, labels = RAVDESS(str(tree)).read_clips()
    assert labels == list(EMOTIONS)
    assert len(clips) == len({clip.id for clip in clips}) == 1440
    assert Counter(actor(clip.id) for clip in clips) == dict.fromkeys(range(1, 25), 60)
    counts = Counter(labels[clip.label] for clip in clips)
    assert counts == dict.fromkeys(EMOTIONS, 192) | {"neutral": 96}
    assert all(clip.path == tree / file_of(clip.id) and clip.path.is_file() for clip in clips)
    one = next(clip for clip in clips if clip.id == "03-01-06-01-02-01-12")
    assert (labels[one.label], one.fold) == ("fearful", 2)


def test_emobox_folds_are_the_published_ones(tree):
    data = RAVDESS(str(tree))
    clips, _ = data.read_clips()
    assert Counter(clip.fold for clip in clips) == dict.fromkeys(range(1, 7), 240)
    actors = {fold: {actor(c.id) for c in clips if c.fold == fold} for fold in range(1, 7)}
    assert actors == {
        1: {1, 11, 20, 21}, 2: {4, 10, 12, 14}, 3: {8, 9, 19, 23}, 4: {3, 5, 7, 24},
        5: {2, 15, 16, 18}, 6: {6, 13, 17, 22},
    }  # fmt: skip
    assert sorted(one for group in EMOBOX for one in group) == list(range(1, 25))
    assert (data.split.folds, data.split.benchmark) == (6, "ravdess")
    assert "EmoBox" in data.split.protocol


def test_leaving_one_actor_out(tree):
    data = RAVDESS(str(tree), protocol="actors", fold=24)
    clips, _ = data.read_clips()
    assert all(clip.fold == actor(clip.id) for clip in clips)
    assert data.split.folds == 24
    assert data.split.protocol != RAVDESS(str(tree)).split.protocol


@pytest.mark.parametrize(("protocol", "folds"), [("emobox", 6), ("actors", 24)])
@pytest.mark.filterwarnings("ignore:.*left out")
def test_no_actor_is_on_both_sides(small, protocol, folds):
    tested = []
    for fold in range(1, folds + 1, 1 if folds == 6 else 8):
        for holdout in ("test", "validation"):
            data = RAVDESS(
                str(small), protocol=protocol, fold=fold, holdout=holdout, sample_rate=8000,
                seconds=0.1,
            )  # fmt: skip
            data.setup()
            train = {actor(name) for name in ids(data.train_dataloader())}
            loader = data.test_dataloader if holdout == "test" else data.val_dataloader
            scored = {actor(name) for name in ids(loader())}
            assert scored
            assert train
            assert not train & scored
            held = {actor(clip.id) for clip in data.read_clips()[0] if clip.fold == fold}
            assert not train & held
            if holdout == "test":
                tested += scored
    assert len(tested) == len(set(tested))
    assert len(tested) == (24 if folds == 6 else 3)


def test_what_can_be_used_is_used_and_the_rest_named(small):
    clips = sorted((small / "Actor_02").iterdir())
    clips[0].rename(clips[0].with_suffix(".WAV"))
    samples = 0.1 * np.random.default_rng(0).standard_normal((2000, 2))
    clips[1].unlink()
    soundfile.write(clips[1].with_suffix(".flac"), samples, 48000)  # stereo, other rate and length
    third = sorted((small / "Actor_03").iterdir())
    third[0].unlink()
    third[0].write_text("no sound")
    extras = ("03-01-05-01-01-01-25.wav", "my take.wav", "03-02-05-01-01-01-02.wav", "README.txt",
              "01-01-05-01-01-01-02.wav")  # fmt: skip
    for name in extras:
        (small / "Actor_02" / name).write_text("extra")
    data = RAVDESS(str(small), sample_rate=8000, seconds=0.1)
    with pytest.warns(UserWarning, match=r"clips left out: .*and \d+ more"):
        data.setup()
    used = {*ids(data.train_dataloader()), *ids(data.test_dataloader())}
    assert len(used) == 47
    assert {path.stem for path in clips} <= used
    unused = [line for line in data.left_out if "no such file" not in line]
    assert len(unused) == 3  # songs and videos belong to the full release
    assert any(line.endswith("my take.wav: not a name of RAVDESS") for line in unused)
    assert any("-25.wav: not a name of RAVDESS" in line for line in unused)
    assert any(third[0].name in line and "not a readable" in line for line in unused)
    assert len(data.left_out) == len(set(data.left_out)) == 1440 - 47 + 2


def test_folders_between_and_copies(small):
    inner = small / "Audio_Speech_Actors_01-24"
    inner.mkdir()
    (small / "Actor_01").rename(inner / "Actor_01")
    clips, _ = RAVDESS(str(small)).read_clips()
    assert sum(clip.path.is_file() for clip in clips) == 48


def test_a_folder_without_speech_says_what_is_expected(sound_tree):
    root = sound_tree("songs", ["Actor_01/03-02-01-01-01-01-01.wav"])
    with pytest.raises(DataError, match=r"no RAVDESS speech under .*Actor_01/03-01-01-"):
        RAVDESS(str(root)).read_clips()


@pytest.mark.filterwarnings("ignore:.*left out")
def test_actors_of_one_fold_alone_are_an_error_before_training(sound_tree):
    names = [name for name in speech_names() if actor(name) in EMOBOX[0]][::20]
    root = sound_tree("one", [file_of(name) for name in names])
    data = RAVDESS(str(root), sample_rate=8000)
    with pytest.raises(DataError, match=r"no usable training clips .*expected Actor_01/03-01"):
        data.setup()


def test_unknown_protocols_are_refused():
    with pytest.raises(ValueError, match="protocol must be one of emobox, actors"):
        RAVDESS(protocol="random")


@pytest.mark.skipif(not (DATA / "RAVDESS").is_dir(), reason="needs ../shared/data/RAVDESS")
def test_real_ravdess_is_complete():
    data = RAVDESS(str(DATA / "RAVDESS"))
    clips, labels = data.read_clips()
    assert data.left_out == []
    assert len(clips) == 1440
    assert all(clip.path.is_file() for clip in clips)
    assert len({actor(clip.id) for clip in clips}) == 24
    assert len({labels[clip.label] for clip in clips}) == 8


@pytest.mark.skipif(not (DATA / "RAVDESS_48k").is_dir(), reason="needs ../shared/data/RAVDESS_48k")
def test_real_files_as_published_load_stereo_ones_too():
    data = RAVDESS(str(DATA / "RAVDESS_48k"), fold=1, sample_rate=16000)
    with pytest.warns(UserWarning, match="1433 clips left out"):
        data.setup()
    channels = {}
    for batch in [*data.train_dataloader(), *data.test_dataloader()]:
        assert batch["waveform"].shape[1] == 5 * 16000
        channels |= dict.fromkeys(batch["id"], 0)
    assert len(channels) == 7
    paths = [clip.path for clip in data.read_clips()[0] if clip.id in channels]
    assert sum(soundfile.info(path).channels == 2 for path in paths) == 5
