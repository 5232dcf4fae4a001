import pytest
import torch

from qaudio.zoo.importers import convert_published

COMPONENTS = ("r_weight", "i_weight", "j_weight", "k_weight")


def components(layer: str, *shape: int) -> dict[str, torch.Tensor]:
    return {f"{layer}.{leaf}": torch.randn(shape) for leaf in COMPONENTS}


def test_components_become_one_weight_with_rows_rijk() -> None:
    conv, linear = components("conv1", 2, 3, 5, 5), components("fc1", 3, 2)
    converted = convert_published({**dict(reversed(conv.items())), **linear})
    assert {name: tuple(t.shape) for name, t in converted.items()} == {
        "conv1.weight": (8, 3, 5, 5),
        "fc1.weight": (8, 3),
    }
    for n, leaf in enumerate(COMPONENTS):
        rows = slice(2 * n, 2 * n + 2)
        assert torch.equal(converted["conv1.weight"][rows], conv[f"conv1.{leaf}"])
        assert torch.equal(converted["fc1.weight"][rows], linear[f"fc1.{leaf}"].T)


def test_classifier_is_renamed_constants_are_left_out_and_the_rest_stays() -> None:
    kept = torch.randn(3)
    state = {
        "spectrogram_extractor.stft.conv_real.weight": torch.randn(2),
        "logmel_extractor.melW": torch.randn(2),
        "bn0.running_mean": kept,
        "fc_audioset.weight": torch.randn(4, 3),
        "fc_audioset.bias": torch.randn(4),
    }
    converted = convert_published(state)
    assert list(converted) == ["bn0.running_mean", "classifier.weight", "classifier.bias"]
    assert converted["bn0.running_mean"] is kept
    assert converted["classifier.bias"] is state["fc_audioset.bias"]


def test_incomplete_quaternion_layers_are_refused() -> None:
    state = components("block.conv1", 2, 3, 5, 5)
    del state["block.conv1.r_weight"]
    with pytest.raises(ValueError, match=r"'block\.conv1' lacks r_weight"):
        convert_published(state)
    state["block.conv1.r_weight"] = torch.randn(2, 3, 3, 3)
    with pytest.raises(ValueError, match=r"'block\.conv1' must have one shape"):
        convert_published(state)
