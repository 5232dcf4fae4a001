import json
import subprocess
from itertools import pairwise

import pytest
import yaml

from qaudio.cli import main
from qaudio.training.recipe import commit_of, epoch_choice, settings_in
from qaudio.zoo.store import file_hash
from tests.support.training import results_of


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


def test_recipe_what_ends_a_training_early_is_said():
    for trainer, said in (
        ({}, "fixed in advance by the recipe; the last"),
        ({"callbacks": [{"class_path": "x.EarlyStopping"}]}, "where EarlyStopping ended training"),
        ({"max_time": "00:01:00:00"}, "where the recipe's time was up"),
    ):
        assert epoch_choice(yaml.safe_dump({"trainer": trainer})).startswith(said)


def test_recipe_no_program_that_a_repository_names_is_run(tmp_path):
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


def test_recipe_commit_is_named_of_what_is_as_committed(tmp_path, monkeypatch):
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


def test_recipe_score_that_the_audio_does_not_give_fails_the_test(parent, esc50_tree):
    results = results_of(parent)
    results["result"]["runs"]["seed0_fold1"] = 0.123
    (parent / "results.json").write_text(json.dumps(results))
    assert main(["test", str(parent), f"--data.root={esc50_tree}"]) == 1


@pytest.mark.parametrize("text", ["[]", "data: 3", "{", "data: {init_args: []}", "[" * 9999])
def test_recipe_test_refuses_an_entry_whose_recipe_is_no_recipe(spoilt, esc50_tree, capsys, text):
    entry = spoilt(text)
    capsys.readouterr()
    assert main(["test", str(entry), f"--data.root={esc50_tree}"]) == 1
    assert "qcnn6_006.esc10: " in capsys.readouterr().err


def test_recipe_test_takes_no_code_from_an_entrys_recipe(spoilt, esc50_tree):
    entry = spoilt(
        trainer={"callbacks": [{"class_path": "somebody.elses.Code"}], "max_epochs": "x"}
    )
    assert main(["test", str(entry), f"--data.root={esc50_tree}"]) == 0


def test_recipe_test_takes_no_places_from_an_entrys_recipe(spoilt, esc50_tree, tmp_path):
    """Packed sets, tables and caches of a stranger's choice are neither read nor written."""
    settings = {"root": "nowhere", "packed": str(tmp_path / "packed"), "download": True,
                "cache_dir": str(tmp_path / "cache"), "num_workers": 64, "augment": {"roll": 1.0},
                "esc10": True, "seconds": 0.5}  # fmt: skip
    entry = spoilt(data={"class_path": "qaudio.ESC50", "init_args": settings})
    assert main(["test", str(entry), f"--data.root={esc50_tree}"]) == 0
    assert not (tmp_path / "cache").exists()


def test_recipe_test_matches_no_pattern_of_an_entrys_recipe(spoilt, capsys):
    settings = {"group_pattern": "(a+)+$", "name": "x"}
    entry = spoilt(data={"class_path": "qaudio.AudioFolder", "init_args": settings})
    capsys.readouterr()
    assert main(["test", str(entry), "--data.root=nowhere"]) == 1
    assert "give --data.group_pattern='(a+)+$', if" in capsys.readouterr().err
    assert main(["test", str(entry), "--data.root=nowhere", "--data.group_pattern=(b)"]) == 1
    assert "nowhere is no folder" in capsys.readouterr().err


def test_recipe_test_imports_no_module_that_an_entrys_recipe_names(
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


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("trainer: &t {a: *t}", "holds itself"),
        ("a: &a [*a]", "holds itself"),
        ("a: &a [x,x,x]\n" + "\n".join(
            f"{new}: &{new} [{','.join(10 * ['*' + old])}]" for old, new in pairwise("abcde")
        ), "over 10000 settings"),
        ("model: /etc/passwd", "model: expected settings by name"),
        ("data: [x]", "data: expected settings by name"),
        ("- 1", "no settings by name"),
        ("[" * 5000, "recursion"),
        ("a: [", "expected"),
    ],
    ids=range(8),
)  # fmt: skip
def test_settings_in_refuses_what_a_parser_would_follow(text, fault):
    with pytest.raises(ValueError, match=fault):
        settings_in(text)


def test_settings_in_takes_aliases_and_empty_sections():
    assert settings_in("a: &a {b: 1}\nc: *a\nwriter:") == {
        "a": {"b": 1},
        "c": {"b": 1},
        "writer": None,
    }


@pytest.mark.parametrize("text", ["trainer: &t {a: *t}", "model: /etc/passwd"])
def test_train_refuses_such_a_recipe_in_one_line(text, tmp_path, capsys):
    (tmp_path / "r.yaml").write_text(text)
    assert main(["train", f"--config={tmp_path / 'r.yaml'}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("r.yaml")
