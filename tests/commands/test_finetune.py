"""`qaudio finetune` on made tones, from a tiny entry."""

import json
import shutil

import numpy as np
import pytest
import yaml

import qaudio
from qaudio.cli import main
from qaudio.evaluation.predictions import Predictions
from qaudio.training.run import TrainingRun
from qaudio.zoo.store import read_results, to_json
from tests.support.networks import FRONTEND, small_model

CLASSES = {"high": 2500, "low": 300, "middle": 900}


@pytest.fixture
def tones(tmp_path, write_sound):
    """Three classes of six tones, of four speakers: a second each, in noise."""
    rng = np.random.default_rng(0)
    for label, hertz in CLASSES.items():
        for n in range(6):
            wave = 0.3 * np.sin(2 * np.pi * hertz * np.arange(8000) / 8000 + n)
            noisy = wave + 0.02 * rng.standard_normal(8000)
            write_sound(f"tones/{label}/speaker{n % 4}_{n}.wav", samples=noisy)
    return tmp_path / "tones"


@pytest.fixture
def entry(tmp_path):
    """A network of other classes, of 8 kHz, that was trained on nothing here."""
    net = small_model("qcnn6_006", 2, frontend=FRONTEND)
    net.labels = ["dog", "rain"]
    return qaudio.save(
        net, tmp_path / "parents" / "qcnn6_006.made", license="cc0-1.0",
        extra={"source.json": json.dumps({"trained_on": ["made"]})},
    )  # fmt: skip


@pytest.fixture
def finetune(tmp_path, entry, capsys):
    """Run the command in few epochs; its code, and what it printed on both streams."""

    def run(folder, *arguments, score="fold"):
        if "--show-recipe" not in arguments:
            arguments = ("--score", score, *arguments) if score else arguments
        code = main([
            "finetune", str(folder), "--from", str(entry), "--out", str(tmp_path / "models"),
            "--epochs", "2", *arguments, "--trainer.accelerator=cpu", "--writer.latency=false",
            "--data.cache_dir", str(tmp_path / "cache"),
        ])  # fmt: skip
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_finetune_makes_an_entry_and_sets_it_beside_its_baselines(tones, finetune, tmp_path):
    code, out, err = finetune(tones, "--data.group_pattern", "(speaker[0-9])")
    assert code == 0, err
    assert "18 recordings of 3 classes: high 6, low 6, middle 6" in out
    assert "4 groups" in out and "clips are 1 s" in out
    folder = tmp_path / "models" / "qcnn6_006.tones_ft"
    qaudio.verify(folder)
    assert qaudio.load(folder).labels == sorted(CLASSES)
    results, predictions = read_results(folder), Predictions.load(folder / "predictions.npz")
    groups = {clip.split("/")[1].split("_")[0] for clip in predictions.clip}
    assert f"groups {', '.join(sorted(groups))}" in out
    assert [row.method for row in results.baselines] == ["linear probe", "log-mel statistics"]
    assert results.baselines[1].result.mean == 1.0  # of tones
    for row in results.baselines:
        kept = Predictions.load(folder / row.predictions)
        assert (kept.clip == predictions.clip).all() and (kept.label == predictions.label).all()
        assert f"{100 * row.result.mean:.1f} %" in out
        assert f"| {row.method} |" in (folder / "README.md").read_text()
    for line in (f"qaudio predict --model {folder} your_file.wav", f"qaudio prune {folder}",
                 f"qaudio export {folder}"):  # fmt: skip
        assert line in out
    assert not [word for word in ("GPU", "TPU", "Tip", "Seed set", "reached", "warn")
                if word in out + err]  # fmt: skip
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    assert recipe["data"]["init_args"]["seconds"] == 1.0
    # A second time it would replace what is there.
    code, _, err = finetune(tones)
    assert code == 1 and "is there already: give another --name or --out" in err


def test_finetune_that_was_interrupted_between_folds_goes_on(
    tones, finetune, tmp_path, monkeypatch
):
    real, begun = TrainingRun.train, []

    def train(run):
        begun.append(run.fold)
        if len(begun) == 2:
            raise KeyboardInterrupt
        return real(run)

    monkeypatch.setattr(TrainingRun, "train", train)
    arguments = [tones, "--data.folds=2"]
    assert finetune(*arguments, score=None)[0] == 130
    folder = tmp_path / "models" / "qcnn6_006.tones_ft"
    assert not read_results(folder).complete
    code, out, err = finetune(*arguments, score=None)
    assert code == 0, err
    assert "seed 0 fold 1: done before" in out and begun == [1, 2, 2]
    assert read_results(folder).complete
    qaudio.verify(folder)
    code, _, err = finetune(*arguments, score=None)
    assert code == 1 and "is there already: give another --name or --out" in err


def test_finetune_of_a_fold_holds_out_that_one_alone(tones, finetune, tmp_path):
    code, _, err = finetune(tones, "--data.fold", "2", score="all")
    assert code == 2 and "--data.fold goes with --score fold" in err
    code, _, err = finetune(tones, "--data.holdout=validation")
    assert code == 2 and "validation folds are scored by crossval" in err
    for _ in range(2):
        code, _, err = finetune(tones, "--data.folds=2", "--data.fold", "2", score=None)
        folder = tmp_path / "models" / "qcnn6_006.tones_ft"
        assert read_results(folder).result.runs.keys() == {"seed0_fold2"}, err
    assert code == 1 and "is there already" in err


def test_finetune_on_clips_of_one_class_is_told_in_one_line(tones, finetune, tmp_path):
    rows = [f"{label}/{path.name},{label},{'train' if label == 'low' else 'test'}"
            for label in CLASSES for path in sorted((tones / label).iterdir())]  # fmt: skip
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["file,label,split", *rows]))
    code, _, err = finetune(tones, "--table", str(table), "--probe-only")
    assert code == 1 and "two classes at least, not 1: give some of another" in err
    assert "error in qaudio" not in err


def test_finetune_tampered_baselines_do_not_verify(tones, finetune, tmp_path):
    from tests.support.entries import rehash

    assert finetune(tones)[0] == 0
    folder = tmp_path / "models" / "qcnn6_006.tones_ft"
    results = read_results(folder)
    results.baselines[0].difference.mean += 0.125
    (folder / "results.json").write_text(to_json(results))
    rehash(folder, "results.json")
    with pytest.raises(qaudio.errors.EntryError, match=r"difference to linear probe\.mean says"):
        qaudio.verify(folder)


def test_probe_only_writes_nothing_and_gives_json(tones, finetune, tmp_path):
    code, out, err = finetune(tones, "--probe-only", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["classes"] == {"high": 6, "low": 6, "middle": 6} and found["seconds"] == 1.0
    assert found["scores"].keys() == {"linear probe", "log-mel statistics"}
    assert found["scores"]["log-mel statistics"]["mean"] == 1.0 and found["entry"] is None
    assert "held out:" in err and "held out:" not in out
    assert not (tmp_path / "models").exists()


def test_show_recipe_prints_what_train_would_run(tones, finetune, tmp_path, entry):
    code, out, _ = finetune(tones, "--show-recipe", "--model.lr", "0.002", "--seconds", "0.7")
    assert code == 0 and not (tmp_path / "models").exists()
    recipe = yaml.safe_load(out)
    assert recipe["model"]["init_args"]["lr"] == 0.002
    assert recipe["model"]["init_args"]["source"] == str(entry)
    settings = recipe["data"]["init_args"]
    assert (settings["seconds"], settings["segment_hop"], settings["name"]) == (0.7, 0.7, "tones")
    assert recipe["trainer"]["max_epochs"] == 2
    assert out.startswith("# Run it: qaudio train --config RECIPE.yaml --data.root ")


def test_few_shot_folders_work(tones, finetune):
    for label in CLASSES:
        for path in sorted((tones / label).iterdir())[3:]:
            path.unlink()
    code, out, err = finetune(tones, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["classes"] == {"high": 3, "low": 3, "middle": 3}
    assert {"linear probe", "log-mel statistics"} < found["scores"].keys()
    assert all(one["clips"] == 3 for one in found["scores"].values())  # of three folds


def test_small_folders_are_scored_on_every_recording(tones, finetune, tmp_path):
    for label in CLASSES:
        for path in sorted((tones / label).iterdir())[3:]:
            path.unlink()
    code, out, err = finetune(tones, "--json", score=None)
    assert code == 0, err
    scores = json.loads(out)["scores"]
    assert {one["clips"] for one in scores.values()} == {9} and len(scores) == 3
    results = read_results(tmp_path / "models" / "qcnn6_006.tones_ft")
    assert results.complete and results.result.folds.keys() == {"1", "2", "3"}
    assert err.count("validated on 3 other clips") == 3 and "against the log-mel statistics" in err


def test_several_labels_take_the_recipe_of_several_labels(tones, finetune, tmp_path):
    rows = [f"{label}/{path.name},{int(label == 'low')},{int(label != 'high')}"
            for label in CLASSES for path in sorted((tones / label).iterdir())]  # fmt: skip
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["file,low,deep", *rows]))
    code, out, err = finetune(tones, "--table", str(table), "--json")
    assert code == 0, err
    scores = json.loads(out)["scores"]
    assert {one["metric"] for one in scores.values()} == {"mAP"}
    assert scores["log-mel statistics"]["mean"] == 1.0
    qaudio.verify(tmp_path / "models" / "qcnn6_006.tones_ft")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda root: [shutil.rmtree(root / one) for one in ("low", "middle")], "two classes"),
        (lambda root: [p.unlink() for p in sorted((root / "low").iterdir())[1:]],
         "class 'low' has 1 recordings that can be read"),
        (lambda root: [p.write_text("no sound") for p in root.glob("*/*")],
         "none of 18 recordings can be read"),
        (shutil.rmtree, "is no folder"),
    ],
    ids=["one class", "one clip", "nothing readable", "no folder"],
)  # fmt: skip
def test_bad_folders_are_told_in_one_line(tones, finetune, tmp_path, spoil, said):
    spoil(tones)
    code, _, err = finetune(tones)
    assert code == 1 and said in err and err.count("\n") == 1
    assert not (tmp_path / "models").exists()


def test_what_the_recordings_settings_cannot_be_is_told_in_one_line(tones, finetune):
    for arguments, said in (
        (["--name", "esc10"], "name 'esc10' is a benchmark's"),
        (["--table", "none.csv"], "none.csv not found"),
        (["--data.nonsense", "1"], "nonsense"),
    ):
        code, _, err = finetune(tones, *arguments)
        assert code == 1 and said in err and err.count("\n") == 1


def test_options_and_overrides_of_one_thing_are_refused(tones, finetune):
    for override, own in (("--data.seconds=2", "--seconds"), ("--writer.folder=x", "--out")):
        code, _, err = finetune(tones, override)
        assert code == 2 and f"give {own} in place of" in err
    code, _, err = finetune(tones, "--nonsense")
    assert code == 2 and "unknown option --nonsense" in err
