"""Predictions of an evaluation: the logits of every scored clip, and their file."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qaudio.errors import NO_ARRAY, InputError

MOST_BYTES = 1 << 29  # that predictions.npz may unpack to; AudioSet's evaluation takes 1/10
# Of predictions.npz: kinds (numpy's letters) and numbers of axes.
ARRAYS = {
    "clip": ("U", (1,)), "label": ("iub", (1, 2)), "fold": ("iu", (1,)), "seed": ("iu", (1,)),
    "logits": ("f", (2,)),
}  # fmt: skip


@dataclass(eq=False)
class Predictions:
    """Logits of scored clips, a row each.

    Attributes:
        clip: ids, (N,) str.
        label: class indices (N,), or 0/1 per class (N, C).
        fold: the held-out fold (N,).
        seed: of the training run (N,).
        logits: (N, C) float16; every score is computed from these rounded values.
    """

    clip: np.ndarray
    label: np.ndarray
    fold: np.ndarray
    seed: np.ndarray
    logits: np.ndarray

    @classmethod
    def of_run(
        cls, fold: int, seed: int, clip: list[str], label: np.ndarray, logits: np.ndarray
    ) -> Predictions:
        """Predictions of one run; rows in order of clip id.

        Raises:
            ValueError: for logits that are not finite, or not in float16.
        """
        order = np.argsort(np.array(clip))
        count = len(clip)
        found = cls(
            clip=np.array(clip)[order],
            label=np.asarray(label)[order],
            fold=np.full(count, fold),
            seed=np.full(count, seed),
            logits=_half(logits)[order],
        )
        found.check_finite()
        return found

    @classmethod
    def load(cls, path: str | os.PathLike) -> Predictions:
        """Read `predictions.npz`; raises ValueError naming what is wrong with it."""
        try:
            _check_sizes(path)
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in cls.__dataclass_fields__}
        except NO_ARRAY as error:
            raise InputError(f"{Path(path).name}: not readable as predictions ({error})") from None
        for name, (kinds, axes) in ARRAYS.items():
            array = arrays[name]
            if array.dtype.kind not in kinds or array.ndim not in axes:
                raise InputError(
                    f"{Path(path).name}: {name} is an array of {array.dtype} and {array.ndim} axes"
                )
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) != 1 or not len(arrays["clip"]):
            raise InputError(f"{Path(path).name}: arrays of unequal or no length {lengths}")
        return cls(**arrays)

    def check(self, classes: int, task: str) -> None:
        """Raise ValueError unless these are logits and labels of so many classes."""
        several = task == "multilabel"
        shape = self.logits.shape if several else self.logits.shape[:1]
        top = 2 if several else classes
        if (
            self.logits.shape[1] != classes
            or self.label.shape != shape
            or not ((self.label >= 0) & (self.label < top)).all()
        ):
            raise InputError(f"predictions.npz: not the logits and labels of {classes} classes")
        self.check_finite()

    def check_finite(self) -> None:
        """Raise ValueError where a logit is NaN or infinite, of which no score can be made."""
        wrong = ~np.isfinite(self.logits).all(1)
        if wrong.any():
            raise InputError(
                f"logits of {wrong.sum()} of {len(wrong)} clips are NaN or infinite, of "
                f"{self.clip[wrong][0].item()!r} first: training diverged; a lower --model.lr may "
                "help"
            )

    def save(self, path: str | os.PathLike) -> None:
        """Write `predictions.npz`, which `load` reads.

        Args:
            path: of the file; numpy adds .npz to a name without it.

        Raises:
            OSError: when it cannot be written.
        """
        np.savez_compressed(path, **self.__dict__)

    def runs(self) -> list[tuple[int, int]]:
        """(seed, fold) of every run, sorted."""
        return sorted({(int(s), int(f)) for s, f in zip(self.seed, self.fold, strict=True)})

    def select(self, mask: np.ndarray) -> Predictions:
        """The rows where `mask` is true."""
        return Predictions(**{name: array[mask] for name, array in self.__dict__.items()})

    def without_names(self, *, keep_folders: bool = False) -> Predictions:
        """The same with other ids, in the same order: place and hash in the place of each name.

        Whoever knows a name finds it again; clips of one name in several entries stay one.

        Args:
            keep_folders: leave the first folder of each name before its place.
        """
        names = np.unique(self.clip)
        made = []
        for n, name in enumerate(names.tolist()):
            digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:16]
            folder, slash, _ = name.partition("/") if keep_folders else ("", "", "")
            made.append(f"{folder}{slash}{n:07}-{digest}")
        clip = np.array(made)[np.searchsorted(names, self.clip)]
        return dataclasses.replace(self, clip=clip)

    def run(self, seed: int, fold: int) -> Predictions:
        """The rows of one run; none where there is no such run."""
        return self.select((self.seed == seed) & (self.fold == fold))

    def merged(self, other: Predictions) -> Predictions:
        """Both together; runs of `other` replace the same runs of this one. Sorted by run."""
        redone = set(other.runs())
        keep = [(int(s), int(f)) not in redone for s, f in zip(self.seed, self.fold, strict=True)]
        ours = self.select(np.array(keep, bool))
        both = Predictions(
            **{name: np.concatenate([a, other.__dict__[name]]) for name, a in ours.__dict__.items()}
        )
        return both.select(np.lexsort((both.clip, both.fold, both.seed)))


def _check_sizes(path: str | os.PathLike) -> None:
    """Raise ValueError where an archive unpacks to too much, or an array claims more than it has.

    Before numpy makes room for it.
    """
    with zipfile.ZipFile(path) as archive:
        items = archive.infolist()
        if sum(item.file_size for item in items) > MOST_BYTES:
            raise InputError(f"unpacks to over {MOST_BYTES} bytes")
        for item in items:
            with archive.open(item) as file:
                if np.lib.format.read_magic(file) != (1, 0):
                    raise InputError(f"{item.filename}: not an array in numpy's format 1.0")
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            if math.prod(shape) * dtype.itemsize > item.file_size:
                raise InputError(f"{item.filename}: claims {shape}, more than the file holds")


def _half(logits: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # what is too large becomes infinite, which is an error
        return np.asarray(logits, np.float32).astype(np.float16)
