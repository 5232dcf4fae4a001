"""Cases run in a child process, so that a crash, a hang or a flood of memory is one case's fault.

The child tells which case it begins; who holds the clock, or ends the process, is then known by
number and not lost, and the cases after it still run.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

SECONDS = 5.0  # of a case, until it counts as hung
BUSY_MACHINE = 10  # times as long it may take where other programs have the processor
PATIENCE = 60.0  # of what is no case: starting, making files, looking at the answers
MEMORY = 1_500_000_000  # bytes that the process may reach, its libraries included
RESERVE = 4 << 30  # bytes of data that it may ask for: beyond, MemoryError and not a dead machine

# Imported once, by the server that children are forked from, and not by every one of them.
PRELOADED = [
    "qaudio.cli", "qaudio.training.subcommands", "qaudio.models.image", "litdata", "pooch",
    "tests.robustness.fuzz.kinds",
]  # fmt: skip

Begin = Callable[[int], None]


@dataclass(frozen=True)
class Outcome:
    """What came of a case: how it ended in a word or two, and the line that says more.

    A `fault` is what must not be; the others are answers and refusals.
    """

    ended: str
    detail: str = ""
    fault: bool = False


# Takes case numbers, calls `begin` with each when its time starts (-1: none), gives the outcomes.
Work = Callable[[Sequence[int], Begin], dict[int, Outcome]]


def in_child(
    work: Work, cases: Sequence[int], together: int, seconds: float = SECONDS, alone: bool = False
) -> Iterator[tuple[int, Outcome]]:
    """Outcomes of cases, `together` of them at a time in one child, which is replaced as needed.

    Args:
        work: picklable; runs in the child.
        cases: numbers.
        together: how many cases one call of `work` takes.
        seconds: that a case may take.
        alone: give each call of `work` a child of its own.
    """
    context = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
    if os.name == "posix":
        context.set_forkserver_preload(PRELOADED)
    waiting, child = list(cases), None
    try:
        while waiting:
            child = child or _Child(context, work)
            part = waiting[:together]
            outcomes, alive = child.outcomes(part, seconds)
            if alone and alive:
                child.end()
            if alone or not alive:
                child = None
            yield from outcomes.items()
            waiting = [case for case in waiting if case not in outcomes]
    finally:
        if child is not None:
            child.end()


class _Child:
    def __init__(self, context: multiprocessing.context.BaseContext, work: Work):
        self.ours, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, work), daemon=True)
        self.process.start()
        theirs.close()

    def outcomes(self, part: Sequence[int], seconds: float) -> tuple[dict[int, Outcome], bool]:
        """Outcomes of a part, or of the one case that ended the child; and whether it lives."""
        self.ours.send(part)
        case = -1
        while True:
            if not self._answers(PATIENCE if case < 0 else seconds):
                return self._ended(case, Outcome("hung", f"over {seconds:g} s", fault=True))
            try:
                told = self.ours.recv()
            except (EOFError, OSError):
                self.process.join()
                why = f"exit code {self.process.exitcode}"
                return self._ended(case, Outcome("crashed", why, fault=True))
            if isinstance(told, dict):
                return told, True
            if isinstance(told, str):
                raise RuntimeError(f"the fuzz itself failed:\n{told}")
            if told[1] > MEMORY:
                why = f"{told[1] >> 20} MiB resident"
                return self._ended(case, Outcome("over memory", why, fault=True))
            case = told[0]

    def _answers(self, seconds: float) -> bool:
        """Whether the child says something in so many seconds, of its own where it was busy."""
        before = self._busy()
        for _ in range(BUSY_MACHINE):
            if self.ours.poll(seconds):
                return True
            used = self._busy() - before
            if not seconds / 100 < used < seconds:  # it waits for something, or took its time
                return False
        return False

    def _busy(self) -> float:
        """Processor seconds that the child took; on Linux, elsewhere 0."""
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _ended(self, case: int, outcome: Outcome) -> tuple[dict[int, Outcome], bool]:
        self.end()
        if case < 0:
            raise RuntimeError(f"the fuzz itself {outcome.ended} ({outcome.detail})")
        return {case: outcome}, False

    def end(self) -> None:
        self.ours.close()  # a child that waits for more goes by itself
        self.process.join(1)
        self.process.kill()
        self.process.join()


def _serve(parent: Connection, work: Work) -> None:
    import traceback

    _limit_data()
    reached = Resident()

    def begin(case: int) -> None:
        parent.send((case, reached.peak()))

    while True:
        try:
            part = parent.recv()
        except EOFError:
            return
        try:
            outcomes = work(part, begin)
        except Exception:
            parent.send(traceback.format_exc())
            return
        begin(-1)
        parent.send(outcomes)


def _limit_data() -> None:
    with suppress(ImportError, ValueError, OSError):  # no such limit on Windows
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (RESERVE, RESERVE))


class Resident:
    """Peak of the resident memory since the last look, in bytes; on Linux, elsewhere 0."""

    def peak(self) -> int:
        try:
            status = Path("/proc/self/status").read_text()
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            return 0
        return 1024 * int(status.split("VmHWM:")[1].split()[0])


@contextmanager
def captured() -> Iterator[Callable[[], tuple[str, str]]]:
    """Catch stdout and stderr as files, of C libraries too; the value reads what came so far."""
    streams, kept = (sys.stdout, sys.stderr), (os.dup(1), os.dup(2))
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        for number, file in ((1, out), (2, err)):
            os.dup2(file.fileno(), number)
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), "utf-8")
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), "utf-8", "backslashreplace")

        def texts() -> tuple[str, str]:
            sys.stdout.flush()
            sys.stderr.flush()
            found = []
            for file in (out, err):
                file.seek(0)
                found.append(file.read().decode("utf-8", "replace"))
                file.seek(0, os.SEEK_END)
            return found[0], found[1]

        try:
            yield texts
        finally:
            for number, copy in ((1, kept[0]), (2, kept[1])):
                os.dup2(copy, number)
                os.close(copy)
            sys.stdout, sys.stderr = streams
