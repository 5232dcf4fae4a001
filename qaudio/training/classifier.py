"""The LightningModule that trains a network: plainly, pruned, taught, or both."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch
import torch.nn.functional as F
from lightning import Callback, LightningModule
from lightning.pytorch.callbacks import StochasticWeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from qaudio.data.augment import Mixup, SpecAugment, global_seed, item_seed, one_hot
from qaudio.data.split import Split
from qaudio.errors import InputError, check_choice
from qaudio.evaluation.metrics import metric_of
from qaudio.frontend_settings import FrontendConfig
from qaudio.models.base import AudioModel
from qaudio.models.config import Task
from qaudio.models.registry import create_model, from_config
from qaudio.training import finetuning
from qaudio.training.distillation import Distillation
from qaudio.training.finetuning import Freeze
from qaudio.training.leakage import load_for_split
from qaudio.training.metrics import ClipMean, clip_means, clip_metric
from qaudio.training.optimization import Optimizer, Schedule, make_optimizer, make_scheduler
from qaudio.training.pruning import Batches, StepwisePruning, averaged
from qaudio.zoo.resolve import locate
from qaudio.zoo.store import found_in, read_config

TUNED, PROBED = "fine-tuned from", "linear-probed from"  # how networks come from their sources


class Classifier(LightningModule):
    """Trains an `AudioModel` on the clips of an `AudioDataModule`.

    The network is built in `setup`, when the DataModule knows its classes; it is then `self.net`.

    Args:
        arch: architecture to train from scratch, as `qaudio.create_model` takes it.
        source: an entry to start from instead: name, folder or hf-hub: address.
        frontend, widths: as `qaudio.create_model` takes them, with `arch` only.
        task: "multiclass" (cross-entropy) or "multilabel" (binary cross-entropy).
        optimizer: "adamw" or "adam" (amsgrad, as PANNs).
        lr: peak learning rate.
        weight_decay: of AdamW; biases and norms are left out.
        schedule: "cosine" (linear warm-up, half cosine), "one_cycle" (torch's), "trapezoidal"
            (linear warm-up, flat, linear decay to zero) or "constant".
        warmup: share of the steps that warm up.
        decay: share of the steps that decay, with "trapezoidal".
        label_smoothing: of cross-entropy, so with "multiclass" only.
        class_weights: weight classes in the loss, inversely to their training clips or segments.
        mixup, spec_augment: on the front-end's output in training; None: off.
        block_dropout, head_dropout: rates; None: the architecture's.
        freeze: "norms" trains all weights and keeps the BatchNorm statistics of the source, which a
            few batches of few clips would spoil; "backbone" trains the classifier alone; "gradual"
            begins so and thaws the next stage before it every `thaw_every` epochs. Frozen stages
            keep their BatchNorm statistics; dropout between stages, of the rates above, goes on.
        thaw_every: epochs, with freeze "gradual".
        probe_first: start from the classifier that logistic regression finds on the source's
            embeddings of the training clips; for one label a clip.
        keep_probe: with `probe_first`: first do all this without a validation fold, and train on
            only where that was clearly better than the probe there; `train` and `crossval` do so.
        entries: folder of entries in which names are looked up first; in commands the writer's.

    Raises:
        ValueError: for arguments out of range, or that contradict one another.
    """

    def __init__(
        self,
        arch: str | None = None,
        source: str | None = None,
        *,
        frontend: dict[str, Any] | None = None,
        widths: dict[str, int] | None = None,
        task: Task = "multiclass",
        optimizer: Optimizer = "adamw",
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        schedule: Schedule = "cosine",
        warmup: float = 0.1,
        decay: float = 0.3,
        label_smoothing: float = 0.0,
        class_weights: bool = False,
        mixup: Mixup | None = None,
        spec_augment: SpecAugment | None = None,
        block_dropout: float | None = None,
        head_dropout: float | None = None,
        freeze: Freeze = "none",
        thaw_every: int = 3,
        probe_first: bool = False,
        keep_probe: bool = False,
        entries: str | None = None,
    ):
        super().__init__()
        check_choice("task", task, get_args(Task))
        check_choice("optimizer", optimizer, get_args(Optimizer))
        check_choice("schedule", schedule, get_args(Schedule))
        check_choice("freeze", freeze, get_args(Freeze))
        shares = {"warmup": warmup, "decay": decay, "label_smoothing": label_smoothing,
                  "block_dropout": block_dropout, "head_dropout": head_dropout}  # fmt: skip
        for name, rate in shares.items():
            if rate is not None and not 0 <= rate <= 1:
                raise InputError(f"{name} is a share, 0 to 1, not {rate}")
        for name, value in (("lr", lr), ("weight_decay", weight_decay)):
            if not 0 <= value < math.inf:
                raise InputError(f"{name} must be at least 0, not {value}")
        for wrong, said in (
            ((arch is None) == (source is None),
             "give exactly one of arch (from scratch) and source (an entry)"),
            (source is not None and not (frontend is None and widths is None),
             "frontend and widths go with arch only: a source entry brings its own"),
            (label_smoothing and task == "multilabel",
             "label_smoothing is for one label a clip: leave it 0 with multilabel"),
            (freeze != "none" and source is None,
             f"freeze {freeze!r} goes with source only: nothing is learnt yet"),
            (probe_first and (source is None or task == "multilabel"),
             "probe_first goes with a source, and with one label a clip"),
            (keep_probe and not probe_first, "keep_probe goes with probe_first"),
            (thaw_every < 1, f"thaw_every must be at least 1, not {thaw_every}"),
        ):  # fmt: skip
            if wrong:
                raise InputError(said)
        self.entries = entries
        self.arch, self.source = arch, None if source is None else self.found(source)
        self.frontend, self.widths, self.task = frontend, widths, task
        self.optimizer_name, self.lr, self.weight_decay = optimizer, lr, weight_decay
        self.schedule, self.warmup, self.decay = schedule, warmup, decay
        self.label_smoothing, self.class_weights = label_smoothing, class_weights
        self.mixup, self.spec_augment = mixup, spec_augment
        self.block_dropout, self.head_dropout = block_dropout, head_dropout
        self.frozen, self.thaw_every, self.probe_first = freeze, thaw_every, probe_first
        self.keep_probe = keep_probe
        self.as_it_is = False  # whether the source is scored untrained, classifier and all
        self.pruning: StepwisePruning | None = None
        self.distillation: Distillation | None = None
        self.projection: nn.Module  # of embeddings to the teacher's, where there is one
        self.net: AudioModel
        self._split: Split | None = None  # that `net` was built for
        self._trained = False
        self._rng_state: Tensor | None = None  # of a checkpoint that is gone on from
        self.loss_weights: Tensor | None = None
        self.scored: list[dict[str, Any]] = []

    def found(self, source: str) -> str:
        """An entry as it was given, or its path where it is named and lies in `entries`."""
        return source if self.entries is None else found_in(Path(self.entries), source)

    @property
    def final_widths(self) -> dict[str, int]:
        """The network's widths when training has ended; known once it begins."""
        return self.net.widths | ({} if self.pruning is None else self.pruning.final_widths)

    @property
    def sample_rate(self) -> int:
        """Rate in Hz at which the network takes waveforms."""
        if hasattr(self, "net"):
            return self.net.sample_rate
        if self.source is not None:
            return read_config(locate(self.source)).model.frontend.sample_rate
        return FrontendConfig.from_dict(self.frontend or {}).sample_rate

    def build(self, labels: list[str], split: Split) -> AudioModel:
        """The network to train, for these classes and this split."""
        if self.distillation is not None:
            labels = self.distillation.load(labels, split)
        if not labels:
            raise InputError(
                f"{split.dataset} has no labels to train on: give --model DistilledClassifier and "
                "a teacher"
            )
        if self.arch is not None:
            net = create_model(
                self.arch, num_classes=len(labels), frontend=self.frontend, widths=self.widths
            )
        else:
            assert self.source is not None
            net = load_for_split(self.source, split, global_seed())
            if self.as_it_is:
                finetuning.check_classes(self.source, net, labels, split)
            elif net.labels != labels:
                net.reset_classifier(len(labels), labels)
        net.labels, net.task = labels, self.task
        if self.pruning is not None:
            net = self.pruning.before_training(net, self.first_batches)
        if self.distillation is not None:
            self.projection = self.distillation.projection(net, self.pruning)
        return net

    def first_batches(self) -> Batches:
        """The first training batches, for pruning criteria; a teacher labels what has no labels."""
        batches = self.trainer.datamodule.first_batches()  # type: ignore[attr-defined]
        batches = [(waveform.to(self.device), label.to(self.device)) for waveform, label in batches]
        if self.distillation is None or not self.distillation.unlabelled:
            return batches
        return self.distillation.labelled(batches, self.sample_rate)

    def configure_callbacks(self) -> list[Callback]:
        """The parts that act while training goes on."""
        steps = self.pruning if self.pruning and self.pruning.steps > 1 else None
        return [part for part in (steps, self.distillation) if part is not None]

    def setup(self, stage: str | None = None) -> None:
        built, fitting = hasattr(self, "net"), self.trainer.state.fn == TrainerFn.FITTING
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        known = hasattr(data, "split")
        if built and not (fitting and known and self._split not in (None, data.split)):
            return
        if not known:
            raise TypeError(
                f"{type(self).__name__} takes classes and rate from a DataModule: "
                "trainer.fit(model, datamodule=qaudio.AudioFolder(...)), or a benchmark's"
            )
        if self._trained:
            raise InputError(
                f"this {type(self).__name__}'s network was trained on another split, or the "
                "recordings have changed since: it may have seen what is held out here. Make a "
                "new one for each"
            )
        if any(isinstance(c, StochasticWeightAveraging) for c in self.trainer.callbacks):  # type: ignore[attr-defined]
            raise InputError(
                "StochasticWeightAveraging copies the network before there is one, and averages "
                "nothing: take Lightning's WeightAveraging or EMAWeightAveraging"
            )
        if data.task != self.task:
            raise InputError(
                f"{data.split.benchmark} is {data.task}, but model.task is {self.task}: give "
                f"--model.task {data.task}"
            )
        net = self.build(data.labels, data.split)
        net.eval_seconds, net.padded = data.seconds, data.pads
        if self.probe_first and fitting:
            finetuning.probe_classifier(net, data)
        self.adopt(net)
        self._split = data.split
        self.metric, self.val_loss = clip_metric(self.task, net.num_classes), ClipMean()
        if self.class_weights:
            self.loss_weights = data.class_weights()
        if self.frozen == "gradual" and self.trainer.world_size > 1:
            raise InputError("freeze 'gradual' needs one process: DDP learns of frozen parts once")
        finetuning.apply(self.net, self.frozen, 0, self.thaw_every)

    def configure_model(self) -> None:
        """Callbacks that average weights copy the network before Lightning calls `setup`."""
        if self._trainer is None:  # load_from_checkpoint calls this first
            raise TypeError(
                f"a {type(self).__name__}'s network is made for its data, so a Trainer reads its "
                "checkpoints: trainer.test(module, datamodule=..., ckpt_path=PATH), then module.net"
            )
        self.setup()

    def adopt(self, net: AudioModel) -> None:
        """Train this network from now on, with the dropout rates that were asked for."""
        finetuning.set_dropout(net, "block_dropout", self.block_dropout)
        finetuning.set_dropout(net, "head_dropout", self.head_dropout)
        # Lightning keeps the mode it finds, and a loaded entry comes in eval mode.
        self.net = net.to(memory_format=torch.channels_last).train()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["widths"] = dict(self.net.widths)
        checkpoint["rng_state"] = torch.get_rng_state()  # dropout goes on within an epoch

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Rebuild the network, and its average, at the widths that pruning in steps had reached."""
        self._rng_state = checkpoint.get("rng_state")
        for module in (self, *averaged(self.trainer)):
            net, widths = module.net, checkpoint.get("widths", module.net.widths)
            if widths != net.widths:
                if any(widths[name] > width for name, width in net.widths.items()):
                    raise ValueError("its network is wider")  # pruning makes none so
                small = from_config(replace(net.config, widths=widths))
                module.adopt(small.to(net.classifier.weight.device))

    def forward(self, waveform: Tensor, sample_rate: int | None = None) -> Tensor:
        return self.net(waveform, sample_rate)

    def clip_logits(self, batch: dict[str, Any]) -> Tensor:
        """Logits (clips, C) of a batch; those of a clip's segments are averaged."""
        return clip_means(self.net(batch["waveform"]).float(), batch)

    def clip_labels(self, batch: dict[str, Any]) -> Tensor:
        """What a batch is scored against: class indices (clips,), or 0/1 per class (clips, C)."""
        if self.distillation is None or not self.distillation.unlabelled:
            return batch["label"]

        def embed() -> Tensor:
            return self.projection(self.net.embed(batch["waveform"])).float()

        return self.distillation.tags(batch, self.sample_rate, embed)

    def on_train_start(self) -> None:
        self._trained = True
        # As the epoch wants it also where a run goes on within one, which starts no epoch.
        finetuning.apply(self.net, self.frozen, self.current_epoch, self.thaw_every)
        if self._rng_state is not None:
            torch.set_rng_state(self._rng_state)

    def on_train_epoch_start(self) -> None:
        finetuning.apply(self.net, self.frozen, self.current_epoch, self.thaw_every)
        # Dropout's draws become a function of (seed, epoch): resuming at an epoch's start is exact.
        parts = (global_seed(), self.current_epoch)
        torch.manual_seed(item_seed(*parts, *([self.global_rank] if self.global_rank else [])))

    def on_fit_end(self) -> None:
        self.net.requires_grad_(True)

    def training_step(self, batch: dict[str, Any], batch_index: int) -> Tensor:
        generator = torch.Generator().manual_seed(int(batch["seed"][0]))
        with torch.no_grad():
            features = self.net.features(batch["waveform"])
            targets = one_hot(batch["label"], self.net.num_classes)
            if self.spec_augment is not None:
                features = self.spec_augment(features, generator)
            mix = (self.mixup or Mixup()).draw(len(features), generator)
            features, targets = mix(features), mix(targets)
        embedding = self.net.embed_features(features)
        loss = self.training_loss(embedding, targets, batch["waveform"], mix)
        size = len(features)
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=size,
                 sync_dist=True)  # fmt: skip
        return loss

    def training_loss(
        self,
        embedding: Tensor,
        targets: Tensor,
        waveform: Tensor,
        mix: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """Loss of embeddings (B, D) and targets (B, C) of clips that were mixed.

        Of the clips before that, waveforms (B, T), and of `mix` the teacher makes its answers.
        """
        logits = self.net.classify(embedding)
        if self.distillation is None:
            return self.loss(logits, targets)
        answers = self.distillation.answer(waveform, self.sample_rate, mix)
        mapped = self.projection(embedding).float()
        loss = self.distillation.loss(mapped, logits.float(), *answers)
        if self.distillation.unlabelled:
            return loss
        return (1 - self.distillation.alpha) * self.loss(logits, targets) + loss

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Loss of logits (B, C) against float targets (B, C)."""
        if self.task == "multilabel":
            return F.binary_cross_entropy_with_logits(logits.float(), targets)
        weights = None if self.loss_weights is None else self.loss_weights.to(logits.device)
        return F.cross_entropy(
            logits.float(), targets, weights, label_smoothing=self.label_smoothing
        )

    def validation_step(self, batch: dict[str, Any], batch_index: int) -> None:
        kept = ~batch["repeat"]  # one that another process scores is here only to keep step
        logits, labels = self.clip_logits(batch)[kept], self.clip_labels(batch)[kept]
        if not len(logits):
            return
        self._log_score("val", logits, labels)
        loss = self.loss(logits, one_hot(labels, self.net.num_classes))
        self.val_loss.update(loss, len(logits))
        self.log("val_loss", self.val_loss, batch_size=len(logits))

    def _log_score(self, part: str, logits: Tensor, labels: Tensor) -> None:
        self.metric.update(logits, labels.long())
        self.log(
            f"{part}_{metric_of(self.task)}", self.metric, on_epoch=True, prog_bar=True,
            batch_size=len(logits),
        )  # fmt: skip

    def on_test_start(self) -> None:
        self.scored = []

    def test_step(self, batch: dict[str, Any], batch_index: int) -> None:
        logits, labels = self.clip_logits(batch), self.clip_labels(batch)
        self._log_score("test", logits, labels)
        self.scored.append({"id": batch["id"], "label": labels.cpu(), "logits": logits.cpu()})

    def on_test_epoch_end(self) -> None:
        """Bring the scores of all processes together."""
        if self.trainer.world_size > 1:
            parts: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(parts, self.scored)
            self.scored = [batch for part in parts for batch in part]
        if self.distillation is not None:
            self.distillation.leave_out_rare(self.scored)

    def configure_optimizers(self) -> Any:
        made = make_optimizer(self.optimizer_name, self.parameters(), self.lr, self.weight_decay)
        if self.schedule == "constant":
            return made
        steps = self.trainer.estimated_stepping_batches
        schedule = make_scheduler(self.schedule, made, self.lr, steps, self.warmup, self.decay)
        return {"optimizer": made, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
