import numpy as np
import pytest
import torch
from torch.nn import functional as F

import qaudio
from qaudio.errors import AudioError, InputError
from qaudio.inference.activation import ClassActivation
from qaudio.inference.explain import MOST_SECONDS, class_index, explain, read_part
from qaudio.inference.picture import COLUMNS, draw, shown_classes
from tests.support.networks import EVERY, FRONTEND, small_model

RATE = 8000
BURST = 0.3  # seconds


def burst_in_noise(seconds: float, at: float | None, seed: int = 0) -> np.ndarray:
    """Noise (T,) with a tone burst of 1500 Hz at `at` seconds, or without one."""
    rng = np.random.default_rng(seed)
    samples = 0.05 * rng.standard_normal(round(seconds * RATE))
    if at is not None:
        time = np.arange(round(BURST * RATE)) / RATE
        first = round(at * RATE)
        samples[first : first + len(time)] += 0.4 * np.sin(2 * np.pi * 1500 * time)
    return samples.astype(np.float32)


@pytest.fixture(scope="module")
def detectors():
    """Networks by name, trained for some seconds to tell bursts in noise from noise alone."""
    rng = np.random.default_rng(1)
    made: dict[str, qaudio.AudioModel] = {}

    def trained(arch: str) -> qaudio.AudioModel:
        if arch in made:
            return made[arch]
        with torch.random.fork_rng():
            torch.manual_seed(0)
            settings = FRONTEND | ({"kind": "delta"} if arch.startswith("q") else {})
            model = qaudio.create_model(arch, num_classes=2, frontend=settings)
            model.labels = ["noise", "burst"]
            optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
            for step in range(60):
                target = torch.tensor([0, 1] * 8)
                batch = [
                    burst_in_noise(2, rng.uniform(0, 2 - BURST) if n else None, 100 * step + i)
                    for i, n in enumerate(target.tolist())
                ]
                loss = F.cross_entropy(model(torch.from_numpy(np.stack(batch))), target)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        made[arch] = model.eval()
        return made[arch]

    return trained


@pytest.mark.parametrize("arch", ["cnn6_013", "qcnn6_013"])
@pytest.mark.parametrize("at", [0.3, 1.4])
def test_heat_lies_on_the_event(detectors, arch, at):
    found = explain(detectors(arch), burst_in_noise(2, at, seed=7), RATE, label="burst")
    assert found.prediction.probability > 0.8
    start, end = found.strongest()
    assert abs((start + end) / 2 - (at + BURST / 2)) < 0.2
    inside = np.zeros(len(found.heat), bool)
    per_second = len(found.heat) / 2
    inside[round((at - 0.2) * per_second) : round((at + BURST + 0.2) * per_second)] = True
    assert found.heat[inside].sum() > 0.8 * found.heat.sum()
    row = np.unravel_index(found.heat.argmax(), found.heat.shape)[1]
    assert abs(found.hertz[row] - 1500) < 700


def test_heat_of_long_sound_lies_on_the_event(detectors):
    """In windows: the heat of those without the event weighs little."""
    samples = burst_in_noise(35, 21.2, seed=3)
    found = explain(detectors("qcnn6_013"), samples, RATE, label="burst", start=100.0, window=1.0)
    start, end = found.strongest()
    assert 121.0 < start < end < 121.8
    assert found.seconds == (100, 135)
    assert found.times.spans[0, 0] == 100
    best = found.times.probabilities[:, 1].argmax()
    assert found.times.spans[best, 0] <= 121.4 <= found.times.spans[best, 1]


def test_heat_is_that_of_the_class_asked_for(detectors):
    samples = burst_in_noise(2, 1.4)
    noise = explain(detectors("cnn6_013"), samples, RATE, label="noise")
    burst = explain(detectors("cnn6_013"), samples, RATE, label=1)
    assert noise.prediction.label == "noise"
    assert not np.allclose(noise.heat, burst.heat)
    assert burst.top == noise.top


def test_explain_says_what_predict_says(detectors):
    model = detectors("qcnn6_013").train()
    samples = burst_in_noise(2, 0.5)
    found = explain(model, samples, RATE)
    assert found.top == qaudio.predict(model, samples, sample_rate=RATE)
    assert found.prediction == found.top[0]
    assert model.training  # left as it was
    model.eval()


@pytest.mark.parametrize("arch", [a for a in EVERY if not a.startswith("ast")])
def test_class_activation_of_every_convolutional_network(arch):
    model = small_model(arch)
    model.requires_grad_(False)  # a frozen network has gradients of its maps as well
    activation = ClassActivation(model)
    assert activation.transposed == arch.startswith("mn")
    features = model.features(0.1 * torch.randn(1, 32000))
    heat, logits = activation(features, 3)
    assert heat.shape == features.shape[2:]
    assert (heat >= 0).all()
    assert logits == pytest.approx(model.classify(model.embed_features(features))[0], abs=1e-5)


def test_class_activation_is_refused_after_attention():
    with pytest.raises(InputError, match=r"ast_tiny has no class activation.*attention"):
        ClassActivation(small_model("ast_tiny"))


def test_explain_goes_without_heat_where_there_is_none():
    model = small_model("ast_tiny")
    found = explain(model, burst_in_noise(2, 0.5), RATE)
    assert found.heat is None
    assert found.strongest() is None
    figure = draw(found)
    assert any("attention" in text.get_text() for text in figure.axes[1].texts)


def test_explain_pads_as_predict_does(detectors):
    """Heat of a padded clip covers the clip, not the padding."""
    model = detectors("cnn6_013")
    model.padded, model.eval_seconds = True, 2.0
    try:
        found = explain(model, burst_in_noise(1, 0.4), RATE, label="burst")
        assert found.seconds == (0, 1)
        assert found.heat.shape == found.spectrogram.shape == (50, FRONTEND["n_mels"])
    finally:
        model.padded, model.eval_seconds = False, None


def test_class_index_finds_names_and_offers_similar_ones():
    labels = ["dog", "clock_tick", "Crying, sobbing"]
    assert class_index(labels, "Clock tick") == 1
    assert class_index(labels, 2) == 2
    with pytest.raises(InputError, match="no class 'dogs'; similar: 'dog'"):
        class_index(labels, "dogs")
    with pytest.raises(InputError, match="class must be 0 to 2"):
        class_index(labels, 3)


def test_read_part_reads_a_stretch(write_sound):
    samples = np.linspace(0, 0.5, 5 * RATE)
    path = write_sound("ramp.wav", samples=samples, subtype="FLOAT")
    part, rate = read_part(path, 2.0, 1.5)
    assert rate == RATE
    assert part == pytest.approx(samples[2 * RATE : round(3.5 * RATE)], abs=1e-6)
    assert len(read_part(path, 4.0, 100)[0]) == RATE
    with pytest.raises(AudioError, match="ends at 5 s, before 6"):
        read_part(path, 6.0)


def test_read_part_refuses_what_no_picture_shows(write_sound):
    path = write_sound("long.wav", samples=np.zeros(round((MOST_SECONDS + 1) * 100)), rate=100)
    with pytest.raises(AudioError, match="give --start and --seconds"):
        read_part(path)
    assert len(read_part(path, 1.0, MOST_SECONDS)[0]) == 100 * MOST_SECONDS


def test_picture_shows_spectrogram_heat_and_probabilities(detectors):
    found = explain(detectors("cnn6_013"), burst_in_noise(2, 1.4), RATE, label="burst")
    figure = draw(found, "a $title$")
    spectrogram, heat, curves = figure.axes
    assert len(spectrogram.images) == 1
    assert len(heat.images) == 2
    assert "burst" in heat.get_title(loc="left")
    assert [line.get_label() for line in curves.lines] == ["burst", "noise"]
    assert shown_classes(found) == [1, 0]
    figure.draw_without_rendering()


def test_picture_of_long_sound_has_a_bounded_width(detectors):
    found = explain(detectors("cnn6_013"), burst_in_noise(50, 21), RATE)
    assert len(found.spectrogram) > COLUMNS
    figure = draw(found)
    assert figure.axes[0].images[0].get_array().shape[1] == COLUMNS


def test_picture_of_silence(detectors):
    found = explain(detectors("cnn6_013"), np.zeros(RATE, np.float32), RATE)
    draw(found).draw_without_rendering()
