"""Packed shards: the clips of a benchmark, compressed, in a few large files that litdata reads.

For sets that fit no cache and for object stores. Every clip can be reached, so order, splits,
balanced draws and shares of processes are those of the files.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qaudio.data.audio import decode
from qaudio.data.clip import Clip
from qaudio.data.split import TEST, TRAINING, VALIDATION
from qaudio.errors import DataError
from qaudio.frontend import resample
from qaudio.text import UNSHOWN, one_line, shown

VERSION = 1
MOST_CLIPS = 2**31
RATES = (100, 10_000_000)  # Hz
MOST_FOLDS, MOST_FRAMES = 10_000, 1 << 31
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


def check_facts(facts: Any) -> None:
    """Raise ValueError for what `qaudio pack` does not write of a set."""

    def expect(holds: bool, what: str) -> None:
        if not holds:
            raise ValueError(f"{what} is none of ours")

    def whole(value: Any, least: int, most: int) -> bool:
        return type(value) is int and least <= value <= most

    def texts(values: Any) -> bool:
        return isinstance(values, list) and all(isinstance(one, str) for one in values)

    expect(isinstance(facts, dict), "its first item")
    if facts.get("version") != VERSION:
        raise ValueError("packed by another version of qaudio")
    for name in ("benchmark", "dataset", "protocol", "plan"):
        value = facts.get(name)
        expect(isinstance(value, str) and not UNSHOWN.search(value), name)
    expect(whole(facts.get("folds"), 1, MOST_FOLDS), "folds")
    expect(facts.get("task") in ("multiclass", "multilabel"), "task")
    labels, rows, rate = facts.get("labels"), facts.get("clips"), facts.get("sample_rate", 0)
    expect(texts(labels) and not any(UNSHOWN.search(one) for one in labels), "labels")
    expect(texts(facts.get("left_out")), "left_out")
    expect(rate is None or whole(rate, *RATES), "sample_rate")
    expect(isinstance(rows, list) and len(rows) > 0, "clips")
    ids = set()
    for row in rows:
        expect(isinstance(row, list) and len(row) == 5, "a clip")
        id, label, fold, frames, hertz = row
        expect(isinstance(id, str) and id not in ids, "a clip's id")
        ids.add(id)
        chosen = label if isinstance(label, list) else [label]
        expect(isinstance(label, list) == (facts["task"] == "multilabel"), "a clip's label")
        expect(all(whole(one, 0, len(labels) - 1) for one in chosen), "a clip's label")
        expect(whole(fold, min(PARTS), max(facts["folds"], *PARTS)), "a clip's fold")
        expect(whole(frames, 1, MOST_FRAMES) and whole(hertz, *RATES), "a clip's length")
    expect(whole(facts.get("listed", len(rows)), len(rows), MOST_CLIPS), "listed")


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
