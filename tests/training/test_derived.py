import shutil

import pytest
import torch
from msgspec.structs import replace

import qaudio
from qaudio.cli import main
from qaudio.evaluation.predictions import Predictions
from qaudio.zoo import store
from tests.support.networks import FRONTEND
from tests.support.training import distilled, pruned, results_of


def test_derived_no_fold_is_scored_with_weights_that_may_have_seen_it(
    recipe, zoo, tmp_path, capsys
):
    assert main(["fit", *recipe()]) == 0
    last = tmp_path / "runs" / "qcnn6_006.esc10" / "seed0_fold1" / "last.ckpt"
    other = shutil.copy(last, tmp_path / "other.ckpt")
    for command, told in (
        (["train"], "--ckpt_path is for fit, validate and test"),
        (["crossval", "--folds", "[1,2]"], "--ckpt_path is for fit, validate and test"),
        (["fit", "--data.fold=2"], "trained on another split (fold 1, not 2; scored 1, not 2)"),
        (["fit", "--data.holdout=validation"], "trained on another split (scored 1, not 2)"),
    ):
        capsys.readouterr()
        assert main([*command, *recipe(), f"--ckpt_path={other}"]) == 1
        assert told in capsys.readouterr().err
    assert not (zoo / "qcnn6_006.esc10").exists()


def test_derived_net_that_is_not_pruned_to_the_end_is_not_scored(parent, recipe, zoo, capsys):
    steps = pruned(parent, steps=2, steps_share=1.0)
    stop = {"monitor": "train_loss", "stopping_threshold": 1e9}
    early = {"callbacks": [{"class_path": "EarlyStopping", "init_args": stop}]}
    arguments = [*recipe("child.esc10", steps, trainer=early | {"max_epochs": 4}), "--folds=1"]
    capsys.readouterr()
    assert main(["crossval", *arguments]) == 1
    assert "training ended before its last pruning step" in capsys.readouterr().err
    assert not (zoo / "child.esc10").exists()


def test_derived_steps_that_the_training_does_not_reach_are_refused_as_it_begins(
    parent, recipe, tmp_path, capsys
):
    steps = pruned(parent, steps=2, steps_share=1.0)
    arguments = ["crossval", *recipe("child.esc10", steps), "--trainer.max_epochs=4", "--folds=1"]
    capsys.readouterr()
    # Three batches an epoch: the second step comes after six.
    assert main([*arguments, "--trainer.max_steps=6"]) == 1
    told = capsys.readouterr().err
    assert "max_steps 6 ends the training before its last pruning step, which comes after 6" in told
    assert not (tmp_path / "runs" / "child.esc10" / "seed0_fold1" / "last.ckpt").exists()
    assert main([*arguments, "--trainer.max_epochs=-1", "--trainer.max_steps=20"]) == 1
    assert "pruning in steps needs --trainer.max_epochs" in capsys.readouterr().err


def test_derived_parent_that_was_scored_on_other_clips_is_not_compared_with(parent, recipe, zoo):
    scored = Predictions.load(parent / "predictions.npz")
    scored.clip[0] += "x"  # as where a file could not be read
    scored.save(parent / "predictions.npz")
    assert main(["crossval", *recipe("child.esc10", pruned(parent)), "--folds", "[1]"]) == 0
    found = results_of(zoo / "child.esc10")["parent"]
    assert found["name"] == parent.name and "difference" not in found


def test_derived_pruned_entry_takes_its_parents_weights_of_the_same_fold(parent, recipe, zoo):
    arguments = recipe("qcnn6_006.esc10_pruned50", pruned(parent), trainer={"max_epochs": 0})
    assert main(["crossval", *arguments, "--folds", "[1,2]"]) == 0
    child = zoo / "qcnn6_006.esc10_pruned50"
    results = results_of(child)
    for fold in (1, 2):
        # Untrained after pruning, so the weights show where they come from.
        dense = qaudio.zoo.io.load_weights(parent, f"folds/{fold}.safetensors")
        expected = qaudio.prune(dense, ratio=0.5, min_channels=4)
        found = qaudio.zoo.io.load_weights(child, f"folds/{fold}.safetensors")
        assert torch.equal(expected.classifier.weight, found.classifier.weight)
    assert results["parent"]["name"] == "qcnn6_006.esc10"
    assert results["parent"]["difference"]["clips"] == 12
    assert results["parent"]["kept"]["params"] < 0.5
    assert main(["verify", str(child)]) == 0


def test_derived_parent_is_looked_for_beside_the_entry_first(parent, recipe, zoo):
    assert main(["crossval", *recipe("child.esc10", pruned(parent.name)), "--folds", "[1]"]) == 0
    assert results_of(zoo / "child.esc10")["parent"]["name"] == parent.name


def test_derived_parent_elsewhere_is_compared_with(parent, recipe, zoo, tmp_path):
    elsewhere = shutil.move(parent, tmp_path / "elsewhere" / parent.name)
    arguments = recipe("child.esc10", pruned(elsewhere))
    assert main(["crossval", *arguments, "--folds", "[1]"]) == 0
    found = results_of(zoo / "child.esc10")["parent"]
    assert found["name"] == parent.name and found["difference"]["clips"] == 6
    assert found["license"] == "cc0-1.0"
    assert main(["crossval", *arguments, "--folds", "[1]"]) == 0  # nothing to train or to find
    assert results_of(zoo / "child.esc10")["parent"] == found


@pytest.mark.parametrize("steps", [{}, {"steps": 2, "steps_share": 1.0}], ids=["once", "steps"])
def test_derived_folds_of_other_widths_are_no_entry(
    parent, recipe, zoo, monkeypatch, capsys, steps
):
    arguments = [*recipe("child.esc10", pruned(parent, **steps)), "--trainer.max_epochs=2"]
    assert main(["crossval", *arguments, "--folds", "[1]"]) == 0
    trained = []
    with monkeypatch.context() as patch:
        patch.setattr(
            "qaudio.training.recorder.read_config",
            lambda path: replace(store.read_config(path), widths={}),
        )
        patch.setattr(qaudio.PrunedClassifier, "training_step", lambda *_: trained.append(1))
        assert main(["crossval", *arguments, "--folds", "[2]"]) == 1
    assert "this fold is pruned to other widths than the entry has" in capsys.readouterr().err
    assert not trained
    assert Predictions.load(zoo / "child.esc10" / "predictions.npz").runs() == [(0, 1)]
    assert main(["crossval", *arguments, "--folds", "[2]"]) == 0


def test_derived_parent_without_the_folds_weights_is_refused(parent, recipe, zoo, capsys):
    shutil.rmtree(parent / "folds")
    arguments = recipe("qcnn6_006.esc10_pruned50", pruned(parent))
    assert main(["crossval", *arguments, "--folds", "[2]"]) == 1
    assert "folds/2.safetensors is missing" in capsys.readouterr().err
    assert not (zoo / "qcnn6_006.esc10_pruned50").exists()


def test_derived_distilled_entry_has_its_teacher_as_parent(parent, recipe, zoo):
    arguments = recipe("qcnn6_006.esc10_kd", distilled(parent))
    assert main(["crossval", *arguments, "--folds", "[1,2]"]) == 0
    child = zoo / "qcnn6_006.esc10_kd"
    results = results_of(child)
    assert results["parent"]["name"] == "qcnn6_006.esc10"
    assert results["parent"]["how"] == "distilled from"
    assert results["parent"]["difference"]["clips"] == 12
    assert results["trained_on"] == ["ESC-50"]
    assert "distilled from `qcnn6_006.esc10`" in (child / "README.md").read_text()
    assert qaudio.cost(qaudio.load(child)).params == qaudio.cost(qaudio.load(parent)).params
    assert main(["verify", str(child)]) == 0


def test_derived_no_teacher_teaches_a_fold_that_it_saw(parent, recipe, zoo, esc50_tree, capsys):
    module = qaudio.DistilledClassifier(str(parent), "qcnn6_006", frontend=FRONTEND)
    split = qaudio.ESC50(str(esc50_tree), esc10=True, fold=2).split
    module.build(qaudio.load(parent).labels, split)
    expected = qaudio.zoo.io.load_weights(parent, "folds/2.safetensors")
    assert torch.equal(module.distillation.network.classifier.weight, expected.classifier.weight)
    shutil.rmtree(parent / "folds")
    arguments = recipe("qcnn6_006.esc10_kd", distilled(parent))
    assert main(["crossval", *arguments, "--folds", "[2]"]) == 1
    assert "folds/2.safetensors is missing" in capsys.readouterr().err
    assert not (zoo / "qcnn6_006.esc10_kd").exists()
