"""How long implementations of layers take, measured once for each machine."""

import contextlib
import json
import platform
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
import torch

from qaudio import __version__
from qaudio.compress.timing import seconds_of
from qaudio.paths import cache_folder, write_whole

ROUNDS = 5  # timings of each of several calls; the shortest counts
HOPELESS = 1.5  # one that first takes so many times the best one's time is not timed again


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


class KnownTimes:
    """How long forms of layers take: by machine, layer and form, in a JSON file of the cache."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.path = cache_folder() / "seconds_of_forms.json"
        self.machine = (
            f"{platform.node()}, {torch.backends.cpu.get_cpu_capability()}, "
            f"{torch.get_num_threads()} threads, torch {torch.__version__}, qaudio {__version__}"
        )
        self.known = self._read().get(self.machine, {})
        self.new: dict[str, dict[str, float]] = {}

    def _read(self) -> dict[str, dict[str, dict[str, float]]]:
        """The file's content; nothing where it is missing, spoilt or no file of the cache's own."""
        if self.path.is_symlink() or not self.path.is_file():  # a pipe would be waited for
            return {}
        try:
            return msgspec.json.decode(
                self.path.read_bytes(), type=dict[str, dict[str, dict[str, float]]]
            )
        except (OSError, RecursionError, msgspec.DecodeError):
            return {}

    def of(
        self, key: str, names: Iterable[str], calls: Callable[[], Mapping[str, Callable[[], Any]]]
    ) -> dict[str, float]:
        """Seconds that each of some forms takes, measured together where one is not known.

        Args:
            key: what has the forms: a layer and the shape of its input, in words.
            calls: makes what is measured, by name; at least what `names` names.

        Returns:
            Seconds by name, in the order of `names`.
        """
        key, names = f"{self.device} {key}", list(names)
        if not set(names) <= set(self.known.get(key, {})):
            with torch.inference_mode():
                self.known[key] = self.new[key] = shortest_seconds(calls(), self.device)
        return {name: self.known[key][name] for name in names}

    def write(self) -> None:
        """Add what was measured to the file; a folder that cannot be written is no obstacle."""
        if not self.new:
            return
        stored = self._read()
        stored[self.machine] = stored.get(self.machine, {}) | self.new
        with contextlib.suppress(OSError):
            write_whole(self.path, json.dumps(stored, indent=1, sort_keys=True), follow=False)
