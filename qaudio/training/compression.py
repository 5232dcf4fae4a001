"""LightningModules that make networks smaller: pruned, distilled, or both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from lightning import Callback
from torch import Tensor, nn

from qaudio.compress import distill
from qaudio.compress.prune import prune, select_groups
from qaudio.data.augment import global_seed
from qaudio.data.split import Split
from qaudio.errors import EntryError, InputError
from qaudio.models.base import AudioModel
from qaudio.records import parse
from qaudio.training.callbacks import StepwisePruning
from qaudio.training.classifier import Classifier, clip_means
from qaudio.training.leakage import load_for_split
from qaudio.training.teacher_cache import StoredAnswers
from qaudio.zoo.resolve import list_models, locate
from qaudio.zoo.schema import Heard, Teaching
from qaudio.zoo.store import entry_name, found_in

TAGGED = 0.3  # probability from which a teacher's class counts as a tag
LEAST_TAGGED = 5  # clips of a class that is scored against a teacher's tags


class PrunedClassifier(Classifier):
    """Prunes an entry, then fine-tunes what is left.

    For fold k it takes the entry's weights that were trained without fold k, and refuses when
    there are none. Criterion "taylor" looks at the fold's training batches.

    Args:
        source: the entry to prune: name or folder.
        ratio, target_macs, target_params, target_latency, layers, criterion, allocation,
            multiple_of, min_channels: as `qaudio.plan` takes them; exactly one of the first four.
            The folds of an entry share their widths: allocation "global" and target_latency, which
            give each fold its own, are for one fold or a fixed split.
        steps: 1 prunes at once, before training; more prune a little and train a little, to the
            same widths, see `StepwisePruning`.
        steps_share: share of the epochs over which several steps are spread.
        **training: arguments of `Classifier`.
    """

    needs_target = True

    def __init__(
        self,
        source: str | None = None,
        *,
        ratio: float | None = None,
        target_macs: float | None = None,
        target_params: float | None = None,
        target_latency: float | None = None,
        layers: str = "all",
        criterion: str = "l1",
        allocation: Literal["uniform", "global"] = "uniform",
        multiple_of: int = 4,
        min_channels: int = 8,
        steps: int = 1,
        steps_share: float = 0.5,
        **training: Any,
    ):
        super().__init__(source=source, **training)
        targets = (ratio, target_macs, target_params, target_latency)
        given = sum(value is not None for value in targets)
        if given > 1 or (self.needs_target and not given):
            raise InputError("give exactly one of ratio (removed) and the targets (kept)")
        if given and source is None:
            raise InputError("only an entry can be pruned: give source")
        self.request: dict[str, Any] = {
            "ratio": ratio,
            "target_macs": target_macs,
            "target_params": target_params,
            "target_latency": target_latency,
            "layers": layers,
            "criterion": criterion,
            "allocation": allocation,
            "multiple_of": multiple_of,
            "min_channels": min_channels,
        }
        self.prunes = bool(given)
        self.stepwise = StepwisePruning(self.request, steps, steps_share)

    @property
    def parent(self) -> tuple[str, str] | None:
        return entry_name(locate(self.source or "")), "pruned from"

    @property
    def final_widths(self) -> dict[str, int]:
        whole = self.stepwise.whole
        return super().final_widths | (whole.after if whole else {})

    def build(self, labels: list[str], split: Split) -> AudioModel:
        net = super().build(labels, split)
        if not self.prunes or self.stepwise.steps > 1:
            return net
        data = None
        if self.request["criterion"] == "taylor":
            data = self.trainer.datamodule.first_batches()  # type: ignore[attr-defined]
        return prune(net, **self.request, data=data, seed=global_seed())

    def configure_callbacks(self) -> list[Callback]:
        return [self.stepwise] if self.prunes and self.stepwise.steps > 1 else []


class DistilledClassifier(PrunedClassifier):
    """Trains a student on the labels and on what a teacher answers to the same batch.

    The loss is (1 − alpha)·(the task's own) + alpha·(the teacher's term) + embedding_weight·(1 −
    cosine between a linear map of the student's embedding and the teacher's). Recordings without
    labels (`AudioPool`) leave the first term out; the student then learns the teacher's classes,
    and is scored against the teacher's tags. For fold k the teacher
    is the one that was trained without fold k, and refused when there is none. It hears the
    student's waveforms, augmented as they are, through its own front-end (resampled where it
    works at another rate); mixup mixes the same clips at the same weights in both networks'
    features, while SpecAugment masks the student's alone. It stays in eval mode and no part of
    it enters the optimizer, checkpoints or the entry.

    With a source entry, and perhaps a pruning of it, in place of `arch`, pruning and distillation
    combine.

    Args:
        teacher: entry to learn from, real or quaternion: name or folder.
        arch: the student's architecture, from scratch.
        source: an entry to start from instead; pruned first where a ratio or target is given.
        loss: the teacher's term, of `qaudio.compress.distill`: "kl_logits", "published", "bce"
            (multi-label only) or "features" (embeddings; a linear map is learnt along where they
            differ in size).
        alpha: weight of the teacher's term, 0 to 1; .5 is the published 1:1.
        temperature: of "kl_logits" and "published".
        embedding_weight: of the embeddings' cosine (S-SONDO, its best loss of embeddings).
        store_teacher: folder to keep the teacher's answers in, each computed once; only where
            clips repeat from epoch to epoch: without augmentation, random crops and mixup.
        **compression: arguments of `PrunedClassifier`.

    Raises:
        ValueError: for arguments that contradict one another.
    """

    needs_target = False

    def __init__(
        self,
        teacher: str,
        arch: str | None = None,
        source: str | None = None,
        *,
        loss: Literal["kl_logits", "published", "bce", "features"] = "kl_logits",
        alpha: float = 0.5,
        temperature: float = 2.0,
        embedding_weight: float = 0.0,
        store_teacher: str | None = None,
        **compression: Any,
    ):
        super().__init__(source=source, arch=arch, **compression)
        if loss not in distill.LOSSES:
            raise InputError(f"loss must be one of {', '.join(distill.LOSSES)}, not {loss!r}")
        if not 0 <= alpha <= 1 or not temperature > 0:
            raise InputError(
                f"alpha must be in 0…1 and temperature above 0, not {alpha} and {temperature}"
            )
        if not embedding_weight >= 0:
            raise InputError(f"embedding_weight must be at least 0, not {embedding_weight}")
        if loss == "bce" and self.task == "multiclass":
            raise InputError(
                "loss 'bce' is for several labels a clip; with one label give kl_logits, published "
                "or features"
            )
        if store_teacher is not None and self.mixup is not None:
            raise InputError("store_teacher needs clips that repeat: leave mixup out")
        self.teacher, self.teaches = teacher, loss
        self.alpha, self.temperature = alpha, temperature
        self.embedding_weight = embedding_weight
        self.unlabelled = False
        self.store_teacher = store_teacher
        self.projection: nn.Module = nn.Identity()
        self.answers: StoredAnswers | None = None
        # In a tuple, the teacher is no submodule: not trained, moved, averaged or saved.
        self._held: tuple[AudioModel, ...] = ()
        self._order: list[int] = []
        self._cosines: list[Tensor] = []

    def look_in(self, folder: Path) -> None:
        super().look_in(folder)
        self.teacher = found_in(folder, self.teacher)

    @property
    def parent(self) -> tuple[str, str]:
        teacher = entry_name(locate(self.teacher))
        start = self.source and entry_name(locate(self.source))
        if start is None or (start == teacher and not self.prunes):
            return teacher, "distilled from"
        if start == teacher:
            return teacher, "pruned and distilled from"
        return teacher, f"{'pruned' if self.prunes else 'fine-tuned'} from {start}, distilled from"

    @property
    def sources(self) -> list[str]:
        return [*super().sources, self.teacher]

    def build(self, labels: list[str], split: Split) -> AudioModel:
        teacher = load_for_split(self.teacher, split, global_seed()).requires_grad_(False)
        self.unlabelled = not labels
        if self.unlabelled:
            labels = self._taught_labels(teacher)
        if self.teaches != "features":
            self._order = self._matched(teacher, labels, split.benchmark)
        self._held = (teacher.to(memory_format=torch.channels_last),)
        net = super().build(labels, split)
        sizes = (net.num_features, teacher.num_features)
        if self.maps_embeddings and self.prunes and self.stepwise.steps > 1:
            groups = select_groups(net, self.request["layers"])
            changed = [group.name for group in groups if "classifier" in group.consumers]
            if changed:
                raise InputError(
                    f"embeddings are compared, whose size changes with each step that "
                    f"prunes {', '.join(changed)}: leave it out of layers, or give steps 1"
                )
        if self.embedding_weight or (self.teaches == "features" and sizes[0] != sizes[1]):
            self.projection = nn.Linear(*sizes, bias=False)
        return net

    @property
    def maps_embeddings(self) -> bool:
        """Whether the loss compares embeddings."""
        return self.teaches == "features" or self.embedding_weight > 0

    def _taught_labels(self, teacher: AudioModel) -> list[str]:
        """The classes that are learnt from unlabelled sound; raises EntryError."""
        name = entry_name(locate(self.teacher))
        if teacher.task != "multilabel" or not teacher.labels:
            raise EntryError(
                f"{name}: no tagger with named classes ({teacher.task}, {teacher.num_classes} "
                "classes): unlabelled sound is named by its teacher; give one such as mn04.audioset"
            )
        return list(teacher.labels)

    def _matched(self, teacher: AudioModel, labels: list[str], benchmark: str) -> list[int]:
        """The teacher's index of each of the student's classes; raises EntryError."""
        known_labels = {label: n for n, label in enumerate(teacher.labels or [])}
        # Of several labels a clip each is a question of its own; one label is told from the others.
        same = known_labels.keys() == set(labels)
        if self.task == "multilabel":
            same = known_labels.keys() >= set(labels)
        if same and teacher.task == self.task:
            return [known_labels[label] for label in labels]
        known = list_models(benchmark=benchmark)
        allowed = f"an entry of {benchmark} ({', '.join(known)})" if known else "one that does"
        raise EntryError(
            f"{entry_name(locate(self.teacher))}: a teacher of {teacher.num_classes} classes "
            f"({teacher.task}) does not know these {len(labels)} ({self.task}); give {allowed}, or "
            "--model.loss features, which compares embeddings and takes any teacher"
        )

    def on_fit_start(self) -> None:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        self._held[0].to(self.device)
        if self.store_teacher is None:
            return
        if not data.repeats:
            raise InputError(
                "store_teacher needs clips that repeat from epoch to epoch: leave data.augment "
                "out, and random crops (data.seconds must be the clips' length, or null)"
            )
        kind = "embeddings" if self.maps_embeddings else "logits"
        self.answers = StoredAnswers(self.store_teacher, self._held[0], kind)

    def on_train_epoch_end(self) -> None:
        if self.answers is not None and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.answers.save()

    def training_loss(
        self,
        embedding: Tensor,
        targets: Tensor,
        waveform: Tensor,
        mix: Callable[[Tensor], Tensor],
    ) -> Tensor:
        logits = self.net.classify(embedding).float()
        vectors, answers = self.taught(waveform, mix)
        loss = self.alpha * self.teacher_term(embedding, logits, vectors, answers)
        if self.embedding_weight:
            apart = distill.cosine(self.projection(embedding).float(), vectors)
            loss = loss + self.embedding_weight * apart
        return loss if self.unlabelled else (1 - self.alpha) * self.loss(logits, targets) + loss

    def teacher_term(
        self, embedding: Tensor, logits: Tensor, vectors: Tensor, answers: Tensor
    ) -> Tensor:
        """The teacher's term: the student's embedding and logits beside the teacher's."""
        if self.teaches == "features":
            return distill.features(self.projection(embedding).float(), vectors)
        if self.teaches == "bce":
            return distill.bce(logits, answers)
        if self.teaches == "published":
            return distill.published(logits, answers, temperature=self.temperature, task=self.task)
        term = distill.kl_logits(logits, answers, temperature=self.temperature)
        # The labels' BCE is a mean over classes too.
        return term / logits.shape[-1] if self.task == "multilabel" else term

    @torch.no_grad()
    def taught(
        self, waveform: Tensor, mix: Callable[[Tensor], Tensor] = lambda x: x
    ) -> tuple[Tensor, Tensor]:
        """The teacher's embeddings (B, D) and logits (B, C) of a batch mixed as the student's.

        Where answers are stored, and the loss takes logits alone, the embeddings are empty.
        """
        teacher = self._held[0]

        def embed(sounds: Tensor) -> Tensor:
            return teacher.embed_features(mix(teacher.features(sounds, self.sample_rate)))

        if self.answers is None:
            vectors = embed(waveform)
            logits = teacher.classify(vectors)
        else:
            # Stored answers outlive this run: they depend neither on its precision nor on the
            # order of its classes.
            with torch.autocast(waveform.device.type, enabled=False):
                if self.maps_embeddings:
                    vectors = self.answers(waveform, embed)
                    logits = teacher.classify(vectors)
                else:
                    vectors = waveform.new_empty(len(waveform), 0)
                    logits = self.answers(waveform, lambda x: teacher.classify(embed(x)))
        order = self._order or list(range(logits.shape[-1]))
        return vectors.float(), logits.float()[:, order]

    def clip_labels(self, batch: dict[str, Any]) -> Tensor:
        """The labels, or of unlabelled sound the teacher's tags, 0/1 per class (clips, C)."""
        if not self.unlabelled:
            return super().clip_labels(batch)
        vectors, logits = self.taught(batch["waveform"])
        student = self.projection(self.net.embed(batch["waveform"])).float()
        apart = F.cosine_similarity(student, vectors) if self.maps_embeddings else None
        if apart is not None:
            self._cosines.append(apart.cpu())
        return (clip_means(logits, batch).sigmoid() >= TAGGED).to(torch.uint8)

    def on_test_start(self) -> None:
        super().on_test_start()
        self._cosines = []
        if self.unlabelled:
            self._held[0].to(self.device)

    def on_validation_epoch_start(self) -> None:
        self._cosines = []

    def on_validation_epoch_end(self) -> None:
        if self._cosines:
            self.log("val_cosine", torch.cat(self._cosines).mean(), prog_bar=True, sync_dist=True)

    def on_test_epoch_end(self) -> None:
        """Of unlabelled sound, leave out the tags of classes that are too rare to be ranked."""
        super().on_test_epoch_end()
        if not self.unlabelled:
            return
        counts = torch.stack([batch["label"].sum(0) for batch in self.scored]).sum(0)
        for batch in self.scored:
            batch["label"] = batch["label"] * (counts >= LEAST_TAGGED).to(torch.uint8)

    @property
    def teaching(self) -> Teaching | None:
        """What an entry's results say of teaching without labels."""
        if not self.unlabelled:
            return None
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        cosine = round(float(torch.cat(self._cosines).mean()), 4) if self._cosines else None
        return Teaching(
            teacher=entry_name(locate(self.teacher)), tagged_from=TAGGED,
            least_tagged=LEAST_TAGGED, heard=parse(data.heard(), Heard), embedding_cosine=cosine,
        )  # fmt: skip
