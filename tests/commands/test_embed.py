import csv
import importlib.util
import os
import tracemalloc

import numpy as np
import pytest
import soundfile

import qaudio
from qaudio.inference.journal import Journal


@pytest.fixture
def embed(run, tiny_entry):
    return lambda *arguments: run("embed", "--entry", tiny_entry, *arguments)


def test_embed_writes_what_the_library_gives(embed, folder, tiny_model, tmp_path):
    out = tmp_path / "vectors.npz"
    result = embed(folder, "--out", out, "--window", 0.5, "--jobs", 2)
    assert result.code == 1  # a file could not be used
    assert result.err == (
        f"qaudio: {folder / 'bad.wav'}: not a readable sound file (Format not recognised)\n"
    )
    assert result.out.startswith(f"{out}: 7 files, 18 windows, 1 failed; ")
    assert result.out.endswith(" s of sound per second\n")
    found = np.load(out)
    records = list(qaudio.embed_files(tiny_model, folder, window=0.5))
    assert found["file"].tolist() == [record.file for record in records]
    assert found["start"][:18] == pytest.approx([record.start for record in records[:18]])
    expected = np.stack([record.vector for record in records[:18]])
    assert found["vector"][:18] == pytest.approx(expected, abs=1e-5)
    assert found["error"][18].startswith("not a readable sound file")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sounds", "vectors.npz", "zoo"]


@pytest.mark.parametrize("suffix", [".npz", ".csv", ".parquet", ".NPZ"])
def test_embed_writes_each_kind_of_table(embed, folder, tmp_path, suffix):
    out = tmp_path / f"vectors{suffix}"
    result = embed(folder / "0.wav", folder / "1.wav", "--out", out)
    assert (result.code, result.err) == (0, "")
    if suffix == ".csv":
        with open(out, newline="") as file:
            files = [row["file"] for row in csv.DictReader(file)]
    elif suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        files = parquet.read_table(out)["file"].to_pylist()
    else:
        files = np.load(out)["file"].tolist()
    assert files == [str(folder / "0.wav"), str(folder / "1.wav")]


def test_embed_goes_on_after_a_kill(embed, killed, folder, tiny_entry, tmp_path, reads):
    arguments = [folder, "--window", "0.5", "--out"]
    embed(*arguments, tmp_path / "whole.npz")
    out = tmp_path / "vectors.npz"
    killed(3, "embed", "--entry", tiny_entry, *arguments, out)
    assert not out.exists()
    reads.clear()
    refused = embed(*arguments, out)
    assert refused.code == 1
    assert refused.err == (
        f"qaudio: {out}.partial holds 3 files of an unfinished run: go on with --resume, or "
        "delete it to start again\n"
    )
    other = embed(folder, "--out", out, "--resume")
    assert (other.code, reads) == (1, [])
    assert "window of the unfinished run was 0.5, not None" in other.err
    result = embed(*arguments, out, "--resume")
    assert f"{out}: 7 files (3 of them before), 18 windows, 1 failed; " in result.out
    assert reads == ["3.wav", "4.wav", "5.wav", "bad.wav"]
    assert not (tmp_path / "vectors.npz.partial").exists()
    found, whole = np.load(out), np.load(tmp_path / "whole.npz")
    assert sorted(found) == sorted(whole)
    for name in found:
        if found[name].dtype.kind == "U":
            assert found[name].tolist() == whole[name].tolist()
        else:
            assert found[name] == pytest.approx(whole[name], abs=1e-6, nan_ok=True)


def test_embed_goes_on_only_with_the_same_network(embed, killed, folder, tiny_entry, tmp_path):
    out = tmp_path / "vectors.npz"
    killed(2, "embed", "--entry", tiny_entry, folder, "--out", out)
    other = qaudio.create_model("qcnn6_006", num_classes=3)
    qaudio.save(other, tmp_path / "other.made")
    result = embed(folder, "--out", out, "--resume", "--entry", tmp_path / "other.made")
    assert result.code == 1
    assert "model of the unfinished run was not the same: repeat its options" in result.err


def test_embed_that_is_interrupted_says_how_to_go_on(embed, folder, tmp_path, monkeypatch):
    real = Journal.add

    def add(self, path, record):
        real(self, path, record)
        if len(self.done) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "add", add)
    out = tmp_path / "vectors.npz"
    result = embed(folder, "--out", out)
    assert result.code == 130
    assert result.err == (
        f"qaudio: interrupted: 2 files are done, in {out}.partial; --resume goes on\n"
    )
    monkeypatch.undo()
    assert "(2 of them before)" in embed(folder, "--out", out, "--resume").out


def test_embed_resumed_without_an_unfinished_part_begins(embed, folder, tmp_path):
    result = embed(folder / "0.wav", "--out", tmp_path / "vectors.npz", "--resume")
    assert (result.code, result.err) == (0, "")
    assert "1 files, 1 windows" in result.out


def test_embed_replaces_a_table_only_by_a_whole_one(embed, folder, tmp_path, monkeypatch):
    out = tmp_path / "vectors.csv"
    out.write_text("before")

    def full(self):
        raise OSError(28, "No space left on device", str(out))

    monkeypatch.setattr(Journal, "records", full)
    result = embed(folder / "0.wav", "--out", out)
    assert result.code == 1
    assert "No space left on device" in result.err
    assert out.read_text() == "before"
    monkeypatch.undo()
    assert embed(folder / "0.wav", "--out", out, "--resume").code == 0  # nothing was lost
    assert out.read_text() != "before"


# What cannot be done.


def test_embed_names_a_folder_that_cannot_be_written(embed, folder, tmp_path):
    out = tmp_path / "none" / "vectors.npz"
    result = embed(folder, "--out", out)
    assert (result.code, result.out) == (1, "")
    assert result.err == f"qaudio: {out} cannot be written: No such file or directory\n"


def test_embed_names_a_suffix_that_it_does_not_know(embed, folder):
    result = embed(folder, "--out", "vectors.mat")
    assert result.code == 2
    assert "--out must end in .npz, .parquet or .csv, not vectors.mat; see" in result.err


def test_embed_names_an_output_that_is_a_folder(embed, folder, tmp_path):
    (tmp_path / "a.npz").mkdir()
    result = embed(folder, "--out", tmp_path / "a.npz")
    assert result.code == 2
    assert "is a folder: give a file" in result.err


def test_embed_says_at_once_that_pyarrow_is_missing(embed, folder, tmp_path, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "pyarrow" else real(name)
    )
    result = embed(folder, "--out", tmp_path / "a.parquet")
    assert (result.code, result.out) == (1, "")
    assert result.err == (
        "qaudio: a .parquet file needs pyarrow: pip install pyarrow; or give .npz or .csv\n"
    )


def test_embed_of_nothing_is_one_line(embed, tmp_path):
    (tmp_path / "none").mkdir()
    result = embed(tmp_path / "none", "--out", tmp_path / "a.npz")
    assert result.code == 1
    assert result.err == f"qaudio: {tmp_path / 'none'}: a folder without sound files\n"
    assert not (tmp_path / "a.npz").exists()


def test_embed_of_nothing_but_failures_is_a_table_of_reasons(embed, bad_sounds, tmp_path):
    result = embed(*bad_sounds.values(), "--out", tmp_path / "a.npz")
    assert result.code == 1
    assert len(result.err.splitlines()) == len(bad_sounds)
    found = np.load(tmp_path / "a.npz")
    assert len(found["error"]) == len(bad_sounds)
    assert all(fault in error for fault, error in zip(bad_sounds, found["error"], strict=True))


@pytest.mark.skipif(os.name == "nt", reason="Windows knows no such names")
def test_embed_shows_names_as_text(embed, write_sound, tmp_path):
    folder = os.fsencode(write_sound("sounds/a.wav").parent)
    os.rename(folder + b"/a.wav", folder + b'/a\x1b[31m\n\xff,"b".wav')
    (tmp_path / "sounds" / "\x1b[2Jbad.wav").write_text("not a sound")
    result = embed(tmp_path / "sounds", "--out", tmp_path / "a.csv")
    assert "\x1b" not in result.err + result.out
    assert r"\x1b[2Jbad.wav: not a readable" in result.err
    with open(tmp_path / "a.csv", newline="", encoding="utf-8") as file:
        names = [os.path.basename(row["file"]) for row in csv.DictReader(file)]
    assert names == [r"\x1b[2Jbad.wav", r'a\x1b[31m\n\udcff,"b".wav']


# Many files.


def test_embed_takes_no_more_memory_for_more_files(embed, tmp_path):
    rng = np.random.default_rng(0)
    for count in (20, 200):
        (tmp_path / f"{count}").mkdir()
        for n in range(count):
            sound = 0.1 * rng.standard_normal(8000)
            soundfile.write(tmp_path / f"{count}" / f"{n}.wav", sound, 8000)

    def peak(count):
        tracemalloc.start()  # sees numpy's arrays: sounds and vectors
        try:
            result = embed(tmp_path / f"{count}", "--window", 0.1, "--out", tmp_path / "a.npz")
            assert result.code == 0
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(20)  # what the first call loads is no part of it
    few, many = peak(20), peak(200)
    vectors = np.load(tmp_path / "a.npz")["vector"].nbytes
    assert many - few < vectors / 2  # and the samples are 5.8 MB
