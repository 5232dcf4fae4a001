import json

import numpy as np
import pytest

import qaudio
from qaudio.cli import main
from qaudio.evaluation.predictions import Predictions
from qaudio.zoo import store
from tests.support.networks import FRONTEND
from tests.support.training import pruned, results_of


def test_crossval_writes_an_entry_that_verifies_and_tests(parent, capsys, esc50_tree):
    assert main(["verify", str(parent)]) == 0
    results = results_of(parent)
    assert list(results["result"]["folds"]) == ["1", "2"]
    assert not results["complete"]
    assert "Not complete" in (parent / "README.md").read_text()
    predictions = Predictions.load(parent / "predictions.npz")
    assert all(clip.startswith("2-") for clip in predictions.run(0, 2).clip)
    capsys.readouterr()
    assert main(["test", str(parent), f"--data.root={esc50_tree}"]) == 0
    stated = results["result"]["runs"]["seed0_fold1"]
    assert f"accuracy {stated}, recorded {stated}" in capsys.readouterr().out


def test_crossval_one_fold_needs_no_brackets(recipe, zoo):
    assert main(["crossval", *recipe(), "--folds", "2", "--seeds", "1"]) == 0
    scored = Predictions.load(zoo / "qcnn6_006.esc10" / "predictions.npz")
    assert scored.runs() == [(1, 2)]


@pytest.mark.parametrize(
    ("option", "own"), [("--folds=2", "--data.fold"), ("--seeds", "--seed_everything")]
)
def test_crossval_folds_and_seeds_are_crossvals(recipe, zoo, capsys, option, own):
    assert main(["train", *recipe(), option, *(["[3]"] if "=" not in option else [])]) == 1
    assert f"is for crossval; train runs one: {own} N" in capsys.readouterr().err
    assert main(["crossval", *recipe(), own, "1"]) == 1
    told = f"{own} is for train; crossval takes {option.split('=')[0]} [1,2]"
    assert told in capsys.readouterr().err
    assert not zoo.exists()


def test_crossval_fold_that_there_is_not_is_refused_before_the_others_train(
    recipe, tmp_path, capsys
):
    assert main(["crossval", *recipe(), "--folds", "[1,9]"]) == 1
    assert "--folds [1, 9]: ESC-50 official 5 folds has 5" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_crossval_validation_folds_that_are_done_are_not_trained_again(recipe, tmp_path, capsys):
    arguments = ["crossval", *recipe(), "--data.holdout=validation"]
    assert main([*arguments, "--folds=1"]) == 0
    first = json.loads((tmp_path / "runs" / "qcnn6_006.esc10.validation.json").read_text())
    capsys.readouterr()
    assert main([*arguments, "--folds=[1,2]"]) == 0
    printed = capsys.readouterr().out
    assert "seed 0 fold 1: done before" in printed and "mean over 2 validation folds" in printed
    both = json.loads((tmp_path / "runs" / "qcnn6_006.esc10.validation.json").read_text())
    assert both["validation"][0] == first["validation"][0] and len(both["validation"]) == 2
    assert main([*arguments, "--folds=1", "--model.lr=0.02"]) == 0  # another recipe, another score
    assert "done before" not in capsys.readouterr().out


def test_crossval_done_folds_are_skipped_and_new_ones_added(parent, recipe, capsys):
    before = Predictions.load(parent / "predictions.npz")
    capsys.readouterr()
    assert main(["crossval", *recipe(), "--folds", "[1,2,3,4,5]"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("done before") == 2
    assert printed.count("accuracy") == 4  # three folds and the mean
    after = Predictions.load(parent / "predictions.npz")
    assert after.runs() == [(0, fold) for fold in range(1, 6)]
    assert np.array_equal(before.run(0, 1).logits, after.run(0, 1).logits)
    results = results_of(parent)
    assert results["complete"]
    assert results["complete_runs_scored"] == 1
    assert len(list((parent / "folds").iterdir())) == 5


def test_crossval_other_settings_do_not_mix_with_recorded_runs(parent, recipe, capsys):
    assert main(["crossval", *recipe(), "--folds", "[3]", "--model.lr", "0.5"]) == 1
    assert "another recipe (model.lr); delete it" in capsys.readouterr().err
    assert Predictions.load(parent / "predictions.npz").runs() == [(0, 1), (0, 2)]


def test_crossval_run_does_not_go_on_with_other_recordings_of_the_same_names(
    recipe, esc50_tree, capsys, monkeypatch
):
    assert main(["fit", *recipe()]) == 0
    for path in sorted((esc50_tree / "audio").iterdir())[:8]:
        path.write_bytes(path.read_bytes()[:44] + bytes(2 * 8000))
    assert main(["train", *recipe()]) == 1
    assert "trained on other recordings of the same names: delete it" in capsys.readouterr().err


def test_crossval_validation_scores_the_next_fold_and_writes_no_entry(
    recipe, zoo, tmp_path, capsys
):
    arguments = recipe(data={"holdout": "validation"})
    assert main(["crossval", *arguments, "--folds", "[5]"]) == 0
    rows = json.loads((tmp_path / "runs" / "qcnn6_006.esc10.validation.json").read_text())
    assert [row["fold"] for row in rows["validation"]] == [5]
    assert not zoo.exists()
    assert main(["test", *arguments]) == 1
    assert "leaves the test fold alone" in capsys.readouterr().err


def test_crossval_validation_scores_of_several_calls_stay(recipe, tmp_path):
    arguments = recipe(data={"holdout": "validation"})
    for folds in ("[2]", "[1]", "[2]"):
        assert main(["crossval", *arguments, "--folds", folds]) == 0
    rows = json.loads((tmp_path / "runs" / "qcnn6_006.esc10.validation.json").read_text())
    assert [row["fold"] for row in rows["validation"]] == [1, 2]
    assert main(["crossval", *arguments, "--folds", "[3]", "--model.lr", "0.02"]) == 0
    rows = json.loads((tmp_path / "runs" / "qcnn6_006.esc10.validation.json").read_text())
    assert [row["fold"] for row in rows["validation"]] == [3]  # of another recipe


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"validation": 3}', '{"validation": [{"seed": "0"}]}', "[" * 100_000,
     '{"validation": [{"seed": 0, "fold": 1, "score": [], "wall_seconds": 1}]}'],
    ids=range(7),
)  # fmt: skip
def test_crossval_scores_that_somebody_edited_are_refused_in_one_line(
    recipe, tmp_path, capsys, text
):
    path = tmp_path / "runs" / "qcnn6_006.esc10.validation.json"
    path.parent.mkdir()
    path.write_text(text)
    assert main(["crossval", *recipe(data={"holdout": "validation"}), "--folds", "[1]"]) == 1
    assert f"runs: {path.name}" in capsys.readouterr().err.splitlines()[-1]


def test_crossval_entry_made_before_a_setting_existed_can_be_continued(parent, recipe):
    path = parent / "recipe.yaml"
    text = path.read_text()
    assert "label_smoothing: 0.0" in text
    path.write_text("".join(x for x in text.splitlines(True) if "label_smoothing" not in x))
    assert main(["crossval", *recipe(), "--folds", "[1,2]"]) == 0


def test_crossval_an_entry_whose_recipe_is_none_is_refused_in_one_line(parent, recipe, capsys):
    text = (parent / "recipe.yaml").read_text()
    for spoilt in ("- 1", "a: [", text.replace("lr: ", "lr: x"), "[" * 5000, "x" * 2_000_000):
        (parent / "recipe.yaml").write_text(spoilt)
        capsys.readouterr()
        assert main(["crossval", *recipe(), "--folds", "[1,2]"]) == 1
        said = capsys.readouterr().err.splitlines()[-1]
        assert f"{parent.name}: recipe.yaml is no recipe (" in said and len(said) < 600


@pytest.mark.parametrize("arch", ["timm:test_convnext", "ast_tiny"])
def test_crossval_networks_made_with_timm_give_entries(arch, recipe, zoo, capsys, monkeypatch):
    name = arch.replace(":", "-")
    model = {
        "class_path": "qaudio.Classifier",
        "init_args": {"arch": arch, "frontend": FRONTEND, "head_dropout": 0.1},
    }
    arguments = recipe(f"{name}.esc10", model, trainer={"max_epochs": 1})
    assert main(["crossval", *arguments, "--folds", "[1]"]) == 0
    entry = zoo / f"{name}.esc10"
    assert main(["verify", str(entry)]) == 0
    assert "trained from scratch" in (entry / "README.md").read_text()
    assert results_of(entry)["versions"]["timm"]
    monkeypatch.setattr(store, "zoo_folder", lambda: zoo)
    assert qaudio.list_models(benchmark="esc10") == [f"{name}.esc10"]
    assert qaudio.load(f"{name}.esc10").architecture == arch
    capsys.readouterr()
    child = recipe(f"{name}.esc10_pruned50", pruned(entry), trainer={"max_epochs": 0})
    code = main(["crossval", *child, "--folds", "[1]"])
    if arch == "ast_tiny":
        assert code == 0
        assert results_of(zoo / f"{name}.esc10_pruned50")["parent"]["kept"]["params"] < 0.8
    else:
        assert code == 1
        assert capsys.readouterr().err.count("\n") == 1
        assert not (zoo / f"{name}.esc10_pruned50").exists()
