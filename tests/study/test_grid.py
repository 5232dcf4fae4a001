import json
from pathlib import Path

import pytest
import yaml

import qaudio
from qaudio.cli import main
from qaudio.errors import EntryError
from qaudio.study.documents import GRIDS
from qaudio.study.grid import Study, study_entries
from qaudio.zoo.store import entries
from tests.support.entries import tiny
from tests.support.predictions import answered

ROOT = Path(__file__).resolve().parents[2]


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
    qaudio.save(tiny(), cell, results=results, predictions=answered(8), recipe="", weights=False)
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
    for old, new in (
        ("- later", "- never"),
        ("reference: whole", "reference: never"),
        ("seeds:", "questions: [{ask: x, cell: whole, than: never}]\nseeds:"),
    ):
        path.write_text(text.replace(old, new))
        with pytest.raises(EntryError, match="no such cells: never"):
            Study(path)
    for old, new, told in (
        ("against:", "agianst:", "unknown field agianst"),
        ("    - later\n", "    - later\n    targets: {small: 1}\n", "a target to 'small'"),
        ("        other: 0.5", "", "no model.target_macs for other"),
    ):
        assert old in text
        both = text.replace("- made\n", "- made\n- other\n")
        path.write_text(both.replace(old, new, 1))
        with pytest.raises(EntryError, match=told):
            Study(path)
    for fault in ("questions: [{ask: x}]\n" + text, "[]", "cells: {a: {}}", "{", "- 1"):
        path.write_text(fault)
        with pytest.raises(EntryError, match="not readable as a study"):
            Study(path)


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
    assert cost("unpruned_longer") == whole
    for cell in ("l1_macs25", "kd_pruned", "student"):
        assert cost(cell).macs == pytest.approx(0.25 * whole.macs, rel=0.03)
    longer = {**configs["l1_published"]["model"]["init_args"], "ratio": 0.0}
    del longer["layers"]
    assert configs["unpruned_longer"]["model"]["init_args"] == longer
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


def test_questions_ask_only_what_the_grid_compares(shipped):
    cells = shipped.cells
    for one in shipped.questions:
        assert one.than in cells[one.cell].against or one.cell in cells[one.than].against, one.ask


def test_cells_of_shipped_grids_lie_apart():
    """They share the zoo's folder of results without weights."""
    studies = [Study(ROOT / "recipes" / f"{grid}.yaml") for grid in GRIDS]
    places = [
        one.entry(cell, benchmark)
        for one in studies
        for cell in one.cells.values()
        for benchmark in one.benchmarks
        if cell.changes
    ]
    assert len(set(places)) == len(places)


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
