import json
import re
import shutil
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import qaudio
from qaudio.errors import EntryError
from qaudio.evaluation.predictions import Predictions
from qaudio.zoo.store import to_json
from tests.support.entries import change_config, made_entry, rehash, tiny


@pytest.fixture
def entry(tmp_path):
    return made_entry(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "README.md", "confusion.png",
                                  "predictions.npz",
                                  "probe.safetensors", "recipe.yaml", "folds/1.safetensors",
                                  "results.json"])  # fmt: skip
def test_a_changed_byte_is_found(entry, name):
    content = bytearray((entry / name).read_bytes())
    content[len(content) // 2] ^= 1
    (entry / name).write_bytes(content)
    with pytest.raises(EntryError, match="changed: sha256"):
        qaudio.verify(entry)


def test_a_forged_digit_of_the_results_is_found(entry):
    text = (entry / "results.json").read_text()
    results = json.loads(text)
    stated = results["result"]["folds"]["1"]
    for place in ("mean", "std", "folds", "runs", "interval95"):
        forged = json.loads(text)
        if place == "folds":
            forged["result"]["folds"]["1"] = round(stated + 1e-6, 6)
        elif place == "runs":
            forged["result"]["runs"]["seed0_fold2"] += 0.1
        elif place == "interval95":
            forged["result"]["interval95"][0] -= 1e-6
        else:
            forged["result"][place] = round(forged["result"][place] + 1e-6, 6)
        (entry / "results.json").write_text(to_json(forged))
        rehash(entry, "results.json")
        with pytest.raises(EntryError, match=rf"result\.{place}.* predictions.npz gives"):
            qaudio.verify(entry)


def test_what_git_and_the_hub_put_into_a_folder_is_no_stray_file(entry):
    (entry / ".git").mkdir()
    (entry / ".git" / "HEAD").write_text("ref: refs/heads/main")
    (entry / ".gitattributes").write_text("*.safetensors filter=lfs")
    (entry / "folds" / ".DS_Store").touch()  # of a file manager
    qaudio.verify(entry)


def test_files_missing_and_files_added_are_told_apart(entry):
    (entry / "recipe.yaml").rename(entry / "notes.yaml")
    with pytest.raises(EntryError, match=r"files missing: recipe\.yaml$"):
        qaudio.verify(entry)
    shutil.copy(entry / "notes.yaml", entry / "recipe.yaml")
    with pytest.raises(EntryError, match=r"config\.json does not list: notes\.yaml$"):
        qaudio.verify(entry)


def test_a_pointer_of_git_lfs_is_named(entry):
    (entry / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid 1\n")
    with pytest.raises(EntryError, match=r"model\.safetensors is a pointer of Git LFS: `git lfs"):
        qaudio.load(entry)


def test_other_weights_are_found_by_the_probe(entry):
    save_file(tiny(seed=1).state_dict(), entry / "model.safetensors")
    rehash(entry, "model.safetensors")
    with pytest.raises(EntryError, match="other logits than probe"):
        qaudio.verify(entry)


@pytest.mark.parametrize("name", ["waveform", "logits"])
@pytest.mark.parametrize("change", [torch.Tensor.int, torch.Tensor.bool, lambda x: x[:0]])
def test_a_probe_that_is_none_is_refused(entry, name, change):
    probe = load_file(entry / "probe.safetensors")
    save_file(probe | {name: change(probe[name])}, entry / "probe.safetensors")
    rehash(entry, "probe.safetensors")
    with pytest.raises(EntryError, match=r"probe\.safetensors is not usable"):
        qaudio.verify(entry)


def test_folds_may_be_left_out_together(entry):
    shutil.rmtree(entry / "folds")
    qaudio.verify(entry)


@pytest.mark.parametrize("name", ["config.json", "results.json", "model.safetensors",
                                  "predictions.npz", "README.md"])  # fmt: skip
def test_links_that_lead_out_are_refused_and_others_are_not(entry, tmp_path, name):
    outside = tmp_path / "outside"
    shutil.move(entry / name, outside)
    (entry / name).symlink_to(outside)
    with pytest.raises(EntryError, match=f"{name} is a link that leads out of the entry"):
        qaudio.verify(entry)
    (entry / name).unlink()
    (entry / ".cache").mkdir()
    shutil.move(outside, entry / ".cache" / name)
    (entry / name).symlink_to(entry / ".cache" / name)
    qaudio.verify(entry)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../x", "C:\\x", "a\nb", "."])
def test_names_that_lead_out_are_refused(entry, name):
    config = json.loads((entry / "config.json").read_text())
    change_config(entry, files=config["files"] | {name: "0" * 64})
    with pytest.raises(EntryError, match=r"files: of its keys: expected a path inside the entry"):
        qaudio.load(entry)


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5000, '{"a": "\\ud800"}',
                                  "[" + "[]," * (1 << 22)])  # fmt: skip
@pytest.mark.parametrize("name", ["config.json", "results.json"])
def test_json_that_explodes_is_one_line(entry, name, text):
    (entry / name).write_text(text)
    rehash(entry, name) if name != "config.json" else None
    with pytest.raises(EntryError, match=f"{name} is not readable") as caught:
        qaudio.verify(entry)
    assert len(str(caught.value)) < 300


def test_an_array_that_claims_terabytes_is_refused(entry):
    with zipfile.ZipFile(entry / "predictions.npz", "w") as archive:
        for name in Predictions.__dataclass_fields__:
            head = "{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776,), }".ljust(
                117
            )
            archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00\x76\x00" + head.encode() + b"\n")
    rehash(entry, "predictions.npz")
    with pytest.raises(EntryError, match="more than the file holds"):
        qaudio.verify(entry)


@pytest.mark.parametrize(
    ("path", "value"),
    [("result.mean", "x"), ("parent", "x"), ("cost", []), ("seeds", 3), ("entry", "two\nlines"),
     ("parent", {"name": "../x", "how": "pruned from"}), ("trained_on", [None])],
)  # fmt: skip
def test_results_of_wrong_types_are_refused_by_field(entry, path, value):
    results = json.loads((entry / "results.json").read_text())
    holder, _, key = path.rpartition(".")
    (results[holder] if holder else results)[key] = value
    (entry / "results.json").write_text(to_json(results))
    rehash(entry, "results.json")
    with pytest.raises(EntryError, match=rf"results\.json: {re.escape(path)}.*: expected"):
        qaudio.verify(entry)


@pytest.mark.parametrize("field", ["label", "logits", "fold", "clip"])
def test_predictions_that_are_none_are_refused(entry, field):
    stored = Predictions.load(entry / "predictions.npz")
    for spoilt in (np.full(60, -1.5j), np.zeros((60, 2, 2)), np.zeros(0)):
        setattr(other := stored.select(slice(None)), field, spoilt)
        other.save(entry / "predictions.npz")
        rehash(entry, "predictions.npz")
        with pytest.raises(EntryError, match=r"predictions\.npz"):
            qaudio.verify(entry)
