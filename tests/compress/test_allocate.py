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
from qaudio.compress.cost import FEWEST, REPEATS, WARMUP, cost, latency_ratio
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


def test_two_layers_move_together_where_none_does_alone() -> None:
    """7·a + 5·b: from 7·8 + 5·8 = 96, one step of either is off by 5 or 7, one of both by 2."""
    widths, allowed = {"a": 16, "b": 16}, {"a": list(range(1, 17)), "b": list(range(1, 17))}
    meter = Budget("made", lambda widths: 7 * widths["a"] + 5 * widths["b"])
    chosen = towards(meter, 94, widths, allowed, lambda share: {"a": 8, "b": 8})
    assert 7 * chosen["a"] + 5 * chosen["b"] == 94


def test_a_target_that_no_widths_come_near_is_said(recwarn) -> None:
    widths, allowed = {"a": 16, "b": 16}, {"a": [8, 16], "b": [8, 16]}
    meter = Budget("target_made", lambda widths: widths["a"] * widths["b"])
    with pytest.warns(UserWarning, match=r"target_made 100 is missed by 28\.0%.*multiple_of"):
        towards(meter, 100, widths, allowed, uniform(widths, allowed))
    recwarn.clear()
    assert towards(meter, 0.5, widths, allowed, uniform(widths, allowed))
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


def test_latency_is_measured_as_the_model_stands(monkeypatch) -> None:
    seen = []

    def ratio(candidate, model, seconds):
        kernel = candidate.conv_block2.conv1.weight
        seen.append((kernel.dtype, kernel.is_contiguous(memory_format=torch.channels_last)))
        return sum(candidate.widths.values()) / sum(model.widths.values())

    monkeypatch.setattr("qaudio.compress.allocate.latency_ratio", ratio)
    for dtype, layout in (
        (torch.float64, torch.contiguous_format),
        (torch.float32, torch.channels_last),
    ):
        model = small_model("qcnn6_025").to(dtype).to(memory_format=layout)
        seen.clear()
        pruned = prune(model, target_latency=0.7)
        assert set(seen) == {(dtype, layout == torch.channels_last)}
        kernel = pruned.conv_block2.conv1.weight
        assert kernel.dtype == dtype
        assert kernel.is_contiguous(memory_format=layout)


def test_slow_networks_take_few_turns(monkeypatch) -> None:
    def turns(seconds: float) -> int:
        calls = []
        monkeypatch.setattr(
            "qaudio.compress.cost.seconds_of", lambda call, device: calls.append(1) or seconds
        )
        model = small_model("qcnn6_025")
        assert latency_ratio(model, model, 1.0) == 1
        return len(calls) // 2

    assert turns(1.0) == FEWEST and turns(1e-3) == WARMUP + REPEATS and turns(0.21) == 10


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
