from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from qaudio.data.benchmarks.gtzan import GENRES, GTZAN, dealt, filtered_split
from qaudio.data.split import TEST, TRAINING, VALIDATION
from qaudio.errors import DataError
from tests.support.loaders import ids

REAL = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "GTZAN"
NAMES = [f"{genre}.{number:05}" for genre in GENRES for number in range(100)]


def file_of(name, extension=".au"):
    return f"genres/{name.partition('.')[0]}/{name}{extension}"


@pytest.fixture
def tree(sound_tree):
    """The whole of GTZAN, by name."""
    return sound_tree("GTZAN", [file_of(name) for name in NAMES])


@pytest.fixture
def sample(sound_tree):
    """Ten clips of each genre."""
    names = [name for name in NAMES if name.endswith(("1", "5")) and name[-2] < "5"]
    return sound_tree("sample", [file_of(name, ".ogg") for name in names])


def small(root, **settings):
    defaults = {"protocol": "sample", "sample_rate": 8000, "seconds": 0.05, "segment_hop": 0.05,
                "seed": 0}  # fmt: skip
    return GTZAN(str(root), **defaults | settings)


def test_the_filtered_lists_are_the_published_ones():
    folds = filtered_split()
    assert Counter(folds.values()) == {TRAINING: 443, VALIDATION: 197, TEST: 290}
    assert set(folds) <= set(NAMES)
    assert folds["blues.00012"] == folds["rock.00039"] == TEST
    assert folds["jazz.00054"] == TRAINING


def test_filtered_clips_labels_and_parts(tree):
    data = GTZAN(str(tree))
    clips, labels = data.read_clips()
    assert labels == list(GENRES)
    assert Counter(clip.fold for clip in clips) == {TRAINING: 443, VALIDATION: 197, TEST: 290}
    assert all(clip.id.startswith(f"{labels[clip.label]}.") for clip in clips)
    assert all(clip.path == tree / file_of(clip.id) and clip.path.is_file() for clip in clips)
    assert (data.split.benchmark, data.split.folds, data.split.scored) == ("gtzan", 1, TEST)
    assert GTZAN(str(tree), holdout="validation").split.scored == VALIDATION


def test_ten_folds_are_stratified_and_named(tree):
    data = GTZAN(str(tree), protocol="10-fold")
    clips, _ = data.read_clips()
    assert len(clips) == 1000
    assert set(Counter((clip.label, clip.fold) for clip in clips).values()) == {10}
    assert data.split.folds == 10
    assert data.split.protocol != GTZAN(str(tree)).split.protocol
    # The rule must give these folds for ever.
    folds = {clip.id: clip.fold for clip in clips}
    assert [folds[f"blues.{n:05}"] for n in range(10)] == [9, 2, 9, 4, 7, 7, 8, 8, 3, 5]


def test_the_folds_do_not_depend_on_the_order_of_the_names():
    assert dealt(NAMES, 10) == dealt(NAMES[::-1], 10)


@pytest.mark.parametrize("protocol", ["filtered", "10-fold"])
def test_a_part_of_gtzan_is_refused_as_gtzan(sample, protocol):
    with pytest.raises(DataError, match=r"clips .* are missing .*--data\.protocol sample"):
        GTZAN(str(sample), protocol=protocol).read_clips()


@pytest.mark.parametrize("protocol", ["filtered", "10-fold"])
def test_one_missing_clip_is_one_too_many_but_for_the_one_that_never_decodes(tree, protocol):
    (tree / file_of("jazz.00054")).unlink()
    clips, _ = GTZAN(str(tree), protocol=protocol).read_clips()
    assert "jazz.00054" in {clip.id for clip in clips}  # named when it is opened
    (tree / file_of("blues.00012")).unlink()
    with pytest.raises(DataError, match=r"1 of the \d+ clips.*blues\.00012"):
        GTZAN(str(tree), protocol=protocol).read_clips()


@pytest.mark.parametrize(("protocol", "each"), [("sample", 2), ("sample-10-fold", 1)])
def test_the_sample_bears_its_own_name(sample, protocol, each):
    data = small(sample, protocol=protocol)
    clips, _ = data.read_clips()
    assert data.split.benchmark == "gtzan_sample"
    assert data.split.protocol.startswith("GTZAN sample (100 clips)")
    assert set(Counter((clip.label, clip.fold) for clip in clips).values()) == {each}


def test_the_whole_is_no_sample(tree):
    with pytest.raises(DataError, match="10 clips of each genre, here are blues 100"):
        small(tree).read_clips()


@pytest.mark.parametrize("folder", ["genres_original", "."])
def test_other_copies_layouts(sample, folder):
    (sample / "genres").rename(sample.parent / "moved")
    if folder != ".":
        sample.mkdir(exist_ok=True)
        (sample.parent / "moved").rename(sample / folder)
    root = sample if folder != "." else sample.parent / "moved"
    assert len(small(root).read_clips()[0]) == 100


def test_no_folder_says_what_is_expected(tmp_path):
    with pytest.raises(DataError, match=r"genres/GENRE/GENRE\.NNNNN\.au.*no licence"):
        GTZAN(str(tmp_path)).read_clips()


def test_unknown_protocols_are_refused():
    with pytest.raises(ValueError, match="protocol must be one of filtered"):
        GTZAN(protocol="random")


def test_what_can_be_used_is_used(sample):
    """An extra file, other extensions, one that does not decode, a stereo one, a longer one."""
    blues, jazz = sample / "genres" / "blues", sample / "genres" / "jazz"
    (blues / "._blues.00001.wav").write_text("left by a file system")
    (blues / "blues.00001 (copy).wav").write_text("extra")
    (blues / "notes.txt").write_text("extra")
    (blues / "blues.00005.ogg").rename(blues / "blues.00005.OGG")
    samples = 0.1 * np.random.default_rng(0).standard_normal((4000, 2))
    for name, given in (("jazz.00001", samples), ("jazz.00005", samples[:1000, 0])):
        (jazz / f"{name}.ogg").unlink()
        soundfile.write(jazz / f"{name}.wav", given, 8000)
    (jazz / "jazz.00011.ogg").unlink()
    (jazz / "jazz.00011.au").write_text("no sound")
    data = small(sample, segment_hop=None)
    with pytest.warns(UserWarning, match=r"2 clips left out: ") as told:
        data.setup()
    assert "blues.00001 (copy).wav: not a name of GTZAN" in str(told[0].message)
    assert "jazz.00011.au: holds no samples" in str(told[0].message)
    used = {*ids(data.train_dataloader()), *ids(data.test_dataloader())}
    assert len(used) == 99
    assert {"blues.00001", "blues.00005", "jazz.00001", "jazz.00005"} <= used


def test_segments_stay_on_their_clips_side(sample):
    clip = sample / "genres" / "rock" / "rock.00001.ogg"
    clip.unlink()
    soundfile.write(clip.with_suffix(".wav"), 0.1 * np.ones(2000), 8000)  # 5 segments, others 2
    for fold in range(1, 6):
        data = small(sample, fold=fold)
        data.setup()
        train, scored = ids(data.train_dataloader()), ids(data.test_dataloader())
        assert not set(train) & set(scored)
        assert len(set(train)) == 80
        assert Counter(train).most_common(1)[0][1] in (2, 5)
        assert len(scored) == len(set(scored)) == 20  # a scored clip is one item
        segments = [n for batch in data.test_dataloader() for n in batch["segments"]]
        assert sum(segments) + len(train) == 2 * 99 + 5


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the sample at ../shared/data/GTZAN")
def test_the_real_sample_is_complete():
    clips, labels = GTZAN(str(REAL), protocol="sample").read_clips()
    assert len(clips) == 100
    assert Counter(labels[clip.label] for clip in clips) == dict.fromkeys(GENRES, 10)
    with pytest.raises(DataError, match="are missing"):
        GTZAN(str(REAL)).read_clips()
