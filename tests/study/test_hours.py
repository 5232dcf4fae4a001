"""A grid whose cells are scored on other benchmarks: its tables and its picture."""

import pytest
import yaml

import qaudio
from qaudio.cards.entries import add_transfer, drop_weights
from qaudio.errors import EntryError
from qaudio.evaluation.bootstrap import summarise
from qaudio.study import hours
from qaudio.study.answers import Findings
from qaudio.study.documents import documents
from qaudio.study.grid import Study
from tests.support.entries import results_of, tiny
from tests.support.predictions import answered


@pytest.fixture
def findings(tmp_path) -> Findings:
    """A reference, a pruned net, and students of two lengths, of which the second was not run."""
    cells = {"whole": {"what": "the net", "recipe": "whole.yaml"},
             "pruned": {"what": "pruned", "recipe": "net.yaml", "set": {"model.ratio": 0.5},
                        "against": ["whole"]},
             "short": {"what": "S", "recipe": "net.yaml", "set": {"trainer.max_epochs": 1}},
             "long": {"what": "2 S", "recipe": "net.yaml", "set": {"trainer.max_epochs": 2}},
             }  # fmt: skip
    grid = {
        "benchmarks": ["made"], "seeds": [0], "reference": "whole", "cells": cells,
        "probes": {"other": "x.yaml", "small": "x.yaml"},
        "questions": [{"ask": "Is pruning better?", "cell": "pruned", "than": "short"}],
        "tables": [{"title": "All", "cells": list(cells)}],
    }  # fmt: skip
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "whole.yaml").write_text("writer: {entry: whole.made}")
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid, sort_keys=False))
    for name, right, seconds in (
        ("whole.made", 50, 6000.0), ("study/made/pruned", 45, 60.0), ("study/made/short", 20, 90.0)
    ):  # fmt: skip
        own, results = answered(right, 60), results_of(answered(right, 60))
        results["training"]["wall_seconds"] = seconds
        folder = qaudio.save(tiny(), tmp_path / "zoo" / name, results=results, predictions=own,
                             recipe="")  # fmt: skip
        for benchmark, clips in (("other", 60), ("small", 30), ("elsewhere", 60)):
            found = answered(right, clips)
            add_transfer(folder, benchmark=benchmark, dataset="", protocol="folds; linear probe",
                         result=summarise(found, "accuracy"), predictions=found)  # fmt: skip
        if "study" in name:
            drop_weights(folder)
    return Findings(Study(tmp_path / "grid.yaml"), tmp_path / "zoo")


def test_tables_show_what_carries_over_and_the_minutes(findings):
    made = findings.render()
    assert "| Is pruning better? | **yes**: +41.7" in made and "all 3 comparisons" in made
    (head,) = (line for line in made.splitlines() if line.startswith("| cell |"))
    names = [cell.strip() for cell in head.split("|")[1:-1]]
    assert names[-1] == "minutes" and "elsewhere" not in head  # no probe of the grid
    rows = {line.split("`")[1]: [cell.strip() for cell in line.split("|")[1:-1]]
            for line in made.splitlines() if line.startswith("| `")}  # fmt: skip
    assert {len(row) for row in rows.values()} == {len(names)}
    pruned = dict(zip(names, rows["pruned"], strict=True))
    assert pruned["minutes"] == "1.0"
    assert pruned["other: linear probe"].startswith("75.0 % (")
    assert pruned["difference in points (95 %)"].startswith("-8.3 (")
    assert rows["long"][1] == "not run"


def test_picture_shows_scores_against_minutes(findings):
    svg = hours.draw(findings)
    assert hours.follows(svg, findings)
    assert "pruned: 1.0 minutes, made: accuracy 75.0 %, other: linear probe 75.0 %" in svg
    assert "short: 1.5 minutes" in svg and "long:" not in svg and "small" not in svg
    axes = hours.figure(hours.points(findings), findings.study.reference).axes
    assert [ax.get_title() for ax in axes] == ["made\naccuracy", "other\nlinear probe"]
    marks = {line.get_label(): line.get_xdata()[0] for line in axes[0].lines}
    assert marks["pruned"] == 1.0 and marks["short"] == 1.5 and "the net" in marks


def test_picture_that_shows_other_results_is_drawn_again(findings, tmp_path):
    path, made_of = list(documents(findings.study, findings.zoo).items())[1]
    assert path == tmp_path / "zoo" / "study" / "grid.svg"
    svg = made_of("")
    assert made_of(svg) == svg
    results = tmp_path / "zoo" / "study" / "made" / "short"
    found = answered(10, 60)
    qaudio.save(
        tiny(), results, results=results_of(found), predictions=found, recipe="", weights=False
    )
    assert made_of(svg) != svg


def test_picture_of_a_grid_that_was_not_run_is_empty(findings, tmp_path):
    nothing = Findings(findings.study, tmp_path / "empty")
    assert hours.follows(hours.draw(nothing), nothing)
    assert "not run" in nothing.render()


def test_grid_of_several_seeds_has_no_probes(findings, tmp_path):
    grid = tmp_path / "grid.yaml"
    grid.write_text(grid.read_text().replace("seeds:\n- 0", "seeds: [0, 1]"))
    with pytest.raises(EntryError, match="probes score one network of each cell: give one seed"):
        Study(grid)
