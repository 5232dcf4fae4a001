"""`keep_probe`: a probe is kept where training gains nothing clear on a validation fold."""

import json

import numpy as np
import pytest

import qaudio
from qaudio.cli import main
from qaudio.evaluation.predictions import Predictions
from qaudio.training import choice
from qaudio.training.run import TrainingRun
from qaudio.zoo.store import read_results
from tests.support.loaders import ids
from tests.support.networks import FRONTEND, small_model
from tests.support.training import on_folder


@pytest.fixture
def root(tmp_path, write_sound):
    """Two classes of eight tones in noise."""
    rng = np.random.default_rng(0)
    for label, hertz in (("high", 2000), ("low", 300)):
        for n in range(8):
            wave = np.sin(2 * np.pi * hertz * np.arange(4000) / 8000 + n)
            noisy = 0.2 * (wave + 0.5 * rng.standard_normal(4000))
            write_sound(f"tones/{label}/{n}.wav", samples=noisy)
    return tmp_path / "tones"


@pytest.fixture
def train(root, tmp_path):
    """Run a command on the tones; its code and the entry's folder."""
    source = json.dumps({"trained_on": ["made"]})
    net = small_model("qcnn6_006", 3, frontend=FRONTEND)
    parent = qaudio.save(net, tmp_path / "zoo" / "qcnn6_006.made", extra={"source.json": source})
    model = {"source": str(parent), "probe_first": True, "keep_probe": True}
    config = on_folder(tmp_path, root, model, folds=4)

    def start(*arguments, command="train"):
        return main([command, *config, *arguments]), tmp_path / "zoo" / "qcnn6_006.tones"

    return start


@pytest.fixture
def validated(monkeypatch):
    """Say which clips are right before and after training; returns those that were asked for."""
    asked = []

    def right(before, after):
        def answer(run):
            asked.append(ids(run.data.whole_clips("scored")))
            return [before, after][len(asked) % 2 == 0][: len(asked[-1])]

        monkeypatch.setattr(choice, "_right", answer)
        return asked

    return right


def test_probe_is_kept_as_it_is_where_training_gains_nothing(train, validated, capsys):
    validated([True] * 4, [True] * 4)
    code, entry = train()
    assert code == 0
    out = capsys.readouterr().out
    assert "linear probe 100.0 %, fine-tuned 100.0 %: no clear gain, so the probe is kept" in out
    results = read_results(entry)
    assert results.parent.how == "linear-probed from"
    probe = Predictions.load(entry / results.baselines[0].predictions)
    ours = Predictions.load(entry / "predictions.npz")
    np.testing.assert_allclose(ours.logits, probe.logits, atol=0.05)
    assert "  linear probe, kept  " in out and "against the linear probe" not in out
    assert "against the log-mel statistics" in out
    assert "linear-probed from `qcnn6_006.made`" in (entry / "README.md").read_text()
    qaudio.verify(entry)


def test_training_is_kept_where_it_is_clearly_better(train, validated, capsys):
    asked = validated([False] * 4, [True] * 4)
    code, entry = train()
    assert code == 0 and "fine-tuned is kept" in capsys.readouterr().out
    results = read_results(entry)
    assert results.parent.how == "fine-tuned from"
    probe = Predictions.load(entry / results.baselines[0].predictions)
    ours = Predictions.load(entry / "predictions.npz")
    assert np.abs(ours.logits - probe.logits).max() > 0.1
    scored = set(ours.clip)
    assert len(asked) == 2 and not scored & set(asked[0])  # never on what is scored


def test_a_gain_within_its_standard_error_is_none(train, validated):
    validated([True, False, True, False], [False, True, True, True])  # 1 of 4, ± .41
    assert read_results(train()[1]).parent.how == "linear-probed from"


def test_each_fold_chooses_for_itself(train, monkeypatch):
    # Of folds 1 and 2, the second's training is better.
    answers = iter([[True] * 4, [True] * 4, [False] * 4, [True] * 4])
    monkeypatch.setattr(choice, "_right", lambda run: next(answers))
    code, entry = train("--folds=[1,2]", command="crossval")
    assert code == 0
    assert read_results(entry).parent.how == "fine-tuned or, in some folds, linear-probed from"
    qaudio.verify(entry)


def test_two_folds_leave_none_to_validate_on(train, capsys):
    code, entry = train("--data.folds=2")
    assert code == 0 and "no recordings to validate on: the linear" in capsys.readouterr().out
    assert read_results(entry).parent.how == "linear-probed from"


def test_what_was_validated_is_not_validated_again(train, validated, monkeypatch):
    asked = validated([False] * 4, [True] * 4)
    assert train()[0] == 0
    fit = TrainingRun.fit

    def once(run, *arguments, **settings):
        assert not run.validates
        return fit(run, *arguments, **settings)

    monkeypatch.setattr(TrainingRun, "fit", once)
    assert train("--overwrite=true")[0] == 0
    assert len(asked) == 2


@pytest.mark.parametrize(("command", "more"), [("fit", []), ("train", ["--overwrite=true"])])
def test_choice_is_made_for_runs_that_were_trained_before(train, validated, command, more):
    validated([True] * 4, [True] * 4)
    assert train(command=command)[0] == 0
    code, entry = train(*more)
    assert code == 0 and read_results(entry).parent.how == "linear-probed from"
    probe = Predictions.load(entry / "baselines" / "linear_probe.npz")
    ours = Predictions.load(entry / "predictions.npz")
    np.testing.assert_allclose(ours.logits, probe.logits, atol=0.05)


def test_an_unfinished_run_of_other_settings_is_refused_before_a_rehearsal(
    train, validated, capsys
):
    asked = validated([True] * 4, [True] * 4)
    assert train(command="fit")[0] == 0
    assert train("--model.lr=0.5")[0] == 1 and not asked
    assert "an unfinished run with other settings (model.lr)" in capsys.readouterr().err
    assert train("--trainer.fast_dev_run=true")[0] == 0 and not asked  # tries the loop out


def test_a_rehearsal_that_is_interrupted_goes_on(train, monkeypatch, capsys):
    asked = []

    def answer(run):
        asked.append(run.trainer.current_epoch)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return [len(asked) > 1] * 4

    monkeypatch.setattr(choice, "_right", answer)
    assert train()[0] == 130
    code, entry = train()
    assert code == 0 and len(asked) == 3  # the probe once, what was trained twice
    assert asked[2] == 1  # of the checkpoint
    assert read_results(entry).parent.how == "fine-tuned from"


def test_right_is_judged_by_the_networks_own_answers(train, capsys):
    """Without a stand-in: tones are easy, so the probe is right on nearly all."""
    still = ["--model.lr=0", "--model.freeze=norms", "--model.head_dropout=0.9"]
    assert train(*still)[0] == 0
    line = next(row for row in capsys.readouterr().out.splitlines() if "validated on" in row)
    probe, tuned = (float(part.split(" %")[0]) for part in line.split("probe ")[1].split("tuned "))
    assert probe == tuned >= 75


def test_keep_probe_needs_a_probe():
    with pytest.raises(ValueError, match="keep_probe goes with probe_first"):
        qaudio.Classifier(source="x", keep_probe=True)
