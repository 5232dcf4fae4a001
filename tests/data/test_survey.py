import pytest

from qaudio.data.benchmarks.folder import AudioFolder
from qaudio.data.survey import survey
from qaudio.errors import DataError


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [([1.0] * 10, 1.0), ([0.1] * 10, 0.5), ([30.0] * 10, 10.0), ([2.0] * 19 + [9.0] * 1, 2.0),
     ([2.004] * 10, 2.0)],
)  # fmt: skip
def test_seconds_are_those_of_most_clips(tmp_path, write_sound, lengths, expected) -> None:
    for n, seconds in enumerate(lengths):
        write_sound(f"sounds/{'ab'[n % 2]}/{n}.wav", seconds=seconds, rate=1000)
    found = survey(AudioFolder(str(tmp_path / "sounds")))
    assert found.clip_seconds == expected


def test_survey_counts_what_can_be_read(sound_tree, write_sound) -> None:
    files = [f"{label}/s{n}_{take}.wav" for label in "ab" for n in range(3) for take in "xy"]
    root = sound_tree("sounds", files)
    (root / "a" / "text.wav").write_text("no sound")
    write_sound("sounds/b/empty.wav", seconds=0)
    found = survey(AudioFolder(str(root), group_pattern=r"(s\d)_"))
    assert found.counts == {"a": 6, "b": 6} and len(found.seconds) == 12
    assert found.sources == {"a": 3, "b": 3} and found.groups == 3
    assert found.folds == 3
    assert sorted(line.split(": ")[0].rpartition("/")[2] for line in found.unreadable) == [
        "empty.wav", "text.wav",
    ]  # fmt: skip


def test_a_class_of_one_group_is_told(sound_tree) -> None:
    root = sound_tree("sounds", ["a/s1_x.wav", "a/s1_y.wav", "b/s1_x.wav", "b/s2_x.wav"])
    survey(AudioFolder(str(root), folds=2))
    with pytest.raises(DataError, match="class 'a' has 2 recordings that can be read, all of one"):
        survey(AudioFolder(str(root), folds=2, group_pattern=r"(s\d)_"))
