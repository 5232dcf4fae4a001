"""Work that writes files, in processes that can be killed or given a bad disk.

Processes are forked from one that has imported everything, so that they start at once.
"""

import ctypes
import fcntl
import hashlib
import os
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

os.environ.pop("HF_HUB_OFFLINE", None)
os.environ["NO_PROXY"] = "*"

import tests.conftest  # noqa: F401  # isort: skip  (sets HF_ENDPOINT, one thread)
import torch
import yaml
from safetensors.torch import load_file

import qaudio
from qaudio.cards import files as card_files
from qaudio.cards.entries import verify
from qaudio.cli import guarded, main
from qaudio.data.audio import AudioCache
from qaudio.data.pack import pack
from qaudio.data.shards import PackedClips
from qaudio.deploy import cpp_kernel
from qaudio.evaluation.predictions import Predictions
from qaudio.training import cli  # noqa: F401  (heavy, and wanted before the fork)
from qaudio.zoo.store import read_results
from tests.support.esc50 import SETTINGS, make_esc50
from tests.support.hub import Repository, hub_on_loopback
from tests.support.networks import FRONTEND

RECIPE = {
    "trainer": {
        "max_epochs": 3, "accelerator": "cpu", "enable_progress_bar": False,
        "enable_model_summary": False,
    },
    "model": {
        "class_path": "qaudio.Classifier",
        "init_args": {
            "arch": "qcnn6_006", "frontend": FRONTEND, "lr": 0.01, "spec_augment": {},
            "mixup": {"alpha": 0.3, "probability": 0.5},
        },
    },
    "data": {
        "class_path": "qaudio.ESC50",
        "init_args": {"esc10": True, "seconds": 0.5, "batch_size": 8, "augment": {"roll": 0.5}},
    },
    "writer": {"entry": "toy.esc10", "keep_folds": True, "license": "cc0-1.0", "latency": False},
}  # fmt: skip
SOURCE = "hf-hub:your-name/toy"


@dataclass
class Job:
    """A piece of work on a folder.

    Attributes:
        prepare: makes the folder as it is before the work.
        work: what is to be done in it; returns an exit code.
        facts: what a folder holds, to be compared with that of another; raises where something
            looks whole that is not.
        arguments: the command that does the work in a process of its own, where there is one.
    """

    prepare: Callable[[Path], object]
    work: Callable[[Path], int]
    facts: Callable[[Path], dict]
    arguments: Callable[[Path], list[str]] | None = None


def jobs(top: Path) -> dict[str, Job]:
    """All kinds of work, on data that are made below `top`."""
    sounds = make_esc50(top / "ESC-50")
    recipe = top / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))
    clips = sorted((sounds / "audio").iterdir())

    def training(name: str, *more: str) -> Callable[[Path], list[str]]:
        return lambda folder: [
            name, f"--config={recipe}", f"--data.root={sounds}", f"--runs={folder / 'runs'}",
            f"--writer.folder={folder / 'zoo'}", *more,
        ]  # fmt: skip

    def command(arguments: Callable[[Path], list[str]]) -> Callable[[Path], int]:
        return lambda folder: main(arguments(folder))

    def fill(folder: Path) -> int:
        cache = AudioCache(folder / "cache")
        return guarded(lambda: sum(0 * len(cache.get(clip, 16000)) for clip in clips))

    def packing(folder: Path) -> int:
        data = qaudio.ESC50(str(sounds))
        return guarded(lambda: 0 * len(pack(data, folder / "packed", shard_bytes=60_000)))

    def toy(seed: int) -> qaudio.AudioModel:
        torch.manual_seed(seed)
        return qaudio.create_model("qcnn6_006", num_classes=2, frontend=SETTINGS)

    def saving(folder: Path, seed: int = 1) -> int:
        return guarded(lambda: 0 * len(str(qaudio.save(toy(seed), folder / "entry"))))

    train, cross = (
        training("train", "--data.fold=2", "--overwrite=true"),
        training("crossval", "--folds=[1,2]"),
    )
    first = training("crossval", "--folds=[1]")

    def verifying(folder: Path) -> int:
        """Write the entry's card over and over beside a crossval, which outlives a kill of this."""
        held(folder)  # by both, until the last of them has ended
        beside = os.fork()
        if not beside:
            os._exit(main(cross(folder)))
        with mock.patch.object(card_files, "is_current", lambda *_: False):
            while not (found := os.waitpid(beside, os.WNOHANG))[0]:
                assert main(["verify", "--write", str(folder / "zoo" / "toy.esc10")]) == 0
        if os.waitstatus_to_exitcode(found[1]) == -signal.SIGKILL:
            os.kill(os.getpid(), signal.SIGKILL)  # as it is told that the work was killed
        return os.waitstatus_to_exitcode(found[1])

    def verified(folder: Path) -> dict:
        os.close(held(folder))  # waits for a crossval that goes on
        return trained(folder)

    def building(folder: Path) -> int:
        (folder / "tmp").mkdir(exist_ok=True)
        tempfile.tempdir = str(folder / "tmp")
        return 0 if cpp_kernel.kernel.__wrapped__() is not None else 1

    pull = lambda folder: ["pull", SOURCE, "--out", str(folder / "entry")]  # noqa: E731
    return {
        "train": Job(command(first), command(train), trained, train),
        "crossval": Job(lambda folder: None, command(cross), trained, cross),
        "pack": Job(lambda folder: None, packing, packed),
        "pull": Job(saving, command(pull), entry, pull),
        "cache": Job(lambda folder: None, fill, cached),
        "entry": Job(lambda folder: saving(folder, 0), saving, entry),
        "verify": Job(command(first), verifying, verified),
        "kernel": Job(lambda folder: None, building, built),
    }


def files(folder: Path) -> dict:
    """sha256 of every file that is not hidden."""
    found = (p.relative_to(folder) for p in sorted(folder.rglob("*")) if p.is_file())
    return {
        str(path): hashlib.sha256((folder / path).read_bytes()).hexdigest()
        for path in found
        if not any(part.startswith(".") for part in path.parts)
    }


def trained(folder: Path) -> dict:
    """Weights, logits and scores, without what tells when they were made."""
    for path in (folder / "runs").rglob("*.ckpt"):
        torch.load(path, weights_only=False)
    cached(folder / "audio")
    facts: dict = {}
    for path in sorted((folder / "zoo").glob("[!.]*/config.json")):
        verify(path.parent)
        stored = read_results(path.parent)
        facts[path.parent.name] = {
            "weights": {
                weights.relative_to(path.parent).as_posix(): digest(load_file(weights))
                for weights in sorted(path.parent.rglob("*.safetensors"))
            },
            "logits": hashlib.sha256(
                Predictions.load(path.parent / "predictions.npz").logits.tobytes()
            ).hexdigest(),
            "result": stored.result.to_dict(),
        }
    return facts


def digest(tensors: dict[str, torch.Tensor]) -> str:
    """sha256 of tensors by name."""
    whole = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        whole.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return whole.hexdigest()


def packed(folder: Path) -> dict:
    if not (folder / "packed" / "index.json").is_file():
        return {}
    clips = PackedClips(str(folder / "packed"))
    count = len(clips.facts["clips"])
    items = {n: hashlib.sha256(clips.item(n)).hexdigest() for n in range(count + 1)}
    return files(folder / "packed") | items


def cached(folder: Path) -> dict:
    import numpy as np

    found = sorted(path for path in folder.rglob("[!.]*.npy"))
    return {path.name: hashlib.sha256(np.load(path).tobytes()).hexdigest() for path in found}


def entry(folder: Path) -> dict:
    verify(folder / "entry")
    return files(folder / "entry")


def held(folder: Path) -> int:
    """Take the lock of a folder, wait for it where another has it; descriptor of its file."""
    descriptor = os.open(folder.with_suffix(".lock"), os.O_WRONLY | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def built(folder: Path) -> dict:
    """Compiled kernels that would be loaded: they are, and must work."""
    made = {}
    for path in sorted((folder / "kernels").glob("[!.]*.so")):
        with suppress(OSError):  # one without its hash is built anew
            if cpp_kernel._is_ours(path):
                made[path.name] = cpp_kernel.Kernel(path).works()
    return made


# Processes.


def forked(
    work: Callable[[], int | None], log: Path, before: Callable[[], object] = lambda: None
) -> int:
    """Start work in a process of its own; its id. What it prints goes to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(out, 1)
        os.dup2(out, 2)
        before()
        code = work() or 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def ended(pid: int) -> int:
    """Wait for a process; its exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def at_home(folder: Path) -> None:
    """Point what this process caches into a folder."""
    from huggingface_hub import constants

    os.environ["QAUDIO_CACHE"] = str(folder)
    constants.HF_HUB_CACHE = str(folder / "hub")


def done(job: Job, folder: Path, before: Callable[[], object] = lambda: None) -> tuple[int, str]:
    """Do a job to its end; exit code and what it printed."""
    log = folder.with_suffix(".log")

    def begin() -> None:
        at_home(folder)
        before()

    code = ended(forked(lambda: job.work(folder), log, begin))
    return code, log.read_text()


def prepared(name: str, job: Job, top: Path) -> Path:
    """A folder as it is before the work, made once and copied after that."""
    first = top / "before" / name
    if not first.is_dir():
        first.mkdir(parents=True)
        log = first.with_suffix(".log")
        code = ended(forked(lambda: job.prepare(first), log, lambda: at_home(first)))
        assert code == 0, log.read_text()
    folder = top / f"{name}-{len(list(top.glob(f'{name}-*')))}"
    return Path(shutil.copytree(first, folder))


def file_events(folder: Path, act: Callable[[int], object]) -> None:
    """Call with the number of each opening for writing, renaming or removal below a folder."""
    count, below = 0, f"{folder}{os.sep}"
    kinds = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.symlink")

    def hook(event: str, arguments: tuple) -> None:
        nonlocal count
        if event not in kinds or not arguments or not str(arguments[0]).startswith(below):
            return
        if event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
            return
        count += 1
        act(count)

    sys.addaudithook(hook)


def die_at(folder: Path, number: int, delay: float) -> None:
    """Be killed some seconds after the process's file event of this number."""

    def kill() -> None:
        time.sleep(delay)
        os.kill(os.getpid(), signal.SIGKILL)

    def act(count: int) -> None:
        if count == number:
            threading.Thread(target=kill, daemon=True).start() if delay else kill()

    file_events(folder, act)


def small_disk(limit: int) -> None:
    """Let no file of this process grow beyond some bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def read_only(folder: Path) -> None:
    """Take the right to write from a folder's files and folders, also from root."""
    for path in (*folder.rglob("*"), folder):
        path.chmod(path.stat().st_mode & 0o555)
    # Root without its capabilities is an owner like any other (capset(2), version 3).
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    ctypes.CDLL(None).capset(header, data)


def writable(folder: Path) -> None:
    """Give it back."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode | 0o200)


class Served:
    """A Hub on loopback that holds a toy entry, in a process of its own."""

    def __init__(self, top: Path):
        torch.manual_seed(7)
        model = qaudio.create_model("qcnn6_006", num_classes=2, frontend=SETTINGS)
        folder = qaudio.save(model, top / "served", license="cc0-1.0")
        repo = Repository()
        held = [path for path in folder.rglob("*") if path.is_file()]
        repo.commit("main", {p.relative_to(folder).as_posix(): p.read_bytes() for p in held})
        self.repo, self.top = repo, top

    def __enter__(self) -> None:
        def serve() -> None:
            with hub_on_loopback() as hub:
                hub.repos["your-name/toy"] = self.repo
                while True:
                    time.sleep(3600)

        self.pid = forked(serve, self.top / "hub.log")

    def __exit__(self, *_: object) -> None:
        os.kill(self.pid, signal.SIGKILL)
        ended(self.pid)
