"""What every case has in common: a folder of its own, what it may touch, what a command may say."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import soundfile

from tests.robustness.fuzz.isolated import Begin, Outcome, captured, in_child

SECRET = "SECRET"
REPOSITORY = Path(__file__).resolve().parents[3]
# Calls of Python's that would run code or leave the machine; see its table of audit events.
RUNS = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect",
        "pickle.find_class", "ctypes.dlopen")  # fmt: skip
SECONDS = 10.0  # that a command may take
SIZE = 1200  # characters that a refusal may have
RATE = 8000  # of the sounds


@dataclass
class Trial:
    """A case that is made ready.

    Attributes:
        ways: how its input was spoilt, in words.
        commands: what is called with it, one after the other.
        refuse: whether one of them must refuse it.
        runs: whether what an audit event tells of is run with good reason.
    """

    ways: str
    commands: list[list[str]]
    refuse: bool = False
    runs: Callable[[str, tuple], bool] = lambda event, arguments: False


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes:
        prepare: makes whole inputs in a folder, once.
        trial: given random numbers, that folder, a sandbox and whether it is to stay whole, puts
            the input into the sandbox's `work`. Commands run there.
    """

    prepare: Callable[[Path], None]
    trial: Callable[[random.Random, Path, Path, bool], Trial]


def run(
    name: str, kind: Kind, seed: int, cases: Sequence[int], seconds: float = SECONDS
) -> Iterator[tuple[int, Outcome]]:
    """Outcomes of cases, each in a process of its own; every tenth is whole, and must be answered.

    Args:
        name: of the kind, part of the seed.
        kind: of input.
        seed: with a case's number it gives the same case again.
        cases: their numbers.
        seconds: that a command may take.
    """
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder).resolve() / "whole"
        whole.mkdir()
        kind.prepare(whole)
        work = partial(_try_out, name=name, kind=kind, seed=seed, whole=whole)
        yield from in_child(work, cases, 1, seconds, alone=True)


def _try_out(
    cases: Sequence[int], begin: Begin, *, name: str, kind: Kind, seed: int, whole: Path
) -> dict[int, Outcome]:
    outcomes = {}
    for case in cases:
        with tempfile.TemporaryDirectory(dir=whole.parent) as folder:
            sandbox = Path(folder)
            (sandbox / "outside").mkdir()
            (sandbox / "outside" / "secret.txt").write_text(f"{SECRET},0123456789\n")
            (sandbox / "work" / "tmp").mkdir(parents=True)
            keep = case % 10 == 0
            trial = kind.trial(random.Random(f"{name} {seed} {case}"), whole, sandbox, keep)
            outcomes[case] = _judged(trial, sandbox, keep, partial(begin, case))
            begin(-1)
            tempfile.tempdir = None
    return outcomes


def _judged(trial: Trial, sandbox: Path, keep: bool, begin: Callable[[], None]) -> Outcome:
    work = sandbox / "work"
    os.environ["QAUDIO_CACHE"] = str(work / "cache")
    os.chdir(work)
    tempfile.tempdir = str(work / "tmp")
    before, refused, faults = content_of(sandbox / "outside"), [], []
    with watched(sandbox, work, trial.runs) as events:
        for words in trial.commands:
            begin()
            refusal, fault = command(words)
            refused += [refusal] if refusal else []
            faults += [fault] if fault else []
    faults += [f"touched {event}" for event in sorted(events)]
    if content_of(sandbox / "outside") != before:
        faults.append("wrote outside its folder")
    if keep and refused:
        faults.append(f"whole, but refused: {refused[0]}")
    if trial.refuse and not refused:
        faults.append("nothing refused it")
    if faults:
        return Outcome(f"{trial.ways}: fault", "; ".join(faults)[:2000], fault=True)
    first = refused[0] if refused else ""
    return Outcome(f"{trial.ways}: {'refused' if refused else 'fine'}", first)


def command(words: Sequence[str]) -> tuple[str | None, str | None]:
    """What a command refuses, if it does; and what is wrong with how it ends."""
    from qaudio.cli import main

    what = " ".join(words[:2])
    with captured() as texts:
        try:
            code = main(words)
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 70
        except BaseException as error:
            return None, f"{what}: {error!r}"
        out, err = texts()
    if SECRET in out + err:
        return None, f"{what}: told what lies outside"
    if "Traceback (most" in err:
        return None, f"{what}: {err[-800:]!r}"
    controls = {c for c in out + err if not c.isprintable() and c not in "\n\t\r"}
    if controls:
        return None, f"{what}: showed {controls}"
    if code == 0 or (words[0] == "test" and ", recorded " in out):  # another score is no fault
        return None, None
    last = err.rstrip("\n").rpartition("\n")[2]
    if code not in (1, 2) or not last.startswith("qaudio"):
        return None, f"{what}: exit code {code}, on stderr {err[-500:]!r}"
    return last, no_line(last)


def no_line(text: str) -> str | None:
    """What is wrong with a refusal."""
    if not text.isprintable() or len(text) > SIZE:
        return f"no line: {text[:300]!r}"
    if "allocate" in text:
        return f"ran out of memory first: {text[:300]!r}"
    return None


def content_of(folder: Path) -> dict[str, bytes | None]:
    """Every file of a folder."""
    found = sorted(folder.rglob("*"))
    return {str(path): path.read_bytes() if path.is_file() else None for path in found}


_listeners: list[Callable[[str, tuple], None]] = []


def _audit(event: str, arguments: tuple) -> None:
    for listener in _listeners:
        listener(event, arguments)


@cache
def _install() -> None:
    sys.addaudithook(_audit)  # for good: a hook cannot be taken off


@contextlib.contextmanager
def listening(listener: Callable[[str, tuple], None]) -> Iterator[None]:
    """Let a function hear of Python's audit events meanwhile."""
    _install()
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


@contextlib.contextmanager
def watched(
    sandbox: Path, work: Path, runs: Callable[[str, tuple], bool] = Trial.runs
) -> Iterator[set[str]]:
    """What was run meanwhile, read of the sandbox outside of `work`, or written elsewhere.

    What `runs` says yes to is left out.

    Python's own calls only: what a C library opens by itself goes unseen.
    """
    top, inside = str(sandbox), str(work)
    seen: set[str] = set()

    def listen(event: str, arguments: tuple) -> None:
        if event in RUNS and not (_expected(event, arguments, top) or runs(event, arguments)):
            seen.add(f"{event} {arguments!r}"[:200])
        if event not in ("open", "os.listdir", "os.scandir") or not arguments:
            return
        if not isinstance(arguments[0], str | bytes):
            return
        path = os.path.realpath(os.fsdecode(arguments[0]))
        ours = path in (inside, os.devnull) or path.startswith(f"{inside}{os.sep}")
        if ours or path.startswith(f"/proc/{os.getpid()}/"):
            return
        _, mode, flags = (*arguments, None, None)[:3] if event == "open" else (path, "r", 0)
        writes = isinstance(mode, str) and any(c in mode for c in "wax+")
        writes = writes or bool((flags or 0) & (os.O_WRONLY | os.O_RDWR))
        if path.startswith(top) or writes or path == "/etc/passwd":
            seen.add(f"{event} {path} {mode}")

    with listening(listen):
        yield seen


def _expected(event: str, arguments: tuple, top: str) -> bool:
    """Whether something is run that is none of the input's business."""
    if event == "ctypes.dlopen":  # the C library, drivers
        name = arguments[0]
        return name is None or os.sep not in name or not os.path.realpath(name).startswith(top)
    # The commit of a recipe.
    return event == "subprocess.Popen" and arguments[0] == "git" and arguments[2] == REPOSITORY


def make_sounds(folder: Path, classes: Sequence[str] = ("a", "b", "c"), each: int = 4) -> None:
    """A few short sounds of each class."""
    rng, time = np.random.default_rng(0), np.arange(RATE // 5) / RATE
    for n, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for take in range(each):
            tone = 0.3 * np.sin(2 * np.pi * (200 + 400 * n + 10 * take) * time)
            samples = tone + 0.02 * rng.standard_normal(len(time))
            soundfile.write(folder / name / f"{take}.wav", samples, RATE)


def flipped(data: bytes, rng: random.Random) -> bytes:
    """Bytes that were changed somewhere: flipped, cut, spliced, zeroed, or others altogether."""
    new, way = bytearray(data or b"\0"), rng.randrange(7)
    start = rng.randrange(len(new))
    end = min(len(new), start + rng.choice((1, 16, 300)))
    if way < 2:
        reach = rng.choice((64, 512, len(new)))
        for _ in range(rng.choice((1, 1, 4, 32))):
            new[rng.randrange(min(reach, len(new)))] ^= 1 << rng.randrange(8)
    elif way == 2:
        del new[start:]
    elif way == 3:
        del new[start:end]
    elif way == 4:
        new[start:end] = bytes(end - start)
    elif way == 5:
        new[start:start] = new[start:end] * rng.choice((1, 40))
    else:
        junk = (b"", b"\0", b"\x80\x04", b"PK\x03\x04", b"{}", b"[" * 100_000, rng.randbytes(3000))
        return rng.choice(junk)
    return bytes(new)


def misplaced(path: Path, sandbox: Path, rng: random.Random, named: bool = False) -> str:
    """Something else in the place of a file or folder; what, in a word.

    What the command itself names (`named`) may be a link to wherever its user likes.
    """
    if path.is_dir():
        shutil.rmtree(path)
    elif path.is_file():
        path.unlink()
    ways = ("a folder", "a pipe", "a device", "a loop", "missing", *["a link out"] * (not named))
    way = rng.choice(ways)
    if way == "a folder":
        path.mkdir()
    elif way == "a pipe":
        os.mkfifo(path)
    elif way == "a device":
        path.symlink_to("/dev/zero")
    elif way == "a loop":
        path.symlink_to(path.name)
    elif way == "a link out":
        path.symlink_to(sandbox / "outside" / "secret.txt")
    return way
