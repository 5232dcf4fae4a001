"""Distillation as a part of training: what a student learns from a teacher."""

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from lightning import Callback, Trainer
from torch import Tensor, nn

from qaudio.compress import distill
from qaudio.data.augment import global_seed
from qaudio.data.pool import LEAST_TAGGED
from qaudio.data.split import Split
from qaudio.errors import EntryError, InputError, check_choice
from qaudio.models.base import AudioModel, Task
from qaudio.records import parse
from qaudio.training.leakage import load_for_split
from qaudio.training.metrics import clip_means
from qaudio.training.pruning import Batches, StepwisePruning
from qaudio.training.teacher_cache import StoredAnswers
from qaudio.zoo.resolve import list_models, locate
from qaudio.zoo.schema import Heard, Teaching
from qaudio.zoo.store import entry_name

Loss = Literal["kl_logits", "published", "bce", "features"]

TAGGED = 0.3  # probability from which a teacher's class counts as a tag


class Distillation(Callback):
    """A teacher, and what its answers to a batch are worth in the loss.

    Args:
        teacher: an entry: name or folder.
        loss, alpha, temperature, embedding_weight: as `DistilledClassifier` takes them.

    Attributes:
        network: the teacher, once it is loaded.
        unlabelled: whether there are no labels but the teacher's tags.
        answers: that are stored, once training begins.

    Raises:
        InputError: for arguments out of range, or that contradict one another.
    """

    network: AudioModel

    def __init__(
        self,
        teacher: str,
        task: Task,
        loss: Loss,
        alpha: float,
        temperature: float,
        embedding_weight: float,
        store: str | None,
    ):
        check_choice("loss", loss, distill.LOSSES)
        if not 0 <= alpha <= 1 or not temperature > 0:
            raise InputError(
                f"alpha must be in 0…1 and temperature above 0, not {alpha} and {temperature}"
            )
        if not embedding_weight >= 0:
            raise InputError(f"embedding_weight must be at least 0, not {embedding_weight}")
        if loss == "bce" and task == "multiclass":
            raise InputError(
                "loss 'bce' is for several labels a clip; with one label give kl_logits, published "
                "or features"
            )
        self.teacher, self.task, self.kind, self.store = teacher, task, loss, store
        self.alpha, self.temperature, self.embedding_weight = alpha, temperature, embedding_weight
        self.unlabelled = False
        self.answers: StoredAnswers | None = None
        self._order: list[int] = []  # the teacher's index of each of the student's classes
        self._cosines: list[Tensor] = []

    @property
    def maps_embeddings(self) -> bool:
        """Whether the loss compares embeddings."""
        return self.kind == "features" or self.embedding_weight > 0

    def load(self, labels: list[str], split: Split) -> list[str]:
        """Load the teacher whose weights never saw what the split holds out.

        Returns:
            The classes to learn: those given, or where there are none the teacher's.

        Raises:
            EntryError: when there are no such weights, or the teacher has other classes.
        """
        network = load_for_split(self.teacher, split, global_seed()).requires_grad_(False)
        self.network = network.to(memory_format=torch.channels_last)
        self.unlabelled = not labels
        if self.unlabelled:
            labels = self._taught_labels()
        if self.kind != "features":
            self._order = self._matched(labels, split.benchmark)
        return labels

    def projection(self, student: AudioModel, pruning: StepwisePruning | None) -> nn.Module:
        """A map from the student's embedding to the teacher's, to be learnt along.

        Raises:
            InputError: when embeddings are compared that change their size in training.
        """
        shrinking = pruning.resizes_embedding(student) if pruning else []
        if self.maps_embeddings and shrinking:
            raise InputError(
                f"embeddings are compared, whose size changes with each step that prunes "
                f"{', '.join(shrinking)}: leave it out of layers, or give steps 1"
            )
        sizes = (student.num_features, self.network.num_features)
        if self.embedding_weight or (self.kind == "features" and sizes[0] != sizes[1]):
            return nn.Linear(*sizes, bias=False)
        return nn.Identity()

    def loss(self, embedding: Tensor, logits: Tensor, vectors: Tensor, answers: Tensor) -> Tensor:
        """The teacher's terms of the loss, weighted.

        Args:
            embedding: the student's, mapped to the teacher's size, (B, D).
            logits: the student's, (B, C).
            vectors, answers: the teacher's embeddings and logits, as `answer` gives them.
        """
        loss = self.alpha * self._term(embedding, logits, vectors, answers)
        if self.embedding_weight:
            loss = loss + self.embedding_weight * distill.cosine(embedding, vectors)
        return loss

    def _term(self, embedding: Tensor, logits: Tensor, vectors: Tensor, answers: Tensor) -> Tensor:
        if self.kind == "features":
            return distill.features(embedding, vectors)
        if self.kind == "bce":
            return distill.bce(logits, answers)
        if self.kind == "published":
            return distill.published(logits, answers, temperature=self.temperature, task=self.task)
        term = distill.kl_logits(logits, answers, temperature=self.temperature)
        # The labels' BCE is a mean over classes too.
        return term / logits.shape[-1] if self.task == "multilabel" else term

    @torch.no_grad()
    def answer(
        self, waveform: Tensor, sample_rate: int, mix: Callable[[Tensor], Tensor] = lambda x: x
    ) -> tuple[Tensor, Tensor]:
        """The teacher's embeddings (B, D) and logits (B, C) of a batch mixed as the student's.

        Where answers are stored, and the loss takes logits alone, the embeddings are empty.

        Args:
            waveform: the student's input, (B, T).
            sample_rate: of it, in Hz.
            mix: how the student's features are mixed.
        """
        teacher = self.network

        def embed(sounds: Tensor) -> Tensor:
            return teacher.embed_features(mix(teacher.features(sounds, sample_rate)))

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

    def labelled(self, batches: Batches, sample_rate: int) -> Batches:
        """Batches with the teacher's probabilities (B, C) for labels."""
        answers = ((waveform, self.answer(waveform, sample_rate)[1]) for waveform, _ in batches)
        return [(waveform, logits.sigmoid()) for waveform, logits in answers]

    def tags(self, batch: dict[str, Any], sample_rate: int, embed: Callable[[], Tensor]) -> Tensor:
        """The teacher's tags of a batch, 0/1 per class (clips, C).

        Args:
            embed: gives the student's mapped embeddings of it, where they are compared.
        """
        vectors, logits = self.answer(batch["waveform"], sample_rate)
        if self.maps_embeddings:
            self._cosines.append(F.cosine_similarity(embed(), vectors).cpu())
        return (clip_means(logits, batch).sigmoid() >= TAGGED).to(torch.uint8)

    def leave_out_rare(self, scored: list[dict[str, Any]]) -> None:
        """Of unlabelled sound, take away the tags of classes that are too rare to be ranked."""
        if not self.unlabelled:
            return
        counts = torch.stack([batch["label"].sum(0) for batch in scored]).sum(0)
        for batch in scored:
            batch["label"] = batch["label"] * (counts >= LEAST_TAGGED).to(torch.uint8)

    def teaching(self, data: Any) -> Teaching | None:
        """What an entry's results say of teaching without labels, if it was that."""
        if not self.unlabelled:
            return None
        cosine = round(float(torch.cat(self._cosines).mean()), 4) if self._cosines else None
        return Teaching(
            teacher=entry_name(locate(self.teacher)), tagged_from=TAGGED,
            least_tagged=LEAST_TAGGED, heard=parse(data.heard(), Heard), embedding_cosine=cosine,
        )  # fmt: skip

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.network.to(pl_module.device)
        if self.store is None:
            return
        if not trainer.datamodule.repeats:  # type: ignore[attr-defined]
            raise InputError(
                "store_teacher needs clips that repeat from epoch to epoch: leave data.augment "
                "out, and random crops (data.seconds must be the clips' length, or null)"
            )
        kind = "embeddings" if self.maps_embeddings else "logits"
        self.answers = StoredAnswers(self.store, self.network, kind)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        if self.answers is not None and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.answers.save()

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.network.to(pl_module.device)
        self._cosines = []

    on_test_start = on_validation_start

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        if self._cosines:
            cosine = torch.cat(self._cosines).mean()
            pl_module.log("val_cosine", cosine, prog_bar=True, sync_dist=True)

    def _taught_labels(self) -> list[str]:
        """The classes that are learnt from unlabelled sound; raises EntryError."""
        name, teacher = entry_name(locate(self.teacher)), self.network
        if teacher.task != "multilabel" or not teacher.labels:
            raise EntryError(
                f"{name}: no tagger with named classes ({teacher.task}, {teacher.num_classes} "
                "classes): unlabelled sound is named by its teacher; give one such as mn04.audioset"
            )
        return list(teacher.labels)

    def _matched(self, labels: list[str], benchmark: str) -> list[int]:
        """The teacher's index of each of the student's classes; raises EntryError."""
        teacher = self.network
        known_labels = {label: n for n, label in enumerate(teacher.labels or [])}
        # Of several labels a clip each is a question of its own; of one label all classes compete.
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
