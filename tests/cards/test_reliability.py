import json

import numpy as np
import pytest

import qaudio
from qaudio.cards.entries import calibrate, renew_card
from qaudio.cards.reliability import check, draw
from qaudio.errors import EntryError
from qaudio.evaluation.predictions import Predictions
from qaudio.zoo.store import to_json
from tests.support.entries import made_entry, rehash


@pytest.fixture
def entry(tmp_path):
    return made_entry(tmp_path)


def outside():
    logits = np.random.default_rng(3).standard_normal((12, 3))
    names = [f"{'rain' if n < 5 else 'music'}/{n}.wav" for n in range(12)]
    return Predictions.of_run(1, 0, names, np.zeros(12, int), logits)


def test_calibrated_entry_verifies_and_says_so_on_its_card(entry):
    found = calibrate(entry, outside())
    text = " ".join(qaudio.verify(entry))
    assert "reliability.png" in text
    card = (entry / "README.md").read_text()
    assert f"Expected calibration error **{found.ece_calibrated:.3f}**" in card
    assert "(7 of music, 5 of rain) against the 30 held-out clips of fold 1: AUROC" in card
    assert "](reliability.png)" in card


def test_loaded_entry_has_its_calibration(entry):
    plain = qaudio.load(entry)
    assert (plain.temperature, plain.thresholds) == (1.0, None)
    found = calibrate(entry)
    model = qaudio.load(entry)
    assert (model.temperature, model.thresholds) == (found.temperature, found.thresholds)
    logits = plain(0.1 * np_noise())
    expected = (logits / found.temperature).softmax(-1)
    assert model.probabilities(logits).tolist() == expected.tolist()
    assert "temperature" not in model.config.to_dict()  # what is made of the weights has none
    model.reset_classifier(3)
    assert (model.temperature, model.thresholds) == (1.0, None)


def np_noise():
    import torch

    return torch.randn(1, 8000, generator=torch.Generator().manual_seed(0))


def test_calibration_again_keeps_the_outside_sounds(entry):
    first = calibrate(entry, outside())
    assert calibrate(entry).to_dict() == first.to_dict()
    qaudio.verify(entry)


@pytest.mark.parametrize("where", ["temperature", "ece_calibrated", "outside.auroc.energy"])
def test_forged_calibration_is_found(entry, where):
    calibrate(entry, outside())
    results = json.loads((entry / "results.json").read_text())
    holder = results["calibration"]
    *path, key = where.split(".")
    for part in path:
        holder = holder[part]
    holder[key] += 0.01
    (entry / "results.json").write_text(to_json(results))
    rehash(entry, "results.json")
    with pytest.raises(EntryError, match=f"calibration.{where}"):
        qaudio.verify(entry)


def test_temperature_of_the_config_is_that_of_the_results(entry):
    calibrate(entry)
    config = json.loads((entry / "config.json").read_text())
    config["calibration"]["temperature"] = 9.0
    (entry / "config.json").write_text(to_json(config))
    with pytest.raises(EntryError, match=r"calibration in config\.json\.temperature"):
        qaudio.verify(entry)


def test_thresholds_are_as_many_as_the_classes(entry):
    calibrate(entry)
    config = json.loads((entry / "config.json").read_text())
    config["calibration"]["thresholds"].pop()
    (entry / "config.json").write_text(to_json(config))
    with pytest.raises(EntryError, match="3 classes, 2 thresholds"):
        qaudio.load(entry)


def test_picture_of_other_numbers_is_found(entry):
    calibrate(entry)
    predictions = Predictions.load(entry / "predictions.npz")
    picture = entry / "reliability.png"
    check(picture, predictions)
    draw(predictions.select(predictions.fold > 0), picture)
    check(picture, predictions)
    predictions.logits = predictions.logits[::-1]
    with pytest.raises(EntryError, match="shows other numbers"):
        check(picture, predictions)
    picture.write_bytes(b"no picture")
    with pytest.raises(EntryError, match="not readable"):
        check(picture, predictions)


def test_card_without_calibration_has_no_section(entry):
    assert "probabilities can be trusted" not in (entry / "README.md").read_text()


def test_card_is_renewed_with_calibration(entry):
    calibrate(entry, outside())
    (entry / "reliability.png").unlink()
    (entry / "README.md").write_text("forged")
    assert renew_card(entry)
    qaudio.verify(entry)
