"""Fine-tuning on a folder, beside what its held-out clips score without training."""

import csv
import json

import numpy as np
import pytest
import torch
from lightning import seed_everything

import qaudio
from qaudio.cli import main
from qaudio.evaluation.predictions import Predictions
from qaudio.evaluation.probe import GENTLE, linear_probe
from qaudio.evaluation.result import Difference
from qaudio.evaluation.statistics import log_mel_statistics
from qaudio.training.baselines import STATISTICS, baselines, verdict
from qaudio.training.leakage import LeakError
from qaudio.zoo.schema import Baseline
from qaudio.zoo.store import read_results
from tests.support.networks import FRONTEND, small_model
from tests.support.training import on_folder

SOURCE = json.dumps({"trained_on": ["made"]})


@pytest.fixture
def root(tmp_path, write_sound):
    """Two classes of tones of four speakers; a clip is half as long as the others, one twice."""
    rng = np.random.default_rng(0)
    for label, hertz in (("high", 2000), ("low", 300)):
        for n in range(8):
            time = np.arange({0: 2000, 5: 8000}.get(n, 4000)) / 8000
            wave = np.sin(2 * np.pi * hertz * time) + 0.5 * rng.standard_normal(len(time))
            write_sound(f"tones/{label}/{'abcd'[n % 4]}{n}.wav", samples=0.2 * wave)
    return tmp_path / "tones"


@pytest.fixture
def parent(tmp_path):
    net = small_model("qcnn6_006", 3, frontend=FRONTEND)
    return qaudio.save(net, tmp_path / "zoo" / "qcnn6_006.made", extra={"source.json": SOURCE})


def sounds(root, **settings):
    defaults = {
        "name": "tones", "folds": 4, "group_pattern": r"/([abcd])", "seconds": 0.5,
        "segment_hop": 0.5, "batch_size": 4, "sample_rate": 8000,
    }  # fmt: skip
    return qaudio.AudioFolder(str(root), **defaults | settings)


def test_baselines_are_fitted_on_the_training_clips_and_answer_for_the_held_out_ones(root, parent):
    seed_everything(0, verbose=False)
    data, net = sounds(root, fold=2), qaudio.load(parent)
    data.setup()
    state = torch.get_rng_state()
    found = baselines(parent, data)
    assert torch.equal(torch.get_rng_state(), state)  # so a training is the same after it
    rows = {"linear probe": {}, STATISTICS: {}}
    clips = {clip.id: clip for clip in data.read_clips()[0]}
    for name, clip in clips.items():
        samples = torch.from_numpy(np.array(data.cache.get(clip.path, 8000)))
        if samples.dtype == torch.int16:
            samples = samples.float() / 32767
        pieces = samples.split(4000)
        padded = torch.stack([torch.nn.functional.pad(p, (0, 4000 - len(p))) for p in pieces])
        with torch.no_grad():
            features = net.features(padded)
            rows["linear probe"][name] = net.embed(padded).mean(0).numpy()
        frames = 1 + len(samples) // FRONTEND["hop_length"]
        rows[STATISTICS][name] = log_mel_statistics(features, frames).numpy()
    train = [name for name, clip in clips.items() if clip.fold != 2]
    test = [name for name, clip in clips.items() if clip.fold == 2]
    for method, own in rows.items():
        logits = linear_probe(
            np.stack([own[name] for name in train]), np.array([clips[n].label for n in train]),
            np.stack([own[name] for name in test]), 2, **(GENTLE if method != STATISTICS else {}),
        )  # fmt: skip
        assert found[method].clip.tolist() == test and (found[method].fold == 2).all()
        np.testing.assert_allclose(found[method].logits, logits, rtol=0.01, atol=0.01)


def test_baselines_take_no_weights_that_saw_the_held_out_clips(root, tmp_path):
    net = small_model("qcnn6_006", 3, frontend=FRONTEND)
    source = json.dumps({"trained_on": ["tones"]})
    seen = qaudio.save(net, tmp_path / "zoo" / "seen", extra={"source.json": source})
    data = sounds(root)
    data.setup()
    with pytest.raises(LeakError, match="what is to be scored was seen"):
        baselines(seen, data)


def test_baselines_of_a_fixed_split_and_of_several_labels(root, parent, tmp_path):
    table = tmp_path / "table.csv"
    with open(table, "w", newline="") as file:
        rows = [
            (f"{path.parent.name}/{path.name}", int(path.parent.name == "low"),
             int(path.name[0] in "ab"), "test" if path.name[0] in "ac" else "train")
            for path in sorted(root.glob("*/*"))
        ]  # fmt: skip
        csv.writer(file).writerows([("file", "low", "first", "split"), *rows])
    data = sounds(root, table=str(table), group_pattern=None)
    data.setup()
    found = baselines(parent, data)[STATISTICS]
    assert found.label.shape == found.logits.shape == (8, 2)
    assert ((found.logits[:, 0] > 0) == found.label[:, 0]).all()


@pytest.fixture
def run(root, tmp_path, parent):
    """Run a command that fine-tunes on the tones; returns the entry's folder."""

    def start(command, *arguments):
        source = {"source": str(parent)}
        config = on_folder(tmp_path, root, source, group_pattern="/([abcd])")
        assert main([command, *config, *arguments]) == 0
        return tmp_path / "zoo" / "qcnn6_006.tones"

    return start


def test_baselines_crossval_keeps_the_baselines_of_every_fold_and_tells_the_groups(run, capsys):
    run("crossval", "--folds", "[1]")
    entry = run("crossval")  # goes on from the first, and refreshes
    out = capsys.readouterr().out
    held = [
        line.partition("groups ")[2] for line in out.splitlines() if line.startswith("held out")
    ]
    assert sorted(", ".join(held).split(", ")) == ["a", "b", "c", "d"]
    qaudio.verify(entry)
    results = read_results(entry)
    assert [row.method for row in results.baselines] == ["linear probe", STATISTICS]
    for row in results.baselines:
        assert row.result.folds.keys() == {"1", "2"} and row.difference.clips == 16
        assert verdict(row) in out
        kept = Predictions.load(entry / row.predictions)
        assert kept.runs() == [(0, 1), (0, 2)]


def test_baselines_training_from_scratch_has_no_baselines(run, capsys):
    front = [f"--model.frontend.{name}={value}" for name, value in FRONTEND.items()]
    entry = run("train", "--model.source=null", "--model.arch=qcnn6_006", *front)
    assert "held out: 8 of 16 clips (fold 1 of 2): groups" in capsys.readouterr().out
    assert "baselines" not in json.loads((entry / "results.json").read_text())
    assert not (entry / "baselines").exists()


@pytest.mark.parametrize(
    ("interval", "says"),
    [
        ([0.01, 0.2], "better"),
        ([-0.2, -0.01], "worse"),
        ([-0.1, 0.1], "too close for 9 clips"),
    ],
)
def test_baselines_verdict_says_no_more_than_the_interval(interval, says):
    difference = Difference("accuracy", 0.0, interval, runs=1, clips=9)
    row = Baseline("probe", None, difference, "probe.npz")
    assert verdict(row).startswith("against the probe: +0.0 points (")
    assert says in verdict(row)
