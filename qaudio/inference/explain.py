"""Why a network answers as it does: probabilities over time, and where it looks."""

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from qaudio.data.audio import blocks, display_name, windows_of
from qaudio.errors import AudioError, InputError
from qaudio.frontend import mel_bank
from qaudio.inference.activation import ClassActivation
from qaudio.models.base import AudioModel, check_model, evaluating
from qaudio.prediction import (
    HOP_SECONDS,
    WHOLE_SECONDS,
    WINDOW_SECONDS,
    Analysis,
    Prediction,
    analyse,
)

MOST_SECONDS = 600.0  # of one picture
FINE_WINDOW, FINE_HOP = 1.0, 0.25  # of the probabilities over time, up to 30 s of sound


@dataclass(frozen=True)
class Explanation:
    """Where a network finds a class in a sound.

    Attributes:
        prediction: the class that is explained, with its probability over the whole sound.
        top: the most probable classes of the whole sound.
        times: probabilities of all classes over time.
        spectrogram: the front-end's first channel, (frames, mels).
        heat: class activation over it, (frames, mels) in 0…1; all 0 where nothing speaks for the
            class; None for a network without class activation.
        reason: why `heat` is None.
        seconds: start and end of the spectrogram, from the start of the sound.
        hertz: centre of each mel bin, (mels,).
    """

    prediction: Prediction
    top: list[Prediction]
    times: Analysis
    spectrogram: np.ndarray
    heat: np.ndarray | None
    reason: str | None
    seconds: tuple[float, float]
    hertz: np.ndarray

    def strongest(self) -> tuple[float, float] | None:
        """Start and end in seconds of the hottest stretch, at half its height; None without."""
        if self.heat is None or not self.heat.any():
            return None
        curve = self.heat.mean(axis=1)
        peak = int(curve.argmax())
        cold = np.flatnonzero(curve < curve[peak] / 2)
        first = int(max(cold[cold < peak], default=-1)) + 1
        last = int(min(cold[cold > peak], default=len(curve)))
        start, end = self.seconds
        scale = (end - start) / len(curve)
        return round(start + first * scale, 3), round(start + last * scale, 3)


def explain(
    model: AudioModel,
    samples: np.ndarray,
    sample_rate: int,
    *,
    label: str | int | None = None,
    start: float = 0.0,
    window: float | None = None,
    hop: float | None = None,
    top_k: int = 5,
    progress: Callable[[float], None] | None = None,
) -> Explanation:
    """Explain what a network says of a sound.

    Beyond 30 s the heat is that of 10 s windows, each weighted by the class's probability in it.

    Args:
        model: used in eval mode and left in the mode it was in.
        samples: (T,) float32 in −1…1.
        sample_rate: Hz.
        label: class to explain, by name or index; None: the most probable one.
        start: seconds of the sound before `samples`.
        window, hop: seconds, of the probabilities over time; None: 1 s every 0.25 s up to 30 s of
            sound, 10 s every 5 s beyond; half a window where only `window` is given.
        top_k: classes in `top`.
        progress: called with the seconds done.

    Raises:
        AudioError: for samples that cannot be used.
        ValueError: for an unknown class, or a window or hop out of range.
        TypeError: when `model` is none.
    """
    check_model(model)
    seconds = len(samples) / sample_rate
    if window is None and seconds <= WHOLE_SECONDS:
        window, hop = FINE_WINDOW, FINE_HOP if hop is None else hop
    whole = analyse(model, samples, sample_rate=sample_rate)
    times = analyse(model, samples, sample_rate=sample_rate, window=window, hop=hop)
    times = Analysis(times.spans + start, times.probabilities, times.labels, times.task)
    index = whole.clip(1)[0].index if label is None else class_index(whole.labels, label)
    everything = whole.clip(len(whole.labels))
    config = model.frontend.config
    bank = mel_bank(config).numpy()
    hertz = bank.argmax(axis=0) * config.sample_rate / config.n_fft
    with evaluating(model) as net:
        reason, activation = None, None
        try:
            activation = ClassActivation(getattr(net, "original", net))
        except InputError as error:
            reason = str(error)
        spectrogram, heat = _over_pieces(net, activation, samples, sample_rate, index, progress)
    if heat is not None and heat.any():
        heat = heat / heat.max()
    return Explanation(
        next(p for p in everything if p.index == index), everything[:top_k], times, spectrogram,
        heat, reason, (start, start + seconds), hertz,
    )  # fmt: skip


def _over_pieces(
    model: AudioModel,
    activation: ClassActivation | None,
    samples: np.ndarray,
    rate: int,
    index: int,
    progress: Callable[[float], None] | None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Spectrogram and heat (frames, mels) of the pieces that `qaudio.predict` runs."""
    config = model.frontend.config
    per_second = config.sample_rate / config.hop_length
    frames = max(1, round(len(samples) / rate * per_second))
    spectrogram = np.zeros((frames, config.n_mels), np.float32)
    heat, covered = np.zeros_like(spectrogram), np.zeros((frames, 1), np.float32)
    like = model.classifier.weight
    stream = windows_of(iter([samples]), rate, WINDOW_SECONDS, HOP_SECONDS, WHOLE_SECONDS)
    for at, piece, _ in stream:
        sound = torch.from_numpy(np.ascontiguousarray(piece)).to(like.device)[None]
        if model.padded and model.eval_seconds is not None:
            missing = round(model.eval_seconds * rate) - sound.shape[1]
            sound = torch.nn.functional.pad(sound, (0, max(0, missing)))
        with torch.no_grad():
            features = model.features(sound, rate)
        first = min(round(at * per_second), frames - 1)
        count = min(frames - first, features.shape[2], round(len(piece) / rate * per_second) or 1)
        part = slice(first, first + count)
        spectrogram[part] = features[0, 0, :count].float().cpu().numpy()
        if activation is not None:
            found, logits = activation(features, index)
            weight = float(model.probabilities(logits.float())[index])
            heat[part] += weight * found[:count].float().cpu().numpy()
            covered[part] += 1
        if progress is not None:
            progress(at + len(piece) / rate)
    return spectrogram, heat / np.maximum(covered, 1) if activation is not None else None


def class_index(labels: list[str], label: str | int) -> int:
    """Index of a class; raises ValueError with similar names for one that a model lacks."""
    if isinstance(label, int):
        if not 0 <= label < len(labels):
            raise InputError(f"class must be 0 to {len(labels) - 1}, not {label}")
        return label
    folded = [name.casefold().replace("_", " ") for name in labels]
    wanted = label.casefold().replace("_", " ")
    if wanted in folded:
        return folded.index(wanted)
    close = difflib.get_close_matches(wanted, folded, n=3) or [n for n in folded if wanted in n][:3]
    names = close or folded[:3]
    hint = ", ".join(repr(labels[folded.index(name)]) for name in names)
    raise InputError(f"no class {label!r}; {'similar' if close else 'it has'}: {hint}")


def read_part(
    path: str | os.PathLike, start: float = 0.0, seconds: float | None = None
) -> tuple[np.ndarray, int]:
    """A stretch of a sound file, mono (T,) float32, and its rate in Hz.

    Args:
        path: sound file, read as a stream.
        start: seconds.
        seconds: at most `MOST_SECONDS`; None: to the end.

    Raises:
        AudioError: for a file that cannot be used, ends before `start`, or is too long.
    """
    stream, rate = blocks(path)
    first = round(start * rate)
    last = first + round((MOST_SECONDS if seconds is None else seconds) * rate)
    parts, position = [], 0
    for block in stream:
        part = block[max(0, first - position) : max(0, last - position)]
        if len(part):
            parts.append(part)
        position += len(block)
        if seconds is None and position > last:
            raise AudioError(
                f"{display_name(path)}: over {MOST_SECONDS:g} s are too long for one picture; "
                "give --start and --seconds"
            )
        if position >= last and seconds is not None:
            break
    if not position:
        raise AudioError(f"{display_name(path)}: holds no samples")
    if not parts:
        raise AudioError(f"{display_name(path)}: ends at {position / rate:.3g} s, before {start:g}")
    return np.concatenate(parts), rate
