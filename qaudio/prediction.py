"""What a sound is: files and tensors to predictions, windows over long sound."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from qaudio.data.audio import decode, display_name, windows, windows_of
from qaudio.deploy.onnx.runtime import OnnxModel
from qaudio.errors import AudioError, InputError
from qaudio.resampling import check_rate

if TYPE_CHECKING:
    import torch

    from qaudio.models.base import AudioModel

WHOLE_SECONDS = 30.0  # up to here a sound is run in one piece
WINDOW_SECONDS, HOP_SECONDS = 10.0, 5.0
BATCH = 8
# Samples (B, T) and their rate in Hz -> (B, …): of arrays, and of a network and tensors.
Run = Callable[[np.ndarray, int], np.ndarray]
Forward = Callable[["AudioModel", "torch.Tensor", int], "torch.Tensor"]

DETECTED = 0.1  # probability from which a class of a tagger counts as detected


@dataclass(frozen=True)
class Prediction:
    """One class of one stretch of sound.

    Attributes:
        label: class name, or "class N" for a model without names.
        probability: softmax, or sigmoid for multi-label models.
        start, end: seconds.
    """

    label: str
    index: int
    probability: float
    start: float
    end: float


@dataclass(frozen=True)
class Analysis:
    """Probabilities over time: `spans` (W, 2) in seconds, `probabilities` (W, C).

    `task` is the model's, "multiclass" or "multilabel".
    """

    spans: np.ndarray
    probabilities: np.ndarray
    labels: list[str]
    task: str = "multiclass"

    @property
    def detects_none(self) -> bool:
        """Whether a tagger finds none of its classes: none reaches `DETECTED` in any window."""
        return self.task == "multilabel" and float(self.probabilities.max()) < DETECTED

    def clip(self, top_k: int) -> list[Prediction]:
        """The most probable classes of the whole sound, by the mean over its windows."""
        start, end = float(self.spans[0, 0]), float(self.spans[-1, 1])
        return self._top(self.probabilities.mean(axis=0), start, end, top_k)

    def rows(self, top_k: int) -> list[Prediction]:
        """The most probable classes of each window, in order of time."""
        return [
            prediction
            for (start, end), row in zip(self.spans, self.probabilities, strict=True)
            for prediction in self._top(row, float(start), float(end), top_k)
        ]

    def _top(self, row: np.ndarray, start: float, end: float, top_k: int) -> list[Prediction]:
        order = np.argsort(-row, kind="stable")[:top_k]
        return [
            Prediction(self.labels[i], int(i), float(row[i]), round(start, 3), round(end, 3))
            for i in order
        ]


@dataclass(frozen=True)
class Embeddings:
    """Embeddings over time: `spans` (W, 2) in seconds, `vectors` (W, D) float32."""

    spans: np.ndarray
    vectors: np.ndarray

    def clip(self) -> Embeddings:
        """The whole sound as one window: the mean over its windows."""
        span = np.array([[self.spans[0, 0], self.spans[-1, 1]]])
        return Embeddings(span, self.vectors.mean(axis=0, keepdims=True))


def predict(
    model: AudioModel | OnnxModel,
    audio: str | os.PathLike | np.ndarray | torch.Tensor,
    *,
    sample_rate: int | None = None,
    top_k: int | None = 5,
    window: float | None = None,
    hop: float | None = None,
) -> list[Prediction]:
    """The most probable classes of a sound.

    A sound shorter than `model.eval_seconds` is padded to it with silence if such were trained on
    (`model.padded`), and run as it is otherwise.

    Args:
        model: used in eval mode and left in the mode it was in; or an exported one, without torch.
        audio: path of a file, a file open for reading bytes (read from where it stands) or its
            content, or samples (T,) or (C, T), floats in −1…1.
        sample_rate: of samples, Hz; None: the model's. Files bring their own.
        top_k: how many classes; None: all.
        window: seconds; None: whole up to 30 s, the mean over 10 s windows beyond. A number
            gives `top_k` rows for each window instead, with their start and end.
        hop: seconds from window to window; None: half a window.

    Returns:
        Most probable first, for the whole sound or window after window.

    Raises:
        AudioError: when the sound cannot be used; one line naming file and fault.
        ValueError: for a window, hop or top_k out of range.
        TypeError: when `audio` is neither path nor samples, or `model` is a name.
    """
    top_k = model.num_classes if top_k is None else _whole("top_k", top_k)
    if top_k < 1:
        raise InputError(f"top_k must be at least 1, not {top_k}")
    analysis = analyse(model, audio, sample_rate=sample_rate, window=window, hop=hop)
    return analysis.clip(top_k) if window is None else analysis.rows(top_k)


def analyse(
    model: AudioModel | OnnxModel,
    audio: str | os.PathLike | np.ndarray | torch.Tensor,
    *,
    sample_rate: int | None = None,
    window: float | None = None,
    hop: float | None = None,
    progress: Any = None,
) -> Analysis:
    """Probabilities of every window of a sound; arguments as `predict`.

    A file is read as a stream: memory does not grow with its length.

    Args:
        progress: called with the seconds done after each batch of windows.
    """

    def forward(net: AudioModel, x: torch.Tensor, rate: int) -> torch.Tensor:
        return net.probabilities(net(x, rate).float())

    spans, probabilities = _over_windows(model, audio, forward, sample_rate, window, hop, progress)
    labels = model.labels or [f"class {n}" for n in range(model.num_classes)]
    return Analysis(spans, probabilities, labels, model.task)


def embeddings(
    model: AudioModel,
    audio: str | os.PathLike | np.ndarray | torch.Tensor,
    *,
    sample_rate: int | None = None,
    window: float | None = None,
    hop: float | None = None,
    progress: Any = None,
) -> Embeddings:
    """The embedding of every window of a sound; arguments, windows and errors as `analyse`."""
    if isinstance(model, OnnxModel):
        raise TypeError("an exported model gives logits only: embed with the entry")

    def forward(net: AudioModel, x: torch.Tensor, rate: int) -> torch.Tensor:
        return net.embed(x, rate).float()

    spans, vectors = _over_windows(model, audio, forward, sample_rate, window, hop, progress)
    return Embeddings(spans, vectors)


def _over_windows(
    model: Any,
    audio: str | os.PathLike | np.ndarray | torch.Tensor,
    forward: Forward,
    sample_rate: int | None,
    window: float | None,
    hop: float | None,
    progress: Any,
) -> tuple[np.ndarray, np.ndarray]:
    """Spans (W, 2) in seconds and what a network gives for each window, (W, …)."""
    if isinstance(model, (str, os.PathLike)):
        raise TypeError(f"model must be a network: qaudio.load({os.fspath(model)!r}) gives it")
    if not isinstance(model, OnnxModel):
        from qaudio.models.base import check_model  # exported models are run without torch

        check_model(model)
    window, hop = _number("window", window), _number("hop", hop)
    sample_rate = None if sample_rate is None else _whole("sample_rate", sample_rate)
    if window is not None and not 0.05 <= window <= 3600:
        raise InputError(f"window must be 0.05 to 3600 seconds, not {window}")
    length = WINDOW_SECONDS if window is None else window
    step = (HOP_SECONDS if window is None else length / 2) if hop is None else hop
    if not 0 < step <= length:
        raise InputError(f"hop must be above 0 and at most the window of {length:g} s, not {step}")
    if sample_rate is not None:
        check_rate(sample_rate)
    whole = WHOLE_SECONDS if window is None else length
    if isinstance(audio, (str, os.PathLike)):
        stream = windows(audio, length, step, whole)
    elif isinstance(audio, (bytes, bytearray, io.IOBase)) or hasattr(audio, "read"):
        content = audio if isinstance(audio, (bytes, bytearray)) else audio.read()
        samples, own = decode(bytes(content), "audio")
        stream = windows_of(iter([samples]), own, length, step, whole)
    else:
        rate = model.sample_rate if sample_rate is None else sample_rate
        stream = _tensor_windows(audio, rate, length, step, whole)
    spans: list[tuple[float, float]] = []
    found: list[np.ndarray] = []
    with _running(model, forward) as run:
        count = max(1, min(BATCH, round(BATCH * WINDOW_SECONDS / length)))
        while group := list(islice(stream, count)):
            rate = group[0][2]
            batch = np.stack([samples for _, samples, _ in group])
            if model.padded and model.eval_seconds is not None:  # as it was trained and scored
                missing = round(model.eval_seconds * rate) - batch.shape[1]
                batch = np.pad(batch, ((0, 0), (0, max(0, missing))))
            values = run(batch, rate)
            if not np.isfinite(values).all():
                if not isinstance(model, OnnxModel):
                    _check_network(model)
                name = display_name(audio) if isinstance(audio, (str, os.PathLike)) else "audio"
                raise AudioError(f"{name}: its samples are too large to be sound")
            found.append(values)
            spans += [(start, start + len(samples) / rate) for start, samples, _ in group]
            if progress is not None:
                progress(spans[-1][1])
    return np.array(spans), np.concatenate(found)


def _number(name: str, value: Any) -> float | None:
    """A number in whatever form it comes: Python's, NumPy's or a tensor; raises TypeError."""
    if value is None:
        return None
    if isinstance(value, (str, bytes, bool)):
        raise TypeError(f"{name} must be a number, not {value!r}")
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}") from None


def _whole(name: str, value: Any) -> int:
    number = _number(name, value)
    if number is None or not number.is_integer():
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    return int(number)


@contextmanager
def _running(model: AudioModel | OnnxModel, forward: Forward) -> Iterator[Run]:
    """What a model in eval mode gives; an exported one gives probabilities."""
    if isinstance(model, OnnxModel):
        yield model.probabilities
        return
    import torch  # here: exported models are run without it

    from qaudio.models.base import evaluating

    device = model.classifier.weight.device
    with evaluating(model) as net, torch.inference_mode():
        yield lambda x, rate: forward(net, torch.from_numpy(x).to(device), rate).cpu().numpy()


def _check_network(model: AudioModel) -> None:
    """Raise ValueError where it is the network that gives no numbers."""
    from qaudio.models.base import check_weights

    try:
        check_weights(getattr(model, "original", model).state_dict())
    except ValueError as error:
        raise InputError(f"the network gives no numbers, whatever the sound: {error}") from None


def _tensor_windows(
    audio: np.ndarray | torch.Tensor, rate: int, length: float, step: float, whole: float
) -> Iterator[tuple[float, np.ndarray, int]]:
    if isinstance(audio, np.ndarray):
        array = audio
    elif type(audio).__module__.partition(".")[0] == "torch" and hasattr(audio, "detach"):
        audio = audio.detach().cpu()
        array = np.asarray(audio.float() if audio.is_floating_point() else audio)
    else:
        raise TypeError(
            "audio must be a path, a file that is open for reading bytes, its content, a numpy "
            f"array or a tensor, not {type(audio).__name__}"
        )
    if array.dtype.kind != "f":
        raise AudioError(
            f"samples must be floats in -1 to 1, not {array.dtype}: divide 16-bit ones by 32768"
        )
    if array.ndim == 2 and array.shape[0] > array.shape[1]:
        raise AudioError(
            f"samples must be (T,) or (C, T), not {array.shape}: transpose what soundfile reads"
        )
    samples = array.astype(np.float32)
    if samples.ndim == 2:
        samples = samples.mean(axis=0)
    if samples.ndim != 1 or not len(samples):
        raise AudioError(f"samples must be (T,) or (C, T) with T > 0, not {samples.shape}")
    if not np.isfinite(samples).all():
        raise AudioError("samples hold NaN or infinite values")
    return windows_of(iter([samples]), rate, length, step, whole)
