import shutil

import numpy as np
import pytest
import torch

import qaudio
from qaudio import cli
from qaudio.deploy.c import export
from qaudio.deploy.c.export import EXACT, compiled, export_c
from qaudio.deploy.c.integers import quantise
from qaudio.deploy.export_checks import ExportError, trial
from tests.support.networks import FRONTEND, small_model, sounds

RATE = FRONTEND["sample_rate"]
LABELS = ['say "oh"', "what??/", "è\\n"]
EFFICIENTAT = {"kind": "efficientat", "n_mels": 32, "win_length": 200, "f_max": 4000.0}


@pytest.fixture
def sound_folder(write_sound, tmp_path):
    for n in range(8):
        write_sound(f"sounds/{n}.wav", samples=sounds(8, RATE)[n].numpy(), rate=RATE)
    return tmp_path / "sounds"


def tiny(arch="qcnn6_006", **settings):
    kind = "delta" if arch.startswith("q") else "logmel"
    model = small_model(arch, num_classes=3, frontend={"kind": kind, **FRONTEND, **settings})
    model.labels = list(LABELS)
    return model


def program_of(model, folder):
    """The compiled program and its network in PyTorch."""
    network = quantise(model, list(sounds(8, RATE).split(1)))
    folder.mkdir(exist_ok=True)
    export._write(folder, export.header(model, network, ["made"])[0])
    return compiled(folder), network


@pytest.mark.parametrize(
    ("arch", "settings"),
    [("qcnn6_006", {}), ("cnn6_006", {}), ("qcnn10_006", {"hop_length": 100}),
     ("cnn6_006", {"hop_length": 400}), ("cnn6_006", EFFICIENTAT), ("qcnn14_006", {"n_mels": 36})],
)  # fmt: skip
def test_the_program_computes_the_integers(arch, settings, tmp_path):
    """From features exactly; from sounds of many lengths with an input that is a step off."""
    model = tiny(arch, **settings)
    program, network = program_of(model, tmp_path)
    for samples in (model.min_samples, model.min_samples + 1, 3 * model.min_samples + 777):
        for sound in (trial(samples)[0], sounds(3, samples)[1]):
            with torch.no_grad():
                quantised = network.quantised(model.features(sound))[0]
                expected = network.logits(quantised[None])[0].numpy()
            span = np.ptp(expected)
            assert np.abs(program.of_features(quantised).logits - expected).max() <= EXACT * span
            made = program.features(sound, *network.scales.shape)
            unfinished = 7 + FRONTEND["n_fft"] // 2 // model.frontend.config.hop_length
            assert quantised.shape[1] - unfinished <= made.shape[1] <= quantised.shape[1]
            assert (made - quantised[:, : made.shape[1]]).abs().max() <= 1
            assert np.abs(program.of_waveform(sound).logits - expected).max() <= 0.05 * span


def test_short_sounds_are_padded_as_the_model_pads_them(tmp_path):
    model = tiny()
    program, _ = program_of(model, tmp_path)
    sound = sounds(1, 300)[0]
    padded = torch.nn.functional.pad(sound, (0, model.min_samples - 300))
    assert np.array_equal(program.of_waveform(sound).logits, program.of_waveform(padded).logits)


def test_memory_does_not_grow_with_the_sound_and_quaternions_are_stored_once(
    sound_folder, tmp_path
):
    model = tiny("qcnn6_025")
    made = export_c(model, tmp_path / "c", calibrate=sound_folder).metadata
    weights = sum(weight.numel() for name, weight in model.named_parameters() if
                  weight.ndim > 1)  # fmt: skip
    channels = sum(model.widths.values())
    others = 8 * channels + 8 * 4 * 32 + 8 * 3  # rescaling, norm, classifier
    assert made["bytes"]["network"] == weights + others
    assert made["check"]["memory_bytes"] < 25_000
    program, _ = program_of(model, tmp_path / "again")
    runs = [program.of_waveform(sounds(1, n * RATE)[0]) for n in (1, 30)]
    assert runs[0].memory == runs[1].memory


def test_the_labels_are_the_models(sound_folder, tmp_path):
    export_c(tiny(), tmp_path / "c", calibrate=sound_folder)
    done = export.subprocess.run(
        [compiled(tmp_path / "c").path], input=bytes(4 * RATE), capture_output=True, check=True
    )
    assert [line.split(" ", 1)[1] for line in done.stdout.decode().splitlines()] == LABELS


USES = """
#include <stdio.h>
#include "qaudio.h"
int main(void)
{
    float values[QAUDIO_CLASSES] = {1.5f, -2.0f, 0.25f};
    qaudio_probabilities(values, values);
    for (int k = 0; k < QAUDIO_CLASSES; k++)
        printf("%.6f %.6f\\n", values[k], qaudio_threshold(k));
    return QAUDIO_CALIBRATED;
}
"""


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
@pytest.mark.parametrize("thresholds", [None, [0.25, 0.5, 0.75]])
def test_probabilities_and_thresholds_are_the_models(task, thresholds, sound_folder, tmp_path):
    model = tiny()
    model.task, model.thresholds = task, thresholds
    model.temperature = 1.0 if thresholds is None else 2.5
    told = export_c(model, tmp_path / "c", calibrate=sound_folder).metadata
    assert told.get("thresholds") == thresholds
    (tmp_path / "c" / "uses.c").write_text(USES)
    command, path = export.compiler(), tmp_path / "uses"
    sources = [str(tmp_path / "c" / name) for name in ("uses.c", "qaudio.c")]
    export.subprocess.run([*command, "-o", str(path), *sources, "-lm"], check=True)
    done = export.subprocess.run([path], capture_output=True, text=True)
    assert done.returncode == int(thresholds is not None)
    found = np.array([line.split() for line in done.stdout.splitlines()], float)
    expected = model.probabilities(torch.tensor([1.5, -2.0, 0.25]))
    np.testing.assert_allclose(found[:, 0], expected, atol=2e-6)
    assert found[:, 1].tolist() == (thresholds or [0.5] * 3)


def test_int8_is_near_fp32(sound_folder, tmp_path):
    model = tiny()
    told = export_c(model, tmp_path / "c", calibrate=sound_folder).metadata["int8"]
    assert (told["calibrated_on"], told["checked_on"]) == (6, 2)
    network, waveform = quantise(model, list(sounds(8, RATE).split(1))), sounds(8, RATE)
    with torch.no_grad():
        expected, features = model(waveform), model.features(waveform)
        found = network.logits(network.quantised(features))
    assert (found - expected).abs().max() < 0.1 * (expected.max() - expected.min())


def test_a_program_that_differs_leaves_no_file(sound_folder, tmp_path, monkeypatch):
    wrong = tmp_path / "wrong"
    shutil.copytree(export.FOLDER, wrong)
    source = (wrong / "qaudio.c").read_text()
    assert "{1, 1, -1, 1}" in source
    (wrong / "qaudio.c").write_text(source.replace("{1, 1, -1, 1}", "{1, 1, 1, 1}"))
    monkeypatch.setattr(export, "FOLDER", wrong)
    with pytest.raises(ExportError, match="differs from the same integers in PyTorch"):
        export_c(tiny(), tmp_path / "c", calibrate=sound_folder)
    assert not (tmp_path / "c").exists()


def test_what_does_not_compile_is_told_in_one_line(sound_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "OPTIONS", ())
    wrong = tmp_path / "wrong"
    shutil.copytree(export.FOLDER, wrong)
    (wrong / "qaudio.c").write_text("int main(void) { return nothing; }")
    monkeypatch.setattr(export, "FOLDER", wrong)
    with pytest.raises(ExportError, match=r"does not compile .*nothing") as caught:
        export_c(tiny(), tmp_path / "c", calibrate=sound_folder)
    assert "\n" not in str(caught.value)


def test_without_a_compiler_it_warns_and_writes(sound_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "compiler", lambda: None)
    with pytest.warns(UserWarning, match="no C compiler"):
        made = export_c(tiny(), tmp_path / "c", calibrate=sound_folder)
    assert "check" not in made.metadata
    assert sorted(path.name for path in made.path.iterdir()) == ["model.h", "qaudio.c", "qaudio.h"]


@pytest.mark.parametrize(
    ("arch", "settings", "said"),
    [("resnet38_013", {}, "not resnet38_013"), ("cnn6_006", {"n_fft": 200}, "power of two"),
     ("qcnn6_006", {"kind": "published"}, "deltas along frequency")],
)  # fmt: skip
def test_what_c_does_not_take_is_named(arch, settings, said, sound_folder, tmp_path):
    with pytest.raises(ExportError, match=said):
        export_c(tiny(arch, **settings), tmp_path / "c", calibrate=sound_folder)
    assert not (tmp_path / "c").exists()


def test_the_command_prints_bytes_and_milliseconds(tiny_entry, sound_folder, tmp_path, capsys):
    options = ["--to", "c", "--out", str(tmp_path / "c"), "--calibrate", str(sound_folder)]
    assert cli.main(["export", str(tiny_entry), *options]) == 0
    said = capsys.readouterr().out
    for part in ("kB of network", "kB of memory", "ms for a second of sound", "top-1 agreement"):
        assert part in said
    assert "tiny.made" in (tmp_path / "c" / "model.h").read_text()


@pytest.mark.parametrize("options", [[], ["--calibrate", "b", "--int8"]], ids=" ".join)
def test_wrong_usage_is_two(options, tiny_entry, capsys):
    assert cli.main(["export", str(tiny_entry), "--to", "c", "--out", "a", *options]) == 2
    assert capsys.readouterr().err.startswith("qaudio export: --")


@pytest.mark.slow
def test_a_pruned_entry_runs_in_c(sound_folder, tmp_path):
    model = qaudio.load("qcnn10_050.esc10_pruned75")
    made = export_c(model, tmp_path / "c", calibrate=sound_folder).metadata
    assert made["bytes"]["network"] < 32_000
    assert made["check"]["from_features"] <= EXACT
    assert made["int8"]["largest_difference"] < 0.2
