import csv
from collections import Counter
from pathlib import Path

import pytest

from qaudio.data.benchmarks.esc50 import ESC50
from qaudio.errors import DataError, InputError

REAL = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "ESC-50"


def edit_index(root, edit):
    """Pass the rows of meta/esc50.csv, header first, through `edit`."""
    path = root / "meta" / "esc50.csv"
    with open(path, newline="") as file:
        rows = list(csv.reader(file))
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(edit(rows))


def test_clips_labels_and_folds(esc50_tree):
    clips, labels = ESC50(str(esc50_tree)).read_clips()
    assert labels == ["dog", "cat", "rain", "clock_tick"]  # in order of ESC-50's own numbers
    assert len(clips) == len({clip.id for clip in clips}) == 40
    for clip in clips:
        fold, _, _, target = clip.id.split("-")
        assert clip.fold == int(fold)
        assert clip.label == [0, 5, 10, 38].index(int(target))
        assert clip.path == esc50_tree / "audio" / f"{clip.id}.wav"
        assert clip.path.is_file()


def test_esc10_renumbers_its_classes(esc50_tree):
    data = ESC50(str(esc50_tree), esc10=True)
    clips, labels = data.read_clips()
    assert labels == ["dog", "rain", "clock_tick"]
    assert Counter(clip.label for clip in clips) == {0: 10, 1: 10, 2: 10}
    assert not [clip for clip in clips if clip.id.endswith("-5")]


def test_esc26_takes_26_classes_and_never_the_name_of_esc50(esc50_tree):
    """Of whole classes only: a copy that lacks one is refused."""
    index = esc50_tree / "meta" / "esc50.csv"
    with pytest.raises(DataError, match=r"no clips of 22 of the classes of esc26: 1, 2, 3,"):
        ESC50(str(esc50_tree), esc26=True).read_clips()
    with open(index, "a", newline="") as file:
        for target in range(50):
            csv.writer(file).writerow(
                (f"1-1-A-{target}.wav", 1, target, f"c{target}", False, 1, "A")
            )
    data = ESC50(str(esc50_tree), esc26=True)
    clips, labels = data.read_clips()
    assert data.benchmark == "esc26"
    assert len(labels) == 26 and {clip.label for clip in clips} == set(range(26))
    targets = {int(clip.id.rsplit("-", 1)[1]) for clip in clips}
    assert targets == {*range(13), 14, 16, 19, 20, 21, 28, *range(38, 44), 46}


def test_esc10_and_esc26_exclude_each_other(tmp_path):
    with pytest.raises(InputError, match="give one"):
        ESC50(str(tmp_path), esc10=True, esc26=True)


def test_both_benchmarks_are_the_same_recordings(esc50_tree):
    """A parent trained on one must count as having seen the other's clips."""
    small, large = ESC50(str(esc50_tree), esc10=True), ESC50(str(esc50_tree))
    assert (small.benchmark, large.benchmark) == ("esc10", "esc50")
    assert small.split.dataset == large.split.dataset
    assert small.split.protocol == large.split.protocol


def test_missing_index_says_what_is_expected(tmp_path):
    with pytest.raises(DataError, match=r"meta/esc50\.csv.*not found.*--data\.root") as caught:
        ESC50(str(tmp_path)).read_clips()
    assert str(tmp_path) in str(caught.value)


def test_missing_columns_are_named(esc50_tree):
    edit_index(esc50_tree, lambda rows: [row[:3] for row in rows])
    with pytest.raises(DataError, match=r"esc50\.csv: expected columns .*category.*esc10"):
        ESC50(str(esc50_tree)).read_clips()


def test_an_empty_index_is_refused(esc50_tree):
    edit_index(esc50_tree, lambda rows: rows[:1])
    with pytest.raises(DataError, match=r"esc50\.csv"):
        ESC50(str(esc50_tree)).read_clips()


@pytest.mark.parametrize(
    "row",
    [["1-2-A-0.wav", "one", "0", "dog", "True", "2", "A"], ["1-2-A-0.wav", "1"], ["1-2-A-0.wav"]],
    ids=["a fold that is no number", "a row cut short", "a file name alone"],
)
def test_a_broken_row_is_an_error_that_names_the_index(esc50_tree, row):
    edit_index(esc50_tree, lambda rows: [*rows, row])
    with pytest.raises(DataError, match=r"esc50\.csv"):
        ESC50(str(esc50_tree)).read_clips()


@pytest.mark.skipif(not REAL.is_dir(), reason="needs ESC-10 at ../shared/data/ESC-50")
def test_real_esc10_is_complete():
    clips, labels = ESC50(str(REAL), esc10=True).read_clips()
    assert len(clips) == 400
    assert len(labels) == 10
    assert set(Counter((clip.label, clip.fold) for clip in clips).values()) == {8}
    assert len({clip.fold for clip in clips}) == 5
    assert all(clip.path.is_file() for clip in clips)
    # Clips of one source stay in one fold.
    sources = {(clip.id.split("-")[1], clip.fold) for clip in clips}
    assert len(sources) == len({source for source, _ in sources})
