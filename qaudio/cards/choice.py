"""What a clone recorded of the networks that a user chooses from: accuracy, time, size."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from qaudio.records import Count, Number, Record, Share, Text
from qaudio.zoo.store import read_record, zoo_folder

FILE = Path("tests", "benchmarks", "speed", "choice.json")  # below the clone
PROBE = "ESC-10 probe"  # the score that networks are ordered by


class Score(Record):
    """An accuracy and its 95 % interval over clips, fractions."""

    mean: Share
    interval95: tuple[Share, Share]


class InRuntime(Record):
    """A network in one runtime, on 10 s of sound.

    Attributes:
        milliseconds: of an answer, by the number of threads; processor time of one thread.
        processor_milliseconds: the same on all processors together, waiting included.
        import_milliseconds: of the runtime's package, in a fresh process.
        cold_milliseconds: from then to the first answer.
        peak_megabytes: resident, of that process, the imports included.
        bytes: of the file that it is loaded from.
    """

    runtime: Text
    milliseconds: dict[Text, Number]
    processor_milliseconds: dict[Text, Number]
    import_milliseconds: Number
    cold_milliseconds: Number
    peak_megabytes: Number
    bytes: Count

    @property
    def fastest(self) -> float:
        """Milliseconds on the most threads that were tried."""
        return self.milliseconds[max(self.milliseconds, key=int)]


class Candidate(Record):
    """A network.

    Attributes:
        scores: by what was scored and how, such as `PROBE`; empty of random weights.
    """

    network: Text
    family: Literal["quaternion", "real", "peer"]
    scores: dict[Text, Score]
    runtimes: list[InRuntime]

    @property
    def best(self) -> InRuntime:
        """The runtime that it is fastest in; in int8 if in no other, as scores are fp32's."""
        return min(self.runtimes, key=lambda one: (one.runtime.endswith("int8"), one.fastest))


def recorded(file: Path | None = None) -> dict[str, list[Candidate]]:
    """The candidates by machine, the last recorded last; nothing where there is no file.

    Raises:
        EntryError: for a file that holds something else.
    """
    return read_record(file or zoo_folder().parent / FILE, dict[str, list[Candidate]]) or {}
