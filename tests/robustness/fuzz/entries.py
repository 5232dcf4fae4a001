"""Entries that are spoilt or forged, and what `load`, `info` and `verify` make of them.

Whatever the folder holds, each must end in an answer or in one line that names entry and fault,
with nothing outside the folder read or written, nothing run, and no memory asked for in advance.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch

import qaudio
from qaudio.errors import EntryError
from qaudio.evaluation.bootstrap import summarise
from qaudio.evaluation.per_class import FILE, report
from tests.robustness.fuzz.isolated import Begin, Outcome, captured, in_child
from tests.robustness.fuzz.sandbox import content_of, listening, no_line
from tests.robustness.fuzz.spoil import SPOIL, TIMES, rehash
from tests.support.comparison import LABELS, made

NAME = "tiny.made"
LOCK = ".zoo.lock"  # that writers of entries share
SECRET = "SECRET"
# Calls of Python's that would run code or leave the machine; see its table of audit events.
RUNS = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect",
        "pickle.find_class", "ctypes.dlopen")  # fmt: skip
SECONDS = 30.0  # that the six calls of a case may take


def made_model() -> qaudio.AudioModel:
    """A network as small as they come."""
    settings = {"sample_rate": 8000, "n_fft": 256, "hop_length": 80, "n_mels": 32, "f_max": 4000.0}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = qaudio.create_model("qcnn6_006", num_classes=len(LABELS), frontend=settings)
    model.labels, model.eval_seconds = list(LABELS), 1.0
    return model.eval()


def made_entry(folder: Path) -> Path:
    """A whole entry: two folds scored, with card, picture, report and the folds' weights."""
    template = json.loads((Path(__file__).parents[2] / "zoo/schema1/results.json").read_text())
    predictions, model = made(), made_model()
    results = template | {
        "entry": NAME, "complete": True, "result": summarise(predictions, "accuracy").to_dict(),
    }  # fmt: skip
    return qaudio.save(
        model, folder / NAME, results=results, predictions=predictions, recipe="model: {}\n",
        license="cc0-1.0", folds={"folds/1.safetensors": model.state_dict()},
        extra={FILE: json.dumps(report(predictions, LABELS))},
    )  # fmt: skip


def spoilt(seed: int, case: int, whole: Path, sandbox: Path) -> tuple[Path, str, bool]:
    """The entry of a case, in sandbox/zoo; how it was spoilt, and whether it must be refused."""
    rng = random.Random(f"entries {seed} {case}")
    entry = sandbox / "zoo" / NAME
    shutil.copytree(whole, entry)
    (sandbox / "outside").mkdir()
    (sandbox / "outside" / "secret.json").write_text(json.dumps({"file": SECRET}))
    ways = [name for name in SPOIL for _ in range(TIMES.get(name, 1))]
    chosen, refuse = rng.sample(ways, rng.choice((1, 1, 1, 2))), False
    for n, way in enumerate(chosen):
        try:
            must = SPOIL[way](entry, rng)
        except Exception:
            if not n:
                raise
            continue  # the first way left nothing for the second
        refuse = refuse or bool(must)
    if rng.random() < 0.9:
        rehash(entry)
    return entry, " + ".join(chosen), refuse


def run(seed: int, cases: Sequence[int]) -> Iterator[tuple[int, Outcome]]:
    """Outcomes of cases."""
    with tempfile.TemporaryDirectory() as folder:
        whole = made_entry(Path(folder))
        yield from in_child(partial(try_out, seed=seed, whole=whole), cases, 20, SECONDS)


def try_out(cases: Sequence[int], begin: Begin, *, seed: int, whole: Path) -> dict[int, Outcome]:
    outcomes = {}
    for case in cases:
        with tempfile.TemporaryDirectory() as sandbox:
            entry, ways, refuse = spoilt(seed, case, whole, Path(sandbox).resolve())
            begin(case)
            outcomes[case] = _judged(entry, ways, refuse)
            begin(-1)
    return outcomes


def _judged(entry: Path, ways: str, refuse: bool) -> Outcome:
    sandbox = entry.parents[1]
    before, said, faults = content_of(sandbox / "outside"), [], []
    with _watched(entry) as events:
        for call in (_load, *(partial(_command, words) for words in COMMANDS)):
            refusal, fault = call(entry)
            said.append(refusal)
            faults += [fault] if fault else []
    faults += [f"touched {event}" for event in events]
    if content_of(sandbox / "outside") != before:
        faults.append("wrote outside the folder")
    if left := {*os.listdir(entry.parent)} - {NAME, LOCK}:
        faults.append(f"left {sorted(left)}")
    if refuse and said[-2] is None:
        faults.append("verify found nothing wrong")
    if faults:
        return Outcome(f"{ways}: fault", "; ".join(faults)[:2000], fault=True)
    refused = next((refusal for refusal in said if refusal), None)
    return Outcome(f"{ways}: {'refused' if refused else 'fine'}", refused or "")


# The last comes after `verify`, for it mends cards.
COMMANDS = (("info",), ("info", "--json"), ("compare",), ("verify",), ("verify", "--write"))


def _load(entry: Path) -> tuple[str | None, str | None]:
    """The refusal, if any; and what is wrong with it."""
    with captured() as texts:
        try:
            qaudio.load(entry)
        except EntryError as error:
            return str(error), _no_line(str(error))
        except BaseException as error:
            return None, f"load: {error!r}"
        return None, f"load said {texts()}" if any(texts()) else None


def _command(words: tuple[str, ...], entry: Path) -> tuple[str | None, str | None]:
    from qaudio.cli import main

    with captured() as texts:
        try:
            code = main([*words, str(entry)])
        except BaseException as error:
            return None, f"{' '.join(words)}: {error!r}"
        out, err = texts()
    what = " ".join(words)
    if SECRET in out + err:
        return None, f"{what}: told what lies outside"
    if code == 0 and not err:
        controls = [c for c in out if not c.isprintable() and c != "\n"]
        return None, f"{what}: showed {controls}" if controls else None
    if code != 1 or not err.startswith("qaudio: ") or err.count("\n") != 1:
        return None, f"{what}: exit code {code}, on stderr {err[-500:]!r}"
    return err, _no_line(err.rstrip("\n"))


def _no_line(text: str) -> str | None:
    """What is wrong with a refusal."""
    return no_line(text) or (None if NAME in text else f"names no entry: {text[:300]!r}")


@contextlib.contextmanager
def _watched(entry: Path) -> Iterator[set[str]]:
    """What was touched meanwhile that is none of the entry's business.

    Python's own calls only: what a C library opens by itself goes unseen, so links are also known
    by what comes of them.
    """
    sandbox, parent = str(entry.parents[1]), str(entry.parent)
    seen: set[str] = set()

    def listen(event: str, arguments: tuple) -> None:
        if event in RUNS and arguments != (None,):  # dlopen of the process itself: its C library
            seen.add(f"{event} {arguments!r}"[:200])
        if event not in ("open", "os.listdir", "os.scandir") or not arguments:
            return
        if not isinstance(arguments[0], str | bytes):
            return
        path = os.path.realpath(os.fsdecode(arguments[0]))
        if path == tempfile.gettempdir():
            return  # an unnamed file, of `captured`
        ours = path == parent or path.startswith(
            (f"{parent}/{NAME}", f"{parent}/.{NAME}.", f"{parent}/{LOCK}")
        )
        mode = arguments[1] if event == "open" else "r"
        writes = isinstance(mode, str) and any(c in mode for c in "wax+")
        if not ours and (path.startswith(sandbox) or writes or path == "/etc/passwd"):
            seen.add(f"{event} {path} {mode}")

    with listening(listen):
        yield seen
