"""What the JSON files of an entry and of the zoo hold, as records.

Keys that no record names are kept, as later versions may write them.
"""

from typing import Any, Literal

from msgspec import field

from qaudio.compress.measured import Cost
from qaudio.errors import InputError
from qaudio.evaluation.result import Calibration, Difference, Result, Scaling
from qaudio.models.config import ModelConfig
from qaudio.models.registry import Card, card_of, is_quaternion
from qaudio.records import (
    Count,
    EntryName,
    InnerPath,
    Integer,
    Name,
    Number,
    Positive,
    Record,
    Sha256,
    Text,
    parse,
)

SCHEMA_VERSION = 1
HUB_PREFIX = "hf-hub:"  # of an address on the Hugging Face Hub: hf-hub:org/name[@revision]


class Kept(Record):
    """What is left of a parent: shares of its size."""

    params: Number
    macs: Number


class Parent(Record):
    """The entry that another one's weights come from.

    Attributes:
        how: it became the other, such as "pruned from".
        kept: of the parent's size.
        difference: of the scores; None where they were not scored on the same clips.
    """

    name: EntryName
    how: Text
    license: Text | None = None
    kept: Kept | None = None
    difference: Difference | None = None


class RecipeRun(Record):
    """How an entry was trained: the command, its recipe's hash and commit."""

    command: Text
    sha256: Text
    commit: Text | None


class Training(Record):
    """What training took, in all and for each run, and on what."""

    wall_seconds: Number
    wall_seconds_of: dict[Text, Number]
    device: Text
    precision: Text


class HeardSource(Record):
    """Unlabelled recordings of one source."""

    recordings: Count
    hours: Number
    licence: Text | None


class Heard(Record):
    """Unlabelled sound that a network learnt from.

    Attributes:
        sources: by name.
        held_out: names of sources kept for testing.
        overlap_check: how overlap with benchmarks was looked for; None: it was not.
    """

    sources: dict[Text, HeardSource]
    hours: Number
    held_out: list[Text]
    overlap_check: Text | None


class Teaching(Record):
    """How a network was taught by another on unlabelled sound.

    Attributes:
        tagged_from: probability from which a class of the teacher's counts as a tag.
        least_tagged: clips that a class needs to be scored.
        embedding_cosine: mean cosine of student's and teacher's embeddings.
    """

    teacher: EntryName
    tagged_from: Number
    least_tagged: Count
    heard: Heard
    embedding_cosine: Number | None = None


class Transfer(Record):
    """A score on a benchmark that the network was not trained on.

    Attributes:
        predictions: file that the result follows from.
    """

    benchmark: Name
    dataset: Text
    protocol: Text
    result: Result
    predictions: InnerPath


class Baseline(Record):
    """The same held-out clips scored without training the network.

    Attributes:
        difference: of the network's score less this one.
        predictions: file that both follow from.
    """

    method: Text
    result: Result
    difference: Difference
    predictions: InnerPath


class HubBenchmark(Record):
    """A leaderboard on the Hub."""

    dataset_id: Text
    task_id: Text


class Results(Record, kw_only=True):
    """results.json of an entry.

    Attributes:
        entry: its name; a study keeps its cells in folders of their own.
        benchmark: key of the benchmark, or the name of a folder's recordings.
        protocol: its folds, in words.
        complete: whether every fold of every seed was run.
        complete_runs_scored: complete runs of the benchmark scored up to these, over all entries.
        card_fold, card_seed: the run whose weights are model.safetensors.
        parent: that its weights come from; None from scratch.
        trained_on: datasets that the weights saw, with those of its parents.
        git_commit: of the package's code.
        teaching: of a network taught on unlabelled sound.
        baselines: of a fine-tuned network.
        calibration: of its probabilities.
        hub_benchmark: leaderboard that the score is written for.
    """

    schema_version: Integer = 1
    entry: InnerPath
    benchmark: Name
    dataset: Text
    protocol: Text
    epoch_choice: Text
    complete: bool
    complete_runs_scored: Count
    seeds: list[Integer]
    card_fold: Integer
    card_seed: Integer
    result: Result
    parent: Parent | None
    trained_on: list[Text]
    cost: Cost
    recipe: RecipeRun
    git_commit: Text | None
    training: Training
    versions: dict[Text, Text]
    teaching: Teaching | None = None
    transfer: list[Transfer] = field(default_factory=list)
    baselines: list[Baseline] = field(default_factory=list)
    calibration: Calibration | None = None
    hub_benchmark: HubBenchmark | None = None

    @property
    def is_custom_dataset(self) -> bool:
        """Whether it was trained on somebody's own recordings, under a name of their choice."""
        return own_recordings(self)

    @property
    def outside(self) -> str | None:
        """File of predictions on sounds of none of its classes."""
        found = self.calibration and self.calibration.outside
        return found.predictions if found else None

    @property
    def beside(self) -> list[str]:
        """Files of all predictions but those of its own benchmark, predictions.npz."""
        names = [one.predictions for one in self.transfer]
        names += [one.predictions for one in self.baselines]
        return names if self.outside is None else [*names, self.outside]


def own_recordings(scored: Results | Transfer) -> bool:
    """Whether a score is of somebody's own recordings, under a name of their choice."""
    return scored.protocol.startswith(f"{scored.dataset}: ")


class Source(Record, kw_only=True):
    """source.json: the file that an entry was imported from.

    Attributes:
        file, size, sha256: of the checkpoint.
        importer: whose code wrote it, as `qaudio import` names it.
        trained_on: datasets that its weights saw.
        held_out: what its trainers kept for testing, as the benchmark's DataModule names it.
        url, citation: where it is from.
    """

    file: Text | None = None
    size: Count | None = None
    sha256: Text | None = None
    importer: Text | None = None
    trained_on: list[Text]
    held_out: Text | None = None
    url: Text | None = None
    citation: Text | None = None


class HostedFile(Record):
    """A file that others host; size and sha256 are None where they are not known beforehand."""

    file: Name
    url: Text
    size: Count | None
    sha256: Sha256 | None


class HostedCheckpoint(HostedFile):
    """A checkpoint that others host, and what imports it."""

    importer: Text
    arch: Text
    license: Text | None
    citation: Text


class Hosted(Record):
    """zoo/hosted.json: class names by benchmark and checkpoints by entry."""

    labels: dict[Name, HostedFile] = field(default_factory=dict)
    entries: dict[EntryName, HostedCheckpoint] = field(default_factory=dict)


class ScoredSet(Record):
    """A line of scored.json: a complete set of folds that was ever scored."""

    benchmark: Name
    entry: InnerPath
    recipe: Text
    seed: Text


class ValidationScore(Record):
    """What a run of a cross-validation scores on its validation fold; its recipe's sha256."""

    seed: Integer
    fold: Integer
    score: Number
    wall_seconds: Number
    recipe: Text | None = None


class Validation(Record):
    """NAME.validation.json: the scores of a recipe's validation folds."""

    validation: list[ValidationScore]


class Config(Record, kw_only=True):
    """config.json of an entry: its network, licence and files with their sha256.

    Attributes:
        quaternion: None in files of earlier versions.
        calibration: of the weights that the entry carries, not of what is made of them.
        card_format: of its card, where it has one.
    """

    schema_version: Integer
    qaudio_version: Text
    architecture: Text
    num_classes: Count
    widths: dict[Text, Integer]
    frontend: dict[Text, Integer | Number | Text | None]
    labels: list[Text] | None
    task: Literal["multiclass", "multilabel"]
    eval_seconds: Positive | None
    quaternion: bool | None = None
    padded: bool | None = None
    calibration: Scaling | None = None
    license: Text | None
    card_format: Integer | None = None
    files: dict[InnerPath, Sha256]

    @property
    def is_quaternion(self) -> bool:
        """Whether its network has quaternion layers."""
        return is_quaternion(self.architecture, self.quaternion)

    @property
    def card(self) -> Card:
        """What model cards say of its architecture."""
        return card_of(self.architecture, self.is_quaternion)

    @property
    def model(self) -> ModelConfig:
        """What its network is built from; raises InputError where none can be."""
        return ModelConfig.from_dict(self.to_dict(), quaternion=self.is_quaternion)


def parse_config(document: Any) -> Config:
    """The record of a config.json; raises InputError for what no entry's holds."""
    version = document.get("schema_version") if isinstance(document, dict) else SCHEMA_VERSION
    if version != SCHEMA_VERSION:
        raise InputError(
            f"schema_version is {version!r}, this qaudio reads {SCHEMA_VERSION}; a newer qaudio "
            "may read it"
        )
    found = parse(document, Config)
    if found.labels is not None and len(found.labels) != found.num_classes:
        raise InputError(f"{found.num_classes} classes, {len(found.labels)} labels")
    if found.calibration and len(found.calibration.thresholds) != found.num_classes:
        raise InputError(
            f"{found.num_classes} classes, {len(found.calibration.thresholds)} thresholds"
        )
    return found
