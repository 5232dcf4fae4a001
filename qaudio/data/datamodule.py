"""What every benchmark's DataModule shares: splits, cached clips, loaders."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning import LightningDataModule
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm

from qaudio.data.audio import AudioCache, AudioError
from qaudio.data.augment import WaveformAugment, fit_length, global_seed, item_seed


@dataclass(frozen=True)
class Clip:
    """One labelled sound: `label` is a class index, `id` is unique within the benchmark."""

    path: Path
    label: int
    id: str
    fold: int


@dataclass(frozen=True)
class Split:
    """Which part of which benchmark is trained on and which is held out.

    Attributes:
        benchmark: as in entry names ("esc10").
        dataset: the recordings and their folds; benchmarks that share both share this name, so
            that a parent trained on one can be checked against a child on the other.
        protocol: how the folds are made, by name.
        fold: the held-out fold.
        folds: how many there are.
        scored: the fold that is evaluated: `fold`, or a validation fold taken from training.
    """

    benchmark: str
    dataset: str
    protocol: str
    fold: int
    folds: int
    scored: int


class DataError(Exception):
    """A data set that cannot be used; the message says what is expected where."""


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, index) in an order that is a function of (seed, epoch).

    The epoch travels with the index, so that worker processes need no state.
    """

    def __init__(self, length: int, seed: int, shuffle: bool):
        self.length, self.seed, self.shuffle, self.epoch = length, seed, shuffle, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.arange(self.length)
        if self.shuffle:
            np.random.default_rng(item_seed(self.seed, self.epoch)).shuffle(order)
        return ((self.epoch, int(index)) for index in order)


class ClipDataset(Dataset):
    """Cached clips as training or evaluation items.

    Items are dicts: waveform (T,) float32, label, id, index, and `seed`, a function of
    (seed, epoch, clip) for whatever the batch still draws.
    """

    def __init__(
        self,
        clips: list[Clip],
        cache: AudioCache,
        sample_rate: int,
        seconds: float | None,
        seed: int,
        augment: WaveformAugment | None = None,
        train: bool = False,
    ):
        self.clips, self.cache, self.sample_rate = clips, cache, sample_rate
        self.samples = None if seconds is None else round(seconds * sample_rate)
        self.seed, self.augment, self.train = seed, augment, train

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, index = key
        clip = self.clips[index]
        seed = item_seed(self.seed, epoch, index)
        rng = np.random.default_rng(seed) if self.train else None
        waveform = np.array(self.cache.get(clip.path, self.sample_rate))
        if rng is not None and self.augment is not None:
            waveform = self.augment(waveform, rng)
        if self.samples is not None:
            waveform = fit_length(waveform, self.samples, rng)
        return {
            "waveform": torch.from_numpy(np.ascontiguousarray(waveform, np.float32)),
            "label": clip.label,
            "id": clip.id,
            "index": index,
            "seed": seed,
        }


class AudioDataModule(LightningDataModule):
    """Base of the benchmarks' DataModules.

    Subclasses implement `read_clips` (every clip with its fold) and set `benchmark`, `dataset`,
    `protocol` and `folds`.

    Args:
        root: folder of the benchmark as its authors lay it out.
        fold: the held-out test fold, from 1.
        holdout: "test" trains on every other fold and scores the test fold; "validation" leaves
            the test fold alone: fold `fold mod folds + 1` is scored, the others train. Choose
            recipes with the latter.
        seconds: length of training clips (random crop) and of scored clips (from the start);
            None takes clips whole, one at a time.
        batch_size: clips.
        augment: changes of single waveforms in training.
        seed: of order and augmentation; None: that of `seed_everything`.
        sample_rate: Hz; None: the model's.
        num_workers: of the loaders. The cache makes 0 a good choice.
        cache_dir: where decoded audio is kept; None: the user's cache folder.
    """

    benchmark: str
    dataset: str
    protocol: str
    folds: int

    def __init__(
        self,
        root: str,
        *,
        fold: int = 1,
        holdout: Literal["test", "validation"] = "test",
        seconds: float | None = 5.0,
        batch_size: int = 32,
        augment: WaveformAugment | None = None,
        seed: int | None = None,
        sample_rate: int | None = None,
        num_workers: int = 0,
        cache_dir: str | None = None,
    ):
        super().__init__()
        if holdout not in ("test", "validation"):
            raise ValueError(f"holdout must be 'test' or 'validation', not {holdout!r}")
        self.root, self.fold, self.holdout = Path(root).expanduser(), fold, holdout
        self.seconds, self.batch_size, self.augment = seconds, batch_size, augment
        self.seed, self.sample_rate, self.num_workers = seed, sample_rate, num_workers
        self.cache = AudioCache(cache_dir)
        self.labels: list[str] = []
        self.left_out: list[str] = []
        self._clips: list[Clip] = []

    def read_clips(self) -> tuple[list[Clip], list[str]]:
        """Every clip of the benchmark and the class names; raises DataError."""
        raise NotImplementedError

    @property
    def split(self) -> Split:
        """The split that this module trains and scores on."""
        if not 1 <= self.fold <= self.folds:
            raise DataError(f"fold must be 1 to {self.folds} for {self.protocol}, not {self.fold}")
        return Split(
            self.benchmark, self.dataset, self.protocol, self.fold, self.folds, self.scored_fold
        )

    @property
    def scored_fold(self) -> int:
        """The fold that is evaluated: `fold`, or the one after it under "validation"."""
        return self.fold if self.holdout == "test" else self.fold % self.folds + 1

    def prepare_data(self) -> None:
        """Decode what the cache lacks, once per machine."""
        self.setup()

    def setup(self, stage: str | None = None) -> None:
        """Read the index and open every clip; unreadable ones are named once and left out."""
        if self._clips:
            return
        name = self.split.benchmark  # refuses a fold that does not exist before decoding
        clips, self.labels = self.read_clips()
        rate, usable = self._rate(), []
        for clip in tqdm(
            clips, f"decoding {name}", unit="clip", delay=2, leave=False, disable=None
        ):
            try:
                self.cache.get(clip.path, rate)
                usable.append(clip)
            except AudioError as error:
                self.left_out.append(str(error))
        if self.left_out:
            _warn(f"{len(self.left_out)} clips left out: " + "; ".join(self.left_out))
        self._clips = usable
        for role in ("training", "scored"):
            if not self._select(role):
                self._clips, self.left_out = [], []
                raise DataError(f"{self.benchmark}: no usable {role} clips under {self.root}")

    def _rate(self) -> int:
        if self.sample_rate is None:
            if self.trainer is None:
                raise ValueError("pass sample_rate, or let a Trainer give the model's")
            self.sample_rate = int(self.trainer.lightning_module.sample_rate)  # type: ignore[arg-type]
        return self.sample_rate

    def _select(self, role: str) -> list[Clip]:
        if role == "scored":
            return [clip for clip in self._clips if clip.fold == self.scored_fold]
        held_out = {self.fold, self.scored_fold}
        return [clip for clip in self._clips if clip.fold not in held_out]

    def _loader(self, role: str) -> DataLoader:
        train = role == "training"
        clips = self._select(role)
        seed = global_seed() if self.seed is None else self.seed
        dataset = ClipDataset(
            clips, self.cache, self._rate(), self.seconds, seed, self.augment, train
        )
        return DataLoader(
            dataset,
            batch_size=1 if self.seconds is None else self.batch_size,
            sampler=EpochSampler(len(clips), seed, shuffle=train),
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            # Loaders draw a seed for workers from this; torch's own must be left as dropout
            # finds it, or a resumed run would differ.
            generator=torch.Generator().manual_seed(seed),
            # A last batch of one clip has no variance for BatchNorm to divide by.
            drop_last=train and len(clips) % self.batch_size == 1,
        )

    def train_dataloader(self) -> DataLoader:
        return self._loader("training")

    def val_dataloader(self) -> DataLoader:
        """The scored fold; nothing under holdout="test", whose fold is scored once, at the end."""
        return self._loader("scored") if self.holdout == "validation" else []  # type: ignore[return-value]

    def test_dataloader(self) -> DataLoader:
        if self.holdout == "validation":
            raise DataError("holdout='validation' leaves the test fold alone; use `validate`")
        return self._loader("scored")


@rank_zero_only
def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=3)
