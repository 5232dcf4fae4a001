import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import qaudio
from qaudio.cards.confusion import draw
from qaudio.errors import EntryError
from qaudio.evaluation.predictions import Predictions
from qaudio.zoo.entry import load_weights, renew_card, to_json
from tests.support.entries import LABELS, change_config, rehash, results_of, tiny


@pytest.fixture
def entry(tmp_path):
    rng = np.random.default_rng(0)
    label = np.arange(30) % 3
    logits = rng.standard_normal((30, 3)) + 2 * np.eye(3)[label]
    names = [f"{n:02}" for n in range(30)]
    predictions = Predictions.of_run(1, 0, names, label, logits).merged(
        Predictions.of_run(2, 0, [f"x{n}" for n in names], label, -logits)
    )
    model = tiny()
    return qaudio.save(
        model,
        tmp_path / "qcnn6_006.made",
        results=results_of(predictions),
        predictions=predictions,
        recipe="model: {}\n",
        license="cc-by-4.0",
        folds={"folds/1.safetensors": tiny().state_dict()},
    )


def test_what_an_entry_holds_is_as_readable_as_any_new_file(entry, tmp_path):
    (tmp_path / "any").touch()
    usual = (tmp_path / "any").stat().st_mode
    assert {path.stat().st_mode for path in entry.rglob("*") if path.is_file()} == {usual}


@pytest.mark.parametrize("arch", ["qcnn6_006", "cnn10_013"])
def test_saved_models_load_with_equal_logits(tmp_path, arch):
    model, sound = tiny(arch=arch), torch.randn(2, 8000)
    again = qaudio.load(qaudio.save(model, tmp_path / "entry"))
    with torch.no_grad():
        assert torch.equal(model(sound), again(sound))
    assert (again.labels, again.eval_seconds, again.config) == (LABELS, 1.0, model.config)
    assert not again.training


def test_pruned_models_load_and_prune_again(tmp_path):
    once = qaudio.prune(tiny(arch="qcnn6_025"), ratio=0.5)
    loaded = qaudio.load(qaudio.save(once, tmp_path / "once"))
    twice = qaudio.load(qaudio.save(qaudio.prune(loaded, ratio=0.5), tmp_path / "twice"))
    sound = torch.randn(1, 8000)
    with torch.no_grad():
        assert torch.equal(once(sound), loaded(sound))
        assert twice(sound).shape == (1, 3)
    assert twice.widths["conv_block4.conv1"] == once.widths["conv_block4.conv1"] // 2


def test_num_classes_gives_a_fresh_head(entry):
    model = qaudio.load(entry, num_classes=7)
    assert model(torch.randn(1, 8000)).shape == (1, 7)
    assert model.labels is None


def test_verify_passes_and_says_what_it_checked(entry):
    text = " ".join(qaudio.verify(entry))
    for what in ("sha256", "probe", "predictions.npz", "README.md"):
        assert what in text


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


def test_a_forged_digit_of_the_card_is_found(entry):
    card = (entry / "README.md").read_text()
    digit = next(c for c in card.split("Accuracy **")[1] if c.isdigit())
    (entry / "README.md").write_text(card.replace(f"Accuracy **{digit}", "Accuracy **9", 1) + " ")
    rehash(entry, "README.md")
    with pytest.raises(EntryError, match="not the card"):
        qaudio.verify(entry)


@pytest.mark.parametrize("path", ["cost.params", "training.wall_seconds", "card_fold"])
def test_a_forged_fact_that_predictions_do_not_hold_is_found_by_the_card(entry, path):
    results = json.loads((entry / "results.json").read_text())
    holder = results
    for key in path.split(".")[:-1]:
        holder = holder[key]
    holder[path.split(".")[-1]] *= 1000
    (entry / "results.json").write_text(to_json(results))
    rehash(entry, "results.json")
    with pytest.raises(EntryError, match="not the card"):
        qaudio.verify(entry)


def test_a_picture_of_other_counts_is_found(entry):
    predictions = Predictions.load(entry / "predictions.npz")
    other = predictions.select(predictions.fold == 1)
    for name, shown in (("forged", other), ("own", predictions)):
        draw(shown, LABELS, entry / "confusion.png")
        rehash(entry, "confusion.png")
        if name == "own":
            qaudio.verify(entry)
        else:
            with pytest.raises(EntryError, match=r"confusion\.png shows other counts"):
                qaudio.verify(entry)
    (entry / "confusion.png").write_bytes(b"no picture")
    rehash(entry, "confusion.png")
    with pytest.raises(EntryError, match=r"confusion\.png is not readable"):
        qaudio.verify(entry)


def test_the_picture_is_the_same_each_time(entry, tmp_path):
    predictions = Predictions.load(entry / "predictions.npz")
    draw(predictions, LABELS, tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == (entry / "confusion.png").read_bytes()


def test_a_dropped_picture_is_found(entry):
    (entry / "confusion.png").unlink()
    config = json.loads((entry / "config.json").read_text())
    del config["files"]["confusion.png"]
    (entry / "config.json").write_text(to_json(config))
    with pytest.raises(EntryError, match=r"README\.md, not README\.md, confusion\.png"):
        qaudio.verify(entry)


def test_a_card_is_renewed_and_nothing_else(entry):
    before = {p.name: p.read_bytes() for p in entry.rglob("*") if p.is_file()}
    assert not renew_card(entry)
    (entry / "README.md").write_text("worded otherwise")
    change_config(entry, card_format=1)
    assert renew_card(entry)
    assert {p.name: p.read_bytes() for p in entry.rglob("*") if p.is_file()} == before
    qaudio.verify(entry)


def test_no_card_is_made_of_results_that_do_not_hold(entry):
    results = json.loads((entry / "results.json").read_text())
    results["result"]["mean"] = 0.999
    (entry / "results.json").write_text(to_json(results))
    card = (entry / "README.md").read_bytes()
    for repair in (lambda: None, lambda: rehash(entry, "results.json")):
        repair()
        with pytest.raises(EntryError, match=r"was changed|predictions\.npz gives"):
            renew_card(entry)
    assert (entry / "README.md").read_bytes() == card


def test_a_leaderboards_score_is_a_file_that_verify_makes_anew(entry, tmp_path):
    predictions = Predictions.load(entry / "predictions.npz")
    benchmark = {"hub_benchmark": {"dataset_id": "your-name/sounds", "task_id": "default"}}
    other = qaudio.save(
        tiny(), tmp_path / "other", results=results_of(predictions) | benchmark,
        predictions=predictions, recipe="model: {}\n", license="cc-by-4.0",
    )  # fmt: skip
    name = ".eval_results/made.yaml"
    assert name in " ".join(qaudio.verify(other))
    (other / name).write_text((other / name).read_text().replace("value: 0", "value: 1"))
    rehash(other, name)
    with pytest.raises(EntryError, match="not the card"):
        qaudio.verify(other)


def test_what_git_and_the_hub_put_into_a_folder_is_no_stray_file(entry):
    (entry / ".git").mkdir()
    (entry / ".git" / "HEAD").write_text("ref: refs/heads/main")
    (entry / ".gitattributes").write_text("*.safetensors filter=lfs")
    (entry / "folds" / ".DS_Store").touch()  # of a file manager
    qaudio.verify(entry)


def test_what_git_keeps_in_an_entry_stays_when_it_is_written_anew(entry):
    objects = entry / ".git" / "objects"
    objects.mkdir(parents=True)
    (objects / "1").write_text("a commit")
    (objects / "1").chmod(0o444)
    (entry / ".git" / "link").symlink_to("nowhere")
    (entry / ".gitattributes").write_text("*.safetensors filter=lfs")
    (entry / "README.md").write_text("worded otherwise")
    assert renew_card(entry)
    qaudio.save(tiny(), entry)
    assert (objects / "1").read_text() == "a commit"
    assert (entry / ".git" / "link").readlink() == Path("nowhere")
    assert (entry / ".gitattributes").read_text() == "*.safetensors filter=lfs"
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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 2}, "schema_version is 2"),
        ({"schema_version": "drop"}, "schema_version is None"),
        ({"widths": "drop"}, "'widths' is missing"),
        ({"num_classes": "3"}, "'num_classes' has the wrong type"),
        ({"num_classes": True}, "'num_classes' has the wrong type"),
        ({"labels": ["a"]}, "3 classes, 1 labels"),
        ({"task": "guess"}, "unknown task"),
        ({"architecture": "qcnn99"}, "unknown architecture"),
        ({"frontend": {"kind": "delta", "hop": 3}}, "unknown frontend settings: hop"),
        ({"widths": {"fc1": 4}}, "widths of qcnn6_006 must name its layers"),
    ],
)
def test_a_wrong_config_is_refused_by_name(entry, changes, message):
    change_config(entry, **changes)
    with pytest.raises(EntryError, match=message) as caught:
        qaudio.load(entry)
    assert "\n" not in str(caught.value)


def test_a_config_that_is_no_json_is_refused(entry):
    (entry / "config.json").write_text("{")
    with pytest.raises(EntryError, match="not readable"):
        qaudio.load(entry)


def test_weights_of_another_shape_are_refused_by_tensor(entry):
    state = load_file(entry / "model.safetensors")
    state["classifier.bias"] = torch.zeros(4)
    del state["bn0.weight"]
    save_file(state, entry / "model.safetensors")
    rehash(entry, "model.safetensors")
    with pytest.raises(EntryError, match=r"tensor bn0.weight: expected shape \(256,\), found none"):
        qaudio.load(entry)


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"\x80\x04pickle"])
def test_weights_that_are_no_safetensors_are_refused(entry, content):
    (entry / "model.safetensors").write_bytes(content)
    rehash(entry, "model.safetensors")
    with pytest.raises(EntryError, match=r"model\.safetensors is not readable"):
        qaudio.load(entry)


def test_missing_weights_are_named(entry):
    (entry / "model.safetensors").unlink()
    with pytest.raises(EntryError, match=r"model\.safetensors is missing"):
        qaudio.load(entry)


def test_unknown_sources_say_what_exists():
    with pytest.raises(EntryError, match=r"no entry or folder named 'qcnn10_050\.esc11'.*esc10"):
        qaudio.load("qcnn10_050.esc11")


def test_saving_over_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(EntryError, match="holds files but is no entry"):
        qaudio.save(tiny(), tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    with pytest.raises(EntryError, match=r"thesis\.txt: is a file, not a folder"):
        qaudio.save(tiny(), tmp_path / "thesis.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    "config", ['{"model_type": "wav2vec2"}', '{"files": {}}', '{"schema_version": 1}', "[]", "{"]
)
def test_a_config_of_something_else_makes_no_entry(tmp_path, config):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "config.json").write_text(config)
    with pytest.raises(EntryError, match="holds files but is no entry"):
        qaudio.save(tiny(), theirs)
    assert (theirs / "config.json").read_text() == config


def test_an_entry_with_files_of_others_is_not_replaced(entry):
    (entry / "notes").mkdir()
    (entry / "notes" / "a.txt").write_text("mine")
    (entry / "README.md").write_text("worded otherwise")
    for write in (lambda: qaudio.save(tiny(), entry), lambda: renew_card(entry)):
        with pytest.raises(EntryError, match=r"not the entry's \(notes/a\.txt\): move them"):
            write()
    assert (entry / "notes" / "a.txt").read_text() == "mine"


def test_what_could_not_be_read_again_is_not_saved(tmp_path):
    model = tiny()
    model.labels = ["one", "two"]
    with pytest.raises(EntryError, match="would not be read again: 3 classes, 2 labels"):
        qaudio.save(model, tmp_path / "new")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_weights_of_another_precision_are_saved_as_they_load(tmp_path, dtype):
    saved = qaudio.save(tiny().to(dtype), tmp_path / "new")
    qaudio.verify(saved)
    assert qaudio.load(saved).classifier.weight.dtype == torch.float32


def test_a_failed_save_leaves_the_old_entry_and_no_litter(entry, monkeypatch):
    before = {p: p.read_bytes() for p in entry.rglob("*") if p.is_file()}

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("qaudio.zoo.entry.make_probe", fail)
    with pytest.raises(OSError, match="disk full"):
        qaudio.save(tiny(seed=2), entry)
    assert {p: p.read_bytes() for p in entry.rglob("*") if p.is_file()} == before
    assert list(entry.parent.iterdir()) == [entry]


def test_fold_weights_load_by_name(entry):
    model = load_weights(entry, "folds/1.safetensors")
    sound = torch.randn(1, 8000)
    with torch.no_grad():
        assert torch.equal(model(sound), tiny()(sound))


def test_schema_1_loads_for_ever():
    """The entry in schema1/ was written by qaudio 0.1.0 and is never written again."""
    frozen = Path(__file__).parent / "schema1"
    model = qaudio.load(frozen)
    probe = load_file(frozen / "probe.safetensors")
    with torch.no_grad():
        assert torch.allclose(model(probe["waveform"]), probe["logits"], atol=1e-4)
    assert model.labels == LABELS
    assert json.loads((frozen / "config.json").read_text())["schema_version"] == 1


def test_the_card_of_schema_1_still_verifies(tmp_path):
    entry = shutil.copytree(Path(__file__).parent / "schema1", tmp_path / "schema1")
    assert "as another version words it" in qaudio.verify(entry)[-1]
    card = (entry / "README.md").read_text()
    for forged in (card.replace("value: 0.833333", "value: 0.933333"),
                   card.replace("**83.3 %**", "**93.3 %**")):  # fmt: skip
        assert forged != card
        (entry / "README.md").write_text(forged)
        rehash(entry, "README.md")
        with pytest.raises(EntryError, match="not the card of score"):
            qaudio.verify(entry)
    assert renew_card(entry)
    assert "the card of these results" in qaudio.verify(entry)[-1]


# What others' folders may hold.


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
    with pytest.raises(EntryError, match=r"files's keys.* expected a path inside the entry"):
        qaudio.load(entry)


@pytest.mark.parametrize("benchmark", ["../../outside", "/tmp/outside"])
def test_no_card_is_written_outside(entry, tmp_path, benchmark):
    results = json.loads((entry / "results.json").read_text())
    results |= {"benchmark": benchmark, "hub_benchmark": {"dataset_id": "a/b", "task_id": "c"}}
    (entry / "results.json").write_text(to_json(results))
    rehash(entry, "results.json")
    for act in (qaudio.verify, renew_card):
        with pytest.raises(EntryError, match=r"'benchmark' .* expected a name without slashes"):
            act(entry)
    assert list(tmp_path.iterdir()) == [entry]


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5000, '{"a": "\\ud800"}',
                                  "[" + "[]," * (1 << 22)])  # fmt: skip
@pytest.mark.parametrize("name", ["config.json", "results.json"])
def test_json_that_explodes_is_one_line(entry, name, text):
    (entry / name).write_text(text)
    rehash(entry, name) if name != "config.json" else None
    with pytest.raises(EntryError, match=f"{name} is not readable") as caught:
        qaudio.verify(entry)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "cnn14_999"}, "widths of cnn14_999 must name its layers"),
        ({"architecture": "timm:convnext_xxlarge", "widths": {}}, "tensor backbone"),
        ({"num_classes": 10**9, "labels": None}, "num_classes must be at most"),
        ({"num_classes": 10**6, "labels": None}, r"tensor classifier.*expected shape \(1000000,"),
        ({"frontend": {"n_fft": 1 << 28}}, "n_fft must be at most 65536"),
        ({"frontend": {"hop_length": 1}}, "over 1000000 values a second"),
    ],
)
def test_absurd_memory_is_refused_before_it_is_asked_for(entry, monkeypatch, changes, message):
    change_config(entry, **changes)

    def build(config):
        raise AssertionError("the network was built")

    monkeypatch.setattr("qaudio.zoo.entry.from_config", build)
    with pytest.raises(EntryError, match=message):
        qaudio.load(entry)


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


def test_a_picture_is_not_unpacked(entry, monkeypatch):
    from PIL import Image

    def unpack(self):
        raise AssertionError("unpacked")

    monkeypatch.setattr(Image.Image, "load", unpack)
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
    with pytest.raises(EntryError, match=rf"results\.json: '{path}.* has the wrong type"):
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


def test_entries_have_the_same_line_ends_on_every_system(tmp_path, monkeypatch):
    ends, write = {}, Path.write_text

    def watched(path, text, **options):
        ends[path.name] = options.get("newline")
        return write(path, text, **options)

    monkeypatch.setattr(Path, "write_text", watched)
    label = np.arange(6) % 3
    scored = Predictions.of_run(1, 0, list("abcdef"), label, np.eye(3)[label])
    qaudio.save(
        tiny(), tmp_path / "entry", recipe="a: 1\n", extra={"note.txt": "a\n"}, predictions=scored,
        results=results_of(scored), license="cc-by-4.0",
    )  # fmt: skip
    assert ends.keys() == {"recipe.yaml", "note.txt", "results.json", "README.md", "config.json"}
    assert set(ends.values()) == {"\n"}
