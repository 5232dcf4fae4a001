import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v3_large

from qaudio.models.registry import architectures, create_model
from tests.support.networks import small_model, sounds


def test_mobilenet_is_torchvisions_with_sigmoids_and_one_input_channel() -> None:
    model = small_model("mn04")
    reference = mobilenet_v3_large(num_classes=7, width_mult=0.4)
    first = reference.features[0][0]
    reference.features[0][0] = nn.Conv2d(1, first.out_channels, 3, 2, 1, bias=False)
    for name, layer in list(reference.named_modules()):
        if isinstance(layer, nn.Hardsigmoid):
            reference.set_submodule(name, nn.Sigmoid())
    names = {"backbone.": "features.", "hidden.0.": "classifier.0.", "classifier.": "classifier.3."}
    state = {}
    for name, tensor in model.state_dict().items():
        ours = next(prefix for prefix in names if name.startswith(prefix))
        state[names[ours] + name.removeprefix(ours)] = tensor
    reference.load_state_dict(state)
    with torch.no_grad():
        features = model.features(sounds(2, 40000))
        expected = reference.eval()(features.transpose(2, 3))
    torch.testing.assert_close(model.classify(model.embed_features(features)), expected)


def test_mobilenet_embeds_the_means_of_its_last_maps() -> None:
    model = small_model("mn04")
    with torch.no_grad():
        x = sounds(2, 40000)
        embedding = model.embed(x)
        torch.testing.assert_close(model.classify(embedding), model(x))
    assert embedding.shape == (2, 384) and model.num_features == 384
    assert model.classifier.in_features == 512


# As EfficientAT's README has them, of 527 classes.
@pytest.mark.parametrize(
    ("arch", "millions"), [("mn01", 0.12), ("mn04", 0.98), ("mn05", 1.43), ("mn10", 4.88)]
)
def test_mobilenet_has_the_published_number_of_parameters(arch, millions) -> None:
    with torch.device("meta"):
        model = create_model(arch, num_classes=527)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == millions


def test_every_mobilenet_can_be_built() -> None:
    for arch in [arch for arch in architectures() if arch.startswith("mn")]:
        with torch.device("meta"):
            assert create_model(arch, num_classes=2).num_features % 6 == 0


def test_mobilenet_refuses_too_few_mel_bins() -> None:
    with pytest.raises(ValueError, match="n_mels of at least 32, not 16"):
        create_model("mn04", num_classes=2, frontend={"n_mels": 16})


def test_mobilenet_cannot_be_pruned() -> None:
    with pytest.raises(ValueError, match="mn04 cannot be pruned"):
        create_model("mn04", num_classes=2).channel_groups()
