"""Recipes that end on the Hub, and recipes that start from it."""

import json

import pytest

import qaudio
from qaudio.cli import main
from tests.support.hub import Fault

REPO = "your-name/qcnn6_006.esc10"
ADDRESS = f"hf-hub:{REPO}"
ALL = ["--folds", "[1,2,3,4,5]"]


@pytest.fixture
def quick(recipe):
    """A recipe's arguments: one epoch, published at the end."""
    return recipe(trainer={"max_epochs": 1}, writer={"push_to": REPO})


def test_publish_recipe_can_end_on_the_hub(hub, quick, recipe, tmp_path, capsys):
    assert main(["crossval", *quick, "--folds", "[1,2]"]) == 0
    assert "pushed once the other folds are there" in capsys.readouterr().out
    assert not hub.requests
    hub.faults.append(Fault("/commit/", 9, 403))
    assert main(["crossval", *quick, *ALL]) == 1
    entry = tmp_path / "zoo" / "qcnn6_006.esc10"
    last = capsys.readouterr().err.splitlines()[-1]
    assert "written, but not pushed" in last
    assert f"`qaudio push {entry} {REPO}`" in last
    qaudio.verify(entry)
    assert "push_to" not in (entry / "recipe.yaml").read_text()  # where, not what
    assert "push_to" not in json.loads((entry / "results.json").read_text())["recipe"]["command"]
    hub.faults.clear()
    assert main(["crossval", *quick, *ALL]) == 0  # nothing is left to train
    printed = capsys.readouterr().out
    assert printed.count("done before") == 5
    assert f"{ADDRESS}@" in printed

    # The published parent lends each fold the weights that never saw it.
    child = {
        "class_path": "qaudio.PrunedClassifier",
        "init_args": {"source": ADDRESS, "ratio": 0.5, "min_channels": 4},
    }
    assert (
        main(["crossval", *recipe("child", child, trainer={"max_epochs": 1}), "--folds", "[2]"])
        == 0
    )
    made = json.loads((tmp_path / "zoo" / "child" / "results.json").read_text())
    commit = hub.repos[REPO].heads["main"]
    assert made["parent"]["name"] == f"{ADDRESS}@{commit}"
    assert made["parent"]["difference"]["runs"] == 1
    card = (tmp_path / "zoo" / "child" / "README.md").read_text()
    assert f"base_model: {REPO}\n" in card
    hub.requests.clear()
    qaudio.verify(tmp_path / "zoo" / "child")
    assert not hub.requests


@pytest.mark.parametrize(
    ("option", "says"),
    [("--writer.push_to=nobody", "not the name of a repository"),
     ("--writer.license=null", "needs writer.license")],
)  # fmt: skip
def test_publish_what_could_not_be_published_is_said_before_training(quick, option, says, capsys):
    assert main(["crossval", *quick, option]) == 1
    assert says in capsys.readouterr().err
