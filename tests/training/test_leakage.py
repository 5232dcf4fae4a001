import json

import numpy as np
import pytest
import torch

import qaudio
from qaudio.cli import main
from qaudio.data.split import Split
from qaudio.evaluation.predictions import Predictions
from qaudio.training.leakage import LeakError, fold_file, load_for_split
from qaudio.zoo.convert import HELD_OUT, TRAINED_ON
from tests.support.entries import results_of, tiny


def split(fold=1, dataset="made", protocol="two made folds") -> Split:
    return Split("made", dataset, protocol, fold, 2, scored=fold)


def test_leakage_validation_fold_that_the_parent_trained_on_is_refused(parent):
    with pytest.raises(LeakError, match="which is to be scored"):
        load_for_split(parent, Split("made", "made", "two made folds", 1, 2, scored=2), 0)


def test_leakage_fixed_splits_validation_part_never_trained_the_parent(parent):
    fixed = Split("made", "made", "two made folds", 1, folds=1, scored=2)
    model = load_for_split(parent, fixed, 0)
    assert torch.equal(model.classifier.weight, tiny(seed=1).classifier.weight)


@pytest.fixture
def parent(tmp_path):
    """An entry that keeps both folds of seed 0, and fold 2 of seed 1; its card names fold 1."""
    label = np.arange(6) % 3
    predictions = Predictions.of_run(1, 0, list("abcdef"), label, np.eye(3)[label])
    kept = {
        fold_file(1, 0): tiny(seed=1).state_dict(),
        fold_file(2, 0): tiny(seed=2).state_dict(),
        fold_file(2, 1): tiny(seed=3).state_dict(),
    }
    return qaudio.save(
        tiny(seed=1), tmp_path / "parent", results=results_of(predictions),
        predictions=predictions, folds=kept,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fold", "seed", "made_with"), [(1, 0, 1), (2, 0, 2), (2, 1, 3), (1, 1, 1), (2, 2, 2)]
)
def test_leakage_each_fold_gets_the_weights_that_never_saw_it(parent, fold, seed, made_with):
    """Those of its seed, or of seed 0."""
    model = load_for_split(parent, split(fold), seed)
    expected = tiny(seed=made_with)
    assert torch.equal(model.classifier.weight, expected.classifier.weight)


def test_leakage_missing_fold_is_refused_though_other_weights_are_there(parent):
    (parent / fold_file(2, 0)).unlink()
    for seed in (0, 2):
        with pytest.raises(LeakError, match=r"folds/2\.safetensors is missing"):
            load_for_split(parent, split(2), seed)


def test_leakage_what_prune_writes_is_fine_tuned_on_what_it_never_saw(parent, tmp_path):
    out = tmp_path / "small"
    arguments = ["prune", str(parent), "--out", str(out), "--ratio", "0.5", "--min-channels", "4"]
    assert main(arguments) == 0
    assert sum(load_for_split(out, split(dataset="other"), 0).widths.values()) < sum(
        tiny().widths.values()
    )
    with pytest.raises(LeakError, match="was trained on made"):
        load_for_split(out, split(), 0)


def test_leakage_cards_fold_will_do_without_a_file_of_its_own(parent, tmp_path):
    results = results_of(Predictions.load(parent / "predictions.npz"))
    bare = qaudio.save(tiny(seed=1), tmp_path / "bare", results=results,
                       predictions=Predictions.load(parent / "predictions.npz"))  # fmt: skip
    model = load_for_split(bare, split(1), 0)
    assert torch.equal(model.classifier.weight, tiny(seed=1).classifier.weight)
    with pytest.raises(LeakError, match=r"folds/2\.safetensors is missing"):
        load_for_split(bare, split(2), 0)


def test_leakage_another_protocol_on_the_same_recordings_is_refused(parent):
    with pytest.raises(LeakError, match=r"held-out clips were seen$"):
        load_for_split(parent, split(protocol="random halves"), 0)


def test_leakage_other_recordings_of_the_same_name_are_to_be_named(parent):
    results = json.loads((parent / "results.json").read_text())
    results["protocol"] = f"{results['dataset']}: 2 folds, split 0123abcd"
    (parent / "results.json").write_text(json.dumps(results))
    with pytest.raises(LeakError, match=r"Then name them: --data\.name NAME"):
        load_for_split(parent, split(protocol="other folds"), 0)


def test_leakage_other_recordings_take_the_main_weights(parent):
    model = load_for_split(parent, split(2, dataset="elsewhere"), 5)
    assert torch.equal(model.classifier.weight, tiny(seed=1).classifier.weight)


def test_leakage_entry_without_a_record_is_refused(tmp_path):
    entry = qaudio.save(tiny(), tmp_path / "unknown")
    with pytest.raises(LeakError, match=r"no results\.json says what it was trained on"):
        load_for_split(entry, split(), 0)


@pytest.fixture
def published(tmp_path):
    """An entry as the importers leave it: where it comes from, and no results."""
    source = {"trained_on": [TRAINED_ON], "held_out": HELD_OUT}
    return qaudio.save(tiny(), tmp_path / "published", extra={"source.json": json.dumps(source)})


def test_leakage_published_checkpoint_is_scored_on_the_list_that_it_was_tested_on(published):
    data = qaudio.AudioSet("nowhere", train="full")
    assert data.split.dataset == TRAINED_ON
    model = load_for_split(published, data.split, 0)
    assert torch.equal(model.classifier.weight, tiny().classifier.weight)


def test_leakage_published_checkpoint_saw_everything_else(published):
    validation = qaudio.AudioSet("nowhere", holdout="validation").split
    folds = Split("audioset", TRAINED_ON, "AudioSet 5 folds", 1, 5, scored=1)
    for seen in (validation, folds):
        with pytest.raises(LeakError, match="all of it but AudioSet evaluation list"):
            load_for_split(published, seen, 0)
