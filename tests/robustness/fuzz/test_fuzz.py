"""The fuzz itself: a little of it in every run, all of it in the slow ones; and what it notices."""

import os
import time

import pytest

from tests.robustness.fuzz import isolated
from tests.robustness.fuzz.__main__ import RUN
from tests.robustness.fuzz.isolated import Outcome, in_child
from tests.robustness.fuzz.kinds import KINDS

FLOOD = 100 << 20
# Whole runs are by the command: 3000 sounds, 2000 entries, 500 of those that take seconds each.
TRAINING = ("caches", "labels", "plans", "recipes")  # most of their cases train a network
FEW = {"audio": 100, "entries": 20} | dict.fromkeys(KINDS, 8) | dict.fromkeys(TRAINING, 4)
MANY = {"audio": 1500, "entries": 700} | dict.fromkeys(KINDS, 25) | dict.fromkeys(TRAINING, 8)


def faults_of(outcomes):
    return [f"case {case}: {one.ended}: {one.detail}" for case, one in outcomes if one.fault]


@pytest.mark.parametrize("what", sorted(RUN))
def test_a_few_files_that_lie(what):
    count = FEW[what]
    outcomes = list(RUN[what](0, range(count)))
    assert [case for case, _ in outcomes] == list(range(count))
    assert not faults_of(outcomes)
    assert len({one.ended for _, one in outcomes}) > min(5, count // 3)


@pytest.mark.slow
@pytest.mark.parametrize("what", sorted(RUN))
def test_many_files_that_lie(what):
    assert not faults_of(RUN[what](1, range(MANY[what])))


def misbehave(cases, begin):
    for case in cases:
        begin(case)
        if case == 1:
            os.kill(os.getpid(), 11)
        elif case == 2:
            time.sleep(60)
        elif case == 3:
            len(b"x" * FLOOD)
    begin(-1)
    return {case: Outcome("fine") for case in cases}


def measure(cases, begin):
    return {case: Outcome("fine", str(isolated.Resident().peak())) for case in cases}


def test_crashes_hangs_and_floods_are_the_faults_of_their_cases(monkeypatch):
    ((_, alone),) = in_child(measure, [0], together=1)
    monkeypatch.setattr(isolated, "MEMORY", int(alone.detail) + FLOOD // 2)
    outcomes = dict(in_child(misbehave, range(5), together=5, seconds=4.0))
    ended = [outcomes[case].ended for case in range(5)]
    assert ended == ["fine", "crashed", "hung", "over memory", "fine"]
    assert [outcomes[case].fault for case in range(5)] == [False, True, True, True, False]
