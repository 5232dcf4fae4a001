"""The study's table in recipes/README.md is what its results give; a made folder is studied."""

import csv
import json

import pytest

import qaudio
from tests.benchmarks import finetune_study
from tests.benchmarks.finetune_study import README, RESULTS, Task, readme_with, shown, write_table

FOUND = {
    "entry": "an_entry",
    "tasks": {
        "made": {
            "about": "made sounds",
            "scores": {
                "fine-tuned": [0.9, 0.8], "from scratch": [0.7, 0.7],
                "linear probe": [0.6, 0.8], "log-mel statistics": [0.95, 0.95],
            },
        }
    },
}  # fmt: skip


def test_shown_states_means_and_paired_differences():
    text = shown(FOUND)
    assert "| made sounds | 85.0 % | 70.0 % | 70.0 % | 95.0 % |" in text
    # Student's t with one degree of freedom is 12.706; the mean's deviation is 5 points.
    assert "| +15.0 (-48.5 to +78.5) | -10.0 (-73.5 to +53.5) |" in text


def test_readme_holds_the_table_of_the_stored_results():
    text = README.read_text(encoding="utf-8")
    assert shown(FOUND) in readme_with(text, FOUND)
    assert readme_with(text, json.loads(RESULTS.read_text("utf-8"))) == text


@pytest.mark.parametrize(("shots", "learnt"), [(None, 8), (2, 4)])
def test_write_table_keeps_groups_apart_and_so_many_shots(tmp_path, shots, learnt):
    rows = [(f"{n}.wav", "ab"[n % 2], f"group{n // 4}") for n in range(16)]
    write_table(tmp_path / "table.csv", rows, 0, shots)
    with open(tmp_path / "table.csv", newline="") as file:
        found = list(csv.DictReader(file))
    train, test = ([row for row in found if row["split"] == part] for part in ("train", "test"))
    assert (len(train), len(test)) == (learnt, 8)
    assert {row["label"] for row in train} == {row["label"] for row in test} == {"a", "b"}
    assert not {row["group"] for row in train} & {row["group"] for row in test}


def test_study_scores_four_ways_on_the_same_splits(tmp_path, tiny_model, write_sound, monkeypatch):
    source = {"source.json": json.dumps({"trained_on": ["other sounds"]})}
    entry = qaudio.save(tiny_model, tmp_path / "tiny.made", extra=source)
    rows = [
        (str(write_sound(f"{label}{n}.wav", seconds=0.5, seed=n)), label, f"{label}{n}")
        for label in "ab" for n in range(6)
    ]  # fmt: skip
    monkeypatch.setattr(finetune_study, "EPOCHS", 1)
    monkeypatch.setattr(finetune_study, "SCORED", range(2))
    monkeypatch.setattr(finetune_study, "CHOOSING", range(9, 10))
    monkeypatch.setattr(Task, "rows", lambda self, root: rows)
    found = finetune_study.study(str(entry), Task("made", "gtzan", 0.5), tmp_path)
    assert {way: len(scores) for way, scores in found["scores"].items()} == dict.fromkeys(
        ("fine-tuned", "from scratch", "linear probe", "log-mel statistics"), 2
    )
    assert all(0 <= score <= 1 for scores in found["scores"].values() for score in scores)
    assert found["lr"]["fine-tuned"] in finetune_study.RATES["fine-tuned"]
