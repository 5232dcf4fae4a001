"""What a pretrained network is worth on a benchmark as it is: probes and label maps."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader

from qaudio.data.datamodule import AudioDataModule
from qaudio.errors import DataError
from qaudio.evaluation.bootstrap import summarise
from qaudio.evaluation.metrics import metric_of
from qaudio.evaluation.predictions import Predictions
from qaudio.evaluation.probe import LINEAR, ZERO_SHOT, by_label_map, linear_probe
from qaudio.evaluation.result import Result
from qaudio.evaluation.statistics import log_mel_statistics
from qaudio.models.base import AudioModel, evaluating
from qaudio.progress import progress
from qaudio.training.metrics import clip_means


@dataclass(frozen=True)
class Transferred:
    """A score of a network that was not trained on the benchmark.

    Attributes:
        benchmark, dataset: as in `Split`.
        protocol: the benchmark's folds and how they were scored.
    """

    benchmark: str
    dataset: str
    protocol: str
    predictions: Predictions
    result: Result


@dataclass(frozen=True)
class Embedded:
    """A network's view of clips, a row each.

    Attributes:
        clip: ids, N of them.
        label: class indices (N,), or 0/1 per class (N, C).
        fold: that each was scored in, (N,).
        vectors: embeddings (N, D), the means over a clip's segments.
        logits: (N, C), means alike.
        statistics: log-mel statistics (N, 2 n_mels), without what pads a clip.
    """

    clip: list[str]
    label: np.ndarray
    fold: np.ndarray
    vectors: np.ndarray
    logits: np.ndarray
    statistics: np.ndarray


def embed_clips(model: AudioModel, data: AudioDataModule) -> Embedded:
    """Every clip of a benchmark, as the benchmark scores them.

    With a fixed split, the clips of its test part.
    """
    data.sample_rate = model.sample_rate
    data.setup()

    def loaders() -> Iterator[tuple[int, DataLoader]]:
        for fold in range(1, data.folds + 1):
            data.fold = fold
            yield fold, data.test_dataloader()

    return embed(model, data, loaders(), len(data.clips) if data.folds > 1 else None)


@torch.inference_mode()
def embed(
    model: AudioModel,
    data: AudioDataModule,
    loaders: Iterable[tuple[int, DataLoader]],
    total: int | None = None,
) -> Embedded:
    """Clips of a benchmark, in float32.

    Args:
        data: set up; knows how long each clip is.
        loaders: each with the fold that its clips are said to be in.
        total: how many clips there are, for the progress bar.
    """
    clips: list[str] = []
    folds: list[int] = []
    rows: list[tuple[torch.Tensor, ...]] = []  # of each batch: labels, vectors, logits, statistics
    device, hop = model.classifier.weight.device, model.frontend.config.hop_length
    bar = progress(total=total, what="embedding", unit="clip")
    with evaluating(model) as net, bar:
        for fold, loader in loaders:
            for batch in loader:
                features = net.features(batch["waveform"].to(device))
                found = net.embed_features(features)
                means = (
                    clip_means(one, batch).float().cpu() for one in (found, net.classify(found))
                )
                statistics = [
                    log_mel_statistics(part, 1 + data.lengths[clip] // hop).cpu()
                    for clip, part in zip(
                        batch["id"], features.split(batch["segments"]), strict=True
                    )
                ]
                rows.append((batch["label"], *means, torch.stack(statistics)))
                clips += batch["id"]
                folds += [fold] * len(batch["id"])
                bar.update(len(batch["id"]))
    labels, *others = (torch.cat(parts).numpy() for parts in zip(*rows, strict=True))
    return Embedded(clips, labels, np.array(folds), *others)


def transfer(model: AudioModel, data: AudioDataModule, how: str = LINEAR) -> Transferred:
    """Score a network on a benchmark without training it: `transfers` of one way."""
    return transfers(model, data, (how,))[0]


def transfers(model: AudioModel, data: AudioDataModule, ways: Sequence[str]) -> list[Transferred]:
    """Score a network on a benchmark without training it, in one or more ways.

    Args:
        model: a pretrained network that was trained on none of the benchmark's clips.
        data: the benchmark; for a probe with folds, each fold's probe being fitted on the others.
        ways: "linear probe"; "zero-shot by label map": a tagger's own classes, those that mean
            the benchmark's by its `audioset_names`, or that have the same names.

    Raises:
        DataError: for a benchmark that cannot be scored so.
    """
    for way in ways:
        if way == ZERO_SHOT and (not model.labels or model.task != "multilabel"):
            raise DataError(f"{data.benchmark}: zero-shot scores need a tagger with named classes")
        if way == LINEAR and (data.task != "multiclass" or data.folds == 1):
            raise DataError(f"{data.benchmark}: a probe needs folds and one label a clip")
    found = embed_clips(model, data)
    return [_transferred(model, data, found, way) for way in ways]


def _transferred(
    model: AudioModel, data: AudioDataModule, found: Embedded, way: str
) -> Transferred:
    """The score of a network that has embedded a benchmark's clips; raises DataError."""
    logits = np.zeros((len(found.clip), len(data.labels)))
    if way == ZERO_SHOT:
        names = getattr(data, "audioset_names", None) or {label: [label] for label in data.labels}
        try:
            logits = by_label_map(found.logits, model.labels or [], names, data.labels)
        except ValueError as error:
            raise DataError(f"{data.benchmark}: no zero-shot score: {error}") from None
    else:
        for fold in np.unique(found.fold):
            test = found.fold == fold
            logits[test] = linear_probe(
                found.vectors[~test], found.label[~test], found.vectors[test], len(data.labels)
            )
    clips, predictions = np.array(found.clip), None
    for fold in np.unique(found.fold):
        own = found.fold == fold
        run = Predictions.of_run(int(fold), 0, list(clips[own]), found.label[own], logits[own])
        predictions = run if predictions is None else predictions.merged(run)
    assert predictions is not None
    return Transferred(
        data.benchmark, data.dataset, f"{data.split.protocol}; {way}", predictions,
        summarise(predictions, metric_of(data.task)),
    )  # fmt: skip
