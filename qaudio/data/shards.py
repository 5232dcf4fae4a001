"""Packed shards: the clips of a benchmark, compressed, in a few large files that litdata reads.

For sets that fit no cache and for object stores. Every clip can be reached, so order, splits,
balanced draws and shares of processes are those of the files.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import re
import shutil
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile
import torch
from tqdm import tqdm

from qaudio.data.audio import AudioError, decode, display_name, opened, read
from qaudio.data.dataset import Clip
from qaudio.errors import DataError
from qaudio.frontend import resample
from qaudio.paths import naming, replacing
from qaudio.text import shown

if TYPE_CHECKING:
    from qaudio.data.datamodule import AudioDataModule

VERSION = 1
SHARD_BYTES = 64 << 20
COMPRESSED = ("FLAC", "OGG", "MPEG")  # as soundfile names them
NO_LITDATA = "packed clips need litdata: pip install 'qaudio[scale]'"
FACTS = ("benchmark", "dataset", "protocol", "folds", "task")
INDEX = "index.json"
LARGEST_INDEX = 64 << 20  # bytes
# All that an index may say of how its items are stored. litdata unpickles, decompresses or imports
# what others say.
STORED = {
    "data_format": ["bytes"],
    "data_spec": '[1, {"type": null, "context": null, "children_spec": []}]',
    "item_loader": "PyTreeLoader",
    "types": "bytes",
}


class PackedClips:
    """Clips of a packed folder.

    Args:
        address: folder, or an address that litdata streams from (s3://, gs://, …). Its hf://
            takes Parquet only, which is not what is packed here. Shards of an object store are
            read clip by clip, by byte ranges; nothing is kept on disk.

    Raises:
        DataError: when there is no packed set, or litdata is missing.
    """

    def __init__(self, address: str):
        self.address = address
        self._open: tuple[int, Any] | None = None
        try:
            self.facts: dict[str, Any] = json.loads(self.item(0))
        except ImportError:
            raise DataError(f"{address}: {NO_LITDATA}") from None
        except (ValueError, OSError, RuntimeError) as error:
            fault = str(error).partition("\n")[0]
            raise DataError(
                f"{address}: no packed set is there, or it is not whole ({fault}): make it with "
                "`qaudio pack`, which finishes what was interrupted"
            ) from None
        if self.facts.get("version") != VERSION:
            raise DataError(f"{address}: packed by another version of qaudio: pack it again")

    def item(self, number: int) -> bytes:
        """What is packed at a place: facts about all at 0, then the clips as sound files."""
        # A process opens the shards anew: file handles and threads do not survive a fork.
        if self._open is None or self._open[0] != os.getpid():
            self._open = os.getpid(), _opened(self.address)
        return bytes(self._open[1][number])

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": None}

    def clips(self) -> list[tuple[Clip, int, int]]:
        """Every clip, its frames and its rate in Hz, in the order they were packed."""
        return [
            (Clip(Path(str(n)), tuple(label) if isinstance(label, list) else label, id, fold), *at)
            for n, (id, label, fold, *at) in enumerate(self.facts["clips"])
        ]

    def get(self, path: str | os.PathLike, sample_rate: int) -> np.ndarray:
        """Samples (T,) float32 of the clip of this number at a rate; raises AudioError."""
        number = int(os.fspath(path))
        data = self.item(number + 1)
        samples, rate = decode(data, self.facts["clips"][number][0])
        return resample(torch.from_numpy(samples), rate, sample_rate).numpy()


def _opened(address: str) -> Any:
    """litdata's reader of a packed set, of nothing but plain bytes.

    Raises:
        DataError: when the index says otherwise; nothing that it asks for was done.
        ImportError: without litdata.
        OSError: when there is no index.
    """
    from litdata import StreamingDataset
    from litdata.streaming.downloader import get_downloader
    from litdata.streaming.resolver import _resolve_dir

    with tempfile.TemporaryDirectory() as folder:
        place = _resolve_dir(address)
        if place.url is None:
            index = Path(str(place.path), INDEX)
        else:
            # Fetched here and handed on: litdata would act on it before anybody could look at it.
            index = Path(folder, INDEX)
            source = f"{place.url.rstrip('/')}/{INDEX}"
            get_downloader(place.url, folder, [], {}, {}).download_file(source, str(index))
        _check_index(index, address)
        # One item at a time is decoded: neighbours are not wanted.
        dataset = StreamingDataset(address, batch_decode=0, index_path=str(index))
        # That of litdata's own cache, which counts from now on, may be somebody else's.
        _check_index(Path(str(dataset.input_dir.path), INDEX), address)
        return dataset


def _check_index(path: Path, address: str) -> None:
    """Raise DataError for an index that `pack` did not write, OSError where there is none."""
    try:
        if not path.is_file():
            raise FileNotFoundError(f"no {INDEX}")
        if path.stat().st_size > LARGEST_INDEX:
            raise ValueError(f"over {LARGEST_INDEX} bytes")
        index = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(index, dict) or set(index) != {"chunks", "config"}:
            raise ValueError("expected chunks and config alone")
        for name, value in index["config"].items():
            if value != STORED.get(name):
                raise ValueError(f"{name} is {str(value)[:60]!r}, expected {STORED.get(name)!r}")
        if missing := STORED.keys() - index["config"].keys():
            raise ValueError(f"{', '.join(sorted(missing))} missing")
        for chunk in index["chunks"]:
            name, items = chunk["filename"], chunk["chunk_size"]
            if (
                not re.fullmatch(r"shard-[0-9]{5,}\.bin", name)
                or type(items) is not int
                or items < 1
            ):
                raise ValueError(f"no shard of ours: {str(chunk)[:100]}")
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        fault = shown(str(error) or type(error).__name__)
        raise DataError(f"{address}: its {INDEX} is none of `qaudio pack`: {fault}") from None


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
        folder: of the shards.
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
    facts |= {"labels": labels, "sample_rate": sample_rate}
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
    pieces = _Pieces(folder, facts["plan"])
    bar = tqdm(total=len(clips), desc="packing", unit="clip", delay=2, leave=False, disable=None)
    with bar:
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
                left_out.append(str(result))
            else:
                shard.append(result[0])
                rows.append([clip.id, clip.label, clip.fold, *result[1:]])
                size += len(result[0])
            if shard and (size >= shard_bytes or n == len(clips)):
                pieces.add(shard, {"next": n, "clips": rows, "left_out": left_out})
                shard, rows, left_out, size = [], [], [], 0
    facts["clips"] = [row for piece in pieces.done for row in piece["clips"]]
    facts["left_out"] = data.left_out + [
        line for piece in pieces.done for line in piece["left_out"]
    ]
    facts["left_out"] += left_out  # behind the last usable clip
    if not facts["clips"]:
        raise DataError(f"{data.root}: no usable clips to pack; expected {data.layout}")
    pieces.finish(json.dumps(facts).encode())
    return facts


def _state_of(path: Path) -> tuple[int, int]:
    """What tells a file from what it was when it was packed: size and time of change."""
    try:
        stat = path.stat()
    except OSError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


class _Pieces:
    """The shards written so far: `.packing/N.json` notes what is in the N-th, once it is whole."""

    def __init__(self, folder: Path, plan: str):
        self.folder, self.notes = folder, folder / ".packing"
        self.notes.mkdir(parents=True, exist_ok=True)
        self.done: list[dict[str, Any]] = []
        begun = self.notes / "plan"
        if begun.is_file() and begun.read_text() != plan:
            raise DataError(
                f"{folder} holds the beginning of another packed set, or of changed sounds: "
                "delete it, or give another"
            )
        _write(begun, plan.encode())
        while (note := self.notes / f"{len(self.done) + 1}.json").is_file():
            self.done.append(json.loads(note.read_text()))

    @property
    def next(self) -> int:
        """The first clip that is in no shard."""
        return self.done[-1]["next"] if self.done else 0

    def add(self, items: list[bytes], note: dict[str, Any]) -> None:
        number = len(self.done) + 1
        note |= self._shard(number, items)
        _write(self.notes / f"{number}.json", json.dumps(note).encode())
        self.done.append(note)

    def _shard(self, number: int, items: list[bytes]) -> dict[str, Any]:
        """Write a shard in litdata's format; what its index says of it."""
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
        return {"chunk": chunk, "config": index["config"]}

    def finish(self, facts: bytes) -> None:
        """The shard that says what the others hold, and the index."""
        first = self._shard(0, [facts])
        index = {
            "chunks": [first["chunk"], *(piece["chunk"] for piece in self.done)],
            "config": first["config"],
        }
        _write(self.folder / INDEX, json.dumps(index).encode())
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


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as file:
        file.write(content)
