import time

import pytest
import torch

from qaudio.timing import HOPELESS, ROUNDS, seconds_of, shortest_seconds

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
