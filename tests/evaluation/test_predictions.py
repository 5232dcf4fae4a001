import zipfile

import numpy as np
import pytest

from qaudio.evaluation.predictions import Predictions
from tests.support.predictions import made


def test_save_and_load(tmp_path):
    one = made(seeds=(0, 1))
    one.save(tmp_path / "predictions.npz")
    again = Predictions.load(tmp_path / "predictions.npz")
    for name, array in one.__dict__.items():
        assert np.array_equal(array, getattr(again, name))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"no archive at all"])
def test_load_names_a_broken_file(tmp_path, content):
    (tmp_path / "predictions.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"predictions\.npz"):
        Predictions.load(tmp_path / "predictions.npz")


@pytest.mark.parametrize(
    "header", ["{'descr': (", "(" * 5000, "-" * 9000 + "1", "{'shape': (1,\n  '"]
)
def test_load_names_a_file_whose_arrays_have_a_header_that_is_no_python(tmp_path, header):
    text = header.encode()
    array = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
    with zipfile.ZipFile(tmp_path / "predictions.npz", "w") as archive:
        archive.writestr("clip.npy", array)
    with pytest.raises(ValueError, match=r"predictions\.npz: not readable as predictions"):
        Predictions.load(tmp_path / "predictions.npz")


def test_load_refuses_pickled_arrays(tmp_path):
    arrays = {name: np.array([object()]) for name in Predictions.__dataclass_fields__}
    np.savez(tmp_path / "predictions.npz", **arrays)
    with pytest.raises(ValueError, match=r"predictions\.npz"):
        Predictions.load(tmp_path / "predictions.npz")


def test_merging_replaces_the_same_run_and_keeps_the_others():
    old, new = made(seed=0, folds=(1, 2)), made(seed=1, folds=(2, 3))
    both = old.merged(new)
    assert both.runs() == [(0, 1), (0, 2), (0, 3)]
    assert np.array_equal(both.run(0, 1).logits, old.run(0, 1).logits)
    assert np.array_equal(both.run(0, 2).logits, new.run(0, 2).logits)


def test_order_of_clips_does_not_matter():
    label, logits = np.arange(4), np.random.default_rng(0).standard_normal((4, 4))
    names, order = ["a", "b", "c", "d"], [2, 0, 3, 1]
    one = Predictions.of_run(1, 0, names, label, logits)
    other = Predictions.of_run(1, 0, [names[n] for n in order], label[order], logits[order])
    assert np.array_equal(one.logits, other.logits)
    assert np.array_equal(one.label, other.label)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e5], ids=str)
def test_logits_that_are_not_finite_are_no_predictions(value, tmp_path):
    logits = np.eye(3)
    logits[1, 2] = value
    with pytest.raises(ValueError, match="1 of 3 clips are NaN or infinite, of 'b' first"):
        Predictions.of_run(1, 0, list("abc"), np.arange(3), logits)
    found = Predictions.of_run(1, 0, list("abc"), np.arange(3), np.eye(3))
    found.logits[1, 2] = np.float16(np.nan if np.isnan(value) else np.inf)
    with pytest.raises(ValueError, match="NaN or infinite"):
        found.check(3, "multiclass")
