import pytest
import torch

from qaudio.compress.importance import CRITERIA, filters, l1
from qaudio.compress.prune import plan
from tests.networks import small_model

ARCHS = ("cnn10_025", "qcnn10_025")
LAYER = "conv_block2.conv1"


def group_of(model, layer: str = LAYER):
    return next(group for group in model.channel_groups() if group.name == layer)


def by_filter(model, layer: str = LAYER) -> torch.Tensor:
    """View of a layer's weight to plant values in: (components, filters, inputs, 3, 3)."""
    weight = model.get_submodule(layer).weight.detach()
    components = 4 if model.quaternion else 1
    return weight.view(components, -1, *weight.shape[1:])


@pytest.mark.parametrize("arch", ARCHS)
def test_l1_is_the_sum_of_all_magnitudes_over_the_layers_maximum(arch) -> None:
    model = small_model(arch)
    planted = by_filter(model)
    sums = []
    for f in range(planted.shape[1]):
        total = 0.0
        for value in planted[:, f].flatten().tolist():
            total += abs(value)
        sums.append(total)
    expected = torch.tensor(sums) / max(sums)
    torch.testing.assert_close(l1(model, group_of(model)), expected)
    assert filters(model, LAYER).shape == (len(sums), *planted[:, 0].flatten(1).shape)


@pytest.mark.parametrize("arch", ARCHS)
def test_a_filter_close_to_zero_comes_last(arch) -> None:
    model = small_model(arch)
    by_filter(model)[:, 3] *= 1e-4
    scores = l1(model, group_of(model))
    assert scores.argmin() == 3 and scores.max() == 1
    kept = plan(model, ratio=0.25, layers=[LAYER]).kept[LAYER]
    assert 3 not in kept and len(kept) < len(scores)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("tap", range(9))
def test_every_tap_counts(arch, tap) -> None:
    model = small_model(arch)
    planted = by_filter(model)
    planted.fill_(0.1)
    planted[:, 2].flatten(2)[..., tap] = 0.2
    planted[:, 5].flatten(2)[..., tap] = 0.0
    scores = l1(model, group_of(model))
    assert scores.argmax() == 2 and scores.argmin() == 5


def test_many_small_taps_outweigh_a_large_first_one() -> None:
    model = small_model("qcnn10_025")
    planted = by_filter(model)
    planted.fill_(0.05)
    planted[:, 1] = 0
    planted[:, 1, :, 0, 0] = 0.4  # 8 × .05 < .4 < 9 × .05
    assert l1(model, group_of(model)).argmin() == 1


@pytest.mark.parametrize("component", range(4))
def test_every_component_counts(component) -> None:
    model = small_model("qcnn10_025")
    planted = by_filter(model)
    planted.fill_(0.1)
    planted[component, 2] = -0.2
    planted[component, 6] = 0
    scores = l1(model, group_of(model))
    assert scores.argmax() == 2 and scores.argmin() == 6


def test_scores_do_not_change_the_model() -> None:
    model, twin = small_model("qcnn10_025"), small_model("qcnn10_025")
    for criterion in CRITERIA.values():
        scores = criterion(model, group_of(model, "fc1"))
        assert scores.shape == (model.widths["fc1"] // 4,) and not scores.requires_grad
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, twin.state_dict()[name])


def test_an_all_zero_layer_has_finite_scores() -> None:
    model = small_model("qcnn10_025")
    by_filter(model).zero_()
    assert l1(model, group_of(model)).tolist() == [0] * 8
