import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import qaudio
from qaudio.cards import files as card_files
from qaudio.cards.confusion import confusion, draw
from qaudio.cards.entries import add_transfer, renew_card
from qaudio.errors import EntryError
from qaudio.evaluation.predictions import Predictions
from qaudio.text import markdown
from qaudio.zoo.store import file_hash, read_results, to_json
from tests.support.entries import LABELS, LOCK, change_config, made_entry, rehash, results_of, tiny

ROOT = Path(qaudio.__file__).parents[1]


@pytest.fixture
def entry(tmp_path):
    return made_entry(tmp_path)


def test_verify_passes_and_says_what_it_checked(entry):
    text = " ".join(qaudio.verify(entry))
    for what in ("sha256", "probe", "predictions.npz", "README.md"):
        assert what in text


def forge(entry, old, new, name="README.md"):
    text = (entry / name).read_text()
    assert old in text
    (entry / name).write_text(text.replace(old, new, 1))
    rehash(entry, name)


def test_verify_finds_a_forged_number_of_the_card(entry):
    card = (entry / "README.md").read_text()
    for shown in re.findall(r"\d+\.\d %", card.split("---\n", 2)[2]):
        forge(entry, shown, "99.9 %")
        with pytest.raises(EntryError, match=f"README.md shows 99.9 % where .* give {shown}"):
            qaudio.verify(entry)
        (entry / "README.md").write_text(card)


def test_verify_finds_a_number_that_was_added_or_moved(entry):
    card = (entry / "README.md").read_text()
    first, second = re.findall(r"(?m)^\| [12] \| .*$", card)
    moved = card.replace(first, "").replace(second, f"{second}\n{first}")
    for forged in (card + "Best of 7.\n", moved):
        (entry / "README.md").write_text(forged)
        rehash(entry, "README.md")
        with pytest.raises(EntryError, match=r"README\.md shows .* where its results give"):
            qaudio.verify(entry)


@pytest.mark.parametrize(
    "old, new",
    [
        ("cc-by-4.0", "mit"),
        ("value: ", "value: 1"),
        ("- audio\n", "- &a audio\n- *b\n"),
        ("license", "- license"),
    ],
)
def test_verify_finds_forged_metadata_of_the_card(entry, old, new):
    forge(entry, old, new)
    with pytest.raises(EntryError, match=r"README\.md: its metadata is not of its results"):
        qaudio.verify(entry)


def test_verify_lets_the_wording_of_a_card_be(entry):
    forge(entry, "## Limits and biases", "## What it cannot do")
    qaudio.verify(entry)
    assert renew_card(entry)
    assert "## Limits and biases" in (entry / "README.md").read_text()


@pytest.mark.parametrize("path", ["cost.params", "training.wall_seconds", "card_fold"])
def test_a_forged_fact_that_predictions_do_not_hold_is_found_by_the_card(entry, path):
    results = json.loads((entry / "results.json").read_text())
    holder = results
    for key in path.split(".")[:-1]:
        holder = holder[key]
    holder[path.split(".")[-1]] *= 1000
    (entry / "results.json").write_text(to_json(results))
    rehash(entry, "results.json")
    with pytest.raises(EntryError, match=r"README\.md shows"):
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
    forge(other, "value: 0", "value: 1", name)
    with pytest.raises(EntryError, match="its metadata is not of its results"):
        qaudio.verify(other)


def test_the_card_of_schema_1_still_verifies(tmp_path):
    entry = shutil.copytree(Path(__file__).parents[1] / "zoo" / "schema1", tmp_path / "schema1")
    assert "a card of another version" in qaudio.verify(entry)[-1]
    card = (entry / "README.md").read_text()
    for forged in (card.replace("value: 0.833333", "value: 0.933333"),
                   card.replace("**83.3 %**", "**93.3 %**")):  # fmt: skip
        assert forged != card
        (entry / "README.md").write_text(forged)
        rehash(entry, "README.md")
        with pytest.raises(EntryError, match="not the card of score"):
            qaudio.verify(entry)
    assert renew_card(entry)
    assert "numbers and metadata are those of the results" in qaudio.verify(entry)[-1]


@pytest.mark.parametrize("benchmark", ["../../outside", "/tmp/outside"])
def test_no_card_is_written_outside(entry, tmp_path, benchmark):
    results = json.loads((entry / "results.json").read_text())
    results |= {"benchmark": benchmark, "hub_benchmark": {"dataset_id": "a/b", "task_id": "c"}}
    (entry / "results.json").write_text(to_json(results))
    rehash(entry, "results.json")
    for act in (qaudio.verify, renew_card):
        with pytest.raises(EntryError, match=r"benchmark: expected a name without slashes"):
            act(entry)
    assert {path.name for path in tmp_path.iterdir()} - {LOCK} == {entry.name}


def test_a_picture_is_not_unpacked(entry, monkeypatch):
    from PIL import Image

    def unpack(self):
        raise AssertionError("unpacked")

    monkeypatch.setattr(Image.Image, "load", unpack)
    qaudio.verify(entry)


def test_confusion_counts_labels_of_small_integers():
    label = np.arange(50, dtype=np.uint8)
    own = Predictions.of_run(1, 0, [f"{n:02}" for n in label], label, np.eye(50))
    assert own.label.dtype == np.uint8 and confusion(own).trace() == 50


@pytest.mark.parametrize("names", [["$", "$$", "$^$"], ["a|b", "<script>x</script>", "`*[c](d)"]])
def test_names_of_classes_are_text_in_picture_and_card(entry, tmp_path, names):
    predictions = Predictions.load(entry / "predictions.npz")
    model = qaudio.load(entry)
    model.labels = names
    made = qaudio.save(
        model, tmp_path / "odd", results=results_of(predictions, "odd"), predictions=predictions,
        recipe="model: {}\n",
    )  # fmt: skip
    assert qaudio.verify(made)
    card = (made / "README.md").read_text()
    assert "<script" not in card.replace("\\<", "")
    (row,) = [line for line in card.splitlines() if line.startswith(f"| {markdown(names[0])} |")]
    assert len(re.findall(r"(?<!\\)\|", row)) == 5


def test_what_was_heard_and_carried_over_is_text_in_the_card(entry, tmp_path):
    predictions = Predictions.load(entry / "predictions.npz")
    row = {"recordings": 1, "hours": 0.5, "licence": "<b>CC|0</b>"}
    heard = {"sources": {"a|b": row}, "hours": 0.5, "held_out": ["`c`"], "overlap_check": "[d](e)"}
    teaching = {"teacher": "x.audioset", "tagged_from": 0.3, "least_tagged": 5, "heard": heard}
    made = qaudio.save(
        qaudio.load(entry), tmp_path / "odd", predictions=predictions, recipe="model: {}\n",
        results=results_of(predictions, "odd") | {"teaching": teaching},
    )  # fmt: skip
    add_transfer(made, **score_of(made) | {"protocol": "f|g; probe"})
    assert qaudio.verify(made)
    card = (made / "README.md").read_text()
    assert "| a\\|b | 1 | 0.50 | \\<b\\>CC\\|0\\</b\\> |" in card
    assert "validation: \\`c\\`. " in card and "benchmarks: \\[d\\](e)." in card
    assert "f\\|g; probe | " in card


def test_add_transfer_keeps_scores_of_other_benchmarks_by_the_same_protocol(entry):
    """ESC-10 and 26 classes of ESC-50 have the same official folds."""
    for benchmark in ("esc10", "esc26", "esc10"):
        add_transfer(entry, **score_of(entry) | {"benchmark": benchmark, "protocol": "folds"})
    scores = read_results(entry).transfer
    assert [one.benchmark for one in scores] == ["esc10", "esc26"]
    assert len({one.predictions for one in scores}) == 2
    assert qaudio.verify(entry)
    card = (entry / "README.md").read_text()
    assert "| ESC-10: folds | " in card and "| ESC-50, 26 of its classes: folds | " in card


def score_of(entry):
    """A score as `qaudio probe` makes it, of an entry's own predictions."""
    results = read_results(entry)
    return {
        "benchmark": results.benchmark, "dataset": results.dataset, "protocol": results.protocol,
        "result": results.result, "predictions": Predictions.load(entry / "predictions.npz"),
    }  # fmt: skip


@pytest.mark.parametrize("how", ["card", "scores"])
def test_what_is_written_meanwhile_is_not_lost(entry, tmp_path, monkeypatch, how):
    """Another process that saves waits until the card is written, and its entry stays."""
    (entry / "README.md").write_text("old")
    config = json.loads((entry / "config.json").read_text())
    config["files"]["README.md"] = file_hash(entry / "README.md")
    (entry / "config.json").write_text(to_json(config))
    newer = tmp_path / "newer" / entry.name
    shutil.copytree(entry, newer)
    (newer / "recipe.yaml").write_text("newer\n")
    config["files"]["recipe.yaml"] = file_hash(newer / "recipe.yaml")
    (newer / "config.json").write_text(to_json(config))
    code = (
        "import sys, shutil, pathlib\nfrom qaudio.paths import locked, replace_folder\n"
        "new, old = map(pathlib.Path, sys.argv[1:])\n"
        "with locked(old):\n"
        "    replace_folder(old, lambda to: shutil.copytree(new, to, dirs_exist_ok=True))\n"
    )
    others, write = [], card_files.write

    def slowly(*given):
        others.append(
            subprocess.Popen([sys.executable, "-c", code, str(newer), str(entry)],
                             env=os.environ | {"PYTHONPATH": str(ROOT)})
        )  # fmt: skip
        with contextlib.suppress(subprocess.TimeoutExpired):
            others[0].wait(5)
        return write(*given)

    monkeypatch.setattr(card_files, "write", slowly)
    if how == "card":
        assert renew_card(entry)
    else:
        add_transfer(entry, **score_of(entry))
    assert others[0].wait(30) == 0
    assert (entry / "recipe.yaml").read_text() == "newer\n"
