"""Which part of a benchmark is trained on and which is held out."""

from dataclasses import dataclass

# Folds of the clips of a benchmark with one fixed split instead of a cross-validation.
TRAINING, TEST, VALIDATION = 0, 1, 2


@dataclass(frozen=True)
class Split:
    """Which part of which benchmark is trained on and which is held out.

    Attributes:
        benchmark: as in entry names ("esc10").
        dataset: the recordings and their folds; benchmarks that share both share this name, so
            that a parent trained on one can be checked against a child on the other.
        protocol: how the folds are made, by name.
        folds: how many there are; 1 for a fixed split.
        scored: the fold that is evaluated: `fold`, or a validation fold taken from training.
    """

    benchmark: str
    dataset: str
    protocol: str
    fold: int
    folds: int
    scored: int
