import copy
import io
import json
import tracemalloc

import numpy as np
import pytest
import soundfile
import torch

import qaudio
from qaudio import load
from qaudio.cli import main
from qaudio.data import audio
from qaudio.errors import AudioError
from qaudio.frontend import resample
from qaudio.prediction import Analysis, analyse, embeddings, predict
from tests.support.networks import FRONTEND, small_model

RATE = 16000  # of the tiny model


def noise(seconds, rate=RATE, seed=0):
    return 0.1 * torch.randn(round(seconds * rate), generator=torch.Generator().manual_seed(seed))


def by_index(predictions):
    """Probabilities in order of class, from predictions in order of probability."""
    return np.array([p.probability for p in sorted(predictions, key=lambda p: p.index)])


def model_on(model, waveform, rate=None):
    with torch.no_grad():
        return model(waveform, rate).softmax(-1).numpy()[0]


def test_a_prediction_says_what_where_and_how_sure(tiny_model):
    predictions = predict(tiny_model, noise(2.0))
    assert [p.label for p in predictions] == [tiny_model.labels[p.index] for p in predictions]
    assert {p.index for p in predictions} == {0, 1, 2}
    probabilities = [p.probability for p in predictions]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=1e-6)
    assert {(p.start, p.end) for p in predictions} == {(0.0, 2.0)}
    assert by_index(predictions) == pytest.approx(model_on(tiny_model, noise(2.0)), abs=1e-6)
    assert predict(tiny_model, noise(2.0), top_k=2) == predictions[:2]


def test_sounds_get_different_answers(tiny_model):
    time = torch.arange(RATE) / RATE
    tone = by_index(predict(tiny_model, 0.3 * torch.sin(2 * torch.pi * 300 * time)))
    assert np.abs(tone - by_index(predict(tiny_model, noise(1.0)))).max() > 0.01


@pytest.mark.parametrize("seconds", [0.5, 12.0, 33.0])
def test_path_tensor_and_array_agree(tiny_model, write_sound, seconds):
    samples = noise(seconds)
    path = write_sound("sound.wav", samples=samples.numpy(), rate=RATE, subtype="FLOAT")
    expected = predict(tiny_model, samples)
    assert predict(tiny_model, path) == expected
    assert predict(tiny_model, str(path)) == expected
    assert predict(tiny_model, samples.numpy()) == expected
    assert predict(tiny_model, samples.numpy().astype(np.float64)) == expected


def test_channels_are_averaged(tiny_model):
    channels = torch.stack([noise(1.0, seed=n) for n in range(8)])
    assert predict(tiny_model, channels) == predict(tiny_model, channels.mean(0))


@pytest.mark.parametrize("rate", [44100, 192000])
def test_other_rates_are_resampled(tiny_model, write_sound, rate):
    samples = noise(2.0)
    raised = resample(samples, RATE, rate)
    expected = by_index(predict(tiny_model, samples))
    assert by_index(predict(tiny_model, raised, sample_rate=rate)) == pytest.approx(
        expected, abs=0.03
    )
    assert by_index(predict(tiny_model, raised)) != pytest.approx(expected, abs=0.03)
    path = write_sound("sound.wav", samples=raised.numpy(), rate=rate, subtype="FLOAT")
    assert by_index(predict(tiny_model, path)) == pytest.approx(expected, abs=0.03)
    # A file brings its own rate.
    assert predict(tiny_model, path, sample_rate=8000) == predict(tiny_model, path)


@pytest.mark.parametrize("rate", [8000, 192000])
def test_files_of_extreme_rates(tiny_model, write_sound, rate):
    path = write_sound("sound.wav", seconds=1.5, rate=rate)
    predictions = predict(tiny_model, path)
    samples = torch.from_numpy(audio.read(path)[0])
    assert by_index(predictions) == pytest.approx(model_on(tiny_model, samples, rate), abs=1e-6)
    assert predictions[0].end == 1.5


@pytest.mark.parametrize("samples", [1, 16])
def test_a_millisecond_of_sound_is_enough(tiny_model, samples):
    predictions = predict(tiny_model, noise(samples / RATE))
    assert by_index(predictions).sum() == pytest.approx(1, abs=1e-6)
    assert predictions[0].end == round(samples / RATE, 3)


def test_long_sound_is_the_mean_over_its_windows(tiny_model, write_sound):
    samples = torch.cat([noise(16.0), torch.zeros(17 * RATE)])
    starts = [0, 5, 10, 15, 20, 23]  # 10 s windows each 5 s; the last shifted back to 33 s
    expected = np.mean(
        [model_on(tiny_model, samples[s * RATE : (s + 10) * RATE]) for s in starts], axis=0
    )
    predictions = predict(tiny_model, samples)
    assert by_index(predictions) == pytest.approx(expected, abs=1e-5)
    assert {(p.start, p.end) for p in predictions} == {(0.0, 33.0)}
    assert by_index(predictions) != pytest.approx(model_on(tiny_model, samples), abs=1e-3)


def test_up_to_thirty_seconds_a_sound_is_run_whole(tiny_model):
    samples = torch.cat([noise(14.0), torch.zeros(16 * RATE)])
    whole = model_on(tiny_model, samples)
    assert by_index(predict(tiny_model, samples)) == pytest.approx(whole, abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "starts"),
    [
        ({"window": 2.0}, [0, 1, 2, 3]),
        ({"window": 2.0, "hop": 1.5}, [0, 1.5, 3]),
        ({"window": 2.0, "hop": 2.0}, [0, 2, 3]),
        ({"window": 5.0}, [0]),
        ({"window": 60.0}, [0]),
    ],
)
def test_a_window_gives_rows_for_each(tiny_model, settings, starts):
    samples = noise(5.0)
    rows = predict(tiny_model, samples, top_k=2, **settings)
    assert [row.start for row in rows] == [start for start in starts for _ in range(2)]
    for start, first in zip(starts, rows[::2], strict=True):
        length = min(settings["window"], 5.0)
        piece = samples[round(start * RATE) :][: round(length * RATE)]
        assert first.end == start + length
        assert first.probability == pytest.approx(model_on(tiny_model, piece).max(), abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"window": 0}, "window"),
        ({"window": -1.0}, "window"),
        ({"window": float("nan")}, "window"),
        ({"window": 1e9}, "window"),
        ({"hop": 0}, "hop"),
        ({"hop": 11.0}, "hop"),
        ({"window": 1.0, "hop": 1.1}, "hop"),
        ({"hop": float("nan")}, "hop"),
        ({"top_k": 0}, "top_k"),
        ({"top_k": -1}, "top_k"),
        ({"sample_rate": 0}, "rate"),
        ({"sample_rate": -8000}, "rate"),
    ],
)
def test_settings_out_of_range_are_named(tiny_model, settings, named):
    with pytest.raises(ValueError, match=named):
        predict(tiny_model, noise(1.0), **settings)


def test_multi_label_models_give_a_probability_for_each_class(tiny_model):
    model = copy.deepcopy(tiny_model)
    model.task = "multilabel"
    with torch.no_grad():
        expected = model(noise(1.0)).sigmoid().numpy()[0]
    assert by_index(predict(model, noise(1.0))) == pytest.approx(expected, abs=1e-6)


def test_classes_without_names_are_numbered(tiny_model):
    model = copy.deepcopy(tiny_model)
    model.labels = None
    assert all(p.label == f"class {p.index}" for p in predict(model, noise(0.5)))


# The model is left as it was.


@pytest.mark.parametrize("training", [True, False])
def test_the_models_mode_is_restored(tiny_model, training):
    model = copy.deepcopy(tiny_model).train(training)
    expected = predict(tiny_model, noise(1.0))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert predict(model, noise(1.0)) == expected  # in eval mode: no dropout
    assert model.training is training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    with pytest.raises(AudioError):
        predict(model, torch.full((RATE,), 1e30))
    assert model.training is training


def test_frozen_parts_of_a_model_in_training_stay_frozen(tiny_model):
    model = copy.deepcopy(tiny_model).train()
    model.bn0.eval()
    predict(model, noise(0.5))
    assert model.training
    assert not model.bn0.training


# Embeddings.


@pytest.mark.parametrize("seconds", [0.5, 12.0])
def test_embeddings_are_the_models_own(tiny_model, write_sound, seconds):
    path = write_sound("sound.wav", seconds=seconds, rate=RATE, subtype="FLOAT")
    samples = torch.from_numpy(audio.read(path)[0])
    found = embeddings(tiny_model, path)
    with torch.no_grad():
        expected = tiny_model.embed(samples).numpy()
    assert found.vectors == pytest.approx(expected, abs=1e-5)
    assert found.spans.tolist() == [[0, seconds]]
    assert np.array_equal(embeddings(tiny_model, samples).vectors, found.vectors)


def test_embeddings_of_windows_and_their_mean(tiny_model):
    samples = noise(3.0)
    found = embeddings(tiny_model, samples, window=1.0, hop=1.0)
    for n in range(3):
        alone = embeddings(tiny_model, samples[n * RATE : (n + 1) * RATE])
        assert found.vectors[n] == pytest.approx(alone.vectors[0], abs=1e-5)
    whole = found.clip()
    assert whole.spans.tolist() == [[0, 3]]
    assert whole.vectors == pytest.approx(found.vectors.mean(axis=0, keepdims=True), abs=1e-6)


# Errors.


def test_unusable_files_are_named_in_one_line(tiny_model, bad_sounds, tmp_path):
    for fault, path in {**bad_sounds, "is a folder": tmp_path}.items():
        with pytest.raises(AudioError, match=fault) as caught:
            predict(tiny_model, path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


def test_samples_too_large_to_be_sound_are_refused(tiny_model, write_sound):
    path = write_sound("loud.wav", samples=np.full(RATE, 1e30), rate=RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"loud\.wav: its samples are too large"):
        predict(tiny_model, path)


@pytest.mark.parametrize(
    "samples",
    [torch.zeros(0), torch.zeros(2, 0), torch.zeros(1, 2, 800), torch.tensor(1.0)],
    ids=["no samples", "no samples in two channels", "three dimensions", "a number"],
)
def test_tensors_of_other_shapes_are_refused(tiny_model, samples):
    with pytest.raises(AudioError, match=r"samples must be \(T,\) or \(C, T\)"):
        predict(tiny_model, samples)


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        ((noise(1.0).numpy() * 32767).astype(np.int16), "floats in -1 to 1, not int16: divide"),
        (noise(1.0).numpy().repeat(2).reshape(-1, 2), r"\(16000, 2\): transpose"),
    ],
    ids=["as scipy reads", "as soundfile reads"],
)
def test_arrays_as_others_read_them_are_refused(tiny_model, samples, said):
    with pytest.raises(AudioError, match=said):
        predict(tiny_model, samples)


def test_bfloat16_samples_are_floats_as_well(tiny_model):
    samples = noise(1.0).bfloat16()
    assert predict(tiny_model, samples) == predict(tiny_model, samples.float())


def test_a_name_is_no_model():
    with pytest.raises(TypeError, match=r"qaudio\.load\('qcnn10_050\.esc10'\) gives it"):
        predict("qcnn10_050.esc10", noise(1.0))


@pytest.mark.parametrize("audio", [[0.0, 0.1], None])
def test_what_is_no_sound_is_refused(tiny_model, audio):
    with pytest.raises(TypeError, match=r"audio must be a path, a file .* array or a tensor, not "):
        predict(tiny_model, audio)


def test_bytes_that_are_no_sound_file_are_refused(tiny_model):
    with pytest.raises(AudioError, match="not a readable sound file"):
        predict(tiny_model, b"RIFF")


def test_short_sounds_are_padded_where_the_training_did(tiny_model):
    short, long = noise(0.5), torch.cat((noise(0.5), torch.zeros(RATE // 2)))
    plain, padded = predict(tiny_model, short), predict(tiny_model, long)
    assert plain[0].probability != pytest.approx(padded[0].probability, abs=1e-6)
    tiny_model.eval_seconds, tiny_model.padded = 1.0, True
    (first, *_), whole = predict(tiny_model, short), predict(tiny_model, noise(2.0))
    assert first.probability == pytest.approx(padded[0].probability, abs=1e-6)
    assert first.end == 0.5
    tiny_model.padded = False
    assert predict(tiny_model, noise(2.0)) == whole


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_tensors_with_nan_are_refused(tiny_model, bad):
    samples = noise(1.0)
    samples[100] = bad
    with pytest.raises(AudioError, match="NaN or infinite"):
        predict(tiny_model, samples)


# Long files.


def test_progress_is_told_in_seconds(tiny_model):
    told = []
    found = analyse(tiny_model, noise(20.0), window=1.0, hop=1.0, progress=told.append)
    assert told == [8.0, 16.0, 20.0]
    assert found.spans.tolist() == [[n, n + 1] for n in range(20)]
    assert found.probabilities.shape == (20, 3)


def test_memory_does_not_grow_with_the_file(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "_BLOCK", 1 << 12)
    rng = np.random.default_rng(0)

    def peak(seconds):
        path = tmp_path / "long.wav"
        soundfile.write(path, 0.1 * rng.standard_normal(seconds * 4000), 4000)
        tracemalloc.start()  # sees numpy's arrays: what is read and held
        try:
            predict(tiny_model, path, top_k=1, window=1.0, hop=1.0)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)  # what the first call loads is no part of it
    short, long = peak(20), peak(200)
    assert long < short + 400_000  # the samples of 200 s alone take 3.2 MB


@pytest.fixture
def broken(tiny_model):
    model = copy.deepcopy(tiny_model)
    model.classifier.weight.data[0, 0] = float("nan")
    return model


def test_predict_blames_the_network_for_nan_weights_and_not_the_sound(broken):
    with pytest.raises(ValueError, match=r"the network gives no numbers.*classifier\.weight"):
        predict(broken, np.zeros(16_000, np.float32))


def test_predict_takes_no_model_that_is_wrapped(tiny_model):
    with pytest.raises(TypeError, match=r"not a DataParallel: give its \.module"):
        predict(torch.nn.DataParallel(tiny_model), np.zeros(16_000, np.float32))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_load_and_predict_are_the_same_under_any_default_dtype(tiny_entry, kind):
    sound = noise(5, 44100)
    right = predict(load(tiny_entry), sound, sample_rate=44100)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(kind)
        assert predict(load(tiny_entry), sound, sample_rate=44100) == right
    finally:
        torch.set_default_dtype(before)


def test_predict_reads_open_files_and_leaves_them_to_their_owner(tiny_model, write_sound):
    path = write_sound("a.wav", seconds=1.0, rate=RATE)
    right = predict(tiny_model, path)
    with open(path, "rb") as file, open(path, "rb", buffering=0) as raw:
        for audio_file in (file, raw, io.BytesIO(path.read_bytes())):
            assert predict(tiny_model, audio_file) == right
            assert not audio_file.closed and audio_file.seek(0) == 0
    assert predict(tiny_model, path.read_bytes()) == right
    with pytest.raises(AudioError, match="audio: not a readable sound file"):
        predict(tiny_model, io.BytesIO(b"no sound"))
    for other in (3, None, {"a": 1}):
        with pytest.raises(TypeError, match="audio must be a path, a file that is open"):
            predict(tiny_model, other)


def test_predict_takes_numbers_in_any_form(tiny_model):
    sound, right = noise(1.0), predict(tiny_model, noise(1.0), sample_rate=RATE, top_k=2)
    for number in (np.int64, np.float32, float, torch.tensor):
        found = predict(tiny_model, sound, sample_rate=number(RATE), top_k=number(2))
        assert found == right
    assert len(predict(tiny_model, sound, top_k=None)) == 3
    for keyword in ({"sample_rate": "44100"}, {"window": "2"}, {"hop": [1]}, {"top_k": 2.5},
                    {"sample_rate": torch.ones(2)}, {"top_k": True}):  # fmt: skip
        with pytest.raises(TypeError, match=f"{next(iter(keyword))} must be a "):
            predict(tiny_model, sound, **keyword)


@pytest.mark.parametrize(
    ("task", "highest", "none"),
    [("multilabel", 0.09, True), ("multilabel", 0.11, False), ("multiclass", 0.09, False)],
)
def test_analysis_of_a_tagger_says_when_it_detects_none_of_its_classes(task, highest, none) -> None:
    probabilities = np.array([[0.01, 0.02], [highest, 0.0]])
    analysis = Analysis(np.array([[0.0, 1.0], [1.0, 2.0]]), probabilities, ["a", "b"], task)
    assert analysis.detects_none == none


def test_predict_command_says_that_a_tagger_detects_none(tmp_path, write_sound, capsys) -> None:
    net = small_model("cnn6_025", 3, frontend=FRONTEND)
    net.task, net.labels = "multilabel", ["x", "y", "z"]
    with torch.no_grad():
        net.classifier.weight.zero_()
        net.classifier.bias.fill_(-5.0)
    folder, sound = qaudio.save(net, tmp_path / "tagger"), str(write_sound("a.wav"))
    assert main(["predict", "--model", str(folder), sound]) == 0
    assert "none of its 3 classes reaches 10%; the nearest:" in capsys.readouterr().out
    assert main(["predict", "--model", str(folder), sound, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["none_of_these"] is True
