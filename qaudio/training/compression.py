"""The `Classifier` with a pruning, with a teacher, or with both."""

from typing import Any, Literal

from qaudio.errors import InputError
from qaudio.training.classifier import Classifier
from qaudio.training.distillation import Distillation, Loss
from qaudio.training.pruning import StepwisePruning

MISSING = "give exactly one of ratio (removed) and the targets (kept)"


class _Compressed(Classifier):
    """A `Classifier` that prunes its source where a ratio or target is given.

    Args:
        source, arch: of `Classifier`.
        ratio, target_macs, target_params, target_latency, layers, criterion, allocation,
            multiple_of, min_channels: as `qaudio.plan` takes them; at most one of the first four.
        steps: 1 prunes at once, before training; more prune a little and train a little, to the
            same widths, see `StepwisePruning`.
        steps_share: share of the epochs over which several steps are spread.
        **training: arguments of `Classifier`.
    """

    def __init__(
        self,
        source: str | None = None,
        arch: str | None = None,
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
        super().__init__(source=source, arch=arch, **training)
        targets = {
            "ratio": ratio, "target_macs": target_macs, "target_params": target_params,
            "target_latency": target_latency,
        }  # fmt: skip
        given = sum(value is not None for value in targets.values())
        if given > 1:
            raise InputError(MISSING)
        if given and source is None:
            raise InputError("only an entry can be pruned: give source")
        request = dict(
            targets, layers=layers, criterion=criterion, allocation=allocation,
            multiple_of=multiple_of, min_channels=min_channels,
        )  # fmt: skip
        pruning = StepwisePruning(request, steps, steps_share)
        self.pruning = pruning if given else None


class PrunedClassifier(_Compressed):
    """Prunes an entry, then fine-tunes what is left.

    For fold k it takes the entry's weights that were trained without fold k, and refuses when
    there are none. Criterion "taylor" looks at the fold's training batches. The folds of an entry
    share their widths: allocation "global" and target_latency, which give each fold its own, are
    for one fold or a fixed split.

    Args:
        source: the entry to prune: name or folder.
        **training: how to prune it, and arguments of `Classifier`.
    """

    def __init__(self, source: str | None = None, **training: Any):
        super().__init__(source=source, **training)
        if self.pruning is None:
            raise InputError(MISSING)


class DistilledClassifier(_Compressed):
    """Trains a student on the labels and on what a teacher answers to the same batch.

    The loss is (1 − alpha)·(the task's own) + alpha·(the teacher's term) + embedding_weight·(1 −
    cosine between a linear map of the student's embedding and the teacher's). Recordings without
    labels (`AudioPool`) leave the first term out; the student then learns the teacher's classes,
    and is scored against the teacher's tags. For fold k the teacher
    is the one that was trained without fold k, and refused when there is none. It gets the
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
        **training: how to prune the source, as for `PrunedClassifier`, and arguments of
            `Classifier`.

    Raises:
        ValueError: for arguments that contradict one another.
    """

    def __init__(
        self,
        teacher: str,
        arch: str | None = None,
        source: str | None = None,
        *,
        loss: Loss = "kl_logits",
        alpha: float = 0.5,
        temperature: float = 2.0,
        embedding_weight: float = 0.0,
        store_teacher: str | None = None,
        **training: Any,
    ):
        super().__init__(source=source, arch=arch, **training)
        self.distillation = Distillation(
            self.found(teacher), self.task, loss, alpha, temperature, embedding_weight,
            store_teacher,
        )  # fmt: skip
        if store_teacher is not None and self.mixup is not None:
            raise InputError("store_teacher needs clips that repeat: leave mixup out")
