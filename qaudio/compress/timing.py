"""How long one call takes, with as little as can be of what else the machine does."""

import sys
import time
from collections.abc import Callable
from typing import Any

import torch


def in_processor_time(device: torch.device) -> bool:
    """Whether calls are timed by their processor time: on a CPU, by a single thread.

    What else the machine does takes turns with the call then, and hardly counts. The processor
    time of several threads is their sum, waiting included, so those are timed by the wall clock.
    So are all calls on Windows, which counts processor time in steps of 15.6 ms.
    """
    if sys.platform == "win32":
        return False
    return device.type == "cpu" and torch.get_num_threads() == 1


def seconds_of(call: Callable[[], Any], device: torch.device) -> float:
    """Seconds that one call takes on a device, in the time that `in_processor_time` says."""
    clock = time.process_time if in_processor_time(device) else time.perf_counter
    start = clock()
    call()
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return clock() - start
