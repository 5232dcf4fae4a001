import dataclasses
import functools
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from test_entry import results_of, tiny

import qaudio
from qaudio.cli import main
from qaudio.zoo import forest
from qaudio.zoo.catalog import EntryError, entries
from qaudio.zoo.results import Predictions, paired_difference
from qaudio.zoo.study import Study, study_entries
from qaudio.zoo.tables import with_generated

ROOT = Path(__file__).resolve().parents[2]


def predictions(right: int) -> Predictions:
    """Nine clips, so many of which are answered rightly."""
    label = np.arange(9) % 3
    answer = np.where(np.arange(9) < right, label, (label + 1) % 3)
    return Predictions.of_run(1, 0, list("abcdefghi"), label, np.eye(3)[answer])


@pytest.fixture
def study(tmp_path) -> Study:
    cells = {
        "whole": {"what": "the net", "recipe": "whole.yaml"},
        "small": {"what": "pruned", "recipe": "small.yaml", "set": {"model.ratio": None,
                  "model.target_macs": {"made": 0.25, "other": 0.5},
                  "model.source": "whole.{benchmark}"},
                  "against": ["whole", "later"]},
        "later": {"what": "another", "recipe": "small.yaml", "set": {"model.lr": 0.1},
                  "against": ["whole"]},
    }  # fmt: skip
    recipes = tmp_path / "recipes"
    (recipes / "made").mkdir(parents=True)
    (recipes / "made" / "whole.yaml").write_text("writer: {entry: whole.made}")
    tables = [{"title": "All", "cells": list(cells)}]
    (recipes / "study.yaml").write_text(
        yaml.safe_dump(
            {
                "benchmarks": ["made"],
                "seeds": [0],
                "reference": "whole",
                "cells": cells,
                "tables": tables,
            },
            sort_keys=False,
        )
    )
    return Study(recipes / "study.yaml")


@pytest.fixture
def zoo(tmp_path) -> Path:
    for name, right in (("whole.made", 5), ("study/made/small", 8)):
        found = predictions(right)
        results = results_of(found) | {"entry": name}
        qaudio.save(
            tiny(), tmp_path / "zoo" / name, results=results, predictions=found,
            recipe="a recipe", weights="study" not in name,
        )  # fmt: skip
    return tmp_path / "zoo"


def test_tables_follow_from_results_and_predictions(study, zoo):
    made = study.render(zoo)
    assert made.startswith("### made\n\n**All**\n")
    rows = {
        row.split("`")[1]: row.split(" | ") for row in made.splitlines() if row.startswith("| `")
    }
    assert rows["later"][1] == "not run"
    assert rows["whole"][1].startswith("55.6 %")
    assert rows["small"][1].startswith("88.9 %")
    low, high = paired_difference(predictions(8), predictions(5))["interval95"]
    expected = f"+33.3 ({100 * low:+.1f} to {100 * high:+.1f}) to `whole` |"
    assert rows["small"][-1] == expected
    assert ("Undecided" in made) == (low <= 0 <= high)


def test_what_is_undecided_is_said(study, zoo):
    cell = zoo / "study" / "made" / "small"
    found = predictions(6)
    qaudio.save(
        tiny(), cell, results=results_of(found), predictions=found, recipe="", weights=False
    )
    assert "Undecided at 95 %: `small` against `whole`." in study.render(zoo)


def test_targets_are_said_to_be_met_or_missed(study, zoo):
    for least, said in ((0, "met"), (33.3, "met"), (33.4, "missed"), (90, "missed")):
        study.cells["small"].targets["whole"] = least
        low, high = paired_difference(predictions(8), predictions(5))["interval95"]
        sure = "" if low >= least / 100 or high < least / 100 else ", undecided at 95 %"
        line = f"Targets: `small` at least {least:+.1f} points to `whole`: {said}{sure}.\n"
        assert line in study.render(zoo) + "\n"


def test_a_difference_over_fewer_runs_than_the_score_says_so(study, zoo):
    assert "of its runs" not in study.render(zoo)
    found = predictions(8).merged(dataclasses.replace(predictions(7), fold=np.full(9, 2)))
    cell = zoo / "study" / "made" / "small"
    qaudio.save(
        tiny(), cell, results=results_of(found), predictions=found, recipe="", weights=False
    )
    assert "to `whole` over 1 of its runs |" in study.render(zoo)


def test_a_score_over_several_seeds_says_how_far_they_lie_apart(study, zoo):
    runs = [
        dataclasses.replace(
            predictions(right), seed=np.full(9, seed), fold=np.full(9, fold),
            clip=np.array([letter * fold for letter in "abcdefghi"]),
        )
        for seed, fold, right in ((0, 1, 6), (0, 2, 7), (1, 1, 8), (1, 2, 9), (2, 1, 8), (2, 2, 6))
    ]  # fmt: skip
    cell, said = zoo / "study" / "made" / "small", {}
    for count in (5, 6):  # the last seed's second fold is missing, or not
        found = functools.reduce(Predictions.merged, runs[:count])
        results = results_of(found)
        qaudio.save(tiny(), cell, results=results, predictions=found, recipe="", weights=False)
        said[count] = study.render(zoo)
    assert ", 3 seeds" in said[5] and "seeds from" not in said[5]
    assert "81.5 % ± 0.0, 3 seeds from 72.2 to 94.4 |" in said[6]


def test_cells_hold_results_without_weights_that_verify(study, zoo):
    (cell,) = study_entries(zoo)
    names = {"config.json", "predictions.npz", "recipe.yaml", "results.json"}
    assert {path.name for path in cell.iterdir()} == names
    assert qaudio.verify(cell) == [
        "3 files match their sha256", "results.json follows from predictions.npz",
    ]  # fmt: skip
    with pytest.raises(EntryError, match="holds results without weights"):
        qaudio.load(cell)
    results = json.loads((cell / "results.json").read_text())
    results["result"]["mean"] += 0.1
    qaudio.save(tiny(), cell, results=results, predictions=predictions(8), recipe="", weights=False)
    with pytest.raises(EntryError, match=r"result\.mean says"):
        qaudio.verify(cell)


def test_arguments_of_a_cell(study):
    assert study.arguments(study.cells["small"], "made") == [
        f"--config={study.recipes}/made/small.yaml", "--model.ratio=null",
        "--model.target_macs=0.25", "--model.source=whole.made",
        "--writer.entry=study/made/small", "--writer.weights=false",
        "--writer.keep_folds=false", "--writer.latency=false",
    ]  # fmt: skip
    assert study.arguments(study.cells["whole"], "made") == [
        f"--config={study.recipes}/made/whole.yaml"
    ]


def test_faults_of_a_study_are_named(study, tmp_path):
    path = study.recipes / "study.yaml"
    text = path.read_text()
    for old, new in (("- later", "- never"), ("reference: whole", "reference: never")):
        path.write_text(text.replace(old, new))
        with pytest.raises(EntryError, match="no such cells: never"):
            Study(path)
    for text in ("[]", "cells: {a: {}}", "{"):
        path.write_text(text)
        with pytest.raises(EntryError, match="not readable as a study"):
            Study(path)


def test_the_shipped_tables_follow_from_the_shipped_results():
    text = (ROOT / "recipes" / "README.md").read_text(encoding="utf-8")
    study = Study(ROOT / "recipes" / "study.yaml")
    made = study.render(ROOT / "zoo")
    assert with_generated(text, "study tables", made) == text
    picture = ROOT / "zoo" / forest.FILE
    assert picture.read_text(encoding="utf-8") == forest.draw(study, ROOT / "zoo")
    for cell in study_entries():
        qaudio.verify(cell)


@pytest.fixture(scope="module")
def shipped() -> Study:
    return Study(ROOT / "recipes" / "study.yaml")


def config_of(study: Study, cell: str, benchmark: str) -> dict:
    """The cell's recipe with its changes, as plain YAML."""
    one = study.cells[cell]
    config = yaml.safe_load((study.recipes / benchmark / one.recipe).read_text())
    for name, value in one.changes.items():
        section, _, key = name.partition(".")
        value = value[benchmark] if isinstance(value, dict) else value
        if section == "trainer":
            config["trainer"][key] = value
            continue
        assert section == "model"
        model = config["model"] if key == "class_path" else config["model"]["init_args"]
        model[key] = value.format(benchmark=benchmark) if isinstance(value, str) else value
    return config


@pytest.mark.parametrize("benchmark", ["esc10", "ravdess"])
def test_the_grid_compares_like_with_like(shipped, benchmark):
    configs = {cell: config_of(shipped, cell, benchmark) for cell in shipped.cells}
    epochs = {cell: config["trainer"].pop("max_epochs") for cell, config in configs.items()}
    for cell, count in epochs.items():
        pruned = "source" in configs[cell]["model"]["init_args"]
        assert count == epochs["unpruned"] // (2 if pruned else 1), cell
    for section in ("trainer", "data"):
        assert len({json.dumps(config[section]) for config in configs.values()}) == 1, section
    frontend = configs["unpruned"]["model"]["init_args"]["frontend"]

    def cost(cell):
        model = configs[cell]["model"]["init_args"]
        if model.get("arch"):
            return qaudio.cost(
                qaudio.create_model(model["arch"], num_classes=10, frontend=model["frontend"])
            )
        net = qaudio.create_model("qcnn10_050", num_classes=10, frontend=frontend)
        names = ("ratio", "target_macs", "layers")  # widths follow from these, whatever ranks
        request = {name: model[name] for name in names if model.get(name) is not None}
        return qaudio.cost(qaudio.prune(net, **request))

    whole = cost("unpruned")
    assert cost("cnn_width").macs == pytest.approx(whole.macs, rel=0.02)
    assert cost("cnn_params").params == pytest.approx(whole.params, rel=0.02)
    assert cost("l1_all").macs == pytest.approx(cost("l1_published").macs, rel=0.02)
    for cell in ("l1_macs25", "kd_pruned", "student"):
        assert cost(cell).macs == pytest.approx(0.25 * whole.macs, rel=0.03)
    for group in ("published", "all", "macs25"):
        same = [
            dict(configs[cell]["model"]["init_args"])
            for cell in configs
            if cell.endswith(f"_{group}") and "kd" not in cell
        ]
        assert len(same) >= 3
        criteria = [one.pop("criterion") for one in same]
        assert len(set(criteria)) == len(criteria) and "random" in criteria
        assert all(one == same[0] for one in same)


def code_of(arguments) -> int:
    try:
        return main(arguments)
    except SystemExit as error:
        return error.code


def test_study_refuses_what_is_not_there(tmp_path, study, capsys):
    config = ["study", "--config", str(study.recipes / "study.yaml")]
    for arguments, message in (
        (["--benchmark", "other"], "--benchmark is one of made"),
        (["--data.root", "x"], "--data.root needs --benchmark"),
        (["--cells", "z*"], "none of whole, small, later"),
        (["--seeds", "x"], "--seeds: must be whole numbers such as [1,2], not 'x'"),
        (["--folds", "[a]"], "--folds: must be whole numbers such as [1,2], not '[a]'"),
        (["--folds", "[]"], "--folds: must be whole numbers such as [1,2], not '[]'"),
    ):
        assert code_of([*config, *arguments]) == 2
        assert message in capsys.readouterr().err
    for more in ([], ["--seeds", "1", "--folds", "1,2"], ["--seeds=[0,1]", "--folds=[ 2 ]"]):
        assert main([*config, "--list", "--zoo", str(tmp_path / "none"), *more]) == 0
        assert capsys.readouterr().out.count("to train") == 3
    assert "study" not in "".join(entries())


@pytest.mark.parametrize(
    ("complete", "arguments", "said"),
    [
        (True, [], "complete"),
        (False, [], "to train: some folds"),
        (True, ["--seeds", "0,1,2"], "to train: seeds 1, 2"),
        (False, ["--seeds", "0,1"], "to train: some folds and seed 1"),
        (False, ["--folds", "1"], "complete"),
        (False, ["--folds", "1,2", "--seeds", "0"], "to train: seed0_fold2"),
    ],
)
def test_list_says_what_a_cell_lacks(study, zoo, capsys, complete, arguments, said):
    path = zoo / "study" / "made" / "small" / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"complete": complete}))
    config = ["--config", str(study.recipes / "study.yaml"), "--zoo", str(zoo)]
    assert main(["study", *config, "--cells", "small", "--list", *arguments]) == 0
    assert capsys.readouterr().out == f"made small: {said}\n"
