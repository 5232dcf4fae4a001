"""Which clips of a benchmark can be used, and how long each of them is."""

import hashlib
import json
import math
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from qaudio.data.audio import AudioCache
from qaudio.data.clip import Clip
from qaudio.data.headers import SoundWarning
from qaudio.data.shards import FACTS, PackedClips
from qaudio.errors import AudioError, DataError
from qaudio.progress import progress
from qaudio.resampling import resampled_length

ROOM_AFTER = 200  # clips, what all of them need is compared with the room on the disk
SAMPLED, SAMPLE_EVERY = 2000, 1000  # clips, and samples of each, that tell recordings apart
NAMED = 10  # at most so many of the clips that cannot be used are named


@dataclass
class UsableClips:
    """The clips that can be read at a rate.

    Attributes:
        rate: Hz.
        listed: how many clips the benchmark names, or a packed set was made of.
        lengths: samples of each, by id.
        left_out: what cannot be read and why.
    """

    rate: int
    listed: int
    clips: list[Clip] = field(default_factory=list)
    lengths: dict[str, int] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    _digest: str = ""

    def digest(self, cache: AudioCache | None) -> str:
        """A hash of the recordings: their lengths, and a little of what is in those of a cache."""
        if self._digest:
            return self._digest
        found, some = hashlib.sha256(), self.clips[:: max(1, len(self.clips) // SAMPLED)]
        found.update(json.dumps([self.rate, sorted(self.lengths.items())]).encode())
        for clip in some if cache else []:
            found.update(cache.get(clip.path, self.rate)[::SAMPLE_EVERY].tobytes())  # type: ignore[union-attr]
        self._digest = found.hexdigest()
        return self._digest


def decoded(benchmark: str, clips: list[Clip], cache: AudioCache, rate: int) -> UsableClips:
    """The clips whose files can be decoded, all of them decoded once.

    Raises:
        DataError: where the disk has no room for what is still to be decoded.
    """
    usable = UsableClips(rate, len(clips))
    with counted_warnings() as parts:
        for n, clip in enumerate(progress(clips, f"decoding {benchmark}", unit="clip")):
            if n == ROOM_AFTER:
                _check_room(benchmark, clips, usable, cache)
            try:
                usable.lengths[clip.id] = len(cache.get(clip.path, rate))
                usable.clips.append(clip)
            except AudioError as error:
                usable.left_out.append(str(error))
    if parts:
        warn(f"of {len(parts)} clips not all is heard: {first_of(parts)}")
    return usable


def _check_room(benchmark: str, clips: list[Clip], usable: UsableClips, cache: AudioCache) -> None:
    sample = clips[:: max(1, len(clips) // ROOM_AFTER)]
    missing = sum(not cache.has(clip.path, usable.rate) for clip in sample) / len(sample)
    samples = sum(usable.lengths.values()) / max(1, len(usable.lengths))
    needed = cache.bits // 8 * samples * missing * len(clips)  # bytes
    there = missing and cache.folder.is_dir()
    free = shutil.disk_usage(cache.folder).free if there else math.inf
    if needed > free:
        raise DataError(
            f"{benchmark}: decoded, {len(clips)} clips need about {needed / 1e9:.3g} GB more in "
            f"{cache.folder}, where {free / 1e9:.3g} GB are free: give --data.cache_dir on a "
            "larger disk, or pack them (`qaudio pack`) and give --data.packed"
        )


def unpacked(packed: PackedClips, asked: Mapping[str, Any], rate: int) -> UsableClips:
    """The clips that were packed.

    Args:
        packed: what `qaudio pack` made.
        asked: the facts that it must be made of.
        rate: Hz.

    Raises:
        DataError: for clips of another split.
    """
    for fact in FACTS:
        if packed.facts[fact] != asked[fact]:
            raise DataError(
                f"{packed.address}: {fact} is {packed.facts[fact]!r}, asked for is "
                f"{asked[fact]!r}: pack it with the same settings"
            )
    facts = packed.facts
    usable = UsableClips(rate, facts["listed"], left_out=list(facts["left_out"]))
    for clip, frames, own_rate in packed.clips():
        usable.lengths[clip.id] = resampled_length(frames, own_rate, rate)
        usable.clips.append(clip)
    return usable


def warn_of_gaps(fold: int, role: str, clips: list[Clip], labels: list[str]) -> None:
    """Name the classes that a split leaves without clips to train on, or to score."""
    present = {index for clip in clips for index in clip.classes}
    absent = [label for n, label in enumerate(labels) if n not in present]
    if absent:
        what = "is never trained" if role == "training" else "is not scored"
        warn(f"fold {fold} leaves no {role} clip of: {first_of(absent)}; it {what}")


@contextmanager
def counted_warnings() -> Iterator[list[str]]:
    """Keep the `SoundWarning`s of a block, to be summarised; others go their way."""
    parts: list[str] = []
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", SoundWarning)
        yield parts
    for one in said:
        if issubclass(one.category, SoundWarning):
            parts.append(str(one.message))
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


@rank_zero_only
def warn(message: str) -> None:
    """Warn once, not in each of several processes."""
    warnings.warn(message, stacklevel=3)


def first_of(lines: list[str]) -> str:
    """The first few of many, and how many more there are."""
    more = len(lines) - NAMED
    return "; ".join(lines[:NAMED] + ([f"and {more} more"] if more > 0 else []))
