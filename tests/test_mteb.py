"""The encoder that MTEB takes, on a made entry; mteb itself is not needed."""

import inspect
import sys
from types import ModuleType

import numpy as np
import pytest
import torch

import qaudio
from qaudio import mteb
from qaudio.errors import InputError
from qaudio.frontend import resample

TASK = {"task_metadata": None, "hf_split": "test", "hf_subset": "default"}


@pytest.fixture
def encoder(tiny_entry):
    return mteb.Encoder(str(tiny_entry))


def sound(samples, rate=32000, seed=0):
    array = 0.1 * np.random.default_rng(seed).standard_normal(samples)
    return {"array": array, "sampling_rate": rate}


def test_encode_gives_the_networks_embeddings_in_order(encoder, tiny_model):
    rate = tiny_model.sample_rate
    sounds = [sound(rate, rate, seed) for seed in range(5)]
    found = encoder.encode([{"audio": sounds[:3]}, {"audio": sounds[3:]}], **TASK)
    assert found.shape == (5, tiny_model.num_features) and found.dtype == np.float32
    with torch.no_grad():
        for row, one in zip(found, sounds, strict=True):
            expected = tiny_model.embed(torch.tensor(one["array"], dtype=torch.float32))
            np.testing.assert_allclose(row, expected[0], atol=1e-5)


def test_encode_takes_any_rate_channels_and_length(encoder, tiny_model):
    rate = tiny_model.sample_rate
    other, stereo, long = sound(rate // 2, rate // 2), sound(rate), sound(40 * rate, rate)
    stereo["array"] = np.stack([stereo["array"], -stereo["array"]])
    stereo["sampling_rate"] = rate
    found = encoder.encode([{"audio": [other, stereo, long]}], **TASK)
    with torch.no_grad():
        heard = resample(torch.tensor(other["array"])[None].float(), rate // 2, rate)
        np.testing.assert_allclose(found[0], tiny_model.embed(heard)[0], atol=1e-4)
        silence = tiny_model.embed(torch.zeros(1, rate))
        np.testing.assert_allclose(found[1], silence[0], atol=1e-5)
    windows = qaudio.prediction.embeddings(tiny_model, long["array"].astype("float32"))
    assert len(windows.vectors) > 1
    np.testing.assert_allclose(found[2], windows.vectors.mean(0), atol=1e-5)


@pytest.mark.parametrize("batches", [[], [{"text": ["a dog"]}], [{"audio": []}]])
def test_encode_says_what_is_no_sound(encoder, batches):
    with pytest.raises(InputError, match="sound"):
        encoder.encode(batches, **TASK)


def test_similarity_is_the_cosine(encoder):
    rows = np.array([[1.0, 0.0], [0.0, 2.0]])
    others = torch.tensor([[3.0, 3.0], [0.0, -1.0]])
    half = 0.5**0.5
    assert encoder.similarity(rows, others).flatten().tolist() == pytest.approx([half, 0, half, -1])
    assert encoder.similarity_pairwise(rows, others).tolist() == pytest.approx([half, -1])


def test_meta_says_what_the_entry_is(encoder, tiny_model, monkeypatch):
    """With a stand-in for mteb, which keeps what it is told."""
    package, models = ModuleType("mteb"), ModuleType("mteb.models")
    models.ModelMeta = dict
    monkeypatch.setitem(sys.modules, "mteb", package)
    monkeypatch.setitem(sys.modules, "mteb.models", models)
    meta = encoder.mteb_model_meta
    assert meta["name"] == "qaudio/tiny.made" and meta["license"] == "cc0-1.0"
    assert meta["embed_dim"] == tiny_model.num_features and meta["modalities"] == ["audio"]
    assert meta["n_parameters"] == sum(one.numel() for one in tiny_model.parameters())


def test_encode_has_the_parameters_of_the_protocol():
    taken = inspect.signature(mteb.Encoder.encode).parameters
    assert list(taken)[:2] == ["self", "inputs"]
    for name in ("task_metadata", "hf_split", "hf_subset", "prompt_type"):
        assert taken[name].kind is inspect.Parameter.KEYWORD_ONLY
    assert list(inspect.signature(mteb.Encoder).parameters)[:2] == ["model_name", "revision"]
