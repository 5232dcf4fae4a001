import shutil

import numpy as np
import pytest
import torch

import qaudio
from qaudio.cards.entries import add_transfer, calibrate, drop_weights
from qaudio.cli import main
from qaudio.evaluation.bootstrap import summarise
from qaudio.evaluation.predictions import Predictions
from qaudio.zoo.store import read_results
from tests.support.training import results_of


def test_recorder_results_say_which_weights_are_scored(recipe, zoo, parent):
    assert results_of(parent)["epoch_choice"].endswith("; the last epoch's weights are scored")
    callback = "lightning.pytorch.callbacks.EMAWeightAveraging"
    arguments = recipe("averaged.esc10", trainer={"callbacks": [{"class_path": callback}]})
    assert main(["crossval", *arguments, "--folds", "[1]"]) == 0
    averaged = results_of(zoo / "averaged.esc10")["epoch_choice"]
    assert averaged.endswith("; weights averaged up to the last epoch are scored")


def test_recorder_latency_is_measured_as_the_model_stands_and_optimized(recipe, zoo, monkeypatch):
    made = []
    monkeypatch.setattr("qaudio.training.results.optimize", lambda net: made.append(net) or net)
    assert main(["crossval", *recipe(writer={"latency": True}), "--folds", "[1,2]"]) == 0
    latency = results_of(zoo / "qcnn6_006.esc10")["cost"]["latency"]
    assert latency["milliseconds"] > 0 and latency["optimized_milliseconds"] > 0
    assert len(made) == 1  # once, when all is there


@pytest.mark.parametrize(
    "name",
    ["timm:x.snd", "../x", "/tmp/x", "a//b", "x" * 5000, ".hidden", "a\\b", "a b", "", "a\nb"],
)
def test_recorder_train_refuses_a_name_that_no_entry_can_have(recipe, tmp_path, capsys, name):
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
def test_recorder_train_refuses_before_the_first_step_what_could_not_be_read(
    recipe, tmp_path, capsys, settings, said, monkeypatch
):
    monkeypatch.setattr(qaudio.Classifier, "training_step", lambda *_: pytest.fail("it trains"))
    assert main(["train", *recipe(writer=settings)]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "zoo" / "qcnn6_006.esc10").exists()


def test_recorder_device_of_the_training_is_recorded(recipe, zoo, monkeypatch):
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


def test_recorder_folder_that_is_no_entry_is_refused_before_the_training(
    recipe, zoo, tmp_path, capsys
):
    (zoo / "qcnn6_006.esc10").mkdir(parents=True)
    (zoo / "qcnn6_006.esc10" / "notes.txt").touch()
    assert main(["train", *recipe()]) == 1
    assert "holds files but is no entry" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_recorder_recorded_run_is_replaced_on_request_alone(recipe, zoo, capsys):
    assert main(["train", *recipe()]) == 0
    before = (zoo / "qcnn6_006.esc10" / "results.json").read_bytes()
    assert main(["train", *recipe()]) == 1
    assert "holds seed 0 fold 1 already: --overwrite true trains it" in capsys.readouterr().err
    assert (zoo / "qcnn6_006.esc10" / "results.json").read_bytes() == before
    assert main(["train", *recipe(), "--overwrite=true"]) == 0
    assert "overwrite" not in (zoo / "qcnn6_006.esc10" / "recipe.yaml").read_text()


def test_recorder_entry_that_lost_its_weights_is_refused_before_the_training(
    recipe, zoo, tmp_path, capsys
):
    assert main(["train", *recipe()]) == 0
    drop_weights(zoo / "qcnn6_006.esc10")
    shutil.rmtree(tmp_path / "runs")
    assert main(["train", *recipe(), "--seed_everything=1"]) == 1
    assert "its weights are gone, only its results were kept" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_recorder_diverged_training_is_no_result(recipe, zoo, capsys):
    assert main(["crossval", *recipe(), "--folds", "[1]", "--model.lr=1e30"]) == 1
    assert "are NaN or infinite" in capsys.readouterr().err
    assert not (zoo / "qcnn6_006.esc10").exists()


def test_recorder_train_adds_one_fold(recipe, zoo):
    arguments = recipe()
    assert main(["train", *arguments, "--data.fold", "4", "--seed_everything", "3"]) == 0
    entry = zoo / "qcnn6_006.esc10"
    assert Predictions.load(entry / "predictions.npz").runs() == [(3, 4)]
    results = results_of(entry)
    assert (results["card_fold"], results["card_seed"]) == (4, 3)
    assert main(["verify", str(entry)]) == 0


def test_recorder_kept_recipe_names_no_folder_of_this_machine(parent, tmp_path):
    for name in ("recipe.yaml", "results.json", "README.md", "config.json"):
        assert str(tmp_path) not in (parent / name).read_text().replace(
            str(tmp_path / "qcnn6_006.esc10.yaml"), ""
        )


def test_recorder_keeps_what_is_known_of_weights_that_stay(recipe, parent, capsys, recwarn):
    own = Predictions.load(parent / "predictions.npz")
    sounds = Predictions.of_run(
        1, 0, ["rain/a.wav", "rain/b.wav"], np.zeros(2, int), own.logits[:2].copy()
    )
    calibrate(parent, sounds)
    add_transfer(
        parent, benchmark="esc26", dataset="ESC-50", protocol="folds; linear probe",
        result=summarise(own, "accuracy"), predictions=own,
    )  # fmt: skip
    before = read_results(parent)
    for folds in ("[1,2]", "[3]"):  # nothing new, then a run more
        assert main(["crossval", *recipe(), "--folds", folds]) == 0
        assert qaudio.verify(parent)
        after = read_results(parent)
        assert after.transfer == before.transfer
        assert after.calibration.outside.sources == {"rain": 2}
        assert qaudio.load(parent).temperature == after.calibration.temperature != 1
    assert not [one for one in recwarn if "its weights are new" in str(one.message)]
    again = ["--data.fold", "1", "--overwrite", "true"]
    assert main(["crossval", *recipe(), *again[2:]]) == 1  # which trains what is missing
    assert "--overwrite is for train" in capsys.readouterr().err
    with pytest.warns(UserWarning, match=r"its weights are new: .* `qaudio calibrate`"):
        assert main(["train", *recipe(), *again]) == 0
    assert qaudio.verify(parent)
    after = read_results(parent)
    assert after.transfer == [] and after.calibration is None
