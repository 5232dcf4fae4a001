"""Labelled clips, their segments, and the order in which they are drawn."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate
from torch.utils.data.distributed import DistributedSampler

from qaudio.data.augment import WaveformAugment, fit_length, item_seed
from qaudio.data.clip import Clip
from qaudio.errors import DataError

if TYPE_CHECKING:
    from qaudio.data.audio import AudioCache
    from qaudio.data.shards import PackedClips

# A clip and the parts of it that the network gets at once.
Item = tuple[Clip, tuple[slice, ...]]


class EpochSampler(DistributedSampler):
    """Yields keys of a `ClipDataset` in an order that is a function of (seed, epoch).

    The epoch travels with the index, so that worker processes need no state. Of several processes
    each takes its share of the order. It is a `DistributedSampler` so that Lightning leaves it in
    place; torch's own knows neither balanced draws nor uneven shares.

    Args:
        length: items of the data set, and draws of an epoch over all processes.
        shuffle: False: items in order.
        classes: item indices of each class: draw every class equally often (PANNs' class-balanced
            sampling). A class with more items than its share gives others in the next epoch,
            one with fewer gives some again. None: every item once an epoch.
        ranks: number of processes.
        even: give every process equally many, by repeating at most `ranks` − 1 items; their keys
            say so. False: no item comes twice, and some processes get one less.
    """

    def __init__(
        self,
        length: int,
        seed: int,
        shuffle: bool,
        classes: list[np.ndarray] | None = None,
        *,
        ranks: int = 1,
        rank: int = 0,
        even: bool = True,
    ):
        super().__init__(range(length), ranks, rank, shuffle, seed)  # type: ignore[arg-type]
        self.length, self.classes, self.even = length, classes, even
        self.start = 0  # keys of this process that the next iteration leaves out

    def __len__(self) -> int:
        if self.even:
            return -(-self.length // self.num_replicas)
        return len(range(self.rank, self.length, self.num_replicas))

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        rng = np.random.default_rng(item_seed(self.seed, self.epoch))
        total = len(self) * self.num_replicas if self.even else self.length
        keys = self._balanced(rng, total) if self.classes is not None else self._each(rng, total)
        return islice(keys, self.rank + self.start * self.num_replicas, None, self.num_replicas)

    def _each(self, rng: np.random.Generator, total: int) -> Iterator[tuple[int, ...]]:
        order = np.arange(self.length)
        if self.shuffle:
            rng.shuffle(order)
        for draw in range(total):
            key = (self.epoch, int(order[draw % self.length]))
            yield key if draw < self.length else (*key, draw // self.length)

    def _balanced(self, rng: np.random.Generator, total: int) -> Iterator[tuple[int, ...]]:
        """Rounds over all classes in random order; in each class, round after round its items."""
        assert self.classes is not None
        members = [items for items in self.classes if len(items)]
        waiting: list[list[int]] = [[] for _ in members]
        times: dict[int, int] = {}
        for draw in range(total):
            if draw % len(members) == 0:
                order = rng.permutation(len(members))
            one = order[draw % len(members)]
            waiting[one] = waiting[one] or rng.permutation(members[one]).tolist()
            index = waiting[one].pop()
            repeat = times[index] = times.get(index, -1) + 1
            # A repeated item is augmented anew.
            yield (self.epoch, index, repeat) if repeat else (self.epoch, index)


class ResumableLoader(DataLoader):
    """A DataLoader over an `EpochSampler` that goes on in the middle of an epoch.

    What was taken is counted here, not what workers have prepared.
    """

    taken = 0
    left: dict[str, int] | None = None

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        assert isinstance(self.sampler, EpochSampler)
        left, self.left = self.left, None
        self.taken = left["taken"] if left and left["epoch"] == self.sampler.epoch else 0
        self.sampler.start = self.taken * (self.batch_size or 1)
        for batch in super().__iter__():
            self.taken += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The epoch, and how many of its batches were taken."""
        return {"epoch": self.sampler.epoch, "taken": self.taken}  # type: ignore[attr-defined]

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Leave out what was taken of the epoch, if it is the next to be iterated."""
        self.left = state


class ClipDataset(Dataset):
    """Clips of a cache, or packed, as training or evaluation items.

    A key is (epoch, index), or (epoch, index, repeat) for an item drawn again in an epoch.
    Items are dicts: waveform (S, T) float32, a row for each of the item's segments; label, a class
    index or 0/1 per class (C,) uint8; id, index, `repeat`, whether it is drawn again, and `seed`,
    a function of (seed, key) for whatever the batch still draws.
    """

    def __init__(
        self,
        items: list[Item],
        classes: int,
        cache: AudioCache | PackedClips,
        sample_rate: int,
        seconds: float | None,
        seed: int,
        augment: WaveformAugment | None = None,
        train: bool = False,
        crop: Literal["start", "center"] = "start",
    ):
        self.items, self.classes, self.cache = items, classes, cache
        self.sample_rate = sample_rate
        self.samples = None if seconds is None else round(seconds * sample_rate)
        self.seed, self.augment, self.train, self.crop = seed, augment, train, crop

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: tuple[int, ...]) -> dict[str, Any]:
        clip, segments = self.items[key[1]]
        seed = item_seed(self.seed, *key)
        rng = np.random.default_rng(seed) if self.train else None
        samples = self.cache.get(clip.path, self.sample_rate)
        label: int | Tensor = 0
        if isinstance(clip.label, int):
            label = clip.label
        else:
            label = torch.zeros(self.classes, dtype=torch.uint8)
            label[list(clip.label)] = 1
        rows = [self._prepared(as_float(samples[segment]), rng) for segment in segments]
        return {
            "waveform": torch.from_numpy(np.stack(rows)),
            "label": label,
            "id": clip.id,
            "index": key[1],
            "repeat": len(key) > 2,
            "seed": seed,
        }

    def _prepared(self, waveform: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
        if rng is not None and self.augment is not None:
            waveform = self.augment(waveform, rng)
        if self.samples is not None:
            waveform = fit_length(waveform, self.samples, rng, self.crop)
        return np.asarray(waveform, np.float32)


def as_float(samples: np.ndarray) -> np.ndarray:
    """A copy of samples of a cache, as float32 in −1…1."""
    if samples.dtype == np.int16:
        return samples.astype(np.float32) / np.float32(32767)
    return np.array(samples)


def collate(items: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch: waveform (segments of all items, T), `segments` says how many each item has."""
    waveforms = [item["waveform"] for item in items]
    rest = [{name: item[name] for name in item if name != "waveform"} for item in items]
    return default_collate(rest) | {
        "waveform": torch.cat(waveforms),
        "segments": [len(waveform) for waveform in waveforms],
    }


def cut(length: int, size: int, hop: int) -> tuple[slice, ...]:
    """Segments of `size` samples every `hop` samples of a clip of `length` samples.

    The last one is shifted back to end with the clip; it is left out where it would bring less
    than half a hop of new samples. A clip shorter than `size` is one segment.
    """
    starts = list(range(0, max(1, length - size + 1), hop))
    if 2 * (length - size - starts[-1]) >= hop:
        starts.append(length - size)
    return tuple(slice(start, start + size) for start in starts)


def items_by_class(items: list[Item], classes: int) -> list[np.ndarray]:
    """Indices of the items of each class, and at the end of those of none."""
    members: list[list[int]] = [[] for _ in range(classes + 1)]
    for n, (clip, _) in enumerate(items):
        for index in clip.classes or (-1,):
            members[index].append(n)
    return [np.array(own, int) for own in members]


def class_weights(items: list[Item], labels: list[str], benchmark: str) -> Tensor:
    """Weights of the classes for the loss, as `AudioDataModule.class_weights` gives them."""
    counts = np.bincount([clip.classes[0] for clip, _ in items], minlength=len(labels))
    if not counts.all():
        empty = labels[int(np.argmin(counts))]
        raise DataError(
            f"{benchmark}: class {empty!r} has no training clips to weight: give it more clips "
            "than one, or switch weights off (--model.class_weights false)"
        )
    return torch.from_numpy(len(items) / (len(counts) * counts)).float()
