import json

import pytest

import qaudio
from qaudio.cards.entries import add_transfer
from qaudio.evaluation.bootstrap import summarise
from qaudio.evaluation.predictions import Predictions
from tests.support.entries import made_entry


@pytest.fixture
def entry(tmp_path):
    return made_entry(tmp_path / "entries")


def test_calibrate_prints_and_leaves_the_entry(run, entry):
    before = (entry / "config.json").read_bytes()
    done = run("calibrate", entry)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("qcnn6_006.made: temperature ")
    assert "for a precision of 90%: answers" in done.out
    assert done.out.endswith("--write stores this in the entry\n")
    assert (entry / "config.json").read_bytes() == before


def test_calibrate_judges_sounds_outside_and_stores_it(run, entry, write_sound):
    for n in range(3):
        write_sound(f"street/{n}.wav", seed=n)
    folder = write_sound("street/more/long.wav", seconds=3).parents[1]
    (folder / "bad.wav").write_text("not a sound")
    done = run("calibrate", entry, "--outside", folder, "--write", "--json")
    found = json.loads(done.out)
    assert found["outside"]["sources"] == {"street": 4}
    assert set(found["outside"]["auroc"]) == {"max softmax", "energy"}
    assert json.loads((entry / "results.json").read_text())["calibration"] == found
    qaudio.verify(entry)


def test_calibrate_takes_so_many_sounds_of_a_folder(run, entry, write_sound):
    for n in range(9):
        folder = write_sound(f"street/{n}.wav", seconds=0.2, seed=n).parent
    done = run("calibrate", entry, "--outside", folder, "--most", 3, "--json")
    assert json.loads(done.out)["outside"]["sources"] == {"street": 3}


def test_calibrate_refuses_in_one_line(run, entry, tiny_entry, tmp_path):
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        ([tiny_entry], "tiny.made: has no results to calibrate"),
        ([entry, "--outside", tmp_path / "empty"], "a folder without sounds that can be used"),
        ([entry, "--outside", tmp_path / "a/x", "--outside", tmp_path / "b/x"], "without sounds"),
    ):
        done = run("calibrate", *arguments)
        assert done.code == 1
        assert message in done.err
        assert done.err.count("\n") == 1


def test_predict_takes_the_entrys_thresholds(run, entry, write_sound):
    sound = write_sound("a.wav")
    done = run("predict", "--model", entry, "--threshold", "entry", sound)
    assert f"{entry} has no thresholds of its own: 0.5 is taken" in done.err
    run("calibrate", entry, "--write")
    model = qaudio.load(entry)
    probabilities = {p.index: p.probability for p in qaudio.predict(model, sound)}
    expected = {model.labels[n] for n, p in probabilities.items() if p >= model.thresholds[n]}
    done = run("predict", "--model", entry, "--threshold", "entry", "--json", sound)
    assert done.err == ""
    document = json.loads(done.out)
    assert {p["label"] for p in document["predictions"]} == expected


def test_predict_says_that_no_class_reaches_its_threshold(run, tiny_entry, write_sound):
    sound = write_sound("a.wav")
    done = run("predict", "--model", tiny_entry, "--threshold", "1", sound)
    assert "none of its 3 classes reaches its threshold" in done.out
    done = run("predict", "--model", tiny_entry, "--threshold", "1", "--json", sound)
    assert json.loads(done.out)["none_of_these"] is True


def test_predict_refuses_another_word_for_a_threshold(run):
    done = run("predict", "--threshold", "mine", "a.wav")
    assert done.code == 2
    assert "must be 0 to 1, or entry, not 'mine'" in done.err


@pytest.mark.slow
def test_exported_entry_has_its_calibration(run, entry, write_sound, tmp_path):
    run("calibrate", entry, "--write")
    out = tmp_path / "model.onnx"
    assert run("export", entry, "--out", out).code == 0
    exported, model = qaudio.OnnxModel(out), qaudio.load(entry)
    assert (exported.temperature, exported.thresholds) == (model.temperature, model.thresholds)
    sound = write_sound("a.wav")
    found = [p.probability for p in qaudio.predict(exported, sound)]
    assert found == pytest.approx([p.probability for p in qaudio.predict(model, sound)], abs=1e-3)


def test_calibrate_looks_at_probes_of_other_benchmarks(run, entry):
    predictions = Predictions.load(entry / "predictions.npz")
    add_transfer(
        entry, benchmark="esc26", dataset="ESC-50", protocol="folds; linear probe",
        result=summarise(predictions, "accuracy"), predictions=predictions,
    )  # fmt: skip
    done = run("calibrate", entry, "--benchmark", "esc26")
    own = run("calibrate", entry)
    assert done.out.startswith("esc26, folds; linear probe: temperature ")
    assert done.out.split(": ", 1)[1] in own.out  # of the same predictions
    assert "calibration" not in json.loads((entry / "results.json").read_text())
    done = run("calibrate", entry, "--benchmark", "esc10")
    assert done.code == 1 and "has no probe of esc10; it has: esc26" in done.err
    assert run("calibrate", entry, "--benchmark", "esc26", "--write").code == 2
