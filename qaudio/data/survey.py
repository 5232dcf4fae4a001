"""A look at a folder of recordings before anything is decoded or trained."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from qaudio.data.audio import info, read
from qaudio.data.benchmarks.folder import AudioFolder
from qaudio.errors import AudioError, DataError
from qaudio.text import shown

SHORTEST, LONGEST = 0.5, 10.0  # seconds that clips are trained at, unless others are given
PERCENTILE = 95  # of the lengths that is taken between these
MOST_FOLDS = 5


@dataclass(frozen=True)
class Survey:
    """What recordings there are, by their files' headers.

    Attributes:
        counts: clips of each class that can be read.
        sources: groups of each class; a file without a group is one.
        seconds: length of every clip that can be read.
        unreadable: why the others cannot be, a line each.
    """

    counts: dict[str, int]
    sources: dict[str, int]
    groups: int
    seconds: list[float]
    unreadable: list[str]

    @property
    def folds(self) -> int:
        """Into how many a split leaves each class some clips to train on and, mostly, to score."""
        return max(2, min(MOST_FOLDS, *self.sources.values()))

    @property
    def clip_seconds(self) -> float:
        """Length to train clips at: one that most fit into, to a tenth of a second.

        Between half a second and ten; what is longer is cut into segments.
        """
        usual = float(np.percentile(self.seconds, PERCENTILE, method="inverted_cdf"))
        return min(LONGEST, max(SHORTEST, round(usual, 1)))


def survey(data: AudioFolder) -> Survey:
    """Look at recordings.

    Raises:
        DataError: where they cannot be trained on and scored: fewer than two classes, a class
            with fewer than two recordings (of two groups), or nothing that can be read.
    """
    clips, labels = data.read_clips()
    unreadable = list(data.left_out)
    seconds: list[float] = []
    counts: Counter[str] = Counter()
    sources: dict[str, set[str]] = {label: set() for label in labels}
    for clip in clips:
        try:
            found = info(clip.path)
            length = found.seconds
            if length is None:  # the header does not say
                samples, rate = read(clip.path)
                length = len(samples) / rate
            if not length:
                raise AudioError(f"{shown(str(clip.path))}: holds no samples")
        except AudioError as error:
            unreadable.append(str(error))
            continue
        seconds.append(length)
        for index in clip.classes:
            counts[labels[index]] += 1
            sources[labels[index]].add(data.source_of(clip.id))
    where = data.table or data.root
    if not seconds:
        raise DataError(
            f"{where}: none of {len(clips)} recordings can be read; the first: {unreadable[0]}"
        )
    for label in labels:
        if len(sources[label]) > 1:
            continue
        of = "" if counts[label] == len(sources[label]) else ", all of one group"
        raise DataError(
            f"{where}: class {shown(label)!r} has {counts[label]} recordings that can be read{of}: "
            "it takes two at least, one to learn from and one to score"
        )
    return Survey(
        {label: counts[label] for label in labels},
        {label: len(own) for label, own in sources.items()},
        len(set(data.groups.values())), seconds, unreadable,
    )  # fmt: skip
