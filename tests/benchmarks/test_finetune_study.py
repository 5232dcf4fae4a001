"""The study's line in recipes/README.md is what its results give."""

import json

from tests.benchmarks.finetune_study import README, RESULTS, line, readme_with_line

FOUND = {
    "entry": "an_entry",
    "command": "python study.py",
    "tasks": {
        "made": {
            "about": "made sounds", "splits": 2, "difference": 0.15, "interval95": [-0.02, 0.32],
            "scores": {"fine-tuned": [0.9, 0.8], "scratch": [0.7, 0.7]},
        }
    },
}  # fmt: skip


def test_the_line_states_scores_difference_and_interval():
    text = line(FOUND)
    assert "85.0 % against 70.0 %, difference +15.0 points" in text
    assert "95 % interval -2.0 to +32.0, 2 splits" in text


def test_the_readme_holds_the_line_of_the_stored_results():
    text = README.read_text(encoding="utf-8")
    assert line(FOUND) in readme_with_line(text, FOUND)
    assert readme_with_line(text, json.loads(RESULTS.read_text())) == text
