from collections.abc import Callable
from itertools import pairwise
from statistics import median

import pytest
import torch
from pytest import approx

from qaudio.compress import timing
from qaudio.compress.allocate import allowed_widths, uniform
from qaudio.compress.cost import FEWEST, REPEATS, TURN, latency_ratio
from qaudio.compress.latency import AGREE, STEPS, towards_latency
from qaudio.compress.prune import prune
from qaudio.models.base import AudioModel
from qaudio.models.registry import create_model
from tests.support.networks import small_model


def test_latency_is_measured_as_the_model_stands(monkeypatch) -> None:
    seen = []

    def ratio(candidate, model, seconds):
        kernel = candidate.conv_block2.conv1.weight
        seen.append((kernel.dtype, kernel.is_contiguous(memory_format=torch.channels_last)))
        return sum(candidate.widths.values()) / sum(model.widths.values())

    monkeypatch.setattr("qaudio.compress.latency.latency_ratio", ratio)
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
        calls: list[float] = []
        monkeypatch.setattr(
            "qaudio.compress.cost.seconds_of", lambda call, device: calls.append(1) or seconds
        )
        model = small_model("qcnn6_025")
        assert latency_ratio(model, model, 1.0) == 1
        return len(calls) // (2 * TURN)

    assert turns(1.0) == FEWEST and turns(1e-3) == REPEATS and turns(0.026) == 10


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
    "busy from now on": lambda call: 1.0 if call < 50 else 2.0,  # amid the search
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
    """With room for what else runs here: `tests.benchmarks.speed` shows how near it comes.

    One measurement on a busy machine may be off by a third, so the median of several counts.
    """
    threads(1)
    model = create_model("qcnn10", num_classes=10).to(memory_format=torch.channels_last)
    pruned = prune(model, target_latency=share).to(memory_format=torch.channels_last)
    measured = median(latency_ratio(pruned, model, 10.0) for _ in range(5))
    assert measured == approx(share, rel=0.35)


WIDTHS = {"a": 1000, "b": 3000}


def search(meter: Callable[[dict[str, int]], float], target: float, step: int = 4):
    """Widths that a clock leads to; the MACs are the sum of the widths."""
    allowed = {name: allowed_widths(width, step, step) for name, width in WIDTHS.items()}
    total = lambda widths: sum(widths.values())  # noqa: E731
    return towards_latency(meter, target, WIDTHS, allowed, uniform(WIDTHS, allowed), total)


@pytest.mark.parametrize("wrong", range(2, 2 + STEPS))
@pytest.mark.parametrize("factor", [0.7, 1.4])
def test_a_latency_that_is_measured_wrongly_once_leads_nowhere_else(wrong, factor) -> None:
    measured = []

    def meter(widths: dict[str, int]) -> float:
        measured.append(widths)
        return sum(widths.values()) * (factor if len(measured) == wrong + 1 else 1.0)

    assert sum(search(meter, 0.5).values()) == approx(2000, rel=0.04)


@pytest.mark.parametrize("share", [0.9, 0.5, 0.2])
@pytest.mark.parametrize("power", [0.6, 1.0, 1.3])
@pytest.mark.parametrize("fixed", [0, 500])
def test_time_need_not_go_with_macs(share, power, fixed) -> None:
    def time(widths: dict[str, int]) -> float:
        return fixed + sum(widths.values()) ** power

    wanted = max(share * time(WIDTHS), 1.1 * fixed)
    assert time(search(time, wanted)) == approx(wanted, rel=0.03)


@pytest.mark.parametrize(
    ("pace", "most"),
    [((1.0,) * 8, 2 + AGREE), ((1.0, 1.0, 1.3, 0.8, 1.15, 0.9, 1.25, 0.75), 2 + STEPS)],
)
def test_few_measurements_are_made_and_fewer_where_they_agree(pace, most) -> None:
    left = list(pace)
    search(lambda widths: sum(widths.values()) * left.pop(0), 0.5)
    assert len(pace) - len(left) == most


def test_measurements_that_differ_are_averaged() -> None:
    left = [1.0, 1.0, 0.94, 1.08, 0.92, 1.06, 1.0, 1.12]  # the widest, the narrowest, the others
    chosen = search(lambda widths: sum(widths.values()) * left.pop(0), 0.5)
    assert not left
    assert sum(chosen.values()) == approx(2000, rel=0.04)


def test_a_latency_that_no_widths_come_near_is_said() -> None:
    with pytest.warns(UserWarning, match=r"target_latency 2450 is missed by 18\.\d%.*multiple_of"):
        search(lambda widths: sum(widths.values()), 2450, step=1000)


@pytest.mark.parametrize("target", [0.0001, 5000])
def test_a_latency_out_of_reach_is_refused(target) -> None:
    with pytest.raises(
        ValueError, match=r"target_latency .* from 8 \(0\.2%\) to 4000 are possible"
    ):
        search(lambda widths: sum(widths.values()), target)
