import json
import os
import time
from functools import partial

import pytest
import torch

from qaudio.compress.timing import seconds_of
from qaudio.deploy.timing import HOPELESS, ROUNDS, KnownTimes, shortest_seconds

CPU = torch.device("cpu")


def work(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


@pytest.mark.parametrize(("count", "waiting_counts"), [(1, False), (2, True)])
def test_one_thread_is_timed_by_its_own_time_and_several_by_the_wall_clock(
    count, waiting_counts, threads
):
    threads(count)

    def call():
        work(0.01)
        time.sleep(0.2)  # as when another program has the processor

    seconds = seconds_of(call, CPU)
    assert seconds >= 0.01
    assert (seconds >= 0.2) == waiting_counts


def test_the_shortest_run_counts_and_hopeless_calls_are_run_once(threads):
    threads(1)
    runs: dict[str, list[float]] = {"quick": [], "slow": []}

    def quick():
        runs["quick"].append(0)
        work(0.004 if len(runs["quick"]) < ROUNDS else 0.001)

    def slow():
        runs["slow"].append(0)
        work(0.02)

    times = shortest_seconds({"quick": quick, "slow": slow}, CPU)
    assert 0.001 <= times["quick"] < 0.004
    assert times["slow"] >= 0.02 > HOPELESS * 0.004
    assert (len(runs["quick"]), len(runs["slow"])) == (1 + ROUNDS, 2)  # the first compiles


def test_what_runs_beside_the_processor_is_waited_for(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.accelerator, "synchronize", waited.append)
    for device in ("cuda:0", "mps"):
        seconds_of(lambda: None, torch.device(device))
    seconds_of(lambda: None, CPU)
    assert waited == [torch.device("cuda:0"), torch.device("mps")]


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """Where times are kept."""
    monkeypatch.setenv("QAUDIO_CACHE", str(tmp_path))
    return KnownTimes(CPU).path


def measured(known: KnownTimes, names: list[str], key: str = "a layer") -> bool:
    """Whether it measured, asked for the times of some forms."""
    runs = []
    times = known.of(key, names, lambda: {name: partial(runs.append, name) for name in names})
    assert list(times) == names and all(seconds > 0 for seconds in times.values())
    return bool(runs)


def test_times_are_known_once_they_are_measured(stored):
    known = KnownTimes(CPU)
    assert measured(known, ["a", "b"]) and not measured(known, ["a", "b"])
    assert not stored.exists()
    known.write()
    again = KnownTimes(CPU)
    assert not measured(again, ["b", "a"]) and not measured(again, ["b"])
    assert measured(again, ["a", "new"])  # together, as forms are compared
    assert measured(again, ["a"], "another layer")
    assert again.of("a layer", ["a", "new"], dict) == again.new["cpu a layer"]


def test_times_of_other_machines_and_of_another_process_are_kept(stored):
    first, second = KnownTimes(CPU), KnownTimes(CPU)
    assert measured(first, ["a"]) and measured(second, ["a"], "another layer")
    first.machine = "elsewhere"
    first.write()
    second.write()
    third = KnownTimes(CPU)
    assert measured(third, ["a"], "a third")
    fourth = KnownTimes(CPU)
    assert measured(fourth, ["a"], "a fourth")
    third.write()
    fourth.write()
    found = json.loads(stored.read_text())
    assert sorted(found.pop("elsewhere")) == ["cpu a layer"]
    ((_, here),) = found.items()
    assert sorted(here) == ["cpu a fourth", "cpu a third", "cpu another layer"]


@pytest.mark.parametrize(
    "content",
    ["{cut off", "[]", '{"a machine": 3}', '{"a": {"b": 1}}', '{"a": {"b": {"c": "x"}}}', "\x00"],
)
def test_a_spoilt_file_is_measured_anew(stored, content):
    stored.write_text(content)
    known = KnownTimes(CPU)
    assert measured(known, ["a"])
    known.write()
    assert json.loads(stored.read_text()) == {known.machine: known.new}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes among files")
def test_what_is_no_file_of_the_cache_is_neither_read_nor_written(stored, tmp_path):
    other = tmp_path / "other.json"
    known = KnownTimes(CPU)
    times = json.dumps({known.machine: {"cpu a layer": {"a": 1.0}}})
    other.write_text(times)
    stored.symlink_to(other)
    known = KnownTimes(CPU)
    assert measured(known, ["a"])
    known.write()
    assert other.read_text() == times and not stored.is_symlink()
    stored.unlink()
    os.mkfifo(stored)
    assert measured(KnownTimes(CPU), ["a"])


def test_a_folder_that_cannot_be_written_is_no_obstacle(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("QAUDIO_CACHE", str(tmp_path / "file" / "below"))
    known = KnownTimes(CPU)
    assert measured(known, ["a"])
    known.write()
    assert not measured(known, ["a"])
