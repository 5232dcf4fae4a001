"""The table that a user decides by: what it measures, keeps and shows."""

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

pytest.importorskip("resource", reason="peaks of memory are measured where Unix counts them")
from qaudio.cards.choice import PROBE, Candidate, InRuntime, Score, recorded
from qaudio.evaluation.bootstrap import summarise
from qaudio.training.transfer import Transferred
from tests.benchmarks.speed import choice, exports, record, runtimes
from tests.benchmarks.speed.table import in_turns
from tests.support.entries import results_of, tiny, write_records
from tests.support.predictions import made


def candidate(name="qcnn10_050.audioset_kd_long", family="quaternion", **times):
    ways = [
        InRuntime(way, {"1": 2 * ms, "2": ms}, {"1": 2 * ms, "2": 1.5 * ms}, 900.0, 250.0, 400.0,
                  1_799_428)
        for way, ms in (times or {"PyTorch": 30.0, "optimize": 11.0}).items()
    ]  # fmt: skip
    return Candidate(name, family, {PROBE: Score(0.955, (0.9325, 0.9725))}, ways)


def test_every_runtime_of_a_network_is_measured_warm_and_cold(tmp_path, threads):
    threads(1)
    folder = tmp_path / "tiny.made"
    tiny().save_pretrained(folder)
    one = choice.in_torch("tiny.made", "quaternion", folder)
    del one.files["optimize"]
    one.files["ONNX fp32"] = exports.exported(tiny(), str(tmp_path))
    (found,) = choice.measure([one], [1], 0.0)
    eager, onnx = found.runtimes
    assert (eager.runtime, onnx.runtime) == ("PyTorch", "ONNX fp32")
    assert eager.bytes == (folder / "model.safetensors").stat().st_size
    assert onnx.bytes == (tmp_path / "fp32.onnx").stat().st_size
    for way in found.runtimes:
        assert way.milliseconds["1"] > 0 and way.processor_milliseconds["1"] > 0
        assert way.cold_milliseconds > 0
        assert 20 < onnx.peak_megabytes < eager.peak_megabytes - 50  # without torch


def test_onnx_files_are_made_once(tmp_path, monkeypatch):
    tiny().save_pretrained(tmp_path / "tiny.made")
    made = []

    def exported(model, folder, sounds=None):
        made.append((len(model.labels), sounds))
        path = Path(folder, f"{'int8' if sounds else 'fp32'}.onnx")
        path.touch()
        return path

    monkeypatch.setattr(choice, "exported", exported)
    for _ in range(2):
        one = choice.in_torch("tiny.made", "quaternion", tmp_path / "tiny.made")
        choice.export(one, tmp_path / "onnx")
        assert {runtime: file.name for runtime, file in one.files.items()} == {
            "PyTorch": "tiny.made", "optimize": "tiny.made",
            "ONNX fp32": "fp32.onnx", "ONNX int8": "int8.onnx",
        }  # fmt: skip
    assert [(classes, bool(sounds)) for classes, sounds in made] == [(3, False), (3, True)]


def test_runs_in_turns_are_timed_by_every_clock(monkeypatch):
    now = {"wall": 0.0, "processor": 0.0}

    def call():
        now["wall"] += 0.002
        now["processor"] += 0.003

    found = in_turns([call, call], 0.0, lambda: now["wall"], lambda: now["processor"])
    assert [len(runs) for runs in found] == [4, 4]
    assert all(run == pytest.approx((2, 3)) for runs in found for run in runs)


def test_yamnet_hears_every_sample_in_windows_that_overlap(monkeypatch):
    heard = []

    class Interpreter:
        def __init__(self, path, num_threads):
            self.window = None

        def allocate_tensors(self):
            pass

        def get_input_details(self):
            return [{"index": 0}]

        def get_output_details(self):
            return [{"index": 7}, {"index": 8}]

        def set_tensor(self, index, window):
            self.window = window

        def invoke(self):
            heard.append(self.window.copy())

        def get_tensor(self, index):
            return np.full((1, 521), len(heard), np.float32)

    module = ModuleType("ai_edge_litert.interpreter")
    module.Interpreter = Interpreter
    monkeypatch.setitem(sys.modules, "ai_edge_litert", ModuleType("ai_edge_litert"))
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", module)
    answer = runtimes.in_litert("yamnet.tflite", 1)()
    assert answer.mean() == np.mean(range(1, 21))
    assert all(window.shape == (1, 15600) for window in heard)
    hop = 7680
    joined = np.concatenate([window[:, :hop] for window in heard[:-1]] + [heard[-1]], axis=1)
    sound = runtimes.sound(16000)
    assert np.array_equal(joined[:, : sound.shape[1]], sound)
    assert not joined[:, sound.shape[1] :].any()


def test_scores_of_entries_are_those_that_they_record(tmp_path):
    results = results_of(made(), "qcnn6_006.made")
    scores = {"linear probe": 0.91, "zero-shot by label map": 0.62}
    results["transfer"] = [
        {
            "benchmark": benchmark, "dataset": "ESC-50", "protocol": f"five folds; {way}",
            "result": results["result"] | {"mean": score if benchmark == "esc10" else 0.1},
            "predictions": "transfer/made.npz",
        }
        for benchmark in ("esc10", "gtzan") for way, score in scores.items()
    ]  # fmt: skip
    write_records(tmp_path / "qcnn6_006.made", results)
    one = choice.in_torch("qcnn6_006.made", "quaternion", tmp_path / "qcnn6_006.made")
    assert {key: score.mean for key, score in one.scores.items()} == {
        PROBE: 0.91, "ESC-10 zero-shot": 0.62,
    }  # fmt: skip


def test_peers_have_scores_where_their_weights_are_given(tmp_path, monkeypatch):
    monkeypatch.setattr(choice, "SHAPES", ("qcnn6_006", "cnn6_006"))
    asked = []

    def transfers(model, data, ways):
        asked.append((data.benchmark, ways))
        return [Transferred("", "", "", None, summarise(made(), "accuracy")) for _ in ways]

    monkeypatch.setattr(choice, "transfers", transfers)
    tiny().save_pretrained(tmp_path / "qcnn6_006.audioset")
    for _ in range(2):  # as in a folder that is kept
        found = choice.networks(
            ["qcnn10_050.audioset_kd_128kb"], [str(tmp_path / "qcnn6_006.audioset")], "y.tflite",
            "data", tmp_path,
        )  # fmt: skip
    assert {one.name: (one.family, PROBE in one.scores) for one in found} == {
        "qcnn10_050.audioset_kd_128kb": ("quaternion", True),
        "qcnn6_006.audioset": ("peer", True),
        "cnn6_006, random weights": ("peer", False),
        "YAMNet": ("peer", False),
    }
    (peer,) = (one for one in found if one.name == "qcnn6_006.audioset")
    assert set(peer.scores) == set(choice.SCORES)
    assert sorted(asked) == [  # once, though it was asked for twice
        ("esc10", ["linear probe", "zero-shot by label map"]), ("esc26", ["linear probe"]),
    ]  # fmt: skip


def test_what_was_measured_is_kept_beside_other_machines_and_shown(
    tmp_path, monkeypatch, capsys, threads
):
    threads(1)
    results, readme = tmp_path / "choice.json", tmp_path / "README.md"
    readme.write_text("Before\n<!-- choice: generated -->\n<!-- end of choice -->\nAfter\n")
    for name, value in (("RESULTS", results), ("README", readme), ("SHAPES", ())):
        monkeypatch.setattr(choice, name, value)
    monkeypatch.setattr(sys, "argv", ["choice", "--record", "--taggers", "none"])
    for name, ms in (("here", 9.0), ("there", 8.0), ("here", 7.25)):
        monkeypatch.setattr(choice, "machine", lambda name=name: name)
        monkeypatch.setattr(choice, "measure", lambda *_, ms=ms: [candidate(optimize=ms)])
        choice.main()
    found = recorded(results)
    assert [(where, one.best.fastest) for where, (one,) in found.items()] == [
        ("there", 8.0), ("here", 7.25),
    ]  # fmt: skip
    text = readme.read_text()
    assert text.startswith("Before\n") and text.endswith("\nAfter\n")
    assert (
        "| qcnn10_050.audioset_kd_long | 95.5 % |  |  | optimize | 14.5 | 7.25 | 10.88 | 250 | 900 "
        "| 400 | 1799 |" in text
    )
    assert "7.25" in capsys.readouterr().out


def test_the_recorded_table_is_that_of_the_recorded_figures():
    text = record.README.read_text()
    assert choice.with_generated(text, "choice", choice.tables(recorded(choice.RESULTS))) == text
    assert recorded(choice.RESULTS) == recorded()  # where the README's picture looks for it


def test_machines_are_named_without_their_threads(threads):
    threads(2)
    name = choice.machine()
    threads(1)
    assert choice.machine() == name
    assert name.endswith(f", torch {torch.__version__}") and "thread" not in name
