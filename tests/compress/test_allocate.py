import pytest
import torch
from pytest import approx

from qaudio.compress.allocate import (
    allowed_widths,
    globally,
    mac_meter,
    param_meter,
    towards,
    uniform,
)
from qaudio.compress.cost import cost
from qaudio.compress.prune import plan, prune
from qaudio.models.registry import create_model
from tests.support.networks import SMALL, small_model


@pytest.mark.parametrize("arch", SMALL)
def test_meters_are_those_of_the_pruned_network(arch) -> None:
    model = small_model(arch)
    chosen = plan(model, ratio=0.4, layers="all", min_channels=4)
    found = cost(prune(model, chosen))
    assert param_meter(model)(chosen.after) == found.params
    assert mac_meter(model)(chosen.after) == found.macs
    assert param_meter(model)(model.widths) == cost(model).params


def test_widths_to_choose_from() -> None:
    assert allowed_widths(32, 8, 12) == [16, 24, 32]
    assert allowed_widths(8, 4, 16) == [8]
    assert allowed_widths(30, 8, 8) == [8, 16, 24, 30]


def test_uniform_takes_the_same_share_everywhere() -> None:
    by = uniform({"a": 64, "b": 128}, {"a": list(range(8, 65, 4)), "b": list(range(8, 129, 4))})
    assert by(0) == {"a": 64, "b": 128}
    assert by(0.25) == {"a": 48, "b": 96}
    assert by(1) == {"a": 8, "b": 8}


def test_global_takes_the_least_important_filters_wherever_they_are() -> None:
    widths, allowed = {"a": 16, "b": 16}, {"a": [4, 8, 12, 16], "b": [4, 8, 12, 16]}
    ranked = {"a": torch.tensor([1.0, 1, 1, 1]), "b": torch.tensor([0.1, 0.1, 3, 3])}
    by = globally(widths, allowed, ranked)
    assert by(0) == widths
    assert by(0.25) == {"a": 16, "b": 8}  # two of the eight filters: both of b's small ones
    assert by(1) == {"a": 4, "b": 4}


def test_global_scores_are_compared_over_their_layers_mean() -> None:
    widths, allowed = {"a": 4, "b": 4}, {"a": [1, 2, 3, 4], "b": [1, 2, 3, 4]}
    ranked = {"a": torch.tensor([1.0, 2, 3, 4]), "b": 1000 * torch.tensor([1.0, 2, 3, 4])}
    assert globally(widths, allowed, ranked)(0.5) == {"a": 2, "b": 2}


@pytest.mark.parametrize("allocation", ["uniform", "global"])
@pytest.mark.parametrize("share", [0.5, 0.25])
def test_a_target_of_parameters_is_met(allocation, share) -> None:
    model = create_model("qcnn10_050", num_classes=10)
    chosen = plan(model, target_params=share, allocation=allocation)
    assert cost(prune(model, chosen)).params == approx(share * cost(model).params, rel=0.02)


def test_two_layers_move_together_where_none_does_alone() -> None:
    """7·a + 5·b: from 7·8 + 5·8 = 96, one step of either is off by 5 or 7, one of both by 2."""
    widths, allowed = {"a": 16, "b": 16}, {"a": list(range(1, 17)), "b": list(range(1, 17))}
    chosen = towards(
        "made",
        lambda widths: 7 * widths["a"] + 5 * widths["b"],
        94,
        widths,
        allowed,
        lambda share: {"a": 8, "b": 8},
    )
    assert 7 * chosen["a"] + 5 * chosen["b"] == 94


def test_a_target_that_no_widths_come_near_is_said(recwarn) -> None:
    widths, allowed = {"a": 16, "b": 16}, {"a": [8, 16], "b": [8, 16]}

    def meter(widths):
        return widths["a"] * widths["b"]

    with pytest.warns(UserWarning, match=r"target_made 100 is missed by 28\.0%.*multiple_of"):
        towards("target_made", meter, 100, widths, allowed, uniform(widths, allowed))
    recwarn.clear()
    assert towards("target_made", meter, 0.5, widths, allowed, uniform(widths, allowed))
    assert not recwarn


@pytest.mark.parametrize("allocation", ["uniform", "global"])
@pytest.mark.parametrize("share", [0.95, 0.8, 0.3, 0.1])
def test_a_target_is_met_or_its_miss_is_said(allocation, share, recwarn) -> None:
    """Also in steps so large that the nearest widths may be far away."""
    for arch in ("cnn10_013", "qcnn6_025", "qcnn10_050"):
        model, missed = small_model(arch), False
        for name, count in (("target_params", "params"), ("target_macs", "macs")):
            recwarn.clear()
            try:
                pruned = prune(model, allocation=allocation, multiple_of=16, **{name: share})
            except ValueError as error:
                assert "are possible" in str(error)
                continue
            found = getattr(cost(pruned), count) / getattr(cost(model), count)
            missed = abs(found / share - 1) > 0.02
            assert missed == any("is missed by" in str(one.message) for one in recwarn)


@pytest.mark.parametrize("share", [0.5, 0.25, 0.1])
def test_global_allocation_meets_a_target_of_macs(share) -> None:
    model = create_model("qcnn14", num_classes=10)
    chosen = plan(model, target_macs=share, allocation="global")
    assert chosen.macs_after == approx(share * chosen.macs_before, rel=0.02)


def test_global_allocation_spares_the_layer_that_matters() -> None:
    torch.manual_seed(0)
    model = create_model("qcnn10_050", num_classes=10)
    with torch.no_grad():  # half of a layer next to nothing: its mean falls, the rest stands out
        model.conv_block3.conv1.weight.view(4, 32, -1)[:, ::2] *= 1e-3
    after = plan(model, ratio=0.3, allocation="global").after
    others = [after[f"conv_block3.conv{n}"] / 128 for n in (2,)]
    assert after["conv_block3.conv1"] == 64 < 128 * min(others)


@pytest.mark.parametrize("name", ["target_macs", "target_params"])
def test_a_target_that_removes_nothing_is_said(name) -> None:
    model = small_model("qcnn6_025")
    with pytest.warns(UserWarning, match=rf"{name} 1 is the whole \(up to 1 it is a share\)"):
        assert plan(model, **{name: 1}).after == model.widths


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"target_params": -3}, r"target_params -3 cannot be met .* are possible"),
        ({"target_params": 10}, r"target_params 10 cannot be met .* are possible"),
        ({"target_params": 0.5, "target_latency": 0.5}, "exactly one of ratio, target_macs"),
        ({"ratio": 0.5, "allocation": "greedy"}, "allocation must be one of uniform, global"),
    ],
)
def test_bad_requests_are_refused(request_, message) -> None:
    with pytest.raises(ValueError, match=message):
        plan(small_model("qcnn6_025"), **request_)
