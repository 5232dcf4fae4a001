"""What every registered architecture promises, the smallest of its sizes standing for all."""

import json

import pytest
import torch
from torch import nn

import qaudio
from qaudio.frontend import pad_to
from qaudio.models.registry import from_config
from tests.support.networks import EVERY, PRUNABLE, noise, same_state, small_model, sounds

DEEP = (
    "cnn10",
    "cnn14",
    "resnet38",
    "qcnn10",
    "qcnn14",
    "qresnet38",
    "ast_tiny",
    "mn01",
    "timm:mobilenetv3_small_100",
    "timm:test_efficientnet",
)  # compiled in many seconds
every = pytest.mark.parametrize("arch", EVERY)


@every
def test_every_parameter_gets_a_gradient(arch) -> None:
    model = small_model(arch).train()
    loss = nn.functional.cross_entropy(model(noise(4, 16000)), torch.arange(4))
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all() and parameter.grad.any(), name


@every
def test_batch_of_one_equals_the_batch_of_32(arch) -> None:
    model, x = small_model(arch), sounds(32, 16000)
    with torch.no_grad():
        whole = model(x)
        single = torch.cat([model(x[n : n + 1]) for n in (0, 13, 31)])
    scale = whole.abs().max().item()
    assert whole.std(dim=0).min() > 1e-3 * scale  # far above the tolerance, or it says nothing
    torch.testing.assert_close(single, whole[[0, 13, 31]], rtol=0, atol=3e-5 * scale)


@every
def test_batch_of_one_trains(arch) -> None:
    model = small_model(arch).train()
    for samples in (32, 32000):
        logits = model(noise(1, samples))
        logits.square().sum().backward()
        assert logits.shape == (1, 7) and logits.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@every
def test_clips_of_any_length(arch) -> None:
    model = small_model(arch)
    for seconds in (0.001, 0.5, 3, 10, 31):
        x = noise(1, round(32000 * seconds))
        with torch.no_grad():
            logits = model(x)
            assert logits.shape == (1, 7) and logits.isfinite().all()
            if x.shape[1] < model.min_samples:
                assert torch.equal(logits, model(pad_to(x, model.min_samples)))


@every
def test_evaluation_is_deterministic(arch) -> None:
    model, x = small_model(arch), noise(1, 16000)
    with torch.no_grad():
        assert torch.equal(model(x), model(x))


@every
def test_the_stated_minimum_of_frames_is_enough(arch) -> None:
    model = small_model(arch)
    features = noise(1, model.frontend.channels, model.min_frames, model.config.frontend.n_mels)
    with torch.no_grad():
        assert model.embed_features(features).isfinite().all()


@every
def test_the_embedding_is_what_classify_takes(arch) -> None:
    model, x = small_model(arch), noise(2, 16000)
    with torch.no_grad():
        embedding = model.embed(x)
        assert embedding.shape == (2, model.num_features)
        assert torch.equal(model.classify(embedding), model(x))
        model.reset_classifier(3, ["x", "y", "z"])
        assert torch.equal(model.embed(x), embedding)
        assert model(x).shape == (2, 3)


@every
def test_saved_and_loaded_it_gives_the_same_logits(arch, tmp_path) -> None:
    model = small_model(arch, frontend={"n_fft": 2048, "f_max": 12000.0})
    model.labels, model.task, model.eval_seconds = list("abcdefg"), "multilabel", 5.0
    assert from_config(json.loads(json.dumps(model.config.to_dict()))).config == model.config
    loaded = qaudio.load(qaudio.save(model, tmp_path / "entry"))
    assert loaded.config == model.config and same_state(loaded, model)
    with torch.no_grad():
        assert torch.equal(loaded(noise(2, 16000)), model(noise(2, 16000)))


@pytest.mark.parametrize("arch", PRUNABLE)
def test_pruned_saved_and_loaded_it_gives_the_same_logits(arch, tmp_path) -> None:
    small = qaudio.prune(small_model(arch), ratio=0.5, min_channels=4)
    loaded = qaudio.load(qaudio.save(small, tmp_path / "entry"))
    assert loaded.widths == small.widths
    with torch.no_grad():
        assert torch.equal(loaded(noise(2, 16000)), small(noise(2, 16000)))


@pytest.mark.parametrize("arch", [arch for arch in EVERY if arch not in PRUNABLE])
def test_networks_without_channel_groups_are_not_pruned(arch) -> None:
    model = small_model(arch)
    for call in (qaudio.plan, qaudio.prune):
        with pytest.raises(
            ValueError, match=f"{arch} cannot be pruned: it names no channel groups"
        ):
            call(model, ratio=0.5)


@pytest.mark.parametrize(
    "arch", [pytest.param(a, marks=pytest.mark.slow if a in DEEP else ()) for a in EVERY]
)
def test_it_compiles_in_one_graph(arch) -> None:
    model = small_model(arch).double()  # so that another order of sums is not seen
    with torch.no_grad():
        features = model.features(noise(2, 16000))
        torch._dynamo.reset()
        compiled = torch.compile(model.embed_features, backend="aot_eager", fullgraph=True)
        expected = model.embed_features(features)
        scale = expected.abs().max().item()
        torch.testing.assert_close(compiled(features), expected, rtol=0, atol=1e-9 * scale)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["cnn6_025", "qcnn6_025"])
def test_inductor_gives_the_same_logits(arch) -> None:
    model, x = small_model(arch), noise(2, 16000)
    with torch.no_grad():
        torch._dynamo.reset()
        compiled = torch.compile(model, backend="inductor")
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-4)


@every
def test_dropout_has_the_names_that_training_sets(arch) -> None:
    model, x = small_model(arch), noise(1, 16000)
    names = ["head_dropout"] if arch not in PRUNABLE else ["head_dropout", "block_dropout"]
    layers = [model.get_submodule(name) for name in names]
    for layer in layers:
        layer.train().p = 0.0
    for layer in layers:
        layer.p = 0.5
        with torch.no_grad():
            assert not torch.equal(model(x), model(x))
        layer.p = 0.0
