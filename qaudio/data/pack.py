"""Writing packed shards: one after the other, gone on with where it was interrupted."""

import hashlib
import importlib.util
import io
import json
import os
import shutil
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from qaudio.data.audio import display_name, opened, read
from qaudio.data.clip import Clip
from qaudio.data.datamodule import AudioDataModule
from qaudio.data.shards import FACTS, INDEX, NO_LITDATA, VERSION, PackedClips
from qaudio.errors import AudioError, DataError
from qaudio.frontend import resample
from qaudio.paths import naming, write_whole
from qaudio.progress import progress
from qaudio.records import Count, Record, parse

SHARD_BYTES = 64 << 20
COMPRESSED = ("FLAC", "OGG", "MPEG")  # as soundfile names them


def pack(
    data: AudioDataModule,
    folder: str | os.PathLike,
    *,
    sample_rate: int | None = None,
    workers: int = 4,
    shard_bytes: int = SHARD_BYTES,
) -> dict[str, Any]:
    """Pack a benchmark's clips, one shard after the other.

    A shard has its name only once it is whole, and the index comes last: a pack that was killed is
    none, and packing again goes on behind the last whole shard.

    Args:
        data: of which benchmark, with its protocol; nothing is decoded into its cache.
        sample_rate: Hz: clips of other rates are resampled now and kept as 16-bit FLAC, so that
            reading costs no resampling. None: every clip as it is, uncompressed ones as lossless
            FLAC.
        workers: threads that decode.
        shard_bytes: size at which a shard is closed.

    Returns:
        What was packed: facts of the split, clips, what was left out.

    Raises:
        DataError: when the folder holds another set, no clip can be used, or litdata is missing.
    """
    if importlib.util.find_spec("litdata") is None:
        raise DataError(f"{folder}: {NO_LITDATA}")
    clips, labels = data.read_clips()
    facts = {"version": VERSION} | {name: getattr(data, name) for name in FACTS}
    facts |= {"labels": labels, "sample_rate": sample_rate, "listed": len(clips)}
    whole = [facts, shard_bytes, [(c.id, c.label, c.fold, *_state_of(c.path)) for c in clips]]
    facts["plan"] = hashlib.sha256(json.dumps(whole).encode()).hexdigest()
    folder = Path(folder)
    if (folder / INDEX).is_file():
        found = PackedClips(str(folder)).facts
        if found["plan"] != facts["plan"]:
            raise DataError(
                f"{folder} holds another packed set, or these sounds as they were before a change: "
                "give another folder, or delete it"
            )
        shutil.rmtree(folder / ".packing", ignore_errors=True)  # of one that was killed at its end
        return found
    pieces = Pieces(folder, facts["plan"])
    with progress(total=len(clips), what="packing", unit="clip") as bar:
        bar.update(pieces.next)
        shard: list[bytes] = []
        rows: list[list[Any]] = []
        left_out: list[str] = []
        size = 0
        for n, (clip, result) in enumerate(
            _encoded(clips[pieces.next :], sample_rate, workers), pieces.next + 1
        ):
            bar.update()
            if isinstance(result, AudioError):
                left_out.append(_without_folder(str(result), data.root))
            else:
                shard.append(result[0])
                rows.append([clip.id, clip.label, clip.fold, *result[1:]])
                size += len(result[0])
            if shard and (size >= shard_bytes or n == len(clips)):
                pieces.add(shard, n, rows, left_out)
                shard, rows, left_out, size = [], [], [], 0
    facts["clips"] = [row for piece in pieces.done for row in piece.clips]
    facts["left_out"] = [_without_folder(line, data.root) for line in data.left_out]
    facts["left_out"] += [line for piece in pieces.done for line in piece.left_out]
    facts["left_out"] += left_out  # behind the last usable clip
    if not facts["clips"]:
        raise DataError(f"{data.root}: no usable clips to pack; expected {data.layout}")
    pieces.finish(json.dumps(facts).encode())
    return facts


def _without_folder(line: str, root: Path) -> str:
    """A line on a file that was left out, as it may be published: by its name below `root`."""
    file, colon, fault = line.partition(": ")
    file = file.removeprefix(f"{display_name(root)}{os.sep}")
    file = os.path.basename(file) if os.path.isabs(file) else file
    return f"{file}{colon}{fault}".replace(display_name(root), root.name)


def _state_of(path: Path) -> tuple[int, int]:
    """What distinguishes a file from what it was when it was packed: size and time of change."""
    try:
        stat = path.stat()
    except OSError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


class Note(Record):
    """What is in a shard, and in those before it.

    Attributes:
        next: the first clip that is in none of them.
        chunk, config: what litdata's index says of it, and of all.
    """

    next: Count
    clips: list[Any]
    left_out: list[str]
    chunk: dict[str, Any]
    config: dict[str, Any]


class Pieces:
    """The shards written so far: `.packing/N.json` notes what is in the N-th, once it is whole."""

    def __init__(self, folder: Path, plan: str):
        self.folder, self.notes = folder, folder / ".packing"
        self.notes.mkdir(parents=True, exist_ok=True)
        self.done: list[Note] = []
        begun = self.notes / "plan"
        if begun.is_file() and begun.read_bytes() != plan.encode():
            raise DataError(
                f"{folder} holds the beginning of another packed set, or of changed sounds: "
                "delete it, or give another"
            )
        write_whole(begun, plan)
        while (note := self.notes / f"{len(self.done) + 1}.json").is_file():
            self.done.append(self._read(note))

    def _read(self, note: Path) -> Note:
        with suppress(ValueError, RecursionError):
            found = parse(json.loads(note.read_text(encoding="utf-8")), Note)
            if self.next < found.next:
                return found
        raise DataError(
            f"{self.folder} holds the beginning of a pack that cannot be gone on from "
            f"({note.name}): delete it, and pack again"
        )

    @property
    def next(self) -> int:
        """The first clip that is in no shard."""
        return self.done[-1].next if self.done else 0

    def add(self, items: list[bytes], next: int, clips: list[Any], left_out: list[str]) -> None:
        number = len(self.done) + 1
        note = Note(next, clips, left_out, *self._shard(number, items))
        write_whole(self.notes / f"{number}.json", json.dumps(note.to_dict()))
        self.done.append(note)

    def _shard(self, number: int, items: list[bytes]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Write a shard in litdata's format; what its index says of it and of all."""
        from litdata.streaming.writer import BinaryWriter

        scratch = self.notes / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        with naming(self.folder, scratch):
            writer = BinaryWriter(str(scratch), chunk_size=len(items), chunk_index=number)
            for n, item in enumerate(items):
                writer.add_item(n, item)
            writer.done()
        index = json.loads(next(scratch.glob("*index.json")).read_text())
        (chunk,) = index["chunks"]
        path = scratch / chunk["filename"]
        chunk["filename"] = f"shard-{number:05}.bin"
        with open(path, "r+b") as file:  # Windows syncs only what may be written
            os.fsync(file.fileno())
        os.replace(path, self.folder / chunk["filename"])
        index["config"]["chunk_size"] = None  # shards differ in length
        return chunk, index["config"]

    def finish(self, facts: bytes) -> None:
        """The shard that says what the others hold, and the index."""
        first, config = self._shard(0, [facts])
        index = {"chunks": [first, *(piece.chunk for piece in self.done)], "config": config}
        write_whole(self.folder / INDEX, json.dumps(index))
        shutil.rmtree(self.notes)


def _encoded(
    clips: Iterable[Clip], sample_rate: int | None, workers: int
) -> Iterator[tuple[Clip, tuple[bytes, int, int] | AudioError]]:
    """Clips in order, each with its bytes, frames and rate, or what is wrong with it."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Any] = deque()
        for clip in clips:
            waiting.append((clip, pool.submit(_encode, clip.path, sample_rate)))
            if len(waiting) > 4 * workers:
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()


def _encode(path: Path, sample_rate: int | None) -> tuple[bytes, int, int] | AudioError:
    try:
        samples, rate = read(path)  # the whole file: a fault is found here, not in training
        if sample_rate not in (None, rate):
            assert sample_rate is not None
            samples = resample(torch.from_numpy(samples), rate, sample_rate).numpy()
            return _flac(samples, sample_rate, "PCM_16"), len(samples), sample_rate
        with opened(path) as file:
            if file.format not in COMPRESSED and file.subtype in ("PCM_16", "PCM_24"):
                exact = file.read(dtype="int32", always_2d=True)
                if exact.shape[1] <= 8:
                    return _flac(exact, rate, file.subtype), len(samples), rate
        return Path(path).read_bytes(), len(samples), rate
    except AudioError as error:
        return error
    except (soundfile.SoundFileError, OSError) as error:
        return AudioError(f"{display_name(path)}: cannot be packed ({error})")


def _flac(samples: np.ndarray, rate: int, subtype: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, subtype, format="FLAC")
    return file.getvalue()
