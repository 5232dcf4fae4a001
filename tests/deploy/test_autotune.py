import dataclasses
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from qaudio.deploy import timing
from qaudio.deploy.autotune import Layer, Unit, fastest_forms, fastest_linear
from qaudio.deploy.timing import KnownTimes
from qaudio.quaternion import QConv2d, QLinear

PLANES, LAST = torch.contiguous_format, torch.channels_last


@dataclasses.dataclass(frozen=True)
class Said(Layer):
    """A layer that takes what it is said to take."""

    times: dict[str, float] = dataclasses.field(default_factory=dict)
    moves: dict[torch.memory_format, float] = dataclasses.field(default_factory=dict)

    def seconds(self) -> dict[str, float]:
        return self.times

    def move(self, layout: torch.memory_format) -> float:
        return self.moves[layout]


def unit(name: str, layer: nn.Module | None = None, **ends) -> Unit:
    return Unit(name, layer or nn.Conv2d(4, 4, 3), None, None, ends)


def said(name: str, times: dict[str, float], to_planes: float = 1.0, to_last: float = 1.0) -> Said:
    moves = {PLANES: to_planes, LAST: to_last}
    known = KnownTimes(torch.device("cpu"))
    return Said(unit(name), list(times), (1, 4, 8, 8), torch.float32, False, known, times, moves)


def test_a_form_that_is_faster_by_itself_may_not_be_worth_another_layout():
    path = [
        said("first", {"packed": 0.6, "tiled": 0.7}, to_last=0.2),
        said("second", {"packed": 3.0, "tiled": 2.2}, to_planes=1.9),
    ]
    assert fastest_forms(path, PLANES) == {"first": "tiled", "second": "tiled"}
    assert fastest_forms(path[:1], LAST) == {"first": "packed"}
    quick_move = [path[0], said("second", {"packed": 3.0, "tiled": 2.2}, to_planes=0.1)]
    assert fastest_forms(quick_move, LAST) == {"first": "packed", "second": "tiled"}


seconds = st.integers(0, 20).map(float)
a_layer = st.tuples(
    st.dictionaries(st.sampled_from(["packed", "grouped", "tiled"]), seconds, min_size=1),
    seconds,
    seconds,
)


@given(st.lists(a_layer, max_size=5), st.sampled_from([PLANES, LAST]))
def test_no_other_forms_take_less_time(layers, first):
    path = [said(str(n), times, *moves) for n, (times, *moves) in enumerate(layers)]

    def total(forms) -> float:
        spent, layout = 0.0, first
        for layer, form in zip(path, forms, strict=True):
            taken = PLANES if form == "tiled" else LAST
            spent += layer.times[form] + (0 if taken == layout else layer.moves[taken])
            layout = taken
        return spent

    best = min(total(forms) for forms in product(*(layer.times for layer in path)))
    found = fastest_forms(path, first)
    assert list(found) == [layer.unit.name for layer in path]
    assert total(found.values()) == best


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """What is measured, instead of measuring it."""
    monkeypatch.setenv("QAUDIO_CACHE", str(tmp_path))
    asked: list[dict] = []

    def noted(calls, _):
        asked.append(calls)
        return {name: float(n) for n, name in enumerate(calls, start=1)}

    monkeypatch.setattr(timing, "shortest_seconds", noted)
    return asked


@pytest.mark.parametrize("shortcut", [False, True])
def test_forms_are_measured_on_inputs_in_their_layout(shortcut, measured):
    convolution = QConv2d(8, 12, 3, padding=1).requires_grad_(False)
    ends = {"relu": True, "shortcut": True} if shortcut else {"relu": True, "pool": 2}
    names = ["matrix", "grouped"]
    layer = Layer(
        unit("one", convolution, **ends), names, (2, 8, 10, 6), torch.float32, False,
        KnownTimes(torch.device("cpu")),
    )  # fmt: skip
    assert layer.seconds() == layer.seconds() == {"matrix": 1, "grouped": 2}
    (calls,) = measured
    assert list(calls) == names
    for name, call in calls.items():
        assert call.func.form == name
        assert [tuple(x.shape) for x in call.args] == (
            [(2, 8, 10, 6), (2, 12, 10, 6)] if shortcut else [(2, 8, 10, 6)]
        )
        assert all(x.is_contiguous(memory_format=LAST) for x in call.args)
        assert call().shape == ((2, 12, 10, 6) if shortcut else (2, 12, 5, 3))


def test_where_there_is_one_form_nothing_is_measured(measured):
    known = KnownTimes(torch.device("cpu"))
    layer = Layer(unit("one"), ["matrix"], (1, 4, 8, 8), torch.float32, False, known)
    assert layer.seconds() == {"matrix": 0}
    assert not measured


@pytest.mark.parametrize(("layout", "other"), [(PLANES, LAST), (LAST, PLANES)])
def test_a_change_of_layout_is_measured(layout, other, measured):
    known = KnownTimes(torch.device("cpu"))
    layer = Layer(unit("one"), ["matrix", "packed"], (1, 4, 8, 6), torch.float32, False, known)
    assert layer.move(layout) == layer.move(layout) == 1
    ((move,),) = (calls.values() for calls in measured)
    before = move.func.__self__
    assert before.is_contiguous(memory_format=other)
    assert not before.is_contiguous(memory_format=layout)
    assert move().is_contiguous(memory_format=layout)
    layer.move(other)
    assert len(measured) == 2


def test_the_faster_form_of_a_linear_layer(measured):
    layer, known = QLinear(8, 12).requires_grad_(False), KnownTimes(torch.device("cpu"))
    assert fastest_linear(layer, (3, 8), known) == ("matrix", layer)  # said to be faster
    (calls,) = measured
    expected = layer(calls["matrix"].args[0])
    assert torch.allclose(calls["split"](), expected, atol=1e-6)
    known.known = {key: {"matrix": 2.0, "split": 1.0} for key in known.known}
    name, split = fastest_linear(layer, (3, 8), known)
    assert name == "split" and torch.allclose(split(calls["split"].args[0]), expected, atol=1e-6)
    assert fastest_linear(layer, (3, 5, 8), known) == ("matrix", layer)
    assert len(measured) == 1
