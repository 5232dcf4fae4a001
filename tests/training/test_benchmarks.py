"""Training and scoring on segments, several labels, fixed splits and unbalanced classes."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from lightning import seed_everything

import qaudio
from qaudio.cli import main
from qaudio.evaluation.predictions import Predictions
from tests.support.entries import rehash
from tests.support.networks import FRONTEND
from tests.support.training import classifier, on_folder, trainer

FILES = [f"{label}/{n}.wav" for label in ("high", "low") for n in range(6)]


@pytest.fixture
def tones(tmp_path, write_sound):
    """Two classes of six clips: 1 s, two of them longer or shorter."""
    for n, file in enumerate(FILES):
        time = np.arange(round({0: 1.5, 7: 0.3}.get(n, 1.0) * 8000)) / 8000
        tone = np.sin(2 * np.pi * (2000 if n < 6 else 300) * time)
        # Rising, so that no two segments are equal.
        write_sound(f"tones/{file}", samples=np.linspace(0.001, 0.3, len(time)) * tone)
    return tmp_path / "tones"


def sounds(root, **settings):
    defaults = {"folds": 2, "seconds": 0.5, "segment_hop": 0.5, "batch_size": 4}
    return qaudio.AudioFolder(str(root), **defaults | settings)


def table(root, header, rows):
    path = root.parent / "table.csv"
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


def test_benchmark_clips_logits_are_the_mean_over_its_segments(tones):
    seed_everything(0, verbose=False)
    module, data = classifier(), sounds(tones)
    trainer().fit(module, data)
    trainer().test(module, data, verbose=False)
    found = {
        name: row
        for batch in module.scored
        for name, row in zip(batch["id"], batch["logits"], strict=True)
    }
    clips = [clip for clip in data.read_clips()[0] if clip.fold == 1]
    assert sorted(found) == sorted(clip.id for clip in clips)
    module.net.eval()
    for clip in clips:
        samples = torch.from_numpy(np.array(data.cache.get(clip.path, 8000)))
        missing = -len(samples) % 4000
        pieces = torch.nn.functional.pad(samples, (0, missing)).reshape(-1, 4000)
        with torch.no_grad():
            expected = module.net(pieces).mean(0)
        assert torch.allclose(found[clip.id], expected, atol=1e-5)


def test_benchmark_validation_counts_clips_too(tones):
    seed_everything(0, verbose=False)
    module, data = classifier(), sounds(tones, folds=3, holdout="validation")
    trainer().fit(module, data)
    seen = []
    module.metric.update = lambda logits, labels: seen.append((len(logits), len(labels)))
    for batch in data.val_dataloader():
        module.metric.update(module.clip_logits(batch), batch["label"])
    assert sum(clips for clips, _ in seen) == sum(labels for _, labels in seen) == 4


@pytest.fixture
def run(tmp_path, tones):
    """Run a command on a recipe for the tones; returns the entry's folder."""

    def start(command, *arguments, model=(), data=(), code=0):
        settings = {"arch": "qcnn6_006", "frontend": FRONTEND} | dict(model)
        given = {"root": tones, "segment_hop": 0.5} | dict(data)
        config = on_folder(tmp_path, model=settings, **given)
        assert main([command, *config, *arguments]) == code
        return tmp_path / "zoo" / "qcnn6_006.tones"

    return start


def test_benchmark_entrys_predictions_hold_clips(run, tones, capsys):
    entry = run("crossval", model={"class_weights": True})
    predictions = Predictions.load(entry / "predictions.npz")
    assert sorted(predictions.clip) == FILES
    results = json.loads((entry / "results.json").read_text())
    assert results["result"]["clips"] == 12
    assert results["complete"]
    assert main(["verify", str(entry)]) == 0
    assert main(["test", str(entry), f"--data.root={tones}"]) == 0
    report = json.loads((entry / "report.json").read_text())["classes"]
    right = (predictions.logits.argmax(-1) == predictions.label) & (predictions.label == 0)
    assert report["high"]["support"] == 6
    assert report["high"]["recall"] == pytest.approx(right.sum() / 6, abs=1e-6)
    report["high"]["recall"] += 0.1
    (entry / "report.json").write_text(json.dumps({"runs": 2, "classes": report}))
    rehash(entry, "report.json")
    assert main(["verify", str(entry)]) == 1
    assert "report.json is not what its predictions give" in capsys.readouterr().err


def test_benchmark_multi_label_set_with_a_fixed_split_gives_an_entry_scored_by_map(run, tones):
    parts = ("train", "test", "train", "validation", "train", "test")
    rows = [(file, parts[n % 6], int(n < 6), n % 2) for n, file in enumerate(FILES)]
    path = table(tones, ("file", "split", "high", "odd"), rows)
    settings = {"model": {"task": "multilabel"}, "data": {"table": path, "balanced": True}}
    entry = run("train", **settings)
    results = json.loads((entry / "results.json").read_text())
    assert results["result"]["metric"] == "mAP"
    assert results["result"]["classes"] == 2
    report = json.loads((entry / "report.json").read_text())["classes"]
    assert {name: row["support"] for name, row in report.items()} == {"high": 2, "odd": 4}
    assert results["complete"]
    predictions = Predictions.load(entry / "predictions.npz")
    assert predictions.label.shape == (4, 2)
    assert list(predictions.clip) == [FILES[n] for n in (1, 5, 7, 11)]
    assert predictions.label.tolist() == [[1, 1], [1, 1], [0, 1], [0, 1]]
    assert main(["verify", str(entry)]) == 0
    card = (entry / "README.md").read_text()
    assert "over those with a positive clip there: 2 of 2 have one in some fold." in card
    test = ["test", str(entry), f"--data.root={tones}", f"--data.table={path}"]
    assert main(test) == 0
    for off, code in ((9e-5, 0), (2e-4, 1)):  # clips that rounding ranks otherwise, and others
        wrong = json.loads(json.dumps(results))
        wrong["result"]["runs"]["seed0_fold1"] += off
        (entry / "results.json").write_text(json.dumps(wrong))
        assert main(test) == code
    (entry / "results.json").write_text(json.dumps(results))
    assert str(tones.parent) not in (entry / "recipe.yaml").read_text()
    run("train", "--data.holdout", "validation", **settings)


def test_benchmark_task_that_is_not_the_datas_is_refused(tones):
    rows = [(file, int(n < 6), n % 2) for n, file in enumerate(FILES)]
    data = sounds(tones, table=table(tones, ("file", "high", "odd"), rows))
    with pytest.raises(ValueError, match=r"give --model\.task multilabel"):
        trainer().fit(classifier(), data)


def test_benchmark_class_weights_reach_the_loss(tones):
    for n in (0, 1, 2):
        (tones / "high" / f"{n}.wav").unlink()
    module, data = classifier(class_weights=True), sounds(tones, folds=3, segment_hop=None)
    trainer(0).fit(module, data)
    assert module.loss_weights.tolist() == [1.5, 0.75]
    logits, targets = torch.randn(4, 2), torch.eye(2)[[0, 1, 1, 1]]
    each = -(logits.log_softmax(-1) * targets).sum(-1)
    expected = (each * torch.tensor([1.5, 0.75, 0.75, 0.75])).mean()
    assert torch.allclose(module.loss(logits, targets), expected)


def test_benchmark_entry_is_fine_tuned_on_other_classes(run, tones):
    parent = run("crossval", "--folds", "[1]")
    (tones / "high").rename(tones / "whistle")
    model = {"arch": None, "frontend": None, "source": str(parent)}
    run("train", "--writer.entry", "qcnn6_006.mine", model=model, data={"name": "mine"})
    child = parent.parent / "qcnn6_006.mine"
    results = json.loads((child / "results.json").read_text())
    assert results["parent"]["how"] == "fine-tuned from"
    assert results["trained_on"] == ["mine", "tones"]
    found = qaudio.load(child)
    assert found.labels == ["low", "whistle"]
    labels = {one.label for one in qaudio.predict(found, tones / "low" / "1.wav")}
    assert labels == {"low", "whistle"}


def test_benchmark_parent_of_the_same_recordings_is_asked_for_the_folds_weights(run, capsys):
    parent = run("crossval", "--folds", "[1]")
    model = {"arch": None, "frontend": None, "source": str(parent)}
    arguments = ["--writer.entry", "qcnn6_006.tones_again", "--data.split_seed", "1"]
    with pytest.raises(AssertionError):
        run("train", *arguments, model=model)
    assert "held-out clips were seen" in capsys.readouterr().err


def test_benchmark_folds_of_other_recordings_are_not_done_before(run, tones, capsys):
    entry = run("crossval")
    before = (entry / "results.json").read_bytes()
    capsys.readouterr()
    run("crossval")
    assert capsys.readouterr().out.count("done before") == 2
    shutil.copy(tones / FILES[0], tones / FILES[0].replace(".", "_again."))
    run("crossval", code=1)
    assert "its runs are of 'tones: 2 folds" in capsys.readouterr().err
    run("crossval", data={"root": str(tones / "nowhere")}, code=1)
    assert "nowhere is no folder" in capsys.readouterr().err
    assert (entry / "results.json").read_bytes() == before


def test_benchmark_card_names_the_table_and_another_name_for_other_recordings(run, tones, tmp_path):
    table = tmp_path / "table.csv"
    rows = [f"{file},{file.split('/')[0]}" for file in FILES]
    table.write_text("\n".join(["file,label", *rows]))
    entry = run("crossval", data={"table": str(table)})
    card = (entry / "README.md").read_text()
    assert "`qaudio test qcnn6_006.tones --data.root PATH --data.table PATH`" in card
    assert "qaudio finetune my_sounds --from qcnn6_006.tones" in card  # named after its folder
    arguments = ["--data.root", str(tones), "--data.table", str(table)]
    assert main(["test", str(entry), *arguments]) == 0
