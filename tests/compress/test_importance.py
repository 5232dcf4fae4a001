import pytest
import torch

from qaudio.compress.importance import (
    BY_WEIGHT,
    CRITERIA,
    filters,
    fpgm,
    gm_published,
    l1,
    l2,
    loss_gradients,
    operator_norm,
    scores,
)
from qaudio.compress.prune import plan
from tests.support.networks import noise, small_model

ARCHS = ("cnn10_025", "qcnn10_025")
LAYER = "conv_block2.conv1"


def group_of(model, layer: str = LAYER):
    return next(group for group in model.channel_groups() if group.name == layer)


def batches(classes: int = 7):
    return [(noise(4, 8000, seed=n), torch.arange(4) % classes) for n in range(2)]


def score(model, criterion: str = "l1", layer: str = LAYER, **settings) -> torch.Tensor:
    data = batches() if criterion == "taylor" else None
    return scores(model, [group_of(model, layer)], criterion, data=data, **settings)[layer]


def by_filter(model, layer: str = LAYER) -> torch.Tensor:
    """View of a layer's weight to plant values in: (components, filters, inputs, 3, 3)."""
    weight = model.get_submodule(layer).weight.detach()
    components = 4 if model.quaternion else 1
    return weight.view(components, -1, *weight.shape[1:])


def plant_useless(model, index: int) -> None:
    """Make one filter as good as absent: tiny weights, and a norm that passes nothing on."""
    by_filter(model)[:, index] *= 1e-4
    norm = model.get_submodule(LAYER.replace(".conv", ".bn"))
    planes = 4 if model.quaternion else 1
    norm.weight.detach().view(planes, -1)[:, index] = 1e-4


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
    torch.testing.assert_close(score(model), expected)
    assert filters(model, LAYER).shape == planted.flatten(3).shape


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("criterion", [c for c in CRITERIA if c not in ("random", "fpgm",
                                       "gm_published", "operator_norm")])  # fmt: skip
def test_a_useless_filter_comes_last(arch, criterion) -> None:
    model = small_model(arch)
    plant_useless(model, 3)
    found = score(model, criterion)
    assert found.argmin() == 3 and found.max() == 1
    data = batches() if criterion == "taylor" else None
    kept = plan(model, ratio=0.25, layers=[LAYER], criterion=criterion, data=data).kept[LAYER]
    assert 3 not in kept and len(kept) < len(found)


@pytest.mark.parametrize("arch", ARCHS)
def test_a_filter_in_the_middle_of_the_others_comes_last_by_fpgm(arch) -> None:
    model = small_model(arch)
    planted = by_filter(model)
    planted[:, 3] = planted[:, [f for f in range(planted.shape[1]) if f != 3]].mean(dim=1)
    assert score(model, "fpgm").argmin() == 3


@pytest.mark.parametrize("criterion", ["gm_published", "operator_norm"])
def test_an_average_filter_comes_last_by_the_published_criteria(criterion) -> None:
    model = small_model("qcnn10_025")
    planted = by_filter(model)
    if criterion == "gm_published":
        size = torch.linspace(-1, 1, 8)
        size[3] = (size.sum() - size[3]) / 7  # the mean exponent: the layer's geometric mean
        planted.copy_(planted.sign() * size.exp()[:, None, None, None])
    else:
        planted[:, 3] = planted[:, [0, 1, 2, 4, 5, 6, 7]].mean(dim=1)
    assert score(model, criterion).argmin() == 3


@pytest.mark.parametrize("criterion", ["gm_published", "operator_norm"])
def test_a_filter_next_to_zero_need_not_come_last_by_the_published_criteria(criterion) -> None:
    """As their docstrings say: they look for the average, not for the small."""
    model = small_model("qcnn10_025")
    planted = by_filter(model)
    planted.fill_(0.1)
    planted[:, 3] = 1e-3
    assert score(model, criterion).argmax() == 3
    assert score(model, "l1").argmin() == 3


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_ranked(criterion, value) -> None:
    model = small_model("qcnn10_025")
    norm = model.get_submodule(LAYER.replace(".conv", ".bn"))
    for weight, name in ((by_filter(model), LAYER), (norm.weight.detach(), "bn")):
        kept = weight.flatten()[0].item()
        weight.view(-1)[0] = value
        with pytest.raises(ValueError, match=rf"{name}.* NaN or infinite"):
            plan(model, ratio=0.5, criterion=criterion, data=batches())
        weight.view(-1)[0] = kept


def test_sound_that_is_not_finite_is_not_asked() -> None:
    data = [(torch.full((4, 8000), float("nan")), torch.arange(4))]
    with pytest.raises(ValueError, match="is the sound finite"):
        plan(small_model("qcnn10_025"), ratio=0.5, criterion="taylor", data=data)


def test_taylor_is_the_mean_over_batches() -> None:
    model, data = small_model("qcnn6_006"), batches()
    (layer,) = (group := group_of(model)).producers
    total = 0
    for waveform, label in data:
        (gradient,) = loss_gradients(model, waveform, label, [f"{layer}.weight"])
        product = filters(model, layer) * filters(model, layer, gradient)
        total += product.double().sum(dim=(0, 2, 3)).square()
    assert len(data) > 1
    found = scores(model, [group], "taylor", data=data)[LAYER]
    torch.testing.assert_close(found, total / total.max())
    as_loaded = [{"id": ["x"] * 4, "waveform": wave, "label": label} for wave, label in data]
    assert torch.equal(scores(model, [group], "taylor", data=as_loaded)[LAYER], found)


def test_random_ranks_by_chance_alone() -> None:
    model = small_model("qcnn10_025")
    plant_useless(model, 3)
    found = [score(model, "random", seed=seed) for seed in range(20)]
    assert torch.equal(found[0], score(model, "random", seed=0))
    assert len({int(one.argmin()) for one in found}) > 3
    other = scores(model, [group_of(model, "conv_block2.conv2")], "random")["conv_block2.conv2"]
    assert not torch.equal(found[0], other)


def test_worked_examples() -> None:
    # One component, two filters, one input, two taps.
    weights = torch.tensor([[[[3.0, -4.0]], [[1.0, 1.0]]]])
    assert l1(weights).tolist() == [[7, 2]]
    assert l2(weights)[0].tolist() == pytest.approx([5, 2**0.5])
    distance = (2**2 + 5**2) ** 0.5
    assert fpgm(weights)[0].tolist() == pytest.approx([distance, distance])
    whole, first = 12**0.25, 12**0.5
    expected = [(whole - first) ** 2, (whole - 1) ** 2]
    assert gm_published(weights)[0].tolist() == pytest.approx(expected, rel=1e-5)
    # Centred rows are ±(1, -2.5), whose unit vector is the prototype: both lie all along it.
    assert operator_norm(weights)[0].tolist() == pytest.approx([7.25, 7.25])


def test_operator_norm_sums_over_inputs_before_squaring() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(4, 5, 3, 9, generator=generator, dtype=torch.float64)
    found = operator_norm(weights)
    for component in range(4):
        totals = torch.zeros(5, dtype=torch.float64)
        for c in range(3):
            rows = weights[component, :, c]
            rows = rows - rows.mean(dim=0)
            u, _, vh = torch.linalg.svd(rows)
            prototype = torch.outer(u[:, 0], vh[0])[0]
            totals += rows @ (prototype / prototype.norm())
        torch.testing.assert_close(found[component], totals.square())


def test_bn_scale_is_the_mean_gamma_of_the_four_planes() -> None:
    model = small_model("qcnn10_025")
    gamma = model.conv_block2.bn1.weight.detach().view(4, -1)
    expected = gamma.abs().mean(dim=0)
    torch.testing.assert_close(score(model, "bn_scale"), expected / expected.max())
    with pytest.raises(ValueError, match="fc1 has no BatchNorm"):
        score(model, "bn_scale", "fc1")


@pytest.mark.parametrize("arch", ARCHS)
def test_taylor_is_the_squared_change_that_removing_a_filter_would_make(arch) -> None:
    """First order: the derivative of the loss as a filter's weights shrink to (1 - e) of theirs."""
    model = small_model(arch).double()
    ((waveform, label),) = data = [(noise(4, 8000).double(), torch.arange(4))]
    found = scores(model, [group_of(model)], "taylor", data=data)[LAYER]
    changes, step = [], 1e-5
    with torch.no_grad():
        for f in range(len(found)):
            losses = []
            for factor in (1 + step, 1 - step):
                by_filter(model)[:, f] *= factor
                losses.append(torch.nn.functional.cross_entropy(model(waveform), label).item())
                by_filter(model)[:, f] /= factor
            changes.append(((losses[0] - losses[1]) / (2 * step)) ** 2)
    expected = torch.tensor(changes, dtype=torch.float64)
    torch.testing.assert_close(found.double(), expected / expected.max(), rtol=1e-2, atol=1e-3)


def test_taylor_ranks_frozen_filters_alike() -> None:
    model, data = small_model("qcnn6_006"), [(noise(4, 8000), torch.arange(4))]
    expected = scores(model, [group_of(model)], "taylor", data=data)[LAYER]
    model.requires_grad_(False)
    assert torch.equal(scores(model, [group_of(model)], "taylor", data=data)[LAYER], expected)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_taylor_needs_data() -> None:
    model = small_model("qcnn10_025")
    for data in (None, []):
        with pytest.raises(ValueError, match="taylor' needs"):
            plan(model, ratio=0.5, criterion="taylor", data=data)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("tap", range(9))
def test_every_tap_counts(arch, tap) -> None:
    model = small_model(arch)
    planted = by_filter(model)
    planted.fill_(0.1)
    planted[:, 2].flatten(2)[..., tap] = 0.2
    planted[:, 5].flatten(2)[..., tap] = 0.0
    for criterion in ("l1", "l2"):
        found = score(model, criterion)
        assert found.argmax() == 2 and found.argmin() == 5


def test_many_small_taps_outweigh_a_large_first_one() -> None:
    model = small_model("qcnn10_025")
    planted = by_filter(model)
    planted.fill_(0.05)
    planted[:, 1] = 0
    planted[:, 1, :, 0, 0] = 0.4  # 8 × .05 < .4 < 9 × .05
    assert score(model).argmin() == 1


@pytest.mark.parametrize("component", range(4))
def test_every_component_counts(component) -> None:
    model = small_model("qcnn10_025")
    planted = by_filter(model)
    planted.fill_(0.1)
    planted[component, 2] = -0.2
    planted[component, 6] = 0
    found = score(model)
    assert found.argmax() == 2 and found.argmin() == 6


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("arch", ["qcnn10_025", "cnn6_025", "resnet38_013"])
def test_scores_do_not_change_the_model(arch, criterion) -> None:
    model, twin = small_model(arch), small_model(arch)
    groups = [group for group in model.channel_groups() if group.prunable]
    found = scores(model, groups, criterion, data=batches())
    for group in groups:
        one = found[group.name]
        assert one.shape == (model.widths[group.name] // (4 if model.quaternion else 1),)
        assert one.isfinite().all() and not one.requires_grad
    assert all(p.grad is None for p in model.parameters())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, twin.state_dict()[name])


def test_layers_of_a_residual_group_count_alike() -> None:
    """All that add to the same channels: the shortcut's convolution and each block's second."""
    model = small_model("resnet38_013")
    group = max(model.channel_groups(), key=lambda group: len(group.producers))
    assert len(group.producers) > 2
    found = scores(model, [group], "l1")[group.name]
    sums = [model.get_submodule(name).weight.abs().sum((1, 2, 3)) for name in group.producers]
    expected = torch.stack([one / one.max() for one in sums]).mean(0)
    assert torch.allclose(found, expected.detach())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("criterion", [*BY_WEIGHT, "bn_scale"])
@pytest.mark.parametrize("arch", ARCHS)
def test_half_precision_ranks_as_the_same_values_in_float32(arch, criterion, dtype) -> None:
    half = small_model(arch).to(dtype)
    whole = small_model(arch)
    whole.load_state_dict(half.state_dict())
    assert torch.equal(score(half, criterion), score(whole, criterion))


@pytest.mark.parametrize("criterion", BY_WEIGHT)
def test_an_all_zero_layer_has_finite_scores(criterion) -> None:
    model = small_model("qcnn10_025")
    by_filter(model).zero_()
    assert score(model, criterion).tolist() == [0] * 8
