import csv
import os
import shutil
import unicodedata
from collections import Counter
from types import SimpleNamespace

import pytest

from qaudio.data.benchmarks.folder import AudioFolder
from qaudio.data.benchmarks.registry import benchmarks
from qaudio.errors import DataError
from tests.support.loaders import ids

SPEAKERS = range(10)
FILES = [f"{label}/speaker{s}_{take}.wav" for label in ("no", "yes") for s in SPEAKERS
         for take in "ab"]  # fmt: skip


@pytest.fixture
def tree(sound_tree):
    return sound_tree("sounds", FILES)


@pytest.fixture
def table(tmp_path):
    def write(*rows, name="table.csv"):
        with open(tmp_path / name, "w", newline="") as file:
            csv.writer(file).writerows(rows)
        return str(tmp_path / name)

    return write


def small(root, **settings):
    defaults = {"sample_rate": 8000, "seconds": 0.1, "batch_size": 8, "seed": 0}
    return AudioFolder(str(root), **defaults | settings)


def speaker(name):
    return name.split("/")[1].split("_")[0]


def test_a_folder_for_each_class(tree):
    data = AudioFolder(str(tree), name="yesno")
    clips, labels = data.read_clips()
    assert labels == ["no", "yes"]
    assert [clip.id for clip in clips] == FILES
    assert all(clip.id.startswith(labels[clip.label] + "/") for clip in clips)
    assert all(clip.path == tree / clip.id for clip in clips)
    assert set(Counter((clip.label, clip.fold) for clip in clips).values()) == {4}
    assert (data.split.benchmark, data.split.folds, data.task) == ("yesno", 5, "multiclass")


@pytest.mark.parametrize("fold", range(1, 6))
@pytest.mark.parametrize("way", ["pattern", "column"])
def test_a_source_is_never_on_both_sides(tree, table, fold, way):
    rows = [(file, file.split("/")[0], speaker(file)) for file in FILES]
    given = (
        {"group_pattern": r"(speaker\d)"}
        if way == "pattern"
        else {"table": table(("file", "label", "group"), *rows)}
    )
    data = small(tree, fold=fold, **given)
    assert "grouped by source" in data.split.protocol
    assert "grouped" not in small(tree).split.protocol
    data.setup()
    train, test = ids(data.train_dataloader()), ids(data.test_dataloader())
    assert len(test) == 8
    assert not {speaker(name) for name in train} & {speaker(name) for name in test}
    assert Counter(name.split("/")[0] for name in test) == {"no": 4, "yes": 4}


def test_split_seeds_give_other_splits_with_other_names(tree):
    one, two = (AudioFolder(str(tree), split_seed=seed) for seed in (0, 1))
    assert [c.fold for c in one.read_clips()[0]] != [c.fold for c in two.read_clips()[0]]
    assert one.split.protocol != two.split.protocol


def test_what_can_be_used_is_used_and_the_rest_named(tree, write_sound):
    for name, content in (("no/cover.jpg", "x"), ("no/._speaker0_a.wav", "x"), ("stray.wav", "x"),
                          ("yes/broken.wav", "x"), ("notes.txt", "x")):  # fmt: skip
        (tree / name).write_text(content)
    (tree / "silent").mkdir()
    (tree / ".git").mkdir()
    (tree / "no" / "speaker0_a.wav").rename(tree / "no" / "speaker0_a.WAV")
    write_sound("sounds/yes/deep/er/stereo.flac", seconds=2, rate=44100, channels=2)
    data = small(tree)
    with pytest.warns(UserWarning, match="3 clips left out: ") as told:
        data.setup()
    for part in ("stray.wav: in no class's folder", "silent: a folder without sound files",
                 "broken.wav: not a readable sound file"):  # fmt: skip
        assert str(told[0].message).count(part) == 1
    used = {*ids(data.train_dataloader()), *ids(data.test_dataloader())}
    assert len(used) == 41
    assert {"no/speaker0_a.WAV", "yes/deep/er/stereo.flac"} <= used
    assert data.labels == ["no", "yes"]


@pytest.mark.parametrize("folders", [[], ["one"]])
def test_fewer_than_two_classes_say_what_is_expected(sound_tree, tmp_path, folders):
    root = sound_tree("few", [f"{folder}/a.wav" for folder in folders])
    with pytest.raises(DataError, match=r"expected CLASS/FILE\.wav"):
        small(root).setup()


def test_fewer_groups_than_folds_are_refused(sound_tree):
    root = sound_tree("few", ["a/1.wav", "a/2.wav", "b/1.wav"])
    with pytest.raises(DataError, match=r"3 groups cannot fill 5 folds.*--data\.folds"):
        small(root).setup()


@pytest.mark.filterwarnings("ignore:.*left out")
def test_parts_of_a_split_are_no_classes(sound_tree):
    root = sound_tree("split", [f"{part}/{label}/{n}.wav" for part in ("train", "Test")
                                for label in ("no", "yes") for n in range(5)])  # fmt: skip
    with pytest.raises(DataError, match=r"Test, train are parts of a split, not classes.*table"):
        AudioFolder(str(root)).read_clips()
    assert AudioFolder(str(root / "train")).read_clips()[1] == ["no", "yes"]


def test_class_weights_are_inverse_to_the_training_clips(sound_tree, tree):
    for n in range(10):
        (tree / "no" / f"speaker{n}_b.wav").unlink()
    data = small(tree)
    data.setup()
    counts = Counter(name.split("/")[0] for name in ids(data.train_dataloader()))
    assert counts == {"no": 8, "yes": 16}
    assert data.class_weights().tolist() == [1.5, 0.75]
    with pytest.raises(DataError, match="draws every class equally often already"):
        small(tree, balanced=True).class_weights()


def test_class_weights_count_the_segments_that_train(tree, write_sound):
    for path in (tree / "no").iterdir():
        path.unlink()  # a link
        write_sound(path, seconds=1.0)
    data = small(tree, seconds=0.25, segment_hop=0.25)
    data.setup()
    counts = Counter(name.split("/")[0] for name in ids(data.train_dataloader()))
    assert counts["no"] > 1.5 * counts["yes"]
    weights = data.class_weights()
    assert weights[0] * counts["no"] == pytest.approx(weights[1] * counts["yes"])
    mean = (weights[0] * counts["no"] + weights[1] * counts["yes"]) / counts.total()
    assert mean == pytest.approx(1)


def test_class_folders_that_differ_in_form_alone_are_one_class(sound_tree):
    folders = ("caf\u00e9", "cafe\u0301", "tea", "tea ")
    root = sound_tree("sounds", [f"{folder}/{n}.wav" for folder in folders for n in range(5)])
    clips, labels = small(root).read_clips()
    assert labels == ["caf\u00e9", "tea"]
    assert Counter(clip.label for clip in clips) == {0: 10, 1: 10}
    assert len({clip.id for clip in clips}) == 20


@pytest.mark.parametrize(("one", "two"), [("Tea", "tea"), ("1", "1.0"), ("a  b", "a b")])
def test_classes_that_look_alike_are_named(sound_tree, table, one, two):
    root = sound_tree("sounds", [f"{name}/{n}.wav" for name in (one, two) for n in range(5)])
    rows = [(f"{name}/{n}.wav", name) for name in (one, two) for n in range(5)]
    for data in (small(root), small(root, table=table(("file", "label"), *rows))):
        with pytest.warns(UserWarning, match=f"classes '{one}' and '{two}' look alike and are"):
            assert data.read_clips()[1] == sorted((one, two))


def test_a_label_that_other_programs_write_for_a_gap_is_named(tree, table):
    rows = [(file, "nan" if file == FILES[3] else file.split("/")[0]) for file in FILES]
    with pytest.warns(UserWarning, match="class nan: is that a name, or no label at all"):
        small(tree, table=table(("file", "label"), *rows)).read_clips()


def test_a_class_name_without_end_is_refused(tree, table):
    rows = [(file, "x" * 20_000 if n else "y") for n, file in enumerate(FILES)]
    with pytest.raises(DataError, match="has a name of 20000 characters, at most 200"):
        small(tree, table=table(("file", "label"), *rows)).read_clips()


def test_a_class_without_usable_clips_is_no_class(tree):
    (tree / "maybe").mkdir()
    (tree / "maybe" / "a.wav").write_bytes(b"no sound")
    data = small(tree)
    with pytest.warns(UserWarning, match="no usable clip, so no class: maybe"):
        data.setup()
    assert data.labels == ["no", "yes"]
    assert {batch for one in data.test_dataloader() for batch in one["label"].tolist()} == {0, 1}


def test_one_class_with_usable_clips_is_refused_each_time(sound_tree):
    root = sound_tree("sounds", [f"a/{n}.wav" for n in range(5)])
    (root / "b").mkdir()
    (root / "b" / "x.wav").write_bytes(b"no sound")
    data = small(root)
    for _ in range(2):
        with pytest.warns(UserWarning), pytest.raises(DataError, match="fewer than two classes"):
            data.setup()


def test_too_few_classes_say_what_was_left_out(sound_tree):
    root = sound_tree("sounds", [f"a/{n}.wav" for n in range(5)])
    (root / "b").mkdir()
    (root / "b" / "phone.m4a").write_bytes(b"x")
    with pytest.raises(DataError, match=r"fewer than two classes.*Left out: .*phone\.m4a: not a"):
        small(root).setup()


def test_classes_that_a_split_leaves_without_clips_are_named(tree, table, sound_tree):
    rows = [(file, file.split("/")[0], "train" if n < 19 else "test") for n, file in
            enumerate(FILES)]  # fmt: skip
    data = small(tree, table=table(("file", "label", "split"), *rows))
    with pytest.warns(UserWarning, match="leaves no training clip of: yes; it is never trained"):
        data.setup()
    sound_tree("sounds", ["rare/a.wav"])
    with pytest.warns(UserWarning, match="leaves no scored clip of: rare; it is not scored"):
        for fold in range(1, 6):
            small(tree, fold=fold).setup()


@pytest.mark.parametrize("suffix", [".aifc", ".wave", ".snd", ".W64", ".caf", ".mp2"])
def test_what_libsndfile_reads_is_looked_for(tree, write_sound, suffix):
    kinds = {".aifc": "AIFF", ".wave": "WAV", ".snd": "AU", ".W64": "W64", ".caf": "CAF",
             ".mp2": "WAV"}  # fmt: skip
    write_sound(tree / "no" / f"one{suffix}", format=kinds[suffix])
    assert f"no/one{suffix}" in {clip.id for clip in small(tree).read_clips()[0]}


# Tables.


def test_files_of_a_table_are_found_in_unicodes_other_form(sound_tree, table):
    there = [f"{label}/cafe\u0301{n}.wav" for label in ("no", "yes") for n in range(5)]
    root = sound_tree("sounds", there)
    rows = [(unicodedata.normalize("NFC", file), file.split("/")[0]) for file in there]
    data = small(root, table=table(("file", "label"), *rows))
    data.setup()
    assert not data.left_out


def test_a_split_column_is_the_split(tree, table):
    parts = ["train", "Test", "val", "train", "train"]
    rows = [(file, file.split("/")[0], parts[n % 5]) for n, file in enumerate(FILES)]
    path = table(("file", "label", "split"), *rows)
    data = small(tree, table=path)
    data.setup()
    assert data.split.folds == 1
    assert set(ids(data.test_dataloader())) == set(FILES[1::5])
    train = set(ids(data.train_dataloader()))
    assert train == set(FILES) - set(FILES[1::5]) - set(FILES[2::5])
    data = small(tree, table=path, holdout="validation")
    data.setup()
    assert set(ids(data.val_dataloader())) == set(FILES[2::5])
    assert set(ids(data.train_dataloader())) == train


def test_a_group_on_two_sides_of_a_split_column_is_refused(tree, table):
    rows = [(file, file[0], "train" if n else "test", "s1") for n, file in enumerate(FILES)]
    path = table(("file", "label", "split", "group"), *rows)
    with pytest.raises(DataError, match="1 groups sit on two sides of the split: group s1"):
        small(tree, table=path).setup()


def test_blanks_around_cells_and_names_are_no_part_of_them(tree, table):
    rows = [
        (f" {FILES[0]}", "no ", " anna", "train"), (FILES[25], " yes", "ben", "TRAIN "),
        (FILES[1], "no", "anna ", "test"), (FILES[26], "yes", "carl", " test"),
    ]  # fmt: skip
    columns = ("file ", " label", "group ", " split")
    with pytest.raises(DataError, match=r"1 groups sit on two sides .*: group anna$"):
        AudioFolder(str(tree), table=table(columns, *rows)).read_clips()
    rows[2] = (FILES[1], "no", "dora", "test")
    clips, labels = AudioFolder(str(tree), table=table(columns, *rows)).read_clips()
    assert labels == ["no", "yes"]
    assert [(clip.id, clip.fold) for clip in clips] == [
        (FILES[0], 0), (FILES[25], 0), (FILES[1], 1), (FILES[26], 1),
    ]  # fmt: skip


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_a_table_that_is_not_in_utf8_says_so(tree, tmp_path, encoding):
    path = tmp_path / "table.csv"
    path.write_text("file,label\na.wav,hören\n", encoding=encoding)
    with pytest.raises(DataError, match=r"table\.csv is not in UTF-8: save it as 'CSV UTF-8'"):
        AudioFolder(str(tree), table=str(path))


def test_columns_of_classes_are_multi_label(tree, table):
    rows = [
        (file, speaker(file), float(n % 2 == 0), int(n % 3 == 0)) for n, file in enumerate(FILES)
    ]
    data = small(tree, table=table(("file", "group", "even", "third"), *rows))
    data.setup()
    assert data.labels == ["even", "third"]
    assert data.task == "multilabel"
    for batch in data.test_dataloader():
        for name, label in zip(batch["id"], batch["label"].tolist(), strict=True):
            n = FILES.index(name)
            assert label == [int(n % 2 == 0), int(n % 3 == 0)]
    with pytest.raises(DataError, match="class weights need one label a clip"):
        data.class_weights()


def test_clips_of_no_class_are_drawn_as_if_they_were_one(tree, table):
    rows = [(file, int(n % 2 == 0), int(n % 6 in (1, 3))) for n, file in enumerate(FILES)]
    data = small(tree, table=table(("file", "even", "some"), *rows), balanced=True)
    data.setup()
    none = {file for file, even, some in rows if not even and not some}
    assert len(none) == 6
    drawn = Counter(name in none for _ in range(4) for name in ids(data.train_dataloader()))
    assert drawn[True] == pytest.approx(drawn.total() / 3, abs=4)


def test_paths_below_root_are_ids_without_the_machines_folders(tree, table):
    rows = [(tree / file, file.split("/")[0]) for file in FILES]
    clips, _ = small(tree, table=table(("file", "label"), *rows)).read_clips()
    assert [clip.id for clip in clips] == FILES


def test_ids_of_files_elsewhere_hold_no_folders_of_the_machine(tree, table, tmp_path):
    def clips(where):
        shutil.copytree(tree, where)
        rows = [(where / file, file.split("/")[0]) for file in FILES]
        data = small(tmp_path / "nothing", table=table(("file", "label"), *rows))
        data.setup()
        return data.clips, data.split.protocol

    (first, protocol), (second, same) = clips(tmp_path / "here"), clips(tmp_path / "x" / "there")
    assert [clip.id for clip in first] == FILES
    assert [(clip.id, clip.fold) for clip in first] == [(clip.id, clip.fold) for clip in second]
    assert protocol == same


def test_blanks_in_columns_that_are_not_used_are_nothing(tree, table):
    rows = [(file, file.split("/")[0], "" if n else "a note") for n, file in enumerate(FILES)]
    assert len(small(tree, table=table(("file", "label", "notes"), *rows)).read_clips()[0])


def test_other_recordings_are_another_split(tree, write_sound):
    def protocol():
        data = small(tree)
        assert data.split.protocol == data.protocol  # not known yet
        data.setup()
        return data.split.protocol

    before = protocol()
    assert before == protocol()
    write_sound(tree / "no" / "one_more.wav", rate=8000)
    assert protocol() != before
    assert protocol().startswith(small(tree).protocol)


def test_formats_that_are_not_read_are_named(tree):
    (tree / "no" / "phone.M4A").write_bytes(b"x")
    data = small(tree)
    with pytest.warns(UserWarning, match=r"phone\.M4A: not a format that is read; convert"):
        data.setup()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("file", "label")], "expected a column file"),
        ([("name", "label"), ("a", "b")], "expected a column file"),
        ([("file",), ("a",)], "expected a column file"),
        ([("file", "label"), ("a.wav", "")], "row 2: label missing"),
        ([("file", "label"), ("a.wav",)], "row 2: 1 cells under 2 columns"),
        ([("file", "label"), ("a.wav", "x"), ("./a.wav", "y")], "row 3: a.wav is listed twice"),
        ([("file", "label", "split"), ("a.wav", "x", "half")], "split must be train, validation"),
        ([("file", "dog"), ("a.wav", "maybe")], "row 2: dog must be 0 or 1, not 'maybe'"),
        ([("file;label",), ("a.wav;dog",)], "parted by commas, not ';'"),
        ([("file\tlabel",), ("a.wav\tdog",)], r"parted by commas, not '\\t'"),
    ],
)
def test_broken_tables_are_refused_by_row(tree, table, rows, message):
    with pytest.raises(DataError, match=message):
        small(tree, table=table(*rows))


def test_a_missing_table_is_named(tree):
    with pytest.raises(DataError, match=r"nowhere\.csv not found"):
        small(tree, table="nowhere.csv")


def test_parquet_is_read_as_csv_is(tree, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"file": FILES, "dog": [n % 2 for n in range(40)], "cat": [n > 9 for n in range(40)],
               "group": [speaker(file) for file in FILES]}  # fmt: skip
    parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    clips, labels = small(tree, table=str(tmp_path / "t.parquet")).read_clips()
    assert labels == ["dog", "cat"]
    assert clips[11].label == (0, 1)


def test_numbers_are_classes_in_parquet_as_in_csv(tree, tmp_path):
    pyarrow, parquet = (pytest.importorskip(name) for name in ("pyarrow", "pyarrow.parquet"))
    path = tmp_path / "table.parquet"

    def write(*labels):
        table = {"file": FILES[: len(labels)], "label": list(labels)}
        parquet.write_table(pyarrow.table(table), path)
        return AudioFolder(str(tree), table=str(path), folds=2)

    assert write(0.0, 1.0, 2.0, 2.5).read_clips()[1] == ["0", "1", "2", "2.5"]
    with pytest.raises(DataError, match="row 3: label missing"):
        write(0.0, float("nan"))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"table\.parquet is no whole Parquet file"):
        AudioFolder(str(tree), table=str(path))


def test_parquet_without_pyarrow_says_what_to_install(tree, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "t.parquet").touch()
    with pytest.raises(DataError, match="needs pyarrow: pip install pyarrow"):
        small(tree, table=str(tmp_path / "t.parquet"))


@pytest.mark.parametrize("pattern", ["speaker", "(", ""])
def test_a_pattern_without_a_group_is_refused(tree, pattern):
    with pytest.raises(ValueError, match="group_pattern"):
        small(tree, group_pattern=pattern)


def test_files_need_no_names_that_are_text_but_classes_do(tree):
    os.rename(tree / FILES[0], os.fsencode(tree) + b"/no/line\n\xff.wav")
    data = small(tree)
    data.setup()
    assert len(data.read_clips()[0]) == len(FILES)
    assert not data.left_out
    os.rename(tree / "yes", os.fsencode(tree) + b"/ye\xff")
    with pytest.raises(DataError, match=r"class 'ye.*udcff' is no plain text") as caught:
        small(tree).setup()
    str(caught.value).encode("utf-8")


@pytest.mark.parametrize("name", benchmarks())
def test_the_name_of_a_benchmark_is_refused(tree, name):
    with pytest.raises(ValueError, match=f"name '{name}' is a benchmark's"):
        small(tree, name=name)


@pytest.mark.parametrize("name", ["a/b", "a\\b", "", ".", "..", "a:b", "a?", "a.", "a\0"])
def test_a_name_that_is_no_files_is_refused(tree, name):
    with pytest.raises(ValueError, match="becomes part of an entry's name"):
        small(tree, name=name)
    assert small(tree, name="my-sounds_2.1").benchmark == "my-sounds_2.1"


def test_of_two_folds_none_is_left_beside_a_validation_fold(tree):
    with pytest.raises(DataError, match="none is left to train on"):
        small(tree, folds=2, holdout="validation").setup()


def test_a_disk_without_room_for_what_is_decoded_is_told_at_once(tree, tmp_path, monkeypatch):
    monkeypatch.setattr("qaudio.data.usable.ROOM_AFTER", 4)
    rooms = []
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=rooms[-1]))
    settings = {"cache_dir": str(tmp_path / "cache")}
    each = 4 * 8000  # bytes, of a second at 8 kHz
    links = len(FILES)
    rooms.append(1000)
    with pytest.raises(DataError, match=r"clips need about .* GB more in .*cache, where 1e-06 GB"):
        small(tree, **settings).setup()
    rooms.append(each * links)
    small(tree, **settings).setup()
    rooms.append(0)
    small(tree, **settings).setup()  # all is there by now
