import os

import pytest
import torch

from qaudio.cli import main
from tests.support.server import serving

CKPT_COMMANDS = (["fit"], ["validate", "--data.holdout=validation"], ["test"])


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (self.mark,)


@pytest.mark.parametrize("command", CKPT_COMMANDS)
@pytest.mark.parametrize("content", [b"no checkpoint", b"", b"PK", {"a": 1}, [1], None])
def test_checkpoints_checkpoint_that_is_none_is_named(recipe, tmp_path, capsys, command, content):
    other = tmp_path / "other.ckpt"
    if isinstance(content, bytes):
        other.write_bytes(content)
    elif content is not None:
        torch.save(content, other)
    assert main([*command, *recipe(), f"--ckpt_path={other}"]) == 1
    said = "no such file" if content is None else "is no checkpoint of Lightning's"
    assert f"{other}{':' if content is None else ''} {said}" in capsys.readouterr().err


@pytest.mark.parametrize("command", CKPT_COMMANDS)
def test_checkpoints_checkpoint_runs_no_code(recipe, tmp_path, capsys, monkeypatch, command):
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
def test_checkpoints_checkpoint_of_another_network_is_one_line(recipe, tmp_path, capsys, command):
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


def test_checkpoints_run_of_two_recipes_is_no_entry_of_either(recipe, zoo, tmp_path, capsys):
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


def test_checkpoints_last_epoch_is_kept_whatever_is_validated_when(recipe, tmp_path):
    often = ["--trainer.max_epochs=3", "--trainer.check_val_every_n_epoch=2"]
    for holdout, name in (("test", "seed0_fold1"), ("validation", "seed0_fold1_validation")):
        assert main(["fit", *recipe(), *often, f"--data.holdout={holdout}"]) == 0
        last = tmp_path / "runs" / "qcnn6_006.esc10" / name / "last.ckpt"
        assert torch.load(last, weights_only=False)["epoch"] == 2


def test_checkpoints_that_a_recipe_asks_for_are_written(recipe, tmp_path):
    callback = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                "init_args": {"dirpath": str(tmp_path / "mine"), "every_n_train_steps": 1,
                              "save_top_k": -1}}  # fmt: skip
    assert main(["fit", *recipe(trainer={"callbacks": [callback]})]) == 0
    assert len(list((tmp_path / "mine").iterdir())) > 1
