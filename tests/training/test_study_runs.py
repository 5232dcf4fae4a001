"""A small study, trained from beginning to end."""

from pathlib import Path

import numpy as np
import pytest
import yaml

import qaudio
from qaudio.cli import main
from qaudio.errors import AudioError
from qaudio.evaluation.predictions import Predictions
from qaudio.study.grid import Study
from qaudio.training.cli import parse
from qaudio.zoo.store import read_results

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def study(tmp_path, recipe):
    """The arguments that run two cells on fold 1: a net, and a student that learns from it."""
    zoo, folder = tmp_path / "zoo", tmp_path / "recipes" / "esc10"
    recipe(trainer={"max_epochs": 1})
    folder.mkdir(parents=True)
    (tmp_path / "qcnn6_006.esc10.yaml").rename(folder / "net.yaml")
    teacher = {"class_path": "qaudio.DistilledClassifier", "init_args":
               {"teacher": str(zoo / "qcnn6_006.esc10"), "source": str(zoo / "qcnn6_006.esc10"),
                "ratio": 0.5, "min_channels": 4}}  # fmt: skip
    recipe("taught.esc10", teacher, trainer={"max_epochs": 1})
    (tmp_path / "taught.esc10.yaml").rename(folder / "taught.yaml")
    cells = {
        "net": {"what": "from scratch", "recipe": "net.yaml"},
        "taught": {"what": "taught", "recipe": "taught.yaml", "set": {"model.loss": "published"},
                   "against": ["net"]},
    }  # fmt: skip
    document = {"benchmarks": ["esc10"], "seeds": [0], "reference": "net", "cells": cells,
                "tables": [{"title": "Both", "cells": ["net", "taught"]}]}  # fmt: skip
    (folder.parent / "study.yaml").write_text(yaml.safe_dump(document))
    (folder.parent / "README.md").write_text("Ours\n")  # which gets the tables
    return ["study", "--config", str(folder.parent / "study.yaml"), "--zoo", str(zoo),
            "--runs", str(tmp_path / "runs"), "--folds", "[1]"]  # fmt: skip


def test_study_what_is_missing_is_trained_and_the_tables_are_made(study, tmp_path, capsys):
    assert main(study) == 0
    cell = tmp_path / "zoo" / "study" / "esc10" / "taught"
    assert Predictions.load(cell / "predictions.npz").runs() == [(0, 1)]
    assert not list(cell.rglob("*.safetensors"))
    assert main(["verify", str(cell)]) == 0
    table = (tmp_path / "recipes" / "README.md").read_text()
    assert table.startswith("Ours\n\n<!-- study tables: generated -->\n")
    assert "not run" not in table
    assert table.count("(1 runs so far)") == 2
    assert "to `net`" in table
    picture = (tmp_path / "zoo" / "study" / "study.svg").read_text()
    assert "(6.0" not in picture and picture.count("esc10: ") == 1
    capsys.readouterr()
    assert main(study) == 0
    assert capsys.readouterr().out.splitlines() == ["esc10 net: complete", "esc10 taught: complete"]
    assert main([*study[:-1], "[1,2]", "--cells", "taught"]) == 1  # its teacher lacks fold 2
    assert "folds/2.safetensors is missing" in capsys.readouterr().err
    # A second fold joins the first, though no weights were kept.
    assert main([*study[:-1], "[1,2]"]) == 0
    assert Predictions.load(cell / "predictions.npz").runs() == [(0, 1), (0, 2)]
    assert main(["verify", str(cell)]) == 0


def test_study_cells_are_scored_on_other_benchmarks_and_keep_no_weights(
    study, tmp_path, write_sound, esc50_tree, capsys
):
    for n in range(4):
        noise = np.random.default_rng(n).standard_normal(8000)
        write_sound(f"own/{'ab'[n % 2]}/{n}.wav", samples=0.1 * noise)
    grid = tmp_path / "recipes" / "study.yaml"
    grid.write_text(
        yaml.safe_dump(yaml.safe_load(grid.read_text()) | {"probes": {"own": "x.yaml"}})
    )
    (tmp_path / "recipes" / "own").mkdir()
    recipe = yaml.safe_load((tmp_path / "recipes" / "esc10" / "net.yaml").read_text())
    esc10 = recipe["data"]
    recipe["data"] = {
        "class_path": "qaudio.AudioFolder", "init_args": {"root": "own", "name": "own", "folds": 2}
    }  # fmt: skip
    config = tmp_path / "recipes" / "own" / "x.yaml"
    config.write_text(yaml.safe_dump(recipe))
    assert main(study) == 2
    assert (
        "taught is scored on other benchmarks: give --probe own=FOLDER" in capsys.readouterr().err
    )
    assert main([*study, "--probe", "gtzan=x"]) == 2
    assert "--probe takes own=FOLDER" in capsys.readouterr().err
    cell = tmp_path / "zoo" / "study" / "esc10" / "taught"
    probed = ["--probe", f"own={tmp_path / 'own'}"]
    assert main([*study, *probed]) == 0
    assert read_results(cell).transfer == []  # while folds are missing
    study = study[:-2]  # without --folds
    assert main([*study, "--probe", "own=nowhere"]) == 1  # trained, and kept to be scored
    assert (cell / "model.safetensors").is_file()
    config.write_text(yaml.safe_dump(recipe | {"data": esc10}))
    assert main([*study, "--probe", f"own={esc50_tree}"]) == 1
    assert "taught: was trained on ESC-50" in capsys.readouterr().err
    config.write_text(yaml.safe_dump(recipe))
    assert main([*study, *probed]) == 0
    assert "esc10 taught: to probe: own" in capsys.readouterr().out
    (score,) = read_results(cell).transfer
    assert (score.benchmark, score.protocol.endswith("; linear probe")) == ("own", True)
    assert not list(cell.rglob("*.safetensors"))
    assert main(["verify", str(cell)]) == 0
    text = grid.read_text().replace("own: x.yaml", "own: x.yaml\n  esc50: x.yaml")
    grid.write_text(text)
    capsys.readouterr()
    assert main([*study, *probed, "--list"]) == 0
    assert "to probe: esc50, but its weights are gone: delete" in capsys.readouterr().out


@pytest.fixture
def failing(monkeypatch):
    """Make the training of the first cell raise something."""

    def make(error):
        step, calls = qaudio.Classifier.training_step, []

        def fails(module, *batch):
            if not calls:
                calls.append(module)
                raise error
            return step(module, *batch)

        monkeypatch.setattr(qaudio.Classifier, "training_step", fails)

    return make


def test_study_interrupted_study_trains_no_other_cell(study, failing, capsys):
    failing(KeyboardInterrupt())
    assert main(study) == 130
    told = capsys.readouterr()
    assert "qaudio: interrupted: no epoch was ended" in told.err
    assert "esc10 taught" not in told.out


def test_study_one_cell_that_fails_does_not_end_a_study(study, failing, tmp_path, capsys):
    failing(RuntimeError("out of something"))
    assert main(study) == 1
    told = capsys.readouterr()
    assert "qaudio: esc10 net: out of something" in told.err and "Traceback" in told.err
    assert "esc10 taught: to train" in told.out
    assert (tmp_path / "zoo" / "study" / "study.svg").is_file()


def test_study_what_is_told_in_one_line_is_so_in_a_study(study, failing, capsys):
    failing(AudioError("a.wav is broken"))
    assert main(study) == 1
    told = capsys.readouterr().err
    assert "qaudio: esc10 net: a.wav is broken" in told and "Traceback" not in told


@pytest.mark.slow
@pytest.mark.parametrize(
    ("grid", "benchmark"),
    [("study", "esc10"), ("study", "ravdess"), ("prune_or_distil", "audioset_kd")],
)
def test_study_every_shipped_cell_parses(grid, benchmark, monkeypatch):
    monkeypatch.chdir(ROOT)
    study = Study(f"recipes/{grid}.yaml")
    for cell in study.cells.values():
        cli = parse(study.arguments(cell, benchmark))
        assert cli.config.writer.entry == study.entry(cell, benchmark)
        assert cli.datamodule.split.benchmark == benchmark
