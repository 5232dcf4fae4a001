"""Entries made for comparing: config, results and predictions, no weights."""

import json

import pytest

from qaudio.compare.gather import gather
from tests.support.comparison import HOSTILE, HOSTILE_NAME, LABELS, made
from tests.support.entries import results_of


@pytest.fixture
def write_entry(tmp_path):
    """Write an entry below tmp_path; returns its folder."""

    def write(
        name, predictions=None, *, folder=None, benchmark="made", protocol="two folds",
        architecture="qcnn6_006", labels=LABELS, license="cc-by-4.0", parent=None, params=100_000,
        macs=2_000_000, seconds=10.0, latency=12.5, optimized=None, device="one machine",
        keep_predictions=True, changes=None,
    ):  # fmt: skip
        path = tmp_path / "entries" / (folder or name)
        path.mkdir(parents=True)
        config = {
            "schema_version": 1, "qaudio_version": "0.1.0", "architecture": architecture,
            "num_classes": len(LABELS), "widths": {}, "frontend": {}, "labels": labels,
            "task": "multiclass", "eval_seconds": 1.0, "license": license, "files": {},
        }  # fmt: skip
        (path / "config.json").write_text(json.dumps(config))
        if predictions is None:
            return path
        measured = None
        if latency:
            measured = {"milliseconds": latency, "frontend_milliseconds": 1.0, "device": device,
                        "method": "made", "optimized_milliseconds": optimized}  # fmt: skip
        results = results_of(predictions, name) | {
            "benchmark": benchmark, "protocol": protocol, "parent": parent,
            "cost": {"params": params, "macs": macs, "bytes": 4 * params, "seconds": seconds,
                     "latency": measured},
        }  # fmt: skip
        for place, value in (changes or {}).items():
            holder, *keys = results, *place.split(".")
            for key in keys[:-1]:
                holder = holder[key]
            holder[keys[-1]] = value
        (path / "results.json").write_text(json.dumps(results))
        if keep_predictions:
            predictions.save(path / "predictions.npz")
        return path

    return write


@pytest.fixture
def zoo(write_entry):
    """Folders of six entries: four of one protocol, one of another, one without results."""
    pruned = {"how": "pruned from", "name": "big.made"}
    return [
        write_entry("big.made", made(1, 3.0), params=800_000, macs=9_000_000, latency=40.0,
                    optimized=20.0),
        write_entry("small.made", made(2, 2.0), params=90_000, macs=900_000, latency=8.0,
                    parent=pruned),
        write_entry("tiny.made", made(3, 1.2), params=20_000, macs=300_000, latency=None,
                    parent=pruned),
        write_entry("plain.made", made(4, 1.6), architecture="cnn6", params=900_000,
                    macs=8_000_000, latency=35.0, license=None),
        write_entry("other.made", made(5, 2.5), protocol="another split"),
        write_entry("bare.made"),
    ]  # fmt: skip


@pytest.fixture
def hostile(write_entry):
    """Folders of two entries whose every text attacks."""
    labels = [HOSTILE, *LABELS[1:]]
    return [
        write_entry(f"{n}{HOSTILE}", made(n), folder=f"hostile{n}", benchmark=HOSTILE_NAME,
                    protocol=HOSTILE, labels=labels, license=HOSTILE, device=HOSTILE,
                    parent={"how": HOSTILE, "name": HOSTILE_NAME})
        for n in (1, 2)
    ]  # fmt: skip


@pytest.fixture
def comparison(zoo):
    return gather(zoo)
