"""What `embed` and `predict` share: options, and a network over files with its summary."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from collections.abc import Callable, Collection, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qaudio.commands.common import add_model, add_windows, positive, say_beside_bar
from qaudio.errors import AudioError, DataError, UsageError
from qaudio.inference.journal import Journal
from qaudio.progress import progress
from qaudio.text import shown
from qaudio.zoo.resolve import load

if TYPE_CHECKING:
    from qaudio.inference.files import FileResult


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
        "--device", metavar="NAME", help="what the network runs on: cpu, cuda, cuda:1, mps (cpu)"
    )
    sub.add_argument(
        "--resume", action="store_true", help="go on where a run stopped that was interrupted"
    )


def open_model(source: str, threads: int, device: str | None = None) -> Any:
    """An entry on a device, or an exported file with its number of threads, on the CPU.

    Raises:
        UsageError: for a device that cannot be used.
    """
    if source.endswith(".onnx"):
        from qaudio.deploy.onnx.runtime import OnnxModel

        if device not in (None, "cpu"):
            raise UsageError(f"--device {device}: an exported file runs on the CPU; give an entry")
        return OnnxModel(source, threads)
    model = load(source)
    try:
        return model if device is None else model.to(device)
    except (RuntimeError, AssertionError) as error:  # torch raises either
        raise UsageError(f"--device {device}: {str(error).partition(chr(10))[0]}") from None


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


class FilesRun:
    """A network over the sound files that a command names.

    What arguments name that is not read is said on stderr, files of one fault in one line; so are
    files that cannot be used, as they come.

    Args:
        options: of `add_options`.
        files: its arguments.
        work: as `qaudio.inference.files.over_files` takes it.

    Attributes:
        paths: of the files.
        faults: how many arguments name nothing that is read.
        failed: how many of the files cannot be used.
    """

    def __init__(
        self, options: argparse.Namespace, files: list[str], work: Callable[..., Any]
    ) -> None:
        from qaudio.inference.files import cores, find_sounds

        self.options, self.work, self.jobs = options, work, options.jobs or cores()
        self.paths, faults = find_sounds(files)
        self.faults, self.files, self.windows, self.failed, self.seconds = len(faults), 0, 0, 0, 0.0
        by_fault: dict[str, list[str]] = {}
        for path, fault in faults:
            by_fault.setdefault(fault, []).append(path)
        for fault, paths in by_fault.items():
            more = f" and {len(paths) - 1} more files" if len(paths) > 1 else ""
            say_beside_bar(f"{shown(paths[0])}{more}: {fault}")

    @cached_property
    def model(self) -> Any:
        """The network, opened at first use; what comes after is timed."""
        from qaudio.inference.files import threads_per_file

        threads = threads_per_file(self.jobs, len(self.paths))
        model = open_model(self.options.model, threads, self.options.device)
        self.begun = time.perf_counter()
        return model

    def results(self, done: Collection[str] = ()) -> Iterator[FileResult[Any]]:
        """What is found in each file, with a bar over them, or over the seconds of a single one.

        Args:
            done: absolute paths of files that are left out.
        """
        for result in self._run([p for p in self.paths if os.path.abspath(p) not in done], done):
            self.files += 1
            if result.found is None:
                from qaudio.data.audio import display_name

                self.failed += 1
                say_beside_bar(f"{display_name(result.path)}: {result.error}")
            else:
                self.windows += len(result.found.spans)
                self.seconds += float(result.found.spans[-1, 1])
            yield result

    def _run(self, paths: list[str], done: Collection[str]) -> Iterator[FileResult[Any]]:
        from qaudio.data.audio import info
        from qaudio.inference.files import over_files

        run = partial(
            over_files, self.model, paths, self.work, window=self.options.window,
            hop=self.options.hop, jobs=self.jobs,
        )  # fmt: skip
        if len(paths) != 1:
            total = len(done) + len(paths)
            yield from progress(run(), unit="file", total=total, initial=len(done))
            return
        try:
            seconds: float | None = info(paths[0]).seconds
        except (AudioError, OSError):
            seconds = None  # the run says what is wrong with it
        with progress(unit="s", total=seconds) as bar:
            yield from run(progress=lambda done: bar.update(done - bar.n))

    def summary(self, journal: Journal | None = None) -> str:
        """A line on what was done; with the totals of a journal that earlier runs wrote as well."""
        elapsed = time.perf_counter() - self.begun
        files, windows, failed, before = self.files, self.windows, self.failed, ""
        if journal is not None:
            files, windows, failed = len(journal.done), journal.windows, journal.failed
            before = f" ({files - self.files} of them before)" if files > self.files else ""
        return (
            f"{files + self.faults} files{before}, {windows} windows, "
            f"{failed + self.faults} failed; "
            f"{elapsed:.1f} s, {self.seconds / max(elapsed, 1e-9):.1f} s of sound per second"
        )

    def write(
        self,
        out: Path,
        partial: Path,
        record_of: Callable[[str, Any], dict[str, Any]],
        finish: Callable[[Journal], None] = lambda journal: None,
        **settings: Any,
    ) -> int:
        """Make files of what is found, in a run that can be interrupted; the exit code.

        Args:
            out: what is made, for what is said of it.
            partial: the journal, deleted when all is made or it holds no file.
            record_of: what is kept of a file, by its path and what was found.
            finish: makes of the journal what is made at the end.
            **settings: that a run which goes on has in common, beside the network and its windows.

        Raises:
            DataError: when it cannot be written, or the journal is that of another run.
            KeyboardInterrupt: with what is done and how to go on.
        """
        options = self.options
        same = {
            "command": options.parser.prog.rpartition(" ")[2],
            "model": fingerprint(options.model, self.model), "window": options.window,
            "hop": options.hop,
        }  # fmt: skip
        try:
            journal = Journal(partial, same | settings, options.resume)
        except OSError as error:
            name = shown(str(out))
            raise DataError(f"{name} cannot be written: {error.strerror or error}") from None
        keep = True
        try:
            for result in self.results(journal.done):
                if result.found is None:
                    journal.add(result.path, {"error": result.error})
                else:
                    kept = record_of(result.path, result.found)
                    journal.add(result.path, kept | {"windows": len(result.found.spans)})
            finish(journal)
            print(f"{shown(str(out))}: {self.summary(journal)}")
            keep = False
            return 1 if journal.failed or self.faults else 0
        except KeyboardInterrupt:
            if not journal.done:
                raise
            raise KeyboardInterrupt(
                f"{len(journal.done)} files are done, in {shown(str(partial))}; --resume goes on"
            ) from None
        finally:
            journal.close(keep and bool(journal.done))
