"""Networks over many files: several at once, in order, and in memory that their number leaves."""

from __future__ import annotations

import glob
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from qaudio.data.audio import CONVERT, SOUNDS, UNREAD, display_name, sound_files
from qaudio.deploy.onnx.runtime import OnnxModel
from qaudio.errors import AudioError, InputError
from qaudio.inference.selection import Selection
from qaudio.prediction import Embeddings, analyse, embeddings

if TYPE_CHECKING:
    from qaudio.models.base import AudioModel

Paths = str | os.PathLike | Iterable[str | os.PathLike]
Progress = Callable[[float], None]
Found = TypeVar("Found")


@dataclass(frozen=True)
class Embedding:
    """The embedding of a file or of one of its windows.

    Attributes:
        start, end: seconds; None for a file that cannot be used.
        vector: (D,) float32; None for a file that cannot be used.
        error: why it cannot be used, in one line.
    """

    file: str
    start: float | None
    end: float | None
    vector: np.ndarray | None
    error: str | None = None


@dataclass(frozen=True)
class FilePrediction:
    """One class of one stretch of a file.

    Attributes:
        start, end: seconds; these and the rest are None for a file that cannot be used.
        label: class name, or "class N" for a model without names.
        probability: softmax, or sigmoid for multi-label models; of an event, its highest.
        error: why it cannot be used, in one line.
    """

    file: str
    start: float | None
    end: float | None
    label: str | None
    index: int | None
    probability: float | None
    error: str | None = None


@dataclass(frozen=True)
class FileResult(Generic[Found]):
    """What a network found in a file, or why the file cannot be used."""

    path: str
    found: Found | None
    error: str | None = None


class _Stopped(Exception):
    """Nobody waits for the results any more."""


def embed_files(
    model: AudioModel,
    files: Paths,
    *,
    window: float | None = None,
    hop: float | None = None,
    jobs: int | None = None,
) -> Iterator[Embedding]:
    """Embeddings of many files, one after the other as they are asked for.

    Args:
        model: used in eval mode and left in the mode it was in.
        files: sound files, folders of them, patterns such as `"sounds/**/*.wav"`.
        window: seconds; None: a record per file, the mean over 10 s windows beyond 30 s. A number
            gives a record per window.
        hop: seconds from window to window; None: half a window.
        jobs: processor cores to use; None: all that this process may use.

    Yields:
        Records in the order of the files; one with `error` for a file that cannot be used.

    Raises:
        ValueError: for a window, hop or jobs out of range.
        TypeError: when `model` is a name or an exported one.
    """
    for result in _over_all(model, files, embedded, window=window, hop=hop, jobs=jobs):
        if result.found is None:
            yield Embedding(result.path, None, None, None, result.error)
            continue
        for (start, end), vector in zip(result.found.spans, result.found.vectors, strict=True):
            yield Embedding(
                result.path, round(float(start), 3), round(float(end), 3), vector.copy()
            )


def predict_files(
    model: AudioModel | OnnxModel,
    files: Paths,
    *,
    window: float | None = None,
    hop: float | None = None,
    top_k: int | None = None,
    threshold: float | list[float] | np.ndarray | None = None,
    merge: bool = False,
    low_threshold: float | list[float] | np.ndarray | None = None,
    min_duration: float = 0.0,
    jobs: int | None = None,
) -> Iterator[FilePrediction]:
    """Classes of many files, one after the other as they are asked for.

    `pandas.DataFrame(qaudio.predict_files(model, "my_sounds"))` is a table of them.

    Args:
        model: as for `qaudio.predict`.
        files, window, hop, jobs: as for `embed_files`; the probabilities of a file without
            `window` are the mean over its windows.
        top_k: classes of each file or window; None: 5, or all where there is a threshold.
        threshold: least probability, a number or one per class; None: any, or 0.5 to merge.
        merge: join consecutive windows of a class to events.
        low_threshold: down to which an event goes on once it has reached `threshold`; None: that.
        min_duration: of an event, in seconds.

    Yields:
        Records in the order of the files; one with `error` for a file that cannot be used, none
        for a file without a class above the threshold.

    Raises:
        ValueError: for a setting out of range.
        TypeError: when `model` is a name.
    """
    selection = Selection(
        top_k=top_k, threshold=threshold, merge=merge, low_threshold=low_threshold,
        min_duration=min_duration, windows=window is not None,
    )  # fmt: skip
    for result in _over_all(model, files, analyse, window=window, hop=hop, jobs=jobs):
        if result.found is None:
            yield FilePrediction(result.path, None, None, None, None, None, result.error)
            continue
        for p in selection.of(result.found):
            yield FilePrediction(result.path, p.start, p.end, p.label, p.index, p.probability)


def _over_all(
    model: AudioModel | OnnxModel, files: Paths, work: Callable[..., Found], **settings: Any
) -> Iterator[FileResult[Found]]:
    """`over_files` of what arguments name, after those that name nothing that is read."""
    paths, faults = find_sounds(files)
    for path, fault in faults:
        yield FileResult(path, None, fault)
    yield from over_files(model, paths, work, **settings)


def find_sounds(files: Paths) -> tuple[list[str], list[tuple[str, str]]]:
    """The files that arguments name, each once: files, folders to be searched, and patterns.

    Returns:
        Paths in the order of the arguments; and arguments that name nothing, with the reason.
    """
    arguments = [files] if isinstance(files, (str, os.PathLike)) else files
    paths: dict[str, str] = {}  # by absolute path
    faults = []
    for argument in map(os.fsdecode, arguments):
        if os.path.isdir(argument):
            found = [str(path) for path in sound_files(argument)]
            fault = "a folder without sound files"
            unread = [str(path) for path in sound_files(argument, UNREAD)]
            faults += [(path, CONVERT) for path in unread]
            if unread and not found:
                continue
        elif os.path.exists(argument) or not glob.has_magic(argument):
            found = [argument]  # one that is missing is reported like one that cannot be read
        else:
            found, fault = _matching(argument), "matches no sound files"
        if not found:
            faults.append((argument, fault))
        for path in found:
            paths.setdefault(os.path.abspath(path), path)
    return list(paths.values()), faults


def _matching(pattern: str) -> list[str]:
    found = []
    for path in sorted(glob.glob(pattern, recursive=True)):
        if os.path.isfile(path) and os.path.splitext(path)[1].lower() in SOUNDS:
            found.append(path)
        elif os.path.isdir(path) and "**" not in pattern:
            found += [str(sound) for sound in sound_files(path)]
    return found


def over_files(
    model: AudioModel | OnnxModel,
    paths: list[str],
    work: Callable[..., Found],
    *,
    window: float | None = None,
    hop: float | None = None,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Iterator[FileResult[Found]]:
    """What `work` finds in each file: `qaudio.prediction.analyse` or `embedded`."""
    jobs = cores() if jobs is None else jobs
    if jobs < 1:
        raise InputError(f"jobs must be at least 1, not {jobs}")

    def run(path: str, advance: Progress) -> Found:
        return work(model, path, window=window, hop=hop, progress=advance)

    with _threads_each(model, threads_per_file(jobs, len(paths))):
        yield from in_order(paths, run, jobs, progress)


def embedded(model: AudioModel, path: str, *, window: float | None, **settings: Any) -> Embeddings:
    """`qaudio.prediction.embeddings` of a file; one window where `window` is None."""
    found = embeddings(model, path, window=window, **settings)
    return found if window is not None else found.clip()


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads_per_file(jobs: int, files: int) -> int:
    """Threads of the network for each of so many files, so that all use `jobs` cores."""
    return max(1, jobs // max(1, min(jobs, files)))


@contextmanager
def _threads_each(model: AudioModel | OnnxModel, threads: int) -> Iterator[None]:
    """Hold a network in eval mode, and the threads started meanwhile to so many of torch's own."""
    if isinstance(model, (OnnxModel, str, os.PathLike)):  # a name is refused where it is used
        yield
        return
    import torch  # here: exported models are run without it

    from qaudio.models.base import evaluating

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        # Here as well: the first thread to finish must not put it back under the others.
        with evaluating(model):
            yield
    finally:
        torch.set_num_threads(before)


def in_order(
    paths: Iterable[str],
    work: Callable[[str, Progress], Found],
    jobs: int,
    progress: Progress | None = None,
) -> Iterator[FileResult[Found]]:
    """Results of `work` in the order of the files, `jobs` files at a time in threads.

    At most `2 * jobs` files are read ahead of the one that is asked for, so that memory does not
    grow with their number.

    Args:
        work: takes a path, and a function to be called now and then with the seconds done; raises
            AudioError or OSError for a file that cannot be used, which is a result as well.
    """
    stopped = threading.Event()

    def advance(seconds: float) -> None:
        if stopped.is_set():
            raise _Stopped
        if progress is not None:
            progress(seconds)

    def attempt(path: str) -> FileResult[Found]:
        try:
            return FileResult(path, work(path, advance))
        except AudioError as error:
            return FileResult(path, None, str(error).removeprefix(f"{display_name(path)}: "))
        except OSError as error:  # one that went away between two looks at it, say
            return FileResult(path, None, error.strerror or str(error))

    waiting = iter(paths)
    ahead: deque[Future[FileResult[Found]]] = deque()
    pool = ThreadPoolExecutor(jobs, thread_name_prefix="qaudio")
    try:
        ahead.extend(pool.submit(attempt, path) for path in islice(waiting, 2 * jobs))
        while ahead:
            result = ahead.popleft().result()
            ahead.extend(pool.submit(attempt, path) for path in islice(waiting, 1))
            yield result
            del result  # not held while the next one is waited for
    finally:
        stopped.set()
        pool.shutdown(cancel_futures=True)
