"""What the groups of rows share: how a pair is timed, and how its row is judged and printed."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime
import torch

import qaudio
from qaudio.compress.cost import device_name
from qaudio.compress.timing import in_processor_time

ROOT = Path(qaudio.__file__).parent.parent
CPU = torch.device("cpu")
TURN = 2  # counted runs of a call in its turn
LEAST, MOST = 4, 40  # counted runs of each call, within the budget
PROFILED = 5  # runs
NAMED = 6  # operators
Call = Callable[[], object]
Figure = Literal["ratio", "difference", "value"]
Shares = dict[str, float]  # of a call's own time, by operator, the largest first
HEAD = "| what | against | unit | first | second | figure | limit | holds | networks alone |"
RULE = "|---" * (HEAD.count("|") - 1) + "|"


@dataclass(frozen=True)
class Row:
    """What was found, and what it should be.

    Attributes:
        figure: what the limit is of: first/second, first - second, or first.
        least: the limit is the least that the figure may be, not the most.
        alone: the same pair without the front-ends.
        spent: of a pair that misses its limit, what the time of each goes into.
    """

    group: str
    what: str
    against: str
    unit: str
    first: float
    second: float | None
    kind: Figure = "ratio"
    limit: float | None = None
    least: bool = False
    alone: tuple[float, float] | None = None
    spent: tuple[Shares, Shares] | None = None

    @property
    def figure(self) -> float:
        if self.second is None or self.kind == "value":
            return self.first
        return self.first / self.second if self.kind == "ratio" else self.first - self.second

    @property
    def holds(self) -> bool | None:
        """Whether the limit is kept; None where there is none."""
        if self.limit is None:
            return None
        return self.figure >= self.limit if self.least else self.figure <= self.limit

    def to_dict(self) -> dict:
        return {**asdict(self), "figure": self.figure, "holds": self.holds}

    def to_line(self) -> str:
        """A line of the Markdown table."""
        limit = "" if self.limit is None else f"{'≥' if self.least else '≤'} {self.limit:g}"
        holds = {True: "yes", False: "NO", None: ""}[self.holds]
        alone = ""
        if self.alone:
            a, b = self.alone
            alone = f"{a:.1f} / {b:.1f} = {a / b:.3f}"
        cells = [
            self.what, self.against, self.unit, short(self.first), short(self.second),
            short(self.figure), limit, holds, alone,
        ]  # fmt: skip
        return f"| {' | '.join(cells)} |"


def short(number: float | None) -> str:
    """Four digits or what is before the point."""
    if number is None:
        return ""
    return f"{number:.0f}" if abs(number) >= 1000 else f"{number:.4g}"


def environment() -> dict[str, str]:
    """Of a new process: this copy of the package, on as many threads as here."""
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": str(torch.get_num_threads())}


@dataclass(frozen=True)
class Start:
    """A fresh interpreter's run, as a call."""

    arguments: tuple[str, ...]

    def __call__(self) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, *self.arguments],
            env=environment(),
            check=True,
            capture_output=True,
            text=True,
        )


@dataclass(frozen=True)
class Session:
    """onnxruntime's run of an exported file on a waveform (1, T), as a call."""

    model: qaudio.OnnxModel
    path: Path
    waveform: np.ndarray

    def __call__(self) -> np.ndarray:
        return self.model.logits(self.waveform)

    def shares(self) -> Shares:
        """By onnxruntime's own profiler, in a session of its own."""
        with tempfile.TemporaryDirectory() as folder:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder, "profile"))
            session = onnxruntime.InferenceSession(str(self.path), options)
            for _ in range(PROFILED):
                session.run(["logits"], {"waveform": self.waveform})
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        times: dict[str, float] = {}
        for event in events:
            if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
                kind = event["args"]["op_name"]
                times[kind] = times.get(kind, 0) + event["dur"]
        return largest(times)


class Table:
    """Measures rows and prints each when it is done.

    Args:
        budget: seconds for each pair.
        profile: part of a row's name: nothing is measured then, and the calls of such rows are
            profiled.
        prepare: nothing is measured: what the rows are made of is built, and remembered.
        data: folder of ESC-50.
    """

    def __init__(
        self,
        budget: float = 4.0,
        profile: str | None = None,
        prepare: bool = False,
        data: str | None = None,
    ):
        self.budget, self.profiled, self.data = budget, profile, data
        self.measures = not (profile or prepare)
        self.group = ""
        self.rows: list[Row] = []

    def pair(
        self,
        what: str,
        against: str,
        limit: float | None,
        first: Call,
        second: Call,
        *,
        kind: Figure = "ratio",
        alone: tuple[Call, Call] | None = None,
    ) -> Row | None:
        """The row of two calls' times, in ms; None where nothing is measured."""
        with torch.inference_mode():
            if self.profiled and self.profiled in what:
                for name, call in ((what, first), (against, second)):
                    print(f"\n{name}\n{profile(call)}", flush=True)
            if not self.measures:
                return None
            times = milliseconds(first, second, self.budget)
            networks = milliseconds(*alone, self.budget) if alone else None
            row = Row(self.group, what, against, "ms", *times, kind, limit, alone=networks)
            if row.holds is False:
                row = replace(row, spent=(shares(first), shares(second)))
        return self.add(row)

    def figure(
        self,
        what: str,
        against: str,
        unit: str,
        limit: float | None,
        measure: Callable[[], tuple[float, float | None]],
        *,
        kind: Figure = "ratio",
        least: bool = False,
    ) -> Row | None:
        """The row of one or two figures that `measure` finds."""
        if not self.measures:
            return None
        first, second = measure()
        return self.add(Row(self.group, what, against, unit, first, second, kind, limit, least))

    def add(self, row: Row) -> Row:
        """Keep a row and print it."""
        self.rows.append(row)
        print(row.to_line(), flush=True)
        return row

    def write(self, path: Path) -> dict[str, dict[str, list[dict]]]:
        """The rows of each machine, by group, as JSON; all that the file then holds.

        What other machines measured stays, and so do this one's groups that were not measured now.
        """
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        here = found.setdefault(machine(), {})
        for group in dict.fromkeys(row.group for row in self.rows):
            here[group] = [row.to_dict() for row in self.rows if row.group == group]
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        return found


def machine() -> str:
    """Processor, threads, torch, and which time is shown."""
    time_shown = "processor time" if in_processor_time(CPU) else "wall clock"
    return f"{device_name(CPU)}, torch {torch.__version__}, {time_shown}"


def milliseconds(first: Call, second: Call, budget: float) -> tuple[float, float]:
    """Medians of two calls, run in turns for so many seconds.

    Of starts of interpreters the shortest counts: they are few, and what else a machine does can
    only add to them.
    """
    starts = isinstance(first, Start)
    clock: Callable[[], float] = time.perf_counter
    if in_processor_time(CPU):
        clock = children_seconds if starts else time.process_time
    best = min if starts else statistics.median
    found = in_turns((first, second), budget, clock)
    ours, theirs = (best(taken for (taken,) in runs) for runs in found)
    return ours, theirs


def in_turns(
    calls: Sequence[Call], budget: float, *clocks: Callable[[], float]
) -> list[list[tuple[float, ...]]]:
    """What clocks give for the counted runs of each call, in ms, in turns for so many seconds."""
    times: list[list[tuple[float, ...]]] = [[] for _ in calls]

    def timed(call: Call) -> tuple[float, ...]:
        before = [clock() for clock in clocks]
        call()
        return tuple(1000 * (clock() - start) for clock, start in zip(clocks, before, strict=True))

    for call in calls:
        call()
    end = time.perf_counter() + budget
    while len(times[0]) < LEAST or (time.perf_counter() < end and len(times[0]) < MOST):
        for call, taken in zip(calls, times, strict=True):
            start = isinstance(call, Start)
            if not start:
                call()  # what ran before it still spins its threads and fills the caches
            taken += [timed(call) for _ in range(1 if start else TURN)]
    return times


def children_seconds() -> float:
    """Processor time of the processes that this one started and that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def shares(call: Call) -> Shares:
    """What a call's time goes into; nothing is known of an interpreter's start."""
    if isinstance(call, Start):
        return {}
    if isinstance(call, Session):
        return call.shares()
    events = profiled(call).key_averages()
    return largest({event.key: event.self_cpu_time_total for event in events})


def largest(times: dict[str, float]) -> Shares:
    """Shares of the sum, of those with the largest."""
    found = sorted(times.items(), key=lambda item: -item[1])[:NAMED]
    return {name: round(time / sum(times.values()), 3) for name, time in found}


def profile(call: Call) -> str:
    """Where a call's time goes: operators, or the imports of an interpreter's start."""
    if isinstance(call, Start):
        lines = Start(("-X", "importtime", *call.arguments))().stderr.splitlines()
        found = [line.removeprefix("import time:").split("|") for line in lines if "|" in line]
        own = [(int(cells[0]), cells[2].strip()) for cells in found if cells[0].strip().isdigit()]
        slowest = sorted(own, reverse=True)[:25]
        return "\n".join(f"{us / 1000:8.1f} ms  {name}" for us, name in slowest)
    return profiled(call).key_averages().table(sort_by="self_cpu_time_total", row_limit=20)


def profiled(call: Call) -> torch.profiler.profile:
    """Some runs of a call, by torch's profiler."""
    call()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        for _ in range(PROFILED):
            call()
    return found
