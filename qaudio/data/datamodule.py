"""What every benchmark's DataModule shares: splits, usable clips, loaders."""

from dataclasses import asdict
from itertools import islice
from typing import Any, Literal

import torch
from lightning import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.utils.data import DataLoader

from qaudio.data.archive import Archive, install
from qaudio.data.audio import AudioCache
from qaudio.data.augment import WaveformAugment, global_seed
from qaudio.data.clip import Clip
from qaudio.data.dataset import (
    ClipDataset,
    EpochSampler,
    Item,
    ResumableLoader,
    class_weights,
    collate,
    cut,
    items_by_class,
)
from qaudio.data.shards import FACTS, PackedClips
from qaudio.data.split import TRAINING, VALIDATION, Split
from qaudio.data.usable import UsableClips, decoded, first_of, unpacked, warn, warn_of_gaps
from qaudio.errors import DataError, InputError, check_choice
from qaudio.paths import expanded

LONGEST_CROP = 3600  # seconds: every clip may be padded to it
MOST_OVERLAP = 100  # segments that one sample may be part of


class AudioDataModule(LightningDataModule):
    """Base of the benchmarks' DataModules.

    Subclasses implement `read_clips` (every clip with its fold) and set the attributes.

    Attributes:
        benchmark, dataset, protocol, folds: as in `Split`. With folds 1 the split is fixed: clips
            are of the folds TRAINING, TEST and VALIDATION, and the last never trains.
        layout: the files that are expected under root, in words.
        archive, not_hosted: what `download` fetches; or why it cannot.
        scored_on: settings that say which clips are scored, and how.
        published: whether clips and folds are the same wherever the benchmark lies.
        task: "multiclass" or "multilabel".
        labels: class names, once `setup` has run.
        clips, lengths: those that can be used, and the samples of each by its id, once `setup` has
            run.
        left_out: what could not be used and why, once `setup` has run.

    Args:
        root: folder of the benchmark as its authors lay it out.
        fold: the held-out test fold, from 1.
        holdout: "test" trains on every other fold and scores the test fold; "validation" leaves
            the test fold alone: fold `fold mod folds + 1`, or a fixed split's validation part, is
            scored, the others train. Choose recipes with the latter.
        seconds: length of training clips (random crop) and of scored clips; None takes clips
            whole, one at a time.
        crop: which part of a longer clip is scored: "start" or "center".
        segment_hop: seconds from segment to segment: clips are cut, after they were split, into
            segments of `seconds`, which train one by one; a scored clip's logits are the mean over
            its segments. None: one crop of each clip.
        balanced: draw every class, and the clips of none, equally often in training.
        batch_size: clips, or segments, of each process.
        augment: changes of single waveforms in training.
        seed: of order and augmentation; None: that of `seed_everything`.
        sample_rate: Hz; None: the model's, which it must be in training.
        num_workers: of the loaders. The cache makes 0 a good choice.
        cache_dir: where decoded audio is kept; None: the user's cache folder.
        download: fetch the benchmark into an empty `root`, where its licence allows that.
        packed: folder, or address in an object store, that `qaudio pack` filled: takes the place of
            the files, and needs no cache.
    """

    benchmark: str
    dataset: str
    protocol: str
    folds: int
    layout: str
    archive: Archive | None = None
    not_hosted: str = "your own recordings are where you put them"
    scored_on: tuple[str, ...] = ("seconds", "crop", "segment_hop")
    published: bool = True
    task: Literal["multiclass", "multilabel"] = "multiclass"

    def __init__(
        self,
        root: str,
        *,
        fold: int = 1,
        holdout: Literal["test", "validation"] = "test",
        seconds: float | None = 5.0,
        crop: Literal["start", "center"] = "start",
        segment_hop: float | None = None,
        balanced: bool = False,
        batch_size: int = 32,
        augment: WaveformAugment | None = None,
        seed: int | None = None,
        sample_rate: int | None = None,
        num_workers: int = 0,
        cache_dir: str | None = None,
        packed: str | None = None,
        download: bool = False,
    ):
        super().__init__()
        check_choice("holdout", holdout, ("test", "validation"))
        check_choice("crop", crop, ("start", "center"))
        for wrong, said in (
            (seconds is not None and not 0 < seconds <= LONGEST_CROP,
             f"seconds must be above 0 and at most {LONGEST_CROP}, or None for whole clips, not "
             f"{seconds}"),
            (segment_hop is not None
             and (seconds is None or not seconds / MOST_OVERLAP <= segment_hop <= seconds),
             f"segment_hop must be at most seconds ({seconds}) and at least 1/{MOST_OVERLAP} of "
             f"them, not {segment_hop}"),
            (batch_size < 1, f"batch_size must be at least 1, not {batch_size}"),
            (seed is not None and seed < 0, f"seed must be at least 0, not {seed}"),
        ):  # fmt: skip
            if wrong:
                raise InputError(said)
        if download and self.archive is None:
            raise DataError(
                f"{type(self).__name__} is not downloaded: {self.not_hosted}. Expected under "
                f"{root}: {self.layout}"
            )
        self.download, self.root = download, expanded(root)
        self.fold, self.holdout = fold, holdout
        self.seconds, self.crop, self.segment_hop = seconds, crop, segment_hop
        self.balanced, self.batch_size, self.augment = balanced, batch_size, augment
        self.seed, self.sample_rate, self.num_workers = seed, sample_rate, num_workers
        self.cache = AudioCache(cache_dir)
        self.packed = None if packed is None else PackedClips(packed)
        self.labels: list[str] = []
        self.left_out: list[str] = []
        self.clips: list[Clip] = []
        self.lengths: dict[str, int] = {}
        self._usable: UsableClips
        self._training: ResumableLoader | None = None
        self._left: dict[str, Any] = {}

    def read_clips(self) -> tuple[list[Clip], list[str]]:
        """Every clip of the benchmark and the class names; raises DataError.

        What is known to be unusable without opening it is added to `left_out`.
        """
        raise NotImplementedError

    @property
    def split(self) -> Split:
        """The split that this module trains and scores on."""
        if not 1 <= self.fold <= self.folds:
            raise DataError(f"fold must be 1 to {self.folds} for {self.protocol}, not {self.fold}")
        if self.folds == 2 and self.holdout == "validation":
            raise DataError("of two folds, one tested and one validated, none is left to train on")
        protocol = self.protocol + self.split_note
        return Split(
            self.benchmark, self.dataset, protocol, self.fold, self.folds, self.scored_fold
        )

    @property
    def split_note(self) -> str:
        """What distinguishes splits of one protocol, once `setup` has run: added to its name.

        A copy that lacks clips is not the benchmark, and its scores do not bear its name alone.
        """
        found, listed = len(self.clips), self._usable.listed if self.clips else 0
        return "" if found == listed else f", {found} of {listed} clips"

    @property
    def scored_fold(self) -> int:
        """The fold that is evaluated: `fold`, or under "validation" the one that validates."""
        if self.holdout == "test":
            return self.fold
        return VALIDATION if self.folds == 1 else self.fold % self.folds + 1

    def prepare_data(self) -> None:
        """Download where asked to, and decode what the cache lacks; once per machine."""
        if self.download and self.archive is not None and self.packed is None:
            install(self.archive, self.root)
        self.setup()

    def setup(self, stage: str | None = None) -> None:
        """Read the index and open every clip; unreadable ones are named once and left out."""
        rate = self._rate()
        if self.clips and self._usable.rate == rate:
            return
        name = self.split.benchmark  # refuses a fold that does not exist before decoding
        self.clips, self.left_out = [], []
        if self.packed is None:
            clips, self.labels = self.read_clips()
            self._usable = decoded(name, clips, self.cache, rate)
        else:
            asked = {fact: getattr(self, fact) for fact in FACTS}
            self._usable = unpacked(self.packed, asked, rate)
            self.labels = self.packed.facts["labels"]
        self.left_out += self._usable.left_out
        if self.left_out:
            warn(f"{len(self.left_out)} clips left out: {first_of(self.left_out)}")
        self.clips, self.lengths = self._usable.clips, self._usable.lengths
        self._keep_used()
        for role in ("training", "scored"):
            if not self._select(role):
                self.clips = []
                raise DataError(
                    f"{name}: no usable {role} clips under {self.root}; expected {self.layout}"
                )
            if not self.published:
                warn_of_gaps(self.fold, role, self._select(role), self.labels)

    def _keep_used(self) -> None:
        """Where classes are those of the clips: drop those that have none left."""

    def _rate(self) -> int:
        """Hz of the clips; raises DataError where the model in training takes another rate."""
        module = None if self.trainer is None else self.trainer.lightning_module
        models = getattr(module, "sample_rate", None)
        rate = self.sample_rate or models
        if rate is None:
            raise InputError("pass sample_rate, or let a Trainer give the model's")
        if models not in (None, rate):
            raise DataError(
                f"sample_rate is {rate} Hz, but the model hears {models} Hz: leave it out, and "
                "clips come at the model's"
            )
        return int(rate)

    def _select(self, role: str) -> list[Clip]:
        if role == "scored":
            return [clip for clip in self.clips if self.part_of(clip) == self.scored_fold]
        if self.folds == 1:
            return [clip for clip in self.clips if self.part_of(clip) == TRAINING]
        held_out = {self.fold, self.scored_fold}
        return [clip for clip in self.clips if self.part_of(clip) not in held_out]

    def part_of(self, clip: Clip) -> int:
        """The fold that a clip is in; benchmarks may take a validation part from training here."""
        return clip.fold

    def _items(self, role: str, whole: bool = False) -> list[Item]:
        """Training: every segment an item. Scored, or whole: every clip, with all its segments."""
        clips = self._select(role)
        if self.segment_hop is None or self.seconds is None:
            return [(clip, (slice(None),)) for clip in clips]
        rate = self._rate()
        size, hop = round(self.seconds * rate), max(1, round(self.segment_hop * rate))
        items = [(clip, cut(self.lengths[clip.id], size, hop)) for clip in clips]
        if whole or role == "scored":
            return items
        return [(clip, (segment,)) for clip, segments in items for segment in segments]

    def class_weights(self) -> Tensor:
        """Weights of the classes for the loss, (C,), inverse to their training clips or segments.

        Raises:
            DataError: for a multi-label benchmark, balanced classes, or one without clips.
        """
        if self.task == "multilabel":
            raise DataError(
                f"{self.benchmark}: class weights need one label a clip: switch them off "
                "(--model.class_weights false); --data.balanced true draws every class as often"
            )
        if self.balanced:
            raise DataError(
                "balanced draws every class equally often already: switch either it or the class "
                "weights off (--data.balanced false, --model.class_weights false)"
            )
        return class_weights(self._items("training"), self.labels, self.benchmark)

    @property
    def pads(self) -> bool:
        """Whether a training clip is shorter than `seconds`, and padded with silence."""
        if self.seconds is None:
            return False
        size = round(self.seconds * self._rate())
        return any(self.lengths[clip.id] < size for clip in self._select("training"))

    @property
    def repeats(self) -> bool:
        """Whether a training clip is the same in every epoch: not augmented, not cut at random."""
        if self.augment is not None:
            return False
        if self.seconds is None:
            return True
        size = round(self.seconds * self._rate())
        return all(
            len(range(self.lengths[clip.id])[segment]) == size
            for clip, segments in self._items("training")
            for segment in segments
        )

    def first_batches(self, count: int = 16) -> list[tuple[Tensor, Tensor]]:
        """Waveforms (B, T) and labels of the first training batches, for pruning criteria."""
        batches = islice(self._loader("training"), count)  # beside the loader that trains
        return [(batch["waveform"], batch["label"]) for batch in batches]

    def _loader(self, role: str, even: bool = True, whole: bool = False) -> ResumableLoader:
        train, one = role == "training" and not whole, None if whole else self.trainer
        items = self._items(role, whole)
        seed = global_seed() if self.seed is None else self.seed
        ranks, rank = (one.world_size, one.global_rank) if one else (1, 0)
        if len(items) < ranks:
            raise DataError(f"{len(items)} {role} items cannot be shared by {ranks} processes")
        sampler = self.make_sampler(items, seed, train, ranks=ranks, rank=rank, even=even)
        # A scored clip fills as many rows of a batch as it has segments.
        rows = max(len(segments) for _, segments in items)
        return ResumableLoader(
            self.make_dataset(items, seed, train),
            batch_size=1 if self.seconds is None else max(1, self.batch_size // rows),
            sampler=sampler,
            collate_fn=collate,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            # Loaders draw a seed for workers from this; torch's own must be left as dropout
            # finds it, or a resumed run would differ.
            generator=torch.Generator().manual_seed(seed),
            # A last batch of one clip has no variance for BatchNorm to divide by.
            drop_last=train and len(sampler) > 1 and len(sampler) % self.batch_size == 1,
        )

    def make_dataset(self, items: list[Item], seed: int, train: bool) -> ClipDataset:
        """The data set of a loader."""
        return ClipDataset(
            items, len(self.labels), self.packed or self.cache, self._rate(), self.seconds, seed,
            self.augment, train, self.crop,
        )  # fmt: skip

    def make_sampler(self, items: list[Item], seed: int, train: bool, **share: Any) -> EpochSampler:
        """The order of a loader; `share` is that of a process, as `EpochSampler` takes it."""
        classes = items_by_class(items, len(self.labels)) if train and self.balanced else None
        return EpochSampler(len(items), seed, train, classes, **share)

    def train_dataloader(self) -> DataLoader:
        loader = self._loader("training")
        if self._left:
            loader.load_state_dict(self._left)
        self._training = loader
        return loader

    def state_dict(self) -> dict[str, Any]:
        """The split, and how far the epoch of training is; part of Lightning's checkpoints."""
        # Of loaders Lightning asks it too, and gives it back too late where schedulers made them.
        epoch = self._training.state_dict() if self._training else {}
        return {"split": asdict(self.split), "sounds": self._sounds(), **epoch}

    def _sounds(self) -> str:
        """A digest of the recordings; of a packed set, which does not change, of its lengths."""
        return self._usable.digest(self.cache if self.packed is None else None)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The next training loader leaves out what was taken of its epoch.

        Raises:
            DataError: when weights that were trained on another split would be trained on.
        """
        split, ours = state.get("split"), asdict(self.split)
        fitting = self.trainer is not None and self.trainer.state.fn == TrainerFn.FITTING
        if fitting and split not in (None, ours):
            said = [f"{name} {split.get(name)!r}, not {ours[name]!r}" for name in ours
                    if split.get(name) != ours[name]]  # fmt: skip
            raise DataError(
                f"the checkpoint was trained on another split ({'; '.join(said)}): its weights may "
                "have seen what is held out here"
            )
        if fitting and state.get("sounds") not in (None, self._sounds()):
            raise DataError(
                "the checkpoint was trained on other recordings of the same names: delete it to "
                "start anew"
            )
        self._left = {name: state[name] for name in state.keys() - {"split", "sounds"}}

    def val_dataloader(self) -> DataLoader:
        """The scored fold; nothing under holdout="test", whose fold is scored once, at the end.

        Processes take equally many batches: what is repeated for that is marked and not scored.
        """
        return self._loader("scored") if self.holdout == "validation" else []  # type: ignore[return-value]

    def whole_clips(self, role: Literal["training", "scored"]) -> DataLoader:
        """The training or the scored clips for probes: each once, whole, in order, in one process.

        Nothing is augmented or cropped at random; a clip comes with all its segments.
        """
        return self._loader(role, even=False, whole=True)

    def test_dataloader(self) -> DataLoader:
        self.refuse_other("test")
        return self._loader("scored", even=False)

    def refuse_other(self, wanted: Literal["test", "validation"]) -> None:
        """Raise DataError where another fold is held out than the one to be scored."""
        if self.holdout == wanted:
            return
        if wanted == "test":
            raise DataError("holdout='validation' leaves the test fold alone; use `validate`")
        raise DataError("holdout='test' has no validation fold: give --data.holdout validation")
