"""Packed shards: the clips of a benchmark, compressed, in a few large files that litdata reads.

For sets that fit no cache and for object stores. Every clip can be reached, so order, splits,
balanced draws and shares of processes are those of the files.
"""

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from msgspec import Meta

from qaudio.data.audio import decode
from qaudio.data.clip import Clip
from qaudio.data.split import TEST, TRAINING, VALIDATION
from qaudio.errors import DataError
from qaudio.frontend import resample
from qaudio.records import Count, Record, Text, parse
from qaudio.text import one_line, shown

VERSION = 1
Rate = Annotated[int, Meta(ge=100, le=10_000_000)]  # Hz
Frames = Annotated[int, Meta(ge=1, le=1 << 31)]
PARTS = (TRAINING, VALIDATION, TEST)  # the folds of a fixed split
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
            check_facts(self.facts)
            self.facts.setdefault("listed", len(self.facts["clips"]))  # older sets lack it
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{address}: holds no clips that `qaudio pack` wrote ({one_line(error, 200)}): "
                "pack them again"
            ) from None

    def item(self, number: int) -> bytes:
        """What is packed at a place: facts about all at 0, then the clips as sound files.

        Raises:
            DataError: when it cannot be read.
        """
        try:
            # A process opens the shards anew: file handles and threads do not survive a fork.
            if self._open is None or self._open[0] != os.getpid():
                self._open = os.getpid(), _opened(self.address)
            return bytes(self._open[1][number])
        except DataError:
            raise
        except ImportError:
            raise DataError(f"{self.address}: {NO_LITDATA}") from None
        except Exception as error:  # litdata's own kinds, and whatever bytes of others lead it to
            fault = one_line(str(error).partition("\n")[0], 200)
            raise DataError(
                f"{self.address}: no packed set is there, or it is not whole ({fault}): make it "
                "with `qaudio pack`, which finishes what was interrupted"
            ) from None

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


class Facts(Record):
    """What `qaudio pack` writes of a set: a clip is its id, label, fold, frames and rate in Hz."""

    version: Literal[1]
    benchmark: Text
    dataset: Text
    protocol: Text
    plan: Text
    folds: Annotated[int, Meta(ge=1, le=10_000)]
    task: Literal["multiclass", "multilabel"]
    labels: list[Text]
    left_out: list[str]
    clips: Annotated[list[tuple[str, Count | list[Count], Count, Frames, Rate]], Meta(min_length=1)]
    listed: Annotated[int, Meta(ge=0, le=1 << 31)] | None = None
    sample_rate: Rate | None = None


def check_facts(facts: Any) -> None:
    """Raise ValueError for what `qaudio pack` does not write of a set."""
    found, ids = parse(facts, Facts), set()
    for id, label, fold, *_ in found.clips:
        several = isinstance(label, list)
        chosen = label if isinstance(label, list) else [label]
        if id in ids or several != (found.task == "multilabel"):
            raise ValueError(f"clip {id!r} is twice there, or its label is of another task")
        if not all(one < len(found.labels) for one in chosen) or fold > max(found.folds, *PARTS):
            raise ValueError(f"clip {id!r}: no such label or fold")
        ids.add(id)
    if found.listed is not None and found.listed < len(found.clips):
        raise ValueError("listed are fewer clips than there are")


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
