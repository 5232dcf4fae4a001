from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from pytest import approx

from qaudio import timing
from qaudio.compress.allocate import (
    Budget,
    MacMeter,
    ParamMeter,
    allowed_widths,
    globally,
    towards,
    uniform,
)
from qaudio.compress.cost import cost, latency_ratio
from qaudio.compress.prune import plan, prune
from qaudio.models.base import AudioModel
from qaudio.models.registry import create_model
from tests.networks import SMALL, small_model


@pytest.mark.parametrize("arch", SMALL)
def test_meters_are_those_of_the_pruned_network(arch) -> None:
    model = small_model(arch)
    chosen = plan(model, ratio=0.4, layers="all", min_channels=4)
    found = cost(prune(model, chosen))
    assert ParamMeter(model)(chosen.after) == found.params
    assert MacMeter(model)(chosen.after) == found.macs
    assert ParamMeter(model)(model.widths) == cost(model).params


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


@pytest.fixture
def made_clock(monkeypatch):
    """A clock that networks move: a forward takes as long as its widths say, times a pace.

    The pace is whatever the test's function of the number of forwards says.
    """

    def start(arch: str, pace: Callable[[int], float]) -> Callable[[AudioModel], float]:
        def takes(model: AudioModel) -> float:
            # As networks do: by products of channels, and a part that no pruning takes away.
            widths = list(model.widths.values())
            return 0.2 * 64**2 + sum(a * b for a, b in pairwise(widths))

        now, calls = [0.0], [0]

        def forward(self, waveform, *arguments):
            calls[0] += 1
            now[0] += takes(self) * pace(calls[0])

        monkeypatch.setattr(type(create_model(arch, num_classes=2)), "forward", forward)
        for name in ("perf_counter", "process_time"):
            monkeypatch.setattr(timing.time, name, lambda: now[0])
        return takes

    return start


PACES = {
    "steady": lambda call: 1.0,
    "slower and slower": lambda call: 1.01**call,
    "noisy": lambda call: (1.0, 1.02, 1.05, 3.0)[call * 7 % 11 % 4],
    "busy from now on": lambda call: 1.0 if call < 100 else 2.0,
}


@pytest.mark.parametrize("share", [0.5, 0.25])
@pytest.mark.parametrize("pace", PACES.values(), ids=PACES)
def test_a_target_of_latency_is_met_as_measured_afterwards(share, pace, made_clock) -> None:
    takes = made_clock("qcnn10", pace)
    model = create_model("qcnn10", num_classes=10)
    pruned = prune(model, target_latency=share)
    assert latency_ratio(pruned, model, 10.0) == approx(share, rel=0.1)
    assert takes(pruned) / takes(model) == approx(share, rel=0.06)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.5, 0.25])
def test_a_target_of_latency_is_met_by_this_machines_clock(share, threads) -> None:
    """With room for what else runs here: `tests.benchmarks.speed` shows how near it comes."""
    threads(1)
    model = create_model("qcnn10", num_classes=10).to(memory_format=torch.channels_last)
    pruned = prune(model, target_latency=share).to(memory_format=torch.channels_last)
    assert latency_ratio(pruned, model, 10.0) == approx(share, rel=0.35)


@pytest.mark.parametrize("wrong", range(2, 12))
@pytest.mark.parametrize("factor", [0.7, 1.4])
def test_a_latency_that_is_measured_wrongly_once_leads_nowhere_else(wrong, factor) -> None:
    measured = []

    def meter(widths: dict[str, int]) -> float:
        measured.append(widths)
        return sum(widths.values()) * (factor if len(measured) == wrong + 1 else 1.0)

    widths = {"a": 1000, "b": 3000}
    allowed = {name: allowed_widths(width, 4, 4) for name, width in widths.items()}
    chosen = towards(
        Budget("latency", meter, exact=False), 0.5, widths, allowed, uniform(widths, allowed)
    )
    assert sum(chosen.values()) == approx(2000, rel=0.04)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"target_params": 10}, r"target_params 10 cannot be met .* are possible"),
        ({"target_params": 0.5, "target_latency": 0.5}, "exactly one of ratio, target_macs"),
        ({"ratio": 0.5, "allocation": "greedy"}, "'uniform' or 'global'"),
    ],
)
def test_bad_requests_are_refused(request_, message) -> None:
    with pytest.raises(ValueError, match=message):
        plan(small_model("qcnn6_025"), **request_)
