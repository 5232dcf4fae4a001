import time

import numpy as np
import pytest
import torch
from torch import nn

from qaudio.frontend import resample
from qaudio.models.registry import create_model, find, from_config
from qaudio.quaternion import QConv2d, QLinear
from qaudio.zoo.convert import convert_published
from tests.support import golden
from tests.support.networks import SMALL, noise, same_state, small_model

PUBLISHED = {
    "cnn6": ("Cnn6", 4_837_455),
    "cnn10": ("Cnn10", 5_219_279),
    "cnn14": ("Cnn14", 80_753_615),
    "qcnn14": ("QCNN14", 21_012_431),
    "resnet38": ("ResNet38", 73_783_247),
}


def relative_error(actual: torch.Tensor, expected: np.ndarray) -> float:
    return float(np.linalg.norm(actual.numpy() - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("arch", PUBLISHED)
def test_outputs_and_size_are_those_of_the_authors_code(arch) -> None:
    name, params = PUBLISHED[arch]
    frontend = {"kind": "published"} if arch.startswith("q") else None
    model = create_model(arch, num_classes=527, frontend=frontend).eval()
    assert sum(p.numel() for p in model.parameters()) == params
    model.load_state_dict(convert_published(golden.published_state(name)))
    expected = golden.outputs(name)
    with torch.inference_mode():
        embedding = model.embed(golden.sounds())
        probabilities = model.classifier(embedding).sigmoid()
    assert relative_error(embedding, expected["embedding"]) < 1e-4
    assert relative_error(probabilities, expected["clipwise_output"]) < 1e-4


def test_qcnn14_is_built_quickly() -> None:
    seconds = []  # the published loops take minutes
    for _ in range(3):
        start = time.perf_counter()
        create_model("qcnn14", num_classes=527)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 2


@pytest.mark.parametrize("arch", SMALL)
def test_layers_are_quaternion_in_quaternion_nets_only(arch) -> None:
    model = small_model(arch)
    quaternion = find(arch).quaternion
    convs = [m for m in model.modules() if isinstance(m, (nn.Conv2d, QConv2d))]
    assert {type(m) for m in convs} == {QConv2d if quaternion else nn.Conv2d}
    assert type(model.fc1) is (QLinear if quaternion else nn.Linear)
    assert type(model.classifier) is nn.Linear


@pytest.mark.parametrize("arch", SMALL)
def test_stated_minimum_is_the_shortest_that_works(arch) -> None:
    model = small_model(arch)
    frames = model.min_frames
    features = noise(1, model.frontend.channels, frames, 64)
    with torch.no_grad():
        assert model.embed_features(features).isfinite().all()
        with pytest.raises(RuntimeError):
            model.embed_features(features[:, :, : frames - 1])


@pytest.mark.parametrize("arch", ["cnn6_025", "qcnn6_025"])
def test_shapes_of_waveforms(arch) -> None:
    model, x = small_model(arch), noise(2, 3, 16000)
    with torch.no_grad():
        mixed = model(x)
        assert mixed.shape == (2, 7)
        torch.testing.assert_close(mixed, model(x.mean(dim=1)))
        torch.testing.assert_close(model(x[0, 0]), model(x[:1, 0]))
        assert model.embed(x).shape == (2, model.widths["fc1"])
        torch.testing.assert_close(model.classifier(model.embed(x)), mixed)


def test_what_is_no_tensor_is_refused_with_what_to_do() -> None:
    with pytest.raises(TypeError, match=r"must be a tensor, not list: torch\.from_numpy"):
        small_model("qcnn6_025")([0.0, 0.1])


@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (1, 1, 1, 100)])
def test_other_shapes_of_waveforms_are_refused(shape) -> None:
    with pytest.raises(ValueError, match=r"waveform must be \(T,\), \(B, T\) or \(B, C, T\)"):
        small_model("cnn6_025")(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(16000, 2), (1, 16000, 2)])
def test_samples_before_channels_are_refused(shape) -> None:
    with pytest.raises(ValueError, match=r"samples come last, so transpose what soundfile reads"):
        small_model("cnn6_025")(torch.zeros(shape))


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_other_sample_rates_are_resampled(rate) -> None:
    model = small_model("qcnn6_025")
    assert model.sample_rate == 32000
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(rate) / rate)
    with torch.no_grad():
        here, there = model(tone, rate), model(resample(tone, rate, 32000))
        assert torch.equal(here, there)
        assert not torch.allclose(here, model(tone))
        assert torch.equal(model(tone, 32000), model(tone))
        spectrum = model.features(tone, rate)[0, 0].mean(dim=0)
        at_32k = torch.sin(2 * torch.pi * 1000 * torch.arange(32000) / 32000)
        assert spectrum.argmax() == model.features(at_32k)[0, 0].mean(dim=0).argmax()


def test_reset_classifier_changes_the_classifier_only() -> None:
    model, x = small_model("qcnn6_025").double(), noise(2, 16000)
    model.labels = list("abcdefg")
    with torch.no_grad():
        before = model.embed(x)
        model.reset_classifier(3, ["x", "y", "z"])
        assert torch.equal(model.embed(x), before)
        logits = model(x)
    assert logits.shape == (2, 3) and logits.dtype == torch.float64
    assert model.config.num_classes == 3 and model.config.labels == ["x", "y", "z"]
    rebuilt = from_config(model.config)
    rebuilt.double().load_state_dict(model.state_dict())
    model.reset_classifier(5)
    assert model.config.num_classes == 5 and model.config.labels is None


def test_labels_are_as_many_as_the_classes() -> None:
    model = small_model("qcnn6_025")
    weight = model.classifier.weight
    with pytest.raises(ValueError, match="7 classes, 2 labels: give each class a name"):
        model.labels = ["x", "y"]
    with pytest.raises(ValueError, match="3 classes, 2 labels"):
        model.reset_classifier(3, ["x", "y"])
    assert model.labels is None and model.classifier.weight is weight


@pytest.mark.parametrize(("name", "value"), [("num_classes", 3), ("widths", {}), ("quaternion", 0)])
def test_what_layers_follow_is_not_set_as_an_attribute(name, value) -> None:
    model = small_model("qcnn6_025")
    with pytest.raises(AttributeError, match=f"'{name}' of 'CNN' object has no setter"):
        setattr(model, name, value)


@pytest.mark.parametrize("arch", ["cnn10_025", "qcnn10_025"])
def test_channels_last_gives_the_same_logits(arch) -> None:
    model, x = small_model(arch), noise(2, 16000)
    with torch.no_grad():
        expected = model(x)
        model.to(memory_format=torch.channels_last)
        torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)


def test_delta_front_end_has_a_norm_for_each_channel_and_mel_bin() -> None:
    model = small_model("qcnn6_025")
    assert model.bn0.num_features == 4 * 64
    features = model.features(noise(2, 16000))
    mean, scale = model.bn0.running_mean, (model.bn0.running_var + model.bn0.eps).rsqrt()
    expected = (features - mean.view(4, 1, 64)) * (scale * model.bn0.weight).view(4, 1, 64)
    expected = expected + model.bn0.bias.view(4, 1, 64)
    seen = []
    model.conv_block1.conv1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.embed_features(features)
    torch.testing.assert_close(seen[0], expected, rtol=1e-4, atol=1e-4)


def test_probabilities_follow_the_task() -> None:
    model, logits = small_model("cnn6_025"), noise(3, 7)
    torch.testing.assert_close(model.probabilities(logits).sum(dim=1), torch.ones(3))
    model.task = "multilabel"
    assert torch.equal(model.probabilities(logits), logits.sigmoid())


def test_same_seed_same_network() -> None:
    first, again, other = (small_model("qcnn10_025", seed=seed) for seed in (1, 1, 2))
    assert same_state(first, again)
    assert not same_state(first, other)
