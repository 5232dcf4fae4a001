import pytest
import torch

import qaudio
from qaudio import hear
from qaudio.errors import InputError


@pytest.fixture
def model(tiny_entry):
    return hear.load_model(str(tiny_entry))


def sounds(count, samples, seed=0):
    return 0.1 * torch.randn(count, samples, generator=torch.Generator().manual_seed(seed))


def test_model_has_the_attributes_that_hear_asks_for(model, tiny_model):
    assert isinstance(model, torch.nn.Module)
    assert model.sample_rate == tiny_model.sample_rate
    assert model.scene_embedding_size == model.timestamp_embedding_size == tiny_model.num_features
    assert not model.training


def test_default_model_is_the_packages(monkeypatch, tiny_entry):
    asked = []
    monkeypatch.setattr(
        hear, "load", lambda source: asked.append(source) or qaudio.load(tiny_entry)
    )
    hear.load_model()
    assert asked == [hear.DEFAULT_ENTRY]


def test_scene_embeddings_are_the_networks(model, tiny_model):
    audio = sounds(3, 20000)
    found = hear.get_scene_embeddings(audio, model)
    with torch.no_grad():
        assert torch.allclose(found, tiny_model.embed(audio), atol=1e-5)
    assert found.shape == (3, model.scene_embedding_size)
    assert not found.requires_grad


def test_timestamp_embeddings_are_those_of_windows_around_them(model, tiny_model):
    audio = sounds(2, 32000)
    found, times = hear.get_timestamp_embeddings(audio, model)
    rate = model.sample_rate
    assert found.shape == (2, 41, model.timestamp_embedding_size)
    assert times.shape == (2, 41)
    assert times[0].tolist() == pytest.approx([50 * n for n in range(41)])
    middle = round(times[1, 20].item() / 1000 * rate)
    window = audio[1:, middle - rate // 2 : middle + rate // 2]
    with torch.no_grad():
        assert torch.allclose(found[1:, 20], tiny_model.embed(window), atol=1e-5)


def test_timestamps_tell_an_event(model):
    """The embeddings that differ from those of silence are those around the burst."""
    audio = torch.zeros(1, 64000)
    audio[:, 40000:41600] = sounds(1, 1600)
    found, times = hear.get_timestamp_embeddings(audio, model)
    changed = (found[0] - found[0, 0]).abs().amax(1) > 1e-4
    near = (times[0] - 2550).abs() < 600
    assert changed.any()
    assert not (changed & ~near).any()


@pytest.mark.parametrize("shape", [(100,), (1, 2, 100), (0, 100), (1, 0)])
def test_other_shapes_are_refused(model, shape):
    for embed in (hear.get_scene_embeddings, hear.get_timestamp_embeddings):
        with pytest.raises(InputError, match="sounds, samples"):
            embed(torch.zeros(shape), model)
