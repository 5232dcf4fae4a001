"""One labelled sound of a benchmark."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Clip:
    """One labelled sound.

    Attributes:
        label: class index; of a multi-label benchmark, the indices of its classes.
        id: unique within the benchmark.
        fold: from 1; TRAINING, TEST or VALIDATION where the split is fixed.
    """

    path: Path
    label: int | tuple[int, ...]
    id: str
    fold: int

    @property
    def classes(self) -> tuple[int, ...]:
        """The clip's class indices, one or several."""
        return (self.label,) if isinstance(self.label, int) else self.label
