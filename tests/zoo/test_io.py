import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import qaudio
from qaudio.cards.entries import renew_card
from qaudio.errors import EntryError
from qaudio.evaluation.predictions import Predictions
from qaudio.zoo.io import load_weights
from qaudio.zoo.store import file_hash, to_json
from tests.support.entries import LABELS, LOCK, change_config, made_entry, rehash, results_of, tiny


@pytest.fixture
def entry(tmp_path):
    return made_entry(tmp_path)


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 2}, "schema_version is 2"),
        ({"schema_version": "drop"}, "schema_version is None"),
        ({"widths": "drop"}, "config.json: widths is missing"),
        ({"num_classes": "3"}, "num_classes: expected a whole number"),
        ({"num_classes": True}, "num_classes: expected a whole number"),
        ({"labels": ["a"]}, "3 classes, 1 labels"),
        ({"task": "guess"}, "task: invalid enum value 'guess'"),
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


def _two_lines(model):
    model.labels = ["one", "two", "thr\nee"]


def _own_head(model):
    model.classifier = torch.nn.Linear(model.num_features, 5)


def _own_layer(model):
    model.attention = torch.nn.Linear(4, 4)


def _own_name(model):
    model.architecture = "nobodys"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_two_lines, r"labels\[2\]: expected text of one line"),
        (
            _own_head,
            r"model\.safetensors: tensor classifier\.bias: expected shape \(3,\), found \(5,",
        ),
        (_own_layer, r"tensor attention\.bias: expected shape none, found \(4,\)"),
        (_own_name, "unknown architecture 'nobodys'"),
    ],
)
def test_what_could_not_be_read_again_is_not_saved(tmp_path, change, said):
    model = tiny()
    change(model)
    with pytest.raises(EntryError, match=rf"would not be read again: .*{said}"):
        qaudio.save(model, tmp_path / "new")
    assert {path.name for path in tmp_path.iterdir()} <= {LOCK}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_weights_of_another_precision_are_saved_as_they_load(tmp_path, dtype):
    saved = qaudio.save(tiny().to(dtype), tmp_path / "new")
    qaudio.verify(saved)
    assert qaudio.load(saved).classifier.weight.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.complex64, torch.bool, torch.float32])
def test_whole_numbers_of_another_kind_are_refused(entry, dtype):
    state = load_file(entry / "model.safetensors")
    name = next(name for name in state if name.endswith("num_batches_tracked"))
    save_file(state | {name: state[name].to(dtype)}, entry / "model.safetensors")
    rehash(entry, "model.safetensors")
    with pytest.raises(EntryError, match=rf"tensor {name}: expected torch\.int64, found"):
        qaudio.load(entry)


def test_a_failed_save_leaves_the_old_entry_and_no_litter(entry, monkeypatch):
    before = {p: p.read_bytes() for p in entry.rglob("*") if p.is_file()}

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("qaudio.zoo.io.make_probe", fail)
    with pytest.raises(OSError, match="disk full"):
        qaudio.save(tiny(seed=2), entry)
    assert {p: p.read_bytes() for p in entry.rglob("*") if p.is_file()} == before
    assert {path.name for path in entry.parent.iterdir()} - {LOCK} == {entry.name}


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "qcnn14_999"}, "widths of qcnn14_999 must name its layers"),
        (
            {"architecture": "timm:convnext_xxlarge", "widths": {}, "quaternion": False},
            "tensor backbone",
        ),
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

    monkeypatch.setattr("qaudio.zoo.io.from_config", build)
    with pytest.raises(EntryError, match=message):
        qaudio.load(entry)


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


def broken(value=float("nan")):
    model = tiny()
    model.classifier.weight.data[0, 0] = value
    return model


def test_weights_that_are_no_numbers_are_not_saved(entry):
    before = (entry / "config.json").read_bytes()
    with pytest.raises(EntryError, match=r"not saved: tensor classifier\.weight holds NaN"):
        qaudio.save(broken(), entry)
    with pytest.raises(EntryError, match=r"not saved: tensor classifier\.weight holds NaN"):
        qaudio.save(tiny(), entry, folds={"folds/1.safetensors": broken().state_dict()})
    assert (entry / "config.json").read_bytes() == before


def test_weights_that_are_no_numbers_are_not_loaded(entry):
    for name in ("model.safetensors", "folds/1.safetensors"):
        save_file(broken(float("inf")).state_dict(), entry / name)
        config = json.loads((entry / "config.json").read_text())
        config["files"][name] = file_hash(entry / name)
        (entry / "config.json").write_text(to_json(config))
        with pytest.raises(EntryError, match=rf"{name} .*classifier\.weight holds NaN or infinite"):
            load_weights(entry, name)
