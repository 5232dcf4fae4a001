import json
import multiprocessing
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from litdata.streaming.writer import BinaryWriter

import qaudio
from qaudio.cli import main
from qaudio.data import pack as pack_module
from qaudio.data.augment import WaveformAugment
from qaudio.data.pack import pack
from qaudio.data.shards import PackedClips
from qaudio.errors import DataError
from tests.robustness.fuzz.packs import facts_of, write_facts

ROOT = Path(qaudio.__file__).parents[1]
KINDS = ("a.wav", "b.flac", "c.ogg", "d.WAV", "e.flac", "f.ogg", "g.aiff", "h.wav")


@pytest.fixture
def sounds(write_sound, tmp_path):
    """Two classes of eight clips of several kinds, rates, lengths and channels."""
    for c, label in enumerate(("high", "low")):
        for n, name in enumerate(KINDS):
            rate = 8000 if n % 2 else 11025
            write_sound(f"sounds/{label}/{name}", seconds=0.3 + 0.1 * n, rate=rate,
                        channels=1 + (n == 0), seed=10 * c + n)  # fmt: skip
    return tmp_path / "sounds"


def folder(root, **settings):
    defaults = {"folds": 2, "seconds": 0.25, "segment_hop": 0.25, "batch_size": 4,
                "sample_rate": 8000, "seed": 1}  # fmt: skip
    return qaudio.AudioFolder(str(root), **defaults | settings)


def batches(data, role="training", epoch=2):
    data.setup()
    loader = data.train_dataloader() if role == "training" else data.test_dataloader()
    loader.sampler.set_epoch(epoch)
    return list(loader)


def equal(left, right):
    assert len(left) == len(right) > 1
    for one, two in zip(left, right, strict=True):
        assert one["id"] == two["id"]
        assert torch.equal(one["label"], two["label"])
        assert torch.equal(one["waveform"], two["waveform"])
        assert one["segments"] == two["segments"]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_of_the_files(sounds, tmp_path, workers):
    facts = pack(folder(sounds), tmp_path / "packed", shard_bytes=20_000)
    assert len(facts["clips"]) == 16
    assert len(list((tmp_path / "packed").glob("*.bin"))) > 3
    augment = WaveformAugment(roll=1.0, speed=0.1)
    settings = {"augment": augment, "balanced": True}
    from_files = folder(sounds, **settings)
    packed = folder("nowhere", packed=str(tmp_path / "packed"), num_workers=workers, **settings)
    for role in ("training", "scored"):
        equal(batches(packed, role), batches(from_files, role))
    assert packed.labels == ["high", "low"]
    assert packed.split == from_files.split


@pytest.mark.skipif(os.name == "nt", reason="names of files are text there")
def test_names_that_are_no_text_are_packed(sounds, tmp_path):
    one = next((sounds / "low").glob("*.wav"))
    one.rename(os.fsdecode(os.fsencode(one.parent) + b"/\xff.wav"))
    facts = pack(folder(sounds), tmp_path / "packed")
    assert len(facts["clips"]) == 16 and not facts["left_out"]
    equal(batches(folder("nowhere", packed=str(tmp_path / "packed"))), batches(folder(sounds)))


def test_uncompressed_sound_is_packed_smaller_and_the_rest_as_it_is(sounds, tmp_path):
    pack(folder(sounds), tmp_path / "packed")
    clips = PackedClips(str(tmp_path / "packed"))
    for n, (id, *_) in enumerate(clips.facts["clips"]):
        data, file = clips.item(n + 1), sounds / id
        if file.suffix in (".ogg", ".flac"):
            assert data == file.read_bytes()
        else:
            assert data[:4] == b"fLaC"


def test_clips_may_be_resampled_when_they_are_packed(sounds, tmp_path):
    pack(folder(sounds), tmp_path / "packed", sample_rate=8000)
    packed = folder(sounds, packed=str(tmp_path / "packed"))
    for one, two in zip(batches(packed), batches(folder(sounds)), strict=True):
        assert one["id"] == two["id"]
        assert torch.allclose(one["waveform"], two["waveform"], atol=2**-15)
    rates = {row[4] for row in PackedClips(str(tmp_path / "packed")).facts["clips"]}
    assert rates == {8000}


def test_what_cannot_be_used_is_named_when_it_is_packed_and_when_it_is_read(
    sounds, bad_sounds, tmp_path
):
    for n, path in enumerate(bad_sounds.values()):
        if path.exists():
            shutil.move(path, sounds / "low" / f"bad{n}{path.suffix}")
    facts = pack(folder(sounds), tmp_path / "packed")
    assert len(facts["left_out"]) == 5
    assert all(re.match(r"low.bad\d\.\w+: ", line) for line in facts["left_out"])
    packed = folder(sounds, packed=str(tmp_path / "packed"))
    with pytest.warns(UserWarning, match="5 clips left out"):
        packed.setup()
    assert packed.left_out == facts["left_out"]


def test_a_packed_copy_that_lacks_clips_says_so_in_its_protocol(esc50_tree, tmp_path):
    files = sorted((esc50_tree / "audio").iterdir())
    files[0].unlink()
    settings = {"root": str(esc50_tree), "seconds": 0.5, "sample_rate": 8000}
    pack(qaudio.ESC50(**settings), tmp_path / "packed")
    for more in ({}, {"packed": str(tmp_path / "packed")}):
        data = qaudio.ESC50(**settings, **more)
        with pytest.warns(UserWarning, match="1 clips left out"):
            data.setup()
        there = f"{len(files) - 1} of {len(files)} clips"
        assert data.split.protocol == f"ESC-50 official 5 folds, {there}"


def test_another_split_than_the_packed_one_is_refused(esc50_tree, tmp_path, capsys):
    out = str(tmp_path / "packed")
    assert main(["pack", "esc50", str(esc50_tree), out, "--set", "esc10=true"]) == 0
    assert "30 clips of ESC-50 official 5 folds, 0 left out" in capsys.readouterr().out
    data = qaudio.ESC50("nowhere", esc10=True, packed=out, sample_rate=8000)
    data.setup()
    assert data.labels == ["dog", "rain", "clock_tick"]
    with pytest.raises(DataError, match=r"benchmark is 'esc10', asked for is 'esc50'"):
        qaudio.ESC50("nowhere", packed=out, sample_rate=8000).setup()
    assert main(["pack", "esc50", str(esc50_tree), out]) == 1
    assert "holds another packed set" in capsys.readouterr().err
    assert main(["pack", "esc50", str(esc50_tree), out, "--set", "colour=red"]) == 2


@pytest.mark.filterwarnings("ignore:.*left out")
def test_audioset_validates_on_a_part_of_what_was_packed(sound_tree, tmp_path):
    from tests.data.benchmarks.test_audioset import EVAL, write_lists

    train = [(f"train{n:06}", "0.000", [n % 3]) for n in range(60)]
    root = sound_tree("set", [f"audio/{id}.wav" for id, _, _ in [*train, *EVAL]])
    write_lists(root, balanced_train=train, eval=EVAL)
    settings = {"sample_rate": 8000, "seconds": 0.1, "batch_size": 4, "seed": 0, "balanced": True}
    pack(qaudio.AudioSet(str(root)), tmp_path / "packed")
    for holdout in ("test", "validation"):
        files = qaudio.AudioSet(str(root), holdout=holdout, **settings)
        packed = qaudio.AudioSet("no", holdout=holdout, packed=str(tmp_path / "packed"), **settings)
        equal(batches(packed), batches(files))


@pytest.mark.parametrize("address", ["missing", "empty", "unfinished"])
def test_what_is_no_packed_set_is_said(sounds, tmp_path, address):
    (tmp_path / "empty").mkdir()
    pack(folder(sounds), tmp_path / "unfinished")
    (tmp_path / "unfinished" / "index.json").unlink()
    with pytest.raises(DataError, match=r"no packed set is there.*qaudio pack"):
        folder(sounds, packed=str(tmp_path / address))


def test_without_litdata_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "litdata", None)
    with pytest.raises(DataError, match=r"pip install 'qaudio\[scale\]'"):
        PackedClips(str(tmp_path))
    with pytest.raises(DataError, match=r"pip install 'qaudio\[scale\]'"):
        pack(folder(tmp_path / "nowhere"), tmp_path / "packed")  # before anything is read
    assert not (tmp_path / "packed").exists()


def test_packing_goes_on_behind_the_last_whole_shard(sounds, tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    pack(folder(sounds), whole, shard_bytes=20_000)
    real, read = pack_module._encode, []

    def encode(path, rate):
        read.append(path)
        if len(read) == 9:
            raise KeyboardInterrupt
        return real(path, rate)

    monkeypatch.setattr(pack_module, "_encode", encode)
    with pytest.raises(KeyboardInterrupt):
        pack(folder(sounds), broken, shard_bytes=20_000, workers=1)
    done = sorted(path.name for path in broken.glob("*.bin"))
    assert done
    with pytest.raises(DataError, match="no packed set"):
        PackedClips(str(broken))
    (broken / ".packing" / "scratch").mkdir(exist_ok=True)
    (broken / ".packing" / "scratch" / "chunk-0-9.bin").write_bytes(b"half")
    with pytest.raises(DataError, match="the beginning of another"):
        pack(folder(sounds), broken, shard_bytes=30_000)
    read[:] = []
    read += [None] * 100
    pack(folder(sounds), broken, shard_bytes=20_000)
    assert len(read) - 100 < 16
    for left, right in zip(sorted(whole.iterdir()), sorted(broken.iterdir()), strict=True):
        assert left.name == right.name
        assert left.read_bytes() == right.read_bytes()


def test_sounds_that_have_changed_are_not_taken_for_those_that_were_packed(
    sounds, tmp_path, write_sound
):
    out = tmp_path / "packed"
    facts = pack(folder(sounds), out)
    assert pack(folder(sounds), out) == facts
    write_sound(sounds / "low" / "a.wav", seconds=0.3, rate=11025, channels=2, seed=99)
    with pytest.raises(DataError, match="or these sounds as they were before a change"):
        pack(folder(sounds), out)


@pytest.mark.slow
def test_a_pack_that_is_killed_again_and_again_ends_whole(sounds, tmp_path):
    out = tmp_path / "packed"
    code = (
        "import os, sys, time\nfrom qaudio.data import pack\nfrom qaudio import AudioFolder\n"
        "replace = os.replace\n"
        "def slowly(*a):\n    time.sleep(0.05); replace(*a); time.sleep(0.05)\n"
        "os.replace = slowly\n"
        "pack.pack(AudioFolder(sys.argv[1], folds=2), sys.argv[2], shard_bytes=20_000)\n"
    )
    command = [sys.executable, "-c", code, str(sounds), str(out)]
    kills = 0
    for _ in range(40):
        process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)})
        before = len(list((out / ".packing").glob("*.json")))
        while process.poll() is None:
            time.sleep(0.02)
            if len(list((out / ".packing").glob("*.json"))) > before:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
                break
        if process.returncode == 0:
            break
    assert process.returncode == 0
    assert kills > 2
    assert not (out / ".packing").exists()
    equal(batches(folder(sounds, packed=str(out))), batches(folder(sounds)))
    names = {chunk["filename"] for chunk in json.loads((out / "index.json").read_text())["chunks"]}
    assert {path.name for path in out.glob("*.bin")} == names


def test_another_process_can_take_the_clips_along(sounds, tmp_path):
    pack(folder(sounds), tmp_path / "packed")
    clips = PackedClips(str(tmp_path / "packed"))
    here = clips.get("3", 8000)
    context = multiprocessing.get_context("fork")
    process = context.Process(target=lambda: np.save(tmp_path / "x.npy", clips.get("3", 8000)))
    process.start()
    process.join(30)
    assert np.array_equal(np.load(tmp_path / "x.npy"), here)


class Trap:
    """Says in a file that it was unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def forged(place: Path, mark: str) -> Path:
    """A packed set that litdata would unpickle."""
    items = [pickle.dumps(Trap(mark))] * 3
    writer = BinaryWriter(str(place), chunk_size=3)
    for n, item in enumerate(items):
        writer.add_item(n, item)
    writer.done()
    index = json.loads(next(place.glob("*index.json")).read_text())
    index["config"] |= {"data_format": ["pickle"], "chunk_size": None}
    (place / "index.json").write_text(json.dumps(index))
    return place


@pytest.mark.parametrize("address", ["{}", "local:{}"])
def test_index_that_asks_for_pickles_is_refused_unread(tmp_path, address, monkeypatch):
    monkeypatch.setenv("LITDATA_CACHE_DIR", str(tmp_path / "cache"))
    mark = tmp_path / "unpickled"
    place = forged(tmp_path / "packed", str(mark))
    with pytest.raises(DataError, match=r"index\.json is none of `qaudio pack`: data_format"):
        PackedClips(address.format(place))
    assert not mark.exists()


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ({"config": {"data_spec": '[1, {"type": "collections.defaultdict"}]'}}, "data_spec is"),
        ({"config": {"compression": "zstd"}}, "compression is 'zstd', expected None"),
        ({"config": {"item_loader": None}}, "item_loader is 'None'"),
        ({"config": {}}, "missing"),
        ({"chunks": [{"filename": "../shard-00000.bin", "chunk_size": 1}]}, "no shard of ours"),
        ({"chunks": [{"filename": "shard-00000.bin", "chunk_size": "1"}]}, "no shard of ours"),
        ({"chunks": 3}, "not iterable"),
        ({"updated_at": "../../../up"}, "expected chunks and config alone"),
        ([], "expected chunks and config alone"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_index_that_pack_did_not_write_is_refused(sounds, tmp_path, index, said):
    pack(folder(sounds), tmp_path / "packed")
    path = tmp_path / "packed" / "index.json"
    if isinstance(index, dict):
        whole = json.loads(path.read_text())
        if index.get("config"):
            index = {"config": whole["config"] | index["config"]}
        index = whole | index
    path.write_text(index if isinstance(index, str) else json.dumps(index))
    with pytest.raises(DataError, match=f"none of `qaudio pack`: .*{said}"):
        PackedClips(str(tmp_path / "packed"))


def test_packed_set_of_an_object_store_is_read(sounds, tmp_path, monkeypatch):
    """`local:` takes litdata's way of object stores, with a cache of its own."""
    monkeypatch.setattr("litdata.utilities.dataset_utilities._DEFAULT_CACHE_DIR", str(tmp_path))
    pack(folder(sounds), tmp_path / "packed")
    shards = folder("nowhere", packed=f"local:{tmp_path / 'packed'}")
    equal(batches(shards), batches(folder(sounds)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda facts: None, "expected an object"),
        (lambda facts: facts | {"version": 2}, "version"),
        (lambda facts: facts | {"labels": "abc"}, "labels"),
        (lambda facts: facts | {"labels": ["\x1b[31m", "b"]}, "labels"),
        (lambda facts: facts | {"folds": 10**9}, "folds"),
        (lambda facts: facts | {"left_out": [1]}, "left_out"),
        (lambda facts: facts | {"sample_rate": "x"}, "sample_rate"),
        (lambda facts: facts | {"clips": []}, "clips"),
        (lambda facts: facts | {"listed": 1}, "listed"),
        (lambda facts: facts | {"clips": [3]}, r"clips\[0\]"),
        (lambda facts: facts | {"clips": facts["clips"] + facts["clips"][:1]}, "twice there"),
        (lambda facts: with_row(facts, label=9), "no such label"),
        (lambda facts: with_row(facts, label=[0]), "another task"),
        (lambda facts: with_row(facts, fold="1"), r"clips\[0\]\[2\]"),
        (lambda facts: with_row(facts, frames=10**12), r"clips\[0\]\[3\]"),
        (lambda facts: with_row(facts, rate=0), r"clips\[0\]\[4\]"),
    ],
    ids=range(16),
)
def test_facts_that_pack_did_not_write_are_refused(sounds, tmp_path, change, said):
    pack(folder(sounds), tmp_path / "packed")
    write_facts(tmp_path / "packed", json.dumps(change(facts_of(tmp_path / "packed"))).encode())
    with pytest.raises(DataError, match=rf"packed: holds no clips .*{said}"):
        PackedClips(str(tmp_path / "packed"))


def with_row(facts, **changes):
    names = ("id", "label", "fold", "frames", "rate")
    first = dict(zip(names, facts["clips"][0], strict=True)) | changes
    return facts | {"clips": [list(first.values()), *facts["clips"][1:]]}


@pytest.mark.filterwarnings("ignore")  # of a thread of litdata's
def test_a_shard_that_is_not_whole_is_told_in_one_line(sounds, tmp_path):
    pack(folder(sounds), tmp_path / "packed")
    path = tmp_path / "packed" / "shard-00001.bin"
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(DataError, match=r"packed: no packed set is there, or it is not whole"):
        PackedClips(str(tmp_path / "packed")).get("0", 8000)


@pytest.mark.parametrize("note", ["", "[]", "{", '{"next": 3}', '{"next": -1, "clips": []}'])
def test_notes_that_pack_did_not_write_are_not_gone_on_from(sounds, tmp_path, note):
    made = pack(folder(sounds), tmp_path / "packed")
    (tmp_path / "packed" / "index.json").unlink()
    (tmp_path / "packed" / ".packing").mkdir()
    (tmp_path / "packed" / ".packing" / "plan").write_text(made["plan"])
    (tmp_path / "packed" / ".packing" / "1.json").write_text(note)
    with pytest.raises(DataError, match=r"cannot be gone on from \(1.json\): delete it"):
        pack(folder(sounds), tmp_path / "packed")
