"""What `embed` and `predict` share: options, progress, the unfinished part, and the summary."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from qaudio.commands.common import add_model, add_windows, positive, say_beside_bar
from qaudio.errors import AudioError, DataError
from qaudio.inference.journal import Journal
from qaudio.text import shown
from qaudio.zoo.resolve import load

if TYPE_CHECKING:
    from qaudio.inference.files import FileResult
    from qaudio.prediction import Analysis, Embeddings

Found = TypeVar("Found", bound="Analysis | Embeddings")


def add_options(sub: argparse.ArgumentParser, exported: bool = False) -> None:
    """The options of a command that runs a network over files."""
    sub.add_argument(
        "files", nargs="*",
        help="sound files, folders of them, and patterns in quotes: 'sounds/**/*.wav'",
    )  # fmt: skip
    add_model(sub, exported)
    add_windows(sub, "the whole sound up to 30 s, 10 s beyond")
    sub.add_argument("--jobs", type=positive, metavar="N", help="processor cores to use (all)")
    sub.add_argument(
        "--resume", action="store_true", help="go on where a run stopped that was interrupted"
    )


def open_model(source: str, threads: int) -> Any:
    """An entry, or an exported file, which takes its number of threads when it is opened."""
    if source.endswith(".onnx"):
        from qaudio.deploy.onnx.runtime import OnnxModel

        return OnnxModel(source, threads)
    return load(source)


def fingerprint(source: str, model: Any) -> str:
    """A hash of a network's config and weights."""
    digest = hashlib.sha256()
    if source.endswith(".onnx"):
        digest.update(Path(source).read_bytes())
    else:
        digest.update(json.dumps(model.config.to_dict(), sort_keys=True).encode())
        for name, tensor in model.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.cpu().double().numpy().tobytes())  # numpy lacks bfloat16
    return digest.hexdigest()


def say_faults(faults: list[tuple[str, str]]) -> None:
    """Say on stderr what arguments name that is not read; files of one fault in one line."""
    by_fault: dict[str, list[str]] = {}
    for path, fault in faults:
        by_fault.setdefault(fault, []).append(path)
    for fault, paths in by_fault.items():
        more = f" and {len(paths) - 1} more files" if len(paths) > 1 else ""
        say_beside_bar(f"{shown(paths[0])}{more}: {fault}")


@dataclass
class Tally:
    """What a run over files did, for the line at its end.

    Attributes:
        unread: what the arguments name that is not read, such as files of other formats.
        files, windows, failed, seconds: of the others.
    """

    unread: int = 0
    files: int = 0
    windows: int = 0
    failed: int = 0
    seconds: float = 0.0
    _begun: float = field(default_factory=time.perf_counter)

    def add(self, result: FileResult[Any]) -> None:
        """Count a file; one that cannot be used is said on stderr."""
        self.files += 1
        if result.found is None:
            from qaudio.data.audio import display_name

            self.failed += 1
            say_beside_bar(f"{display_name(result.path)}: {result.error}")
        else:
            self.windows += len(result.found.spans)
            self.seconds += float(result.found.spans[-1, 1])

    def summary(self, journal: Journal | None = None) -> str:
        """The line; with the totals of a journal where earlier runs wrote it as well."""
        elapsed = time.perf_counter() - self._begun
        files, windows, failed = self.files, self.windows, self.failed
        before = ""
        if journal is not None:
            failed += journal.failed - self.failed
            files, windows = len(journal.done), journal.windows
            before = f" ({files - self.files} of them before)" if files > self.files else ""
        return (
            f"{files + self.unread} files{before}, {windows} windows, "
            f"{failed + self.unread} failed; "
            f"{elapsed:.1f} s, {self.seconds / max(elapsed, 1e-9):.1f} s of sound per second"
        )


def over(
    model: Any, work: Callable[..., Found], options: argparse.Namespace, jobs: int,
    paths: list[str], before: int = 0,
) -> Iterator[FileResult[Found]]:  # fmt: skip
    """What `work` finds in files, with a bar over them, or over the seconds of a single one.

    Args:
        work: as `qaudio.inference.files.over_files` takes it.
        options: of `add_options`.
        before: files that an earlier run did.
    """
    from tqdm import tqdm

    from qaudio.data.audio import info
    from qaudio.inference.files import over_files

    run = partial(over_files, model, paths, work, window=options.window, hop=options.hop, jobs=jobs)
    settings: Any = {"delay": 2, "leave": False, "disable": None}  # None where stderr is a file
    if len(paths) != 1:
        settings |= {"total": before + len(paths), "initial": before}
        yield from tqdm(run(), unit="file", **settings)
        return
    try:
        seconds: float | None = info(paths[0]).seconds
    except (AudioError, OSError):
        seconds = None  # the run says what is wrong with it
    with tqdm(unit="s", total=seconds, **settings) as bar:
        yield from run(progress=lambda done: bar.update(done - bar.n))


def record(
    run: Callable[..., Iterator[FileResult[Found]]], paths: list[str],
    journal: Journal, tally: Tally, record_of: Callable[[str, Found], dict[str, Any]],
) -> None:  # fmt: skip
    """Run over the files that a journal lacks, put what is found into it, and count them.

    Args:
        run: gives the results of files; takes them, and the number of those done before.
        record_of: what is kept of a file, by its path and what was found.
    """
    rest = [path for path in paths if os.path.abspath(path) not in journal.done]
    for result in run(rest, len(journal.done)):
        tally.add(result)
        if result.found is None:
            journal.add(result.path, {"error": result.error})
        else:
            kept = record_of(result.path, result.found)
            journal.add(result.path, kept | {"windows": len(result.found.spans)})


@contextmanager
def unfinished(
    path: Path, settings: dict[str, Any], resume: bool, output: str | os.PathLike
) -> Iterator[Journal]:
    """The journal of a run, deleted when the block ends well or it holds no file.

    Raises:
        DataError: when it cannot be written, or is that of another run.
        KeyboardInterrupt: from the block, with what is done and how to go on.
    """
    try:
        journal = Journal(path, settings, resume)
    except OSError as error:
        name = shown(os.fspath(output))
        raise DataError(f"{name} cannot be written: {error.strerror or error}") from None
    keep = True
    try:
        yield journal
        keep = False
    except KeyboardInterrupt:
        if not journal.done:
            raise
        raise KeyboardInterrupt(
            f"{len(journal.done)} files are done, in {shown(str(path))}; --resume goes on"
        ) from None
    finally:
        journal.close(keep and bool(journal.done))
