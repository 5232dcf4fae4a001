"""How long calls take, with as little as can be of what else the machine does."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

ROUNDS = 5  # timings of each of several calls; the shortest counts
HOPELESS = 1.5  # one that first takes so many times the best one's time is not timed again


def in_processor_time(device: torch.device) -> bool:
    """Whether calls are timed by their processor time: on a CPU, by a single thread.

    What else the machine does takes turns with the call then, and hardly counts. The processor
    time of several threads is their sum, waiting included, so those are timed by the wall clock.
    """
    return device.type == "cpu" and torch.get_num_threads() == 1


def seconds_of(call: Callable[[], Any], device: torch.device) -> float:
    """Seconds that one call takes on a device, in the time that `in_processor_time` says."""
    clock = time.process_time if in_processor_time(device) else time.perf_counter
    start = clock()
    call()
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return clock() - start


def shortest_seconds(
    calls: Mapping[str, Callable[[], Any]], device: torch.device
) -> dict[str, float]:
    """Seconds of the shortest of several runs of each call, by its name; the calls take turns."""
    for call in calls.values():
        call()  # compiles, allocates
    times = {name: seconds_of(call, device) for name, call in calls.items()}
    hopeful = [name for name in times if times[name] < HOPELESS * min(times.values())]
    for _ in range(ROUNDS - 1):
        for name in hopeful:
            times[name] = min(times[name], seconds_of(calls[name], device))
    return times
