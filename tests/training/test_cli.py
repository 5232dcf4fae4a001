import contextlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import qaudio
from qaudio.cli import main
from qaudio.evaluation.predictions import Predictions
from qaudio.training.cli import parse
from qaudio.training.recipe import commit_of, epoch_choice
from qaudio.zoo import store
from qaudio.zoo.store import file_hash
from tests.support.networks import FRONTEND
from tests.support.server import serving

ROOT = Path(__file__).resolve().parents[2]


def results_of(entry: Path) -> dict:
    return json.loads((entry / "results.json").read_text())


@pytest.fixture
def zoo(tmp_path) -> Path:
    return tmp_path / "zoo"


@pytest.fixture
def parent(recipe, zoo) -> Path:
    """A cross-validated entry with two folds and all their weights."""
    assert main(["crossval", *recipe(), "--folds", "[1,2]"]) == 0
    return zoo / "qcnn6_006.esc10"


def pruned(parent, **settings) -> dict:
    arguments = {"source": str(parent), "ratio": 0.5, "min_channels": 4, "lr": 0.01}
    return {"class_path": "qaudio.PrunedClassifier", "init_args": arguments | settings}


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


def test_the_results_say_which_weights_are_scored(recipe, zoo, parent):
    assert results_of(parent)["epoch_choice"].endswith("; the last epoch's weights are scored")
    callback = "lightning.pytorch.callbacks.EMAWeightAveraging"
    arguments = recipe("averaged.esc10", trainer={"callbacks": [{"class_path": callback}]})
    assert main(["crossval", *arguments, "--folds", "[1]"]) == 0
    averaged = results_of(zoo / "averaged.esc10")["epoch_choice"]
    assert averaged.endswith("; weights averaged up to the last epoch are scored")


def test_what_ends_a_training_early_is_said():
    for trainer, said in (
        ({}, "fixed in advance by the recipe; the last"),
        ({"callbacks": [{"class_path": "x.EarlyStopping"}]}, "where EarlyStopping ended training"),
        ({"max_time": "00:01:00:00"}, "where the recipe's time was up"),
    ):
        assert epoch_choice(yaml.safe_dump({"trainer": trainer})).startswith(said)


def test_no_program_that_a_repository_names_is_run(tmp_path):
    """The settings of a stranger's folder, which git would follow, are not asked."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    recipe, ran = tmp_path / "recipe.yaml", tmp_path / "ran"
    recipe.write_text("one")
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\ntouch {ran}\n")
    hook.chmod(0o755)
    subprocess.run(["git", "config", "core.fsmonitor", hook], cwd=tmp_path, check=True)
    assert commit_of(recipe) is None
    assert not ran.exists()


def test_a_commit_is_named_of_what_is_as_committed(tmp_path, monkeypatch):
    monkeypatch.setattr("qaudio.training.recipe.PACKAGE", tmp_path / "qaudio")

    def git(*arguments):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True, capture_output=True)

    recipe = tmp_path / "a" / "recipe.yaml"
    recipe.parent.mkdir()
    recipe.write_text("one")
    assert commit_of(recipe) is None  # no repository
    git("init", "-q")
    assert commit_of(recipe) is None  # not tracked
    git("add", ".")
    git("-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "one")
    first = commit_of(recipe)
    assert len(first) == 40
    (tmp_path / "other").write_text("two")
    git("add", ".")
    git("-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "two")
    assert commit_of(recipe) == commit_of(recipe.parent) == first
    recipe.write_text("changed")
    assert commit_of(recipe) is None and commit_of(recipe.parent) is None


def test_latency_is_measured_as_the_model_stands_and_optimized(recipe, zoo, monkeypatch):
    made = []
    monkeypatch.setattr("qaudio.training.results.optimize", lambda net: made.append(net) or net)
    assert main(["crossval", *recipe(writer={"latency": True}), "--folds", "[1,2]"]) == 0
    latency = results_of(zoo / "qcnn6_006.esc10")["cost"]["latency"]
    assert latency["milliseconds"] > 0 and latency["optimized_milliseconds"] > 0
    assert len(made) == 1  # once, when all is there


def test_a_score_that_the_audio_does_not_give_fails_the_test(parent, esc50_tree):
    results = results_of(parent)
    results["result"]["runs"]["seed0_fold1"] = 0.123
    (parent / "results.json").write_text(json.dumps(results))
    assert main(["test", str(parent), f"--data.root={esc50_tree}"]) == 1


@pytest.fixture
def spoilt(parent):
    """Change the recipe of the cross-validated entry, and its hash with it."""

    def change(text=None, **sections):
        recipe = yaml.safe_load((parent / "recipe.yaml").read_text())
        for section, changes in sections.items():
            recipe[section] |= changes
        (parent / "recipe.yaml").write_text(yaml.safe_dump(recipe) if text is None else text)
        config = json.loads((parent / "config.json").read_text())
        config["files"]["recipe.yaml"] = file_hash(parent / "recipe.yaml")
        (parent / "config.json").write_text(json.dumps(config))
        return parent

    return change


@pytest.mark.parametrize("text", ["[]", "data: 3", "{", "data: {init_args: []}", "[" * 9999])
def test_test_refuses_an_entry_whose_recipe_is_no_recipe(spoilt, esc50_tree, capsys, text):
    entry = spoilt(text)
    capsys.readouterr()
    assert main(["test", str(entry), f"--data.root={esc50_tree}"]) == 1
    assert "qcnn6_006.esc10: " in capsys.readouterr().err


def test_test_takes_no_code_from_an_entrys_recipe(spoilt, esc50_tree):
    entry = spoilt(
        trainer={"callbacks": [{"class_path": "somebody.elses.Code"}], "max_epochs": "x"}
    )
    assert main(["test", str(entry), f"--data.root={esc50_tree}"]) == 0


def test_test_takes_no_places_from_an_entrys_recipe(spoilt, esc50_tree, tmp_path):
    """Packed sets, tables and caches of a stranger's choice are neither read nor written."""
    settings = {"root": "nowhere", "packed": str(tmp_path / "packed"), "download": True,
                "cache_dir": str(tmp_path / "cache"), "num_workers": 64, "augment": {"roll": 1.0},
                "esc10": True, "seconds": 0.5}  # fmt: skip
    entry = spoilt(data={"class_path": "qaudio.ESC50", "init_args": settings})
    assert main(["test", str(entry), f"--data.root={esc50_tree}"]) == 0
    assert not (tmp_path / "cache").exists()


def test_test_matches_no_pattern_of_an_entrys_recipe(spoilt, capsys):
    settings = {"group_pattern": "(a+)+$", "name": "x"}
    entry = spoilt(data={"class_path": "qaudio.AudioFolder", "init_args": settings})
    capsys.readouterr()
    assert main(["test", str(entry), "--data.root=nowhere"]) == 1
    assert "give --data.group_pattern='(a+)+$', if" in capsys.readouterr().err
    assert main(["test", str(entry), "--data.root=nowhere", "--data.group_pattern=(b)"]) == 1
    assert "nowhere is no folder" in capsys.readouterr().err


def test_test_imports_no_module_that_an_entrys_recipe_names(
    spoilt, esc50_tree, tmp_path, monkeypatch, capsys
):
    (tmp_path / "strangers.py").write_text("open('ran', 'w').close()\nclass Data: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("strangers.Data", "qaudio.Classifier", "os.system", None, ["qaudio.ESC50"]):
        entry = spoilt(data={"class_path": name})
        capsys.readouterr()
        assert main(["test", str(entry), f"--data.root={esc50_tree}"]) == 1
        assert "its recipe's DataModule is" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()


def test_a_training_without_a_recipe_or_with_a_wrong_one_is_told_briefly(recipe, capsys):
    assert main(["train"]) == 2
    assert "give a recipe: --config" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["crossval", *recipe(), "--model.lr=abc"])
    told = capsys.readouterr().err.splitlines()
    assert len(told) < 15 and told[0].startswith("usage: qaudio crossval --config RECIPE")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (["--data.batch_size", "0"], "batch_size must be at least 1, not 0"),
        (["--data.crop", "end"], "crop"),
        (["--model.source", "other"], "give exactly one of arch (from scratch) and source"),
        (["--data", "qaudio.AudioFolder", "--data.table", "none.csv"], "none.csv not found: "),
    ],
)
def test_what_a_constructor_refuses_is_said_without_its_settings(recipe, capsys, setting, said):
    with contextlib.suppress(SystemExit):
        assert main(["train", *recipe(), *setting]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert "Namespace" not in error


def test_lightnings_adverts_are_not_shown(recipe, capfd, caplog):
    assert main(["fit", *recipe()]) == 0
    out, err = capfd.readouterr()
    assert "litlogger" not in out + err + caplog.text and "litmodels" not in out + err + caplog.text


def test_one_fold_needs_no_brackets(recipe, zoo):
    assert main(["crossval", *recipe(), "--folds", "2", "--seeds", "1"]) == 0
    scored = Predictions.load(zoo / "qcnn6_006.esc10" / "predictions.npz")
    assert scored.runs() == [(1, 2)]


@pytest.mark.parametrize(
    ("option", "own"), [("--folds=2", "--data.fold"), ("--seeds", "--seed_everything")]
)
def test_folds_and_seeds_are_crossvals(recipe, zoo, capsys, option, own):
    assert main(["train", *recipe(), option, *(["[3]"] if "=" not in option else [])]) == 1
    assert f"is for crossval; train runs one: {own} N" in capsys.readouterr().err
    assert main(["crossval", *recipe(), own, "1"]) == 1
    told = f"{own} is for train; crossval takes {option.split('=')[0]} [1,2]"
    assert told in capsys.readouterr().err
    assert not zoo.exists()


def test_a_fold_that_there_is_not_is_refused_before_the_others_train(recipe, tmp_path, capsys):
    assert main(["crossval", *recipe(), "--folds", "[1,9]"]) == 1
    assert "--folds [1, 9]: ESC-50 official 5 folds has 5" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_trial_of_one_step_writes_nothing(recipe, zoo, tmp_path, capsys):
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
def test_recipes_that_were_chosen_on_validation_folds_are_tested_as_they_are(
    recipe, zoo, tmp_path, name, settings
):
    if name == "ModelCheckpoint":
        settings |= {"dirpath": str(tmp_path / "best")}
    callback = {"class_path": name, "init_args": settings}
    assert main(["train", *recipe(trainer={"callbacks": [callback], "max_epochs": 1})]) == 0
    assert (zoo / "qcnn6_006.esc10" / "results.json").is_file()


def test_what_fit_says_comes_next_can_be_done(recipe, tmp_path, capsys):
    assert main(["fit", *recipe()]) == 0
    told = "`qaudio train` with the same arguments scores it"
    assert f"{told} and writes the entry\n" in capsys.readouterr().out
    assert main(["fit", *recipe(), "--data.holdout=validation"]) == 0
    assert f"{told}\n" in capsys.readouterr().out
    last = tmp_path / "runs" / "qcnn6_006.esc10" / "seed0_fold1" / "last.ckpt"
    assert main(["fit", *recipe(trainer={"max_epochs": 9}), f"--ckpt_path={last}",
                 f"--runs={tmp_path / 'others'}"]) == 0  # fmt: skip
    assert "qaudio train" not in capsys.readouterr().out


def test_what_to_do_about_too_little_memory_is_said(recipe, monkeypatch, capsys):
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
def test_trainers_that_would_fail_midway_are_refused(recipe, tmp_path, capsys, trainer, said):
    assert main(["train", *recipe(trainer=trainer)]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("section", "name"),
    [("model", "lr"), ("model", "warmup"), ("model", "weight_decay"), ("model", "thaw_every"),
     ("data", "batch_size"), ("data", "num_workers"), ("data", "root"), ("data", "fold"),
     ("data", "esc10"), ("writer", "folder"), ("writer", "card_fold")],
)  # fmt: skip
def test_null_is_refused_where_a_setting_takes_none(recipe, capsys, section, name):
    arguments = recipe(**{section: {name: None}}) if section != "model" else recipe(
        model={"class_path": "qaudio.Classifier", "init_args": {"arch": "qcnn6_006", name: None}}
    )  # fmt: skip
    assert main(["train", *arguments]) == 1
    assert f"{section}.{name} is null, and takes a value" in capsys.readouterr().err


CKPT_COMMANDS = (["fit"], ["validate", "--data.holdout=validation"], ["test"])


@pytest.mark.parametrize(
    "name",
    ["timm:x.snd", "../x", "/tmp/x", "a//b", "x" * 5000, ".hidden", "a\\b", "a b", "", "a\nb"],
)
def test_train_refuses_a_name_that_no_entry_can_have(recipe, tmp_path, capsys, name):
    assert main(["train", *recipe(), f"--writer.entry={name}"]) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert "is no entry's name" in told and len(told) < 400
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"license": "cc\t0"}, "license: expected text of one line"),
        (
            {"hub_dataset": "a\nb", "hub_task": "c"},
            "hub_benchmark.dataset_id: expected text of one line",
        ),
    ],
)
def test_train_refuses_before_the_first_step_what_could_not_be_read(
    recipe, tmp_path, capsys, settings, said, monkeypatch
):
    monkeypatch.setattr(qaudio.Classifier, "training_step", lambda *_: pytest.fail("it trains"))
    assert main(["train", *recipe(writer=settings)]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "zoo" / "qcnn6_006.esc10").exists()


@pytest.mark.parametrize("command", CKPT_COMMANDS)
@pytest.mark.parametrize("content", [b"no checkpoint", b"", b"PK", {"a": 1}, [1], None])
def test_checkpoint_that_is_none_is_named(recipe, tmp_path, capsys, command, content):
    other = tmp_path / "other.ckpt"
    if isinstance(content, bytes):
        other.write_bytes(content)
    elif content is not None:
        torch.save(content, other)
    assert main([*command, *recipe(), f"--ckpt_path={other}"]) == 1
    said = "no such file" if content is None else "is no checkpoint of Lightning's"
    assert f"{other}{':' if content is None else ''} {said}" in capsys.readouterr().err


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (self.mark,)


@pytest.mark.parametrize("command", CKPT_COMMANDS)
def test_checkpoint_runs_no_code(recipe, tmp_path, capsys, monkeypatch, command):
    trap, mark = tmp_path / "trap.ckpt", tmp_path / "ran"
    torch.save({"state_dict": {}, "x": Trap(str(mark))}, trap)
    assert main([*command, *recipe(), f"--ckpt_path={trap}"]) == 1
    assert "its pickle would run posix.mkdir; nothing was run" in capsys.readouterr().err
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    with serving() as server:
        server.files["/trap.ckpt"] = trap.read_bytes()
        assert main([*command, *recipe(), f"--ckpt_path={server.url}/trap.ckpt"]) == 1
        assert not server.requests
    assert "checkpoints are read from files here only" in capsys.readouterr().err
    assert main([*command, *recipe(), f"--ckpt_path=file://{trap}"]) == 1
    assert not mark.exists()


@pytest.mark.parametrize("command", CKPT_COMMANDS)
def test_checkpoint_of_another_network_is_one_line(recipe, tmp_path, capsys, command):
    validating = ["--data.holdout=validation"] if "validate" in command else []
    assert main(["fit", *recipe(), *validating, f"--runs={tmp_path / 'whole'}"]) == 0
    (whole,) = (tmp_path / "whole").rglob("last.ckpt")
    other, good = tmp_path / "other.ckpt", torch.load(whole, weights_only=True)
    name = next(iter(good["state_dict"]))
    for change in (
        {"state_dict": {}},
        {"state_dict": good["state_dict"] | {name: torch.zeros(3)}},
        {"state_dict": good["state_dict"] | {name: 3}},
        {"widths": 3},
        {"widths": dict.fromkeys(good["widths"], 10**9)},
    ):
        torch.save(good | change, other)
        capsys.readouterr()
        assert main([*command, *recipe(), f"--ckpt_path={other}"]) == 1, change.keys()
        told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("qaudio:")]
        assert len(told) == 1 and f"{other}: not of this network" in told[0]


def test_recipes_of_the_package_are_found_from_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "recipes/folder/finetune_multilabel.yaml"
    for arguments in (["--config", name], [f"--config={name}"]):
        assert parse(arguments).model.task == "multilabel"
    own = tmp_path / name
    own.parent.mkdir(parents=True)
    own.write_text((ROOT / name).read_text().replace("lr: 0.001", "lr: 0.5"))
    assert parse(["--config", name]).model.lr == 0.5
    with pytest.raises(SystemExit):
        parse(["--config=recipes/none.yaml"])


def test_a_long_epoch_is_gone_on_with_where_it_was(recipe, tmp_path, monkeypatch, capsys):
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


def test_validation_folds_that_are_done_are_not_trained_again(recipe, tmp_path, capsys):
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


def test_weights_are_scored_in_float32_whatever_they_were_trained_in(recipe, zoo, esc50_tree):
    assert main(["crossval", *recipe(), "--folds=1", "--trainer.precision=bf16-true"]) == 0
    entry = zoo / "qcnn6_006.esc10"
    assert results_of(entry)["training"]["precision"] == "bf16-true"
    logits = torch.from_numpy(Predictions.load(entry / "predictions.npz").logits)
    assert not torch.equal(logits, logits.bfloat16().float())
    assert load_file(entry / "model.safetensors")["classifier.weight"].dtype == torch.float32
    assert main(["test", str(entry), f"--data.root={esc50_tree}"]) == 0


def test_the_device_of_the_training_is_recorded(recipe, zoo, monkeypatch):
    """Lightning moves a network to the CPU once it is trained, so that it is not asked."""
    asked = []
    monkeypatch.setattr(
        "qaudio.training.results.device_name", lambda device: asked.append(device) or "a device"
    )
    root = "lightning.pytorch.strategies.SingleDeviceStrategy.root_device"
    monkeypatch.setattr(root, torch.device("cpu", 0))  # not the CPU's own name
    assert main(["crossval", *recipe(), "--folds=1"]) == 0
    assert asked == [torch.device("cpu", 0)]
    assert results_of(zoo / "qcnn6_006.esc10")["training"]["device"] == "a device"


def test_a_folder_that_is_no_entry_is_refused_before_the_training(recipe, zoo, tmp_path, capsys):
    (zoo / "qcnn6_006.esc10").mkdir(parents=True)
    (zoo / "qcnn6_006.esc10" / "notes.txt").touch()
    assert main(["train", *recipe()]) == 1
    assert "holds files but is no entry" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_done_folds_are_skipped_and_new_ones_added(parent, recipe, capsys):
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


def test_other_settings_do_not_mix_with_recorded_runs(parent, recipe, capsys):
    assert main(["crossval", *recipe(), "--folds", "[3]", "--model.lr", "0.5"]) == 1
    assert "another recipe (model.lr); delete it" in capsys.readouterr().err
    assert Predictions.load(parent / "predictions.npz").runs() == [(0, 1), (0, 2)]


def test_an_unfinished_run_is_not_resumed_with_other_settings(recipe, zoo, tmp_path, capsys):
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


def test_a_run_of_two_recipes_is_no_entry_of_either(recipe, zoo, tmp_path, capsys):
    assert main(["fit", *recipe()]) == 0
    last = tmp_path / "runs" / "qcnn6_006.esc10" / "seed0_fold1" / "last.ckpt"
    longer = [*recipe(trainer={"max_epochs": 3}), "--model.lr=0.5"]
    assert main(["fit", *longer, f"--ckpt_path={last}"]) == 0
    assert "was trained by other settings (model.lr, trainer.max_epochs): its optimizer, lea" in (
        capsys.readouterr().err
    )
    for command in (["train"], ["crossval", "--folds=[1]"], ["train", "--data.holdout=test"]):
        assert main([*command, *longer]) == 1
        assert "by other settings before (model.lr, trainer.max_epochs)" in capsys.readouterr().err
    assert not (zoo / "qcnn6_006.esc10").exists()
    last.unlink()
    assert main(["train", *longer]) == 0


def test_a_run_does_not_go_on_with_other_recordings_of_the_same_names(
    recipe, esc50_tree, capsys, monkeypatch
):
    assert main(["fit", *recipe()]) == 0
    for path in sorted((esc50_tree / "audio").iterdir())[:8]:
        path.write_bytes(path.read_bytes()[:44] + bytes(2 * 8000))
    assert main(["train", *recipe()]) == 1
    assert "trained on other recordings of the same names: delete it" in capsys.readouterr().err


def test_a_recorded_run_is_replaced_on_request_alone(recipe, zoo, capsys):
    assert main(["train", *recipe()]) == 0
    before = (zoo / "qcnn6_006.esc10" / "results.json").read_bytes()
    assert main(["train", *recipe()]) == 1
    assert "holds seed 0 fold 1 already: --overwrite true trains it" in capsys.readouterr().err
    assert (zoo / "qcnn6_006.esc10" / "results.json").read_bytes() == before
    assert main(["train", *recipe(), "--overwrite=true"]) == 0
    assert "overwrite" not in (zoo / "qcnn6_006.esc10" / "recipe.yaml").read_text()


@pytest.mark.parametrize("trainer", [{"max_epochs": 0}, {"max_steps": 0},
                                     {"limit_train_batches": 0}])  # fmt: skip
def test_a_network_that_was_not_trained_is_not_scored(recipe, zoo, capsys, trainer):
    assert main(["train", *recipe(trainer=trainer)]) == 1
    assert "not one step was trained" in capsys.readouterr().err
    assert not (zoo / "qcnn6_006.esc10").exists()


def test_no_fold_is_scored_with_weights_that_may_have_seen_it(recipe, zoo, tmp_path, capsys):
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


def test_the_last_epoch_is_kept_whatever_is_validated_when(recipe, tmp_path):
    often = ["--trainer.max_epochs=3", "--trainer.check_val_every_n_epoch=2"]
    for holdout, name in (("test", "seed0_fold1"), ("validation", "seed0_fold1_validation")):
        assert main(["fit", *recipe(), *often, f"--data.holdout={holdout}"]) == 0
        last = tmp_path / "runs" / "qcnn6_006.esc10" / name / "last.ckpt"
        assert torch.load(last, weights_only=False)["epoch"] == 2


def test_an_interrupted_training_says_how_it_goes_on(recipe, tmp_path, capsys, monkeypatch):
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


def test_a_net_that_is_not_pruned_to_the_end_is_not_scored(parent, recipe, zoo, capsys):
    steps = pruned(parent, steps=2, steps_share=1.0)
    stop = {"monitor": "train_loss", "stopping_threshold": 1e9}
    early = {"callbacks": [{"class_path": "EarlyStopping", "init_args": stop}]}
    arguments = [*recipe("child.esc10", steps, trainer=early | {"max_epochs": 4}), "--folds=1"]
    capsys.readouterr()
    assert main(["crossval", *arguments]) == 1
    assert "training ended before its last pruning step" in capsys.readouterr().err
    assert not (zoo / "child.esc10").exists()


def test_steps_that_the_training_does_not_reach_are_refused_as_it_begins(
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


def test_a_diverged_training_is_no_result(recipe, zoo, capsys):
    assert main(["crossval", *recipe(), "--folds", "[1]", "--model.lr=1e30"]) == 1
    assert "are NaN or infinite" in capsys.readouterr().err
    assert not (zoo / "qcnn6_006.esc10").exists()


def test_a_recipe_keeps_what_was_set_to_nothing(recipe, zoo, esc50_tree):
    arguments = [*recipe(data={"seconds": None}), "--folds"]
    entry = zoo / "qcnn6_006.esc10"
    assert main(["crossval", *arguments, "[1]"]) == 0
    kept = yaml.safe_load((entry / "recipe.yaml").read_text())
    assert kept["data"]["init_args"]["seconds"] is None  # 5 where it is not given
    assert "fold" not in kept["data"]["init_args"] and "cache_dir" not in kept["data"]["init_args"]
    again = parse(["--config", str(entry / "recipe.yaml"), f"--data.root={esc50_tree}"])
    assert again.datamodule.seconds is None
    assert main(["test", str(entry), f"--data.root={esc50_tree}"]) == 0
    assert main(["crossval", *arguments, "[1,2]"]) == 0


def test_a_parent_that_was_scored_on_other_clips_is_not_compared_with(parent, recipe, zoo):
    scored = Predictions.load(parent / "predictions.npz")
    scored.clip[0] += "x"  # as where a file could not be read
    scored.save(parent / "predictions.npz")
    assert main(["crossval", *recipe("child.esc10", pruned(parent)), "--folds", "[1]"]) == 0
    found = results_of(zoo / "child.esc10")["parent"]
    assert found["name"] == parent.name and "difference" not in found


def test_a_pruned_entry_takes_its_parents_weights_of_the_same_fold(parent, recipe, zoo):
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


def test_a_parent_is_looked_for_beside_the_entry_first(parent, recipe, zoo):
    assert main(["crossval", *recipe("child.esc10", pruned(parent.name)), "--folds", "[1]"]) == 0
    assert results_of(zoo / "child.esc10")["parent"]["name"] == parent.name


def test_a_parent_elsewhere_is_compared_with(parent, recipe, zoo, tmp_path):
    elsewhere = shutil.move(parent, tmp_path / "elsewhere" / parent.name)
    arguments = recipe("child.esc10", pruned(elsewhere))
    assert main(["crossval", *arguments, "--folds", "[1]"]) == 0
    found = results_of(zoo / "child.esc10")["parent"]
    assert found["name"] == parent.name and found["difference"]["clips"] == 6
    assert found["license"] == "cc0-1.0"
    assert main(["crossval", *arguments, "--folds", "[1]"]) == 0  # nothing to train or to find
    assert results_of(zoo / "child.esc10")["parent"] == found


@pytest.mark.parametrize("steps", [{}, {"steps": 2, "steps_share": 1.0}], ids=["once", "steps"])
def test_folds_of_other_widths_are_no_entry(parent, recipe, zoo, monkeypatch, capsys, steps):
    arguments = [*recipe("child.esc10", pruned(parent, **steps)), "--trainer.max_epochs=2"]
    assert main(["crossval", *arguments, "--folds", "[1]"]) == 0
    trained = []
    with monkeypatch.context() as patch:
        patch.setattr("qaudio.training.recorder.read_config", lambda path: {
            **store.read_config(path), "widths": {}})  # fmt: skip
        patch.setattr(qaudio.PrunedClassifier, "training_step", lambda *_: trained.append(1))
        assert main(["crossval", *arguments, "--folds", "[2]"]) == 1
    assert "this fold is pruned to other widths than the entry has" in capsys.readouterr().err
    assert not trained
    assert Predictions.load(zoo / "child.esc10" / "predictions.npz").runs() == [(0, 1)]
    assert main(["crossval", *arguments, "--folds", "[2]"]) == 0


def test_a_parent_without_the_folds_weights_is_refused(parent, recipe, zoo, capsys):
    shutil.rmtree(parent / "folds")
    arguments = recipe("qcnn6_006.esc10_pruned50", pruned(parent))
    assert main(["crossval", *arguments, "--folds", "[2]"]) == 1
    assert "folds/2.safetensors is missing" in capsys.readouterr().err
    assert not (zoo / "qcnn6_006.esc10_pruned50").exists()


def distilled(teacher, **settings) -> dict:
    arguments = {"teacher": str(teacher), "arch": "qcnn6_006", "frontend": FRONTEND, "lr": 0.01}
    return {"class_path": "qaudio.DistilledClassifier", "init_args": arguments | settings}


def test_a_distilled_entry_has_its_teacher_as_parent(parent, recipe, zoo):
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


def test_no_teacher_teaches_a_fold_that_it_saw(parent, recipe, zoo, esc50_tree, capsys):
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


def test_validation_scores_the_next_fold_and_writes_no_entry(recipe, zoo, tmp_path, capsys):
    arguments = recipe(data={"holdout": "validation"})
    assert main(["crossval", *arguments, "--folds", "[5]"]) == 0
    rows = json.loads((tmp_path / "runs" / "qcnn6_006.esc10.validation.json").read_text())
    assert [row["fold"] for row in rows["validation"]] == [5]
    assert not zoo.exists()
    assert main(["test", *arguments]) == 1
    assert "leaves the test fold alone" in capsys.readouterr().err


def test_validation_scores_of_several_calls_stay(recipe, tmp_path):
    arguments = recipe(data={"holdout": "validation"})
    for folds in ("[2]", "[1]", "[2]"):
        assert main(["crossval", *arguments, "--folds", folds]) == 0
    rows = json.loads((tmp_path / "runs" / "qcnn6_006.esc10.validation.json").read_text())
    assert [row["fold"] for row in rows["validation"]] == [1, 2]
    assert main(["crossval", *arguments, "--folds", "[3]", "--model.lr", "0.02"]) == 0
    rows = json.loads((tmp_path / "runs" / "qcnn6_006.esc10.validation.json").read_text())
    assert [row["fold"] for row in rows["validation"]] == [3]  # of another recipe


def test_averaged_weights_are_scored_also_where_the_training_had_ended(recipe, zoo, tmp_path):
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


def test_checkpoints_that_a_recipe_asks_for_are_written(recipe, tmp_path):
    callback = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                "init_args": {"dirpath": str(tmp_path / "mine"), "every_n_train_steps": 1,
                              "save_top_k": -1}}  # fmt: skip
    assert main(["fit", *recipe(trainer={"callbacks": [callback]})]) == 0
    assert len(list((tmp_path / "mine").iterdir())) > 1


def test_train_adds_one_fold(recipe, zoo):
    arguments = recipe()
    assert main(["train", *arguments, "--data.fold", "4", "--seed_everything", "3"]) == 0
    entry = zoo / "qcnn6_006.esc10"
    assert Predictions.load(entry / "predictions.npz").runs() == [(3, 4)]
    results = results_of(entry)
    assert (results["card_fold"], results["card_seed"]) == (4, 3)
    assert main(["verify", str(entry)]) == 0


def test_the_kept_recipe_names_no_folder_of_this_machine(parent, tmp_path):
    for name in ("recipe.yaml", "results.json", "README.md", "config.json"):
        assert str(tmp_path) not in (parent / name).read_text().replace(
            str(tmp_path / "qcnn6_006.esc10.yaml"), ""
        )


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("recipes/*/*.yaml")), ids=lambda p: f"{p.parent.name}-{p.stem}"
)
def test_every_shipped_recipe_parses(path):
    cli = parse(["--config", str(path)])
    arch, _, rest = cli.config.writer.entry.partition(".")
    assert rest.startswith(path.parent.name)
    if path.parent.name != "folder":  # named by what is done, for any architecture
        assert path.stem == arch + rest.removeprefix(path.parent.name)
    assert cli.datamodule.split.benchmark == path.parent.name
    assert cli.datamodule.split.fold == 1


def test_an_entry_made_before_a_setting_existed_can_be_continued(parent, recipe):
    path = parent / "recipe.yaml"
    text = path.read_text()
    assert "label_smoothing: 0.0" in text
    path.write_text("".join(x for x in text.splitlines(True) if "label_smoothing" not in x))
    assert main(["crossval", *recipe(), "--folds", "[1,2]"]) == 0


@pytest.mark.parametrize("arch", ["timm:test_convnext", "ast_tiny"])
def test_networks_made_with_timm_give_entries(arch, recipe, zoo, capsys, monkeypatch):
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


def test_fit_then_validate_scores_what_was_fitted(recipe, tmp_path, capsys):
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
