import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import qaudio
from qaudio.cli import main
from qaudio.evaluation.predictions import Predictions
from qaudio.training.choice import prepared
from qaudio.training.subcommands import evaluate
from tests.support.training import network, pruned, results_of


def test_run_trial_of_one_step_writes_nothing(recipe, zoo, tmp_path, capsys):
    trial = "--trainer.fast_dev_run=true"
    for command in ("train", "fit"):
        assert main([command, *recipe(), trial]) == 0
        assert "nothing is kept" in capsys.readouterr().out
    assert main(["crossval", *recipe(), trial]) == 1
    assert "fast_dev_run is for train and fit" in capsys.readouterr().err
    assert not zoo.exists() and not (tmp_path / "runs").exists()
    assert main(["train", *recipe()]) == 0  # not stopped by what a trial left
    steps = recipe("less.esc10", pruned(zoo / "qcnn6_006.esc10", steps=2, freeze="backbone"))
    assert main(["fit", *steps, trial]) == 0  # of which one epoch has no room


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("ModelCheckpoint", {"monitor": "val_accuracy"}),
        ("EarlyStopping", {"monitor": "val_loss", "strict": False}),
    ],
)
def test_run_recipes_that_were_chosen_on_validation_folds_are_tested_as_they_are(
    recipe, zoo, tmp_path, name, settings
):
    if name == "ModelCheckpoint":
        settings |= {"dirpath": str(tmp_path / "best")}
    callback = {"class_path": name, "init_args": settings}
    assert main(["train", *recipe(trainer={"callbacks": [callback], "max_epochs": 1})]) == 0
    assert (zoo / "qcnn6_006.esc10" / "results.json").is_file()


def test_run_what_fit_says_comes_next_can_be_done(recipe, tmp_path, capsys):
    assert main(["fit", *recipe()]) == 0
    told = "`qaudio train` with the same arguments scores it"
    assert f"{told} and writes the entry\n" in capsys.readouterr().out
    assert main(["fit", *recipe(), "--data.holdout=validation"]) == 0
    assert f"{told}\n" in capsys.readouterr().out
    last = tmp_path / "runs" / "qcnn6_006.esc10" / "seed0_fold1" / "last.ckpt"
    assert main(["fit", *recipe(trainer={"max_epochs": 9}), f"--ckpt_path={last}",
                 f"--runs={tmp_path / 'others'}"]) == 0  # fmt: skip
    assert "qaudio train" not in capsys.readouterr().out


def test_run_what_to_do_about_too_little_memory_is_said(recipe, monkeypatch, capsys):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(qaudio.Classifier, "training_step", full)
    assert main(["train", *recipe()]) == 1
    assert capsys.readouterr().err.endswith(
        "qaudio: CUDA out of memory: give a smaller --data.batch_size\n"
    )


@pytest.mark.parametrize(
    ("trainer", "said"),
    [
        ({"overfit_batches": 1}, "give --trainer.limit_train_batches"),
        (
            {"callbacks": [{"class_path": "EarlyStopping", "init_args": {"monitor": "val_loss"}}]},
            "EarlyStopping looks at val_loss, but under --data.holdout test nothing is validated",
        ),
    ],
)
def test_run_trainers_that_would_fail_midway_are_refused(recipe, tmp_path, capsys, trainer, said):
    assert main(["train", *recipe(trainer=trainer)]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_run_long_epoch_is_gone_on_with_where_it_was(recipe, tmp_path, monkeypatch, capsys):
    class Interrupted(Exception):
        pass

    held, step = [], qaudio.Classifier.training_step

    def interrupted(module, batch, index):
        if index == 2:
            raise Interrupted
        return step(module, batch, index)

    dropout = {"head_dropout": 0.0, "block_dropout": 0.0}
    arguments = recipe(trainer={"max_epochs": 1}, model=None)
    arguments += [f"--model.{name}={rate}" for name, rate in dropout.items()]
    monkeypatch.setattr("qaudio.training.checkpoints.EVERY", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(qaudio.Classifier, "training_step", interrupted)
        with pytest.raises(Interrupted):
            main(["train", *arguments])
    last = tmp_path / "runs" / "qcnn6_006.esc10" / "seed0_fold1" / "last.ckpt"
    assert torch.load(last, weights_only=False)["global_step"] == 2
    monkeypatch.setattr(
        qaudio.Classifier, "training_step",
        lambda module, batch, index: held.append(index) or step(module, batch, index),
    )  # fmt: skip
    assert main(["train", *arguments]) == 0
    assert held == [2]
    weights = load_file(tmp_path / "zoo" / "qcnn6_006.esc10" / "model.safetensors")
    shutil.rmtree(tmp_path / "zoo")
    assert main(["train", *arguments]) == 0
    whole = load_file(tmp_path / "zoo" / "qcnn6_006.esc10" / "model.safetensors")
    assert all(torch.equal(weights[name], whole[name]) for name in whole)


def test_run_weights_are_scored_in_float32_whatever_they_were_trained_in(recipe, zoo, esc50_tree):
    assert main(["crossval", *recipe(), "--folds=1", "--trainer.precision=bf16-true"]) == 0
    entry = zoo / "qcnn6_006.esc10"
    assert results_of(entry)["training"]["precision"] == "bf16-true"
    logits = torch.from_numpy(Predictions.load(entry / "predictions.npz").logits)
    assert not torch.equal(logits, logits.bfloat16().float())
    assert load_file(entry / "model.safetensors")["classifier.weight"].dtype == torch.float32
    assert main(["test", str(entry), f"--data.root={esc50_tree}"]) == 0


def test_run_unfinished_run_is_not_resumed_with_other_settings(recipe, zoo, tmp_path, capsys):
    """`fit` leaves what a training that was interrupted leaves."""
    assert main(["fit", *recipe()]) == 0
    last = tmp_path / "runs" / "qcnn6_006.esc10" / "seed0_fold1" / "last.ckpt"
    before = last.read_bytes()
    capsys.readouterr()
    for command in (["train"], ["crossval", "--folds", "[1]"]):
        assert main([*command, *recipe(), "--model.lr", "0.5", "--trainer.max_epochs", "9"]) == 1
        told = capsys.readouterr().err
        assert (
            f"{last}: an unfinished run with other settings (trainer.max_epochs, model.lr)" in told
        )
    assert last.read_bytes() == before and not (zoo / "qcnn6_006.esc10").exists()


@pytest.mark.parametrize("trainer", [{"max_epochs": 0}, {"max_steps": 0},
                                     {"limit_train_batches": 0}])  # fmt: skip
def test_run_network_that_was_not_trained_is_not_scored(recipe, zoo, capsys, trainer):
    assert main(["train", *recipe(trainer=trainer)]) == 1
    assert "not one step was trained" in capsys.readouterr().err
    assert not (zoo / "qcnn6_006.esc10").exists()


def test_run_interrupted_training_says_how_it_goes_on(recipe, tmp_path, capsys, monkeypatch):
    step = qaudio.Classifier.training_step

    def interrupted(module, *batch):
        if module.current_epoch == 1:
            raise KeyboardInterrupt
        return step(module, *batch)

    last = tmp_path / "runs" / "qcnn6_006.esc10" / "seed0_fold1" / "last.ckpt"
    with monkeypatch.context() as patch:
        patch.setattr(qaudio.Classifier, "training_step", interrupted)
        assert main(["train", *recipe()]) == 130
    assert f"qaudio: interrupted: the same command goes on from {last}" in capsys.readouterr().err
    assert main(["train", *recipe()]) == 0


def test_run_averaged_weights_are_scored_also_where_the_training_had_ended(recipe, zoo, tmp_path):
    """`fit` leaves what a run leaves that is killed while it is scored."""
    callback = {"class_path": "lightning.pytorch.callbacks.EMAWeightAveraging"}
    arguments = recipe(trainer={"callbacks": [callback]})
    assert main(["train", *arguments]) == 0
    expected = Predictions.load(zoo / "qcnn6_006.esc10" / "predictions.npz").logits
    shutil.rmtree(zoo / "qcnn6_006.esc10")
    assert main(["fit", *arguments]) == 0
    assert (tmp_path / "runs" / "qcnn6_006.esc10" / "seed0_fold1" / "last.ckpt").is_file()
    assert main(["train", *arguments]) == 0
    found = Predictions.load(zoo / "qcnn6_006.esc10" / "predictions.npz").logits
    assert np.array_equal(found, expected)


def test_run_fit_then_validate_scores_what_was_fitted(recipe, tmp_path, capsys):
    arguments = recipe(data={"holdout": "validation"})
    assert main(["validate", *arguments]) == 1
    assert "nothing is trained yet" in capsys.readouterr().err
    assert main(["fit", *arguments]) == 0
    run = tmp_path / "runs" / "qcnn6_006.esc10" / "seed0_fold1_validation"
    assert str(run / "last.ckpt") in capsys.readouterr().out
    assert list(run.glob("log/*/metrics.csv"))
    assert main(["validate", *arguments]) == 0
    assert "val_accuracy" in capsys.readouterr().out
    assert main(["validate", *recipe()]) == 1
    assert "give --data.holdout validation" in capsys.readouterr().err


def test_run_source_of_other_classes_is_not_scored_as_it_is(recipe, known, capsys):
    source = known(network(labels=["a", "b", "c"]))
    model = {"class_path": "qaudio.Classifier", "init_args": {"source": source}}
    for command, holdout in (("test", "test"), ("validate", "validation")):
        assert main([command, *recipe(model=model, data={"holdout": holdout})]) == 1
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith("qaudio: ")
        assert "has other classes (a, b, c) than ESC-50 (dog, rain, clock_tick)" in line


def test_run_source_without_class_names_is_scored_as_it_is(recipe, known):
    net = network()
    net.labels = None
    model = {"class_path": "qaudio.Classifier", "init_args": {"source": known(net)}}
    run = prepared(recipe(model=model), command="test")
    evaluate(run, "test")
    assert torch.equal(run.module.net.classifier.weight, net.classifier.weight)
