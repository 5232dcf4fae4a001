"""Unlabelled sound to teach with: a folder of recordings, a sub-folder for each source."""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from qaudio.data.audio import AudioCache, display_name, sound_files
from qaudio.data.augment import check_settings, fit_length, item_seed
from qaudio.data.clip import Clip
from qaudio.data.datamodule import AudioDataModule
from qaudio.data.dataset import ClipDataset, EpochSampler, Item, as_float
from qaudio.data.split import TEST, TRAINING, VALIDATION
from qaudio.data.tables import read_rows
from qaudio.errors import DataError, InputError
from qaudio.paths import expanded
from qaudio.text import shown

LONGEST_LICENCE = 1000  # characters, as an entry's results may hold
ID = re.compile(r"\d{4,}")  # in a file's name, where it may be a recording's id elsewhere
TABLES = ("sources.csv", "sources.tsv")  # looked for under root
LEAST_TAGGED = 5  # held-out recordings of a class that is scored against a teacher's tags


@dataclass
class Mixing:
    """How crops of a pool are put together.

    Attributes:
        probability: share of the crops that are mixed with one of another recording.
        alpha: of the Beta distribution that the mixing weights come from.
        join: share of the recordings shorter than a crop that are followed by others of their
            source until it is full; the rest are padded with silence.
    """

    probability: float = 0.7
    alpha: float = 2.0
    join: float = 0.5

    def __post_init__(self) -> None:
        check_settings(self, probability=(0, 1), alpha=(1e-6, 1000), join=(0, 1))


class SoundPool(AudioDataModule):
    """Recordings without labels.

    `root/SOURCE/…` holds the recordings of each source (a collection, a sound library), of any
    length, at any depth. Whole sources are held out for the score. An epoch draws crops:
    sources by the square root of their hours, recordings by their length, places at random.

    Args:
        root: folder of the sources.
        test_sources, validation_sources: names of those that are held out, for the score and for
            choosing recipes.
        epoch_clips: crops that an epoch draws; None: as many as the training sources hold.
        mixing: of training crops; None: each is of one recording.
        exclude_ids: a text or CSV file of ids (numbers of four or more digits, as freesound's):
            recordings with one of them in their file name are left out.
        table: CSV or TSV with columns `source` and `licence` (or `license`); None: `sources.csv`
            or `sources.tsv` under root, where there is one. For the record of what was heard.
        overlap_check: how it was made sure that the pool holds nothing of what is tested later, in
            words, for the record.
        name: of the pool, in the entry's record.
        seconds: length of the crops.
        **settings: of `AudioDataModule`; decoded sound is cached with 16 bits a sample.

    Raises:
        DataError: for a pool without sound or sources, a table that cannot be read, or held-out
            sources that do not exist, hold a single recording, or leave nothing to train on.
    """

    folds, task = 1, "multilabel"
    published = False
    layout = "SOURCE/…/FILE.wav (or .flac, .ogg, …), a folder for each source, two of them at least"

    def __init__(
        self,
        root: str,
        *,
        test_sources: list[str],
        validation_sources: list[str] | None = None,
        epoch_clips: int | None = None,
        mixing: Mixing | None = None,
        exclude_ids: str | None = None,
        table: str | None = None,
        overlap_check: str | None = None,
        name: str = "sound pool",
        seconds: float = 5.0,
        **settings: Any,
    ):
        super().__init__(root, seconds=seconds, **settings)
        self.cache = AudioCache(settings.get("cache_dir"), bits=16)
        if self.seconds is None or self.segment_hop is not None or self.balanced:
            raise InputError(
                f"{type(self).__name__} draws crops: give seconds, and no segment_hop or balanced"
            )
        if epoch_clips is not None and epoch_clips < 1:
            raise InputError(f"epoch_clips must be at least 1, not {epoch_clips}")
        if not test_sources or set(test_sources) & set(validation_sources or []):
            raise InputError("test_sources must name one source at least, and none that validates")
        self.parts = dict.fromkeys(test_sources, TEST)
        self.parts |= dict.fromkeys(validation_sources or [], VALIDATION)
        self.epoch_clips, self.mixing = epoch_clips, mixing
        self.exclude_ids, self.overlap_check = exclude_ids, overlap_check
        self.table = None if table is None else expanded(table)
        self.licences: dict[str, str] = {}
        self.dataset = name
        self.protocol = f"{name}: the teacher's tags on {', '.join(sorted(test_sources))}"

    def setup(self, stage: str | None = None) -> None:
        self.licences = self._read_licences()  # what is wrong with the table is said now
        super().setup(stage)

    def read_clips(self) -> tuple[list[Clip], list[str]]:
        if not self.root.is_dir():
            raise DataError(f"{self.root}: no such folder; expected there: {self.layout}")
        paths = sound_files(self.root)
        inside = [path for path in paths if len(path.relative_to(self.root).parts) > 1]
        if paths and not inside:
            raise DataError(
                f"{self.root}: its {len(paths)} recordings lie in no folder of a source; expected: "
                f"{self.layout}"
            )
        excluded = set() if self.exclude_ids is None else read_ids(self.exclude_ids)
        clips = []
        for path in inside:
            if excluded.intersection(ID.findall(path.name)):
                self.left_out.append(f"{display_name(path)}: its id is to be left out")
                continue
            name = path.relative_to(self.root).as_posix()
            clips.append(Clip(path, (), name, self.parts.get(source_of(name), TRAINING)))
        counts: dict[str, int] = defaultdict(int)
        for clip in clips:
            counts[source_of(clip.id)] += 1
        self._check_sources(counts, len(inside))
        return clips, []

    def _check_sources(self, counts: dict[str, int], found: int) -> None:
        """Raise DataError for sources that cannot be trained on or held out as asked."""
        if not counts:
            said = (
                f"the ids of {self.exclude_ids} leave nothing of {found}" if found else "no sound"
            )
            raise DataError(f"{self.root}: {said}; expected: {self.layout}")
        for source in self.parts:
            if source not in counts:
                raise DataError(
                    f"{self.root}: no source {source!r} to hold out; there is "
                    f"{shown(', '.join(sorted(counts)))}"
                )
            if counts[source] == 1:
                raise DataError(
                    f"{self.root}: source {source!r} is a single recording: a score on it would "
                    "say nothing; hold out another"
                )
        held = [source for source, part in self.parts.items() if part == self.scored_fold]
        if sum(counts[source] for source in held) < LEAST_TAGGED:
            raise DataError(
                f"{self.root}: {', '.join(held)}: fewer than {LEAST_TAGGED} recordings, so that no "
                "class could be scored: hold out more"
            )
        if set(counts) <= set(self.parts):
            raise DataError(f"{self.root}: every source is held out; none is left to train on")

    @property
    def repeats(self) -> bool:
        """Never: crops are drawn anew in every epoch."""
        return False

    def heard(self) -> dict[str, Any]:
        """What training hears: hours, recordings and licence by source; how overlap was checked."""
        rate = self._rate()
        sources: dict[str, dict[str, Any]] = {}
        for clip in self._select("training"):
            name = source_of(clip.id)
            row = sources.setdefault(
                name, {"recordings": 0, "hours": 0.0, "licence": self.licences.get(name)}
            )
            row["recordings"] += 1
            row["hours"] += self.lengths[clip.id] / rate / 3600
        for row in sources.values():
            row["hours"] = round(row["hours"], 3)
        return {
            "sources": sources,
            "hours": round(sum(row["hours"] for row in sources.values()), 3),
            "held_out": sorted(self.parts),
            "overlap_check": self.overlap_check,
        }

    def _read_licences(self) -> dict[str, str]:
        named = [self.root / name for name in TABLES if (self.root / name).is_file()]
        path = self.table or next(iter(named), None)
        if path is None:
            return {}
        rows = read_rows(path, "\t" if path.suffix.lower() == ".tsv" else ",")
        columns = set(rows[0]) if rows else {"source", "licence"}
        if "source" not in columns or not columns & {"licence", "license"}:
            found = shown(", ".join(columns))[:200]
            raise DataError(f"{path}: expected columns source and licence, found {found}")
        licences = {row["source"]: row.get("licence") or row.get("license") or "" for row in rows}
        longest = max(map(len, licences.values()), default=0)
        if longest > LONGEST_LICENCE:
            raise DataError(
                f"{path}: a licence of {longest} characters: give its name, such as cc-by-4.0"
            )
        return licences

    def make_dataset(self, items: list[Item], seed: int, train: bool) -> ClipDataset:
        if not train:
            return super().make_dataset(items, seed, train)
        return PoolDataset(
            items, 0, self.packed or self.cache, self._rate(), self.seconds, seed, self.augment,
            True, self.crop, mixing=self.mixing, draws=self._draws(items),
        )  # fmt: skip

    def make_sampler(self, items: list[Item], seed: int, train: bool, **share: Any) -> EpochSampler:
        if not train:
            return super().make_sampler(items, seed, train, **share)
        assert self.seconds is not None
        held = sum(self.lengths[clip.id] for clip, _ in items) / self._rate()
        count = self.epoch_clips or max(1, round(held / self.seconds))
        return PoolSampler(self._draws(items), count, seed, **share)

    def _draws(self, items: list[Item]) -> np.ndarray:
        """Probability of every item in a draw, (N,)."""
        assert self.seconds is not None
        size = round(self.seconds * self._rate())
        lengths = np.array([self.lengths[clip.id] for clip, _ in items], float)
        names = np.array([source_of(clip.id) for clip, _ in items])
        share = np.maximum(lengths, size)
        for name in np.unique(names):
            own = names == name
            share[own] *= np.sqrt(lengths[own].sum()) / share[own].sum()
        return share / share.sum()


class PoolSampler(EpochSampler):
    """Draws items of a pool by their probability, anew in every epoch.

    Args:
        probabilities: of the items, (N,).
        **share: of this process, see `EpochSampler`.
    """

    def __init__(self, probabilities: np.ndarray, count: int, seed: int, **share: Any):
        super().__init__(count, seed, True, **share)
        self.probabilities = probabilities

    def _each(self, rng: np.random.Generator, total: int) -> Iterator[tuple[int, ...]]:
        drawn = rng.choice(len(self.probabilities), size=total, p=self.probabilities)
        for draw, index in enumerate(drawn):
            yield (self.epoch, int(index), draw)


class PoolDataset(ClipDataset):
    """Random crops of a pool, joined and mixed.

    Args:
        items, …: as `ClipDataset`, for training.
        mixing: how crops are put together; None: each is of one recording.
        draws: probability of every item as the second of a mixture, (N,).
    """

    def __init__(self, *args: Any, mixing: Mixing | None, draws: np.ndarray, **settings: Any):
        super().__init__(*args, **settings)
        self.mixing = mixing
        self.cumulated = np.cumsum(draws)
        self.members: dict[str, list[int]] = defaultdict(list)
        for n, (clip, _) in enumerate(self.items):
            self.members[source_of(clip.id)].append(n)

    def __getitem__(self, key: tuple[int, ...]) -> dict[str, Any]:
        seed = item_seed(self.seed, *key)
        rng = np.random.default_rng(seed)
        waveform = self._crop(key[1], rng)
        if self.mixing is not None and rng.random() < self.mixing.probability:
            weight = np.float32(rng.beta(self.mixing.alpha, self.mixing.alpha))
            other = min(int(np.searchsorted(self.cumulated, rng.random())), len(self.items) - 1)
            waveform = weight * waveform + (1 - weight) * self._crop(other, rng)
        return {
            "waveform": torch.from_numpy(waveform[None]),
            "label": torch.zeros(0, dtype=torch.uint8),
            "id": self.items[key[1]][0].id,
            "index": key[1],
            "repeat": False,
            "seed": seed,
        }

    def _crop(self, index: int, rng: np.random.Generator) -> np.ndarray:
        """A crop of an item, (T,) float32."""
        assert self.samples is not None
        parts = [self._part(index, self.samples, rng)]
        size = len(parts[0])
        if size < self.samples and self.mixing is not None and rng.random() < self.mixing.join:
            own = self.members[source_of(self.items[index][0].id)]
            while size < self.samples:
                parts.append(self._part(int(rng.choice(own)), self.samples - size, rng))
                size += len(parts[-1])
        return fit_length(np.concatenate(parts), self.samples, rng)

    def _part(self, index: int, most: int, rng: np.random.Generator) -> np.ndarray:
        """At most so many samples of an item, augmented, from a random place."""
        sound = self.cache.get(self.items[index][0].path, self.sample_rate)
        speed = 0.0 if self.augment is None else self.augment.speed
        # What is played faster is longer before.
        size = min(len(sound), int(most * (1 + speed)) + 1)
        start = int(rng.integers(len(sound) - size + 1))
        waveform = as_float(sound[start : start + size])
        if self.augment is not None:
            waveform = self.augment(waveform, rng)
        return np.asarray(waveform[:most], np.float32)


def source_of(clip: str) -> str:
    """The source of a clip by its id."""
    return clip.partition("/")[0]


def read_ids(path: str) -> set[str]:
    """Numbers of four or more digits in a text file; raises DataError where there are none."""
    try:
        found = set(ID.findall(expanded(path).read_text(encoding="utf-8-sig")))
    except (OSError, UnicodeError) as error:
        raise DataError(f"{path}: not readable as a list of ids ({error})") from None
    if not found:
        raise DataError(f"{path}: holds no id (a number of four or more digits)")
    return found
