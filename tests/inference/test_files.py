import copy
import os
import threading
from itertools import islice

import numpy as np
import pytest
import torch

import qaudio
from qaudio.data.audio import AudioError
from qaudio.inference.files import FileResult, find_sounds, in_order, threads_per_file
from qaudio.prediction import embeddings


@pytest.fixture
def sounds(write_sound):
    """A folder of four sounds and one that cannot be used; the last sound is long."""
    for n, seconds in enumerate([0.5, 1.0, 2.0, 32.0]):
        path = write_sound(f"sounds/{n}.wav", seconds=seconds, seed=n)
    (path.parent / "bad.wav").write_text("not a sound")
    return path.parent


def test_embed_files_gives_a_record_per_file(tiny_model, sounds):
    records = list(qaudio.embed_files(tiny_model, sounds, jobs=2))
    assert [record.file for record in records] == [
        str(sounds / name) for name in ("0.wav", "1.wav", "2.wav", "3.wav", "bad.wav")
    ]
    assert [record.end for record in records] == [0.5, 1, 2, 32, None]
    for record in records[:4]:
        expected = embeddings(tiny_model, record.file)
        assert record.vector == pytest.approx(expected.vectors.mean(axis=0), abs=1e-5)
        assert (record.start, record.error) == (0, None)
    assert len(expected.vectors) > 1  # the mean over windows
    assert records[4].vector is None
    assert records[4].error == "not a readable sound file (Format not recognised)"


def test_embed_files_gives_a_record_per_window(tiny_model, sounds):
    path = str(sounds / "2.wav")
    records = list(qaudio.embed_files(tiny_model, path, window=1.0, hop=0.5))
    assert [(record.start, record.end) for record in records] == [(0, 1), (0.5, 1.5), (1, 2)]
    expected = embeddings(tiny_model, path, window=1.0, hop=0.5).vectors
    assert np.stack([record.vector for record in records]) == pytest.approx(expected, abs=1e-5)


def test_predict_files_gives_what_predict_gives(tiny_model, sounds):
    records = list(qaudio.predict_files(tiny_model, [sounds / "1.wav", sounds / "bad.wav"]))
    *found, failed = records
    expected = qaudio.predict(tiny_model, sounds / "1.wav")
    assert [vars(record) for record in found] == [
        {"file": str(sounds / "1.wav"), "error": None} | vars(p) for p in expected
    ]
    assert (failed.file, failed.label) == (str(sounds / "bad.wav"), None)
    assert failed.error.startswith("not a readable")


def test_predict_files_selects(tiny_model, sounds):
    path = sounds / "2.wav"
    windows = qaudio.predict(tiny_model, path, window=0.5, top_k=3)
    level = sorted(p.probability for p in windows)[-4]
    found = list(qaudio.predict_files(tiny_model, path, window=0.5, threshold=level))
    assert [record.probability for record in found] == [
        p.probability for p in windows if p.probability >= level
    ]
    events = list(qaudio.predict_files(tiny_model, path, window=0.5, threshold=level, merge=True))
    assert max(r.probability for r in events) == max(p.probability for p in windows)
    assert sum(r.end - r.start for r in events) <= sum(r.end - r.start for r in found)


def test_predict_files_runs_an_export(tiny_export, tiny_model, sounds):
    records = list(qaudio.predict_files(qaudio.OnnxModel(tiny_export), sounds / "1.wav", jobs=2))
    assert [r.index for r in records] == [
        p.index for p in qaudio.predict(tiny_model, sounds / "1.wav")
    ]


@pytest.mark.parametrize("jobs", [1, 3])
def test_embed_files_leaves_model_and_threads_as_they_were(tiny_model, sounds, threads, jobs):
    threads(2)
    model = copy.deepcopy(tiny_model).train()
    expected = [r.vector for r in qaudio.embed_files(tiny_model, sounds)]
    found = [r.vector for r in qaudio.embed_files(model, sounds, jobs=jobs)]
    for one, other in zip(found[:4], expected[:4], strict=True):
        assert one == pytest.approx(other, abs=1e-6)  # in eval mode: no dropout
    assert model.training
    assert torch.get_num_threads() == 2
    records = qaudio.embed_files(model, sounds, jobs=jobs)
    next(records)
    records.close()
    assert model.training
    assert torch.get_num_threads() == 2


def test_each_file_has_its_share_of_the_cores(tiny_model, sounds, monkeypatch):
    seen = []
    real = type(tiny_model).embed
    monkeypatch.setattr(
        type(tiny_model), "embed",
        lambda *arguments: seen.append(torch.get_num_threads()) or real(*arguments),
    )  # fmt: skip
    list(qaudio.embed_files(tiny_model, sounds / "0.wav", jobs=3))
    list(qaudio.embed_files(tiny_model, [sounds / "0.wav", sounds / "1.wav"], jobs=3))
    assert seen == [3, 1, 1]
    assert [threads_per_file(4, files) for files in (0, 1, 2, 3, 9)] == [4, 4, 2, 1, 1]


@pytest.mark.parametrize(
    ("settings", "named"), [({"window": 0}, "window"), ({"hop": 11}, "hop"), ({"jobs": 0}, "jobs")]
)
def test_embed_files_names_settings_out_of_range(tiny_model, sounds, settings, named):
    with pytest.raises(ValueError, match=named):
        list(qaudio.embed_files(tiny_model, sounds, **settings))


def test_embed_files_refuses_what_is_no_network(tiny_export, sounds):
    with pytest.raises(TypeError, match=r"qaudio\.load"):
        list(qaudio.embed_files("qcnn10_050.esc10", sounds))
    with pytest.raises(TypeError, match="exported"):
        list(qaudio.embed_files(qaudio.OnnxModel(tiny_export), sounds))


# Names of files.


def test_find_sounds_takes_files_folders_and_patterns_each_once(sound_tree, tmp_path, monkeypatch):
    sound_tree("tree", ["a.wav", "b/c.FLAC", "b/d/e.wav", "b/notes.wav"])
    (tmp_path / "tree/b/notes.wav").rename(tmp_path / "tree/b/notes.txt")
    monkeypatch.chdir(tmp_path)
    tree = [os.path.join("tree", name) for name in ("a.wav", "b/c.FLAC", "b/d/e.wav")]
    assert find_sounds("tree") == (tree, [])
    assert find_sounds(["tree/b", tmp_path / "tree"])[0] == [*tree[1:], str(tmp_path / tree[0])]
    assert find_sounds("tree/**/*") == (tree, [])
    assert find_sounds("tree/*") == (tree, [])  # folders that match are searched
    assert find_sounds("tree/?.wav") == (tree[:1], [])
    assert find_sounds(["missing.wav", "tree/b/notes.txt"])[0] == [
        "missing.wav",
        "tree/b/notes.txt",
    ]


def test_find_sounds_says_what_names_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "none").mkdir()
    assert find_sounds(["none", "*.wav"]) == (
        [], [("none", "a folder without sound files"), ("*.wav", "matches no sound files")]
    )  # fmt: skip


def test_find_sounds_takes_names_with_brackets_as_they_are(write_sound):
    path = write_sound("take [1].wav")
    assert find_sounds(path) == ([str(path)], [])


def test_names_that_find_nothing_are_records(tiny_model, tmp_path):
    (record,) = qaudio.embed_files(tiny_model, tmp_path)
    assert (record.file, record.error) == (str(tmp_path), "a folder without sound files")
    (record,) = qaudio.predict_files(tiny_model, tmp_path)
    assert (record.file, record.error) == (str(tmp_path), "a folder without sound files")


# Several at once.


def test_in_order_works_on_several_files_at_once():
    both = threading.Barrier(2, timeout=30)

    def work(path, advance):
        both.wait()  # passed only when two are here
        return path.upper()

    results = list(in_order("abcd", work, 2))
    assert results == [FileResult(path, path.upper()) for path in "abcd"]


def test_in_order_keeps_the_order_whatever_takes_long():
    last = threading.Event()

    def work(path, advance):
        if path == "b":
            last.set()
        else:
            assert last.wait(30)
        return path

    assert [result.found for result in in_order("ab", work, 2)] == ["a", "b"]


def test_in_order_reads_no_more_than_a_few_files_ahead():
    begun = []
    results = in_order(map(str, range(1000)), lambda path, advance: begun.append(path), 2)
    for asked in range(1, 20):
        next(results)
        assert len(begun) <= asked + 4
    results.close()


def test_in_order_makes_faults_of_files_results():
    def work(path, advance):
        if path == "a":
            raise AudioError("a: holds no samples")
        raise PermissionError(13, "Permission denied", path)

    assert [result.error for result in in_order("ab", work, 1)] == [
        "holds no samples", "Permission denied",
    ]  # fmt: skip


def test_in_order_raises_what_is_no_fault_of_a_file():
    def work(path, advance):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(in_order("abc", work, 2))


def test_in_order_stops_within_a_file_when_nobody_asks_any_more():
    begun, ended = threading.Event(), []

    def work(path, advance):
        if path == "a":
            return None
        begun.set()
        while True:  # a file without end
            try:
                advance(1.0)
            except BaseException as error:
                ended.append(error)
                raise

    results = in_order("ab", work, 2)
    assert list(islice(results, 1)) == [FileResult("a", None)]
    assert begun.wait(30)
    results.close()
    assert len(ended) == 1
