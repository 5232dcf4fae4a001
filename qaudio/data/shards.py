"""Packed shards: the clips of a benchmark, compressed, in a few large files that litdata reads.

For sets that fit no cache and for object stores. Every clip can be reached, so order, splits,
balanced draws and shares of processes are those of the files.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qaudio.data.audio import decode
from qaudio.data.clip import Clip
from qaudio.errors import DataError
from qaudio.frontend import resample

VERSION = 1
NO_LITDATA = "packed clips need litdata: pip install 'qaudio[scale]'"
FACTS = ("benchmark", "dataset", "protocol", "folds", "task")


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
            from litdata import StreamingDataset

            # One item at a time is decoded: neighbours are not wanted.
            self._open = os.getpid(), StreamingDataset(self.address, batch_decode=0)
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
