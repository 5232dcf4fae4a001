"""Exported models without torch: onnxruntime and numpy alone."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from qaudio.errors import AudioError, InputError
from qaudio.resampling import resample_array
from qaudio.text import UNSHOWN, shown

if TYPE_CHECKING:
    import onnxruntime

MOST_METADATA = 1 << 20  # characters
MOST_CLASSES, LONGEST = 1_000_000, 3600  # seconds
# Operators that may go on for ever, which no network of ours has, as a file names them: NodeProto's
# field 4, its type.
ENDLESS = {name: b"\x22" + bytes([len(name)]) + name.encode() for name in ("Loop", "Scan")}
LOUDEST = 1e15  # sample beyond which powers exceed float32


def _count(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _labels(value: Any) -> bool:
    return value is None or (
        isinstance(value, list)
        and all(isinstance(one, str) and not UNSHOWN.search(one) for one in value)
    )


def _number(value: Any, least: float, most: float) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and least <= value <= most


def _seconds(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value is None or (number and 0 < value <= LONGEST)


# What the metadata must say, in words and as a check.
EXPECTED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "input": ("waveform or features", lambda value: value in ("waveform", "features")),
    "sample_rate": ("Hz, 100 to 10 million", lambda value: _count(value, 100, 10_000_000)),
    "num_classes": ("a number of classes", lambda value: _count(value, 1, MOST_CLASSES)),
    "labels": ("class names, or null", _labels),
    "task": ("multiclass or multilabel", lambda value: value in ("multiclass", "multilabel")),
    "min_samples": ("a number of samples", lambda value: _count(value, 0, 1 << 28)),
}
OPTIONAL: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "eval_seconds": (f"seconds up to {LONGEST}, or null", _seconds),
    "padded": ("true or false", lambda value: isinstance(value, bool)),
    "temperature": ("0.01 to 100", lambda value: _number(value, 0.01, 100)),
    "thresholds": (
        "a list of probabilities, or null",
        lambda value: (
            value is None or (isinstance(value, list) and all(_number(one, 0, 1) for one in value))
        ),
    ),
}


class OnnxModel:
    """A file of `qaudio export`, for `qaudio.predict` as an `AudioModel` is.

    Attributes:
        metadata: what the file says of itself: labels, task, sample_rate, min_samples, frontend,
            license, entry, and the figures of the export's check.

    Args:
        path: the .onnx file.
        threads: None: onnxruntime's choice.

    Raises:
        ValueError: for a file that is missing or was not exported for this; says which.
    """

    def __init__(self, path: str | os.PathLike, threads: int | None = None):
        path = os.fspath(path)
        if not os.path.isfile(path):
            raise InputError(f"{path}: no such file; `qaudio export ENTRY --out FILE` makes one")
        _refuse_loops(path)
        self.session = session(path, threads)
        stored = self.session.get_modelmeta().custom_metadata_map
        if "qaudio_version" not in stored:
            raise InputError(
                f"{path}: was not written by `qaudio export`: its metadata lack labels"
            )
        self.metadata = _decoded(stored, path)
        if self.metadata["input"] != "waveform":
            raise InputError(f"{path}: takes features; export it without --features to predict")
        inputs = [one.name for one in self.session.get_inputs()]
        outputs = [one.name for one in self.session.get_outputs()]
        if inputs != ["waveform"] or "logits" not in outputs:
            raise InputError(
                f"{path}: takes {', '.join(inputs)} and gives {', '.join(outputs)}, where "
                "`qaudio export` writes waveform and logits: export it again"
            )
        self.path = path
        self.sample_rate: int = self.metadata["sample_rate"]
        self.num_classes: int = self.metadata["num_classes"]
        self.labels: list[str] | None = self.metadata["labels"]
        self.eval_seconds: float | None = self.metadata.get("eval_seconds")
        self.padded = bool(self.metadata.get("padded"))
        self.temperature = float(self.metadata.get("temperature", 1.0))
        self.thresholds: list[float] | None = self.metadata.get("thresholds")

    def logits(self, waveform: np.ndarray, sample_rate: int | None = None) -> np.ndarray:
        """Logits (B, classes) of mono waveforms (B, T), floats in −1…1.

        Args:
            waveform: the sounds.
            sample_rate: Hz; None: `self.sample_rate`.

        Raises:
            ValueError: for samples that are no floats, another shape, or a rate out of range.
            AudioError: for samples that are NaN, infinite or too large to be sound: onnxruntime
                makes ordinary logits of them.
        """
        waveform = np.asarray(waveform)
        if waveform.dtype.kind != "f":
            raise InputError(f"waveforms must be floats in -1 to 1, not {waveform.dtype}")
        if waveform.ndim != 2 or 0 in waveform.shape:
            raise InputError(f"waveforms must be (B, T), nothing empty, not {waveform.shape}")
        if not np.isfinite(waveform).all():
            raise AudioError("samples hold NaN or infinite values")
        if np.abs(waveform).max() > LOUDEST:
            raise AudioError("samples are too large to be sound")
        waveform = waveform.astype(np.float32)
        if sample_rate is not None:
            waveform = resample_array(waveform, sample_rate, self.sample_rate)
        missing = self.metadata["min_samples"] - waveform.shape[-1]
        if missing > 0:
            waveform = np.pad(waveform, ((0, 0), (0, missing)))
        try:
            logits = self.session.run(["logits"], {"waveform": waveform})[0]
        except Exception as error:  # onnxruntime's own kinds, which it does not name in public
            raise InputError(f"{self.path}: onnxruntime cannot run it ({error})") from None
        shape = getattr(logits, "shape", None)
        if shape != (len(waveform), self.num_classes) or logits.dtype.kind != "f":
            raise InputError(
                f"{self.path}: gives {type(logits).__name__} {shape} for {len(waveform)} sounds "
                f"and {self.num_classes} classes: export it again"
            )
        return logits.astype(np.float32, copy=False)

    @property
    def task(self) -> str:
        """The model's task: "multiclass" (softmax) or "multilabel" (sigmoid)."""
        return str(self.metadata["task"])

    def probabilities(self, waveform: np.ndarray, sample_rate: int | None = None) -> np.ndarray:
        """Softmax or sigmoid of the logits / temperature, by the task; arguments as `logits`."""
        logits = self.logits(waveform, sample_rate).astype(np.float64) / self.temperature
        if self.task == "multilabel":
            return 0.5 * (1 + np.tanh(logits / 2))
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)


def _decoded(stored: dict[str, str], path: str) -> dict[str, Any]:
    """Metadata as `qaudio export` wrote them; other tools add texts of their own."""
    found: dict[str, Any] = {}
    for key, text in stored.items():
        with contextlib.suppress(ValueError, RecursionError):
            if len(text) <= MOST_METADATA:
                found[key] = json.loads(text)
    missing = [key for key in EXPECTED if key not in found]
    if missing:
        raise InputError(f"{path}: its metadata lack {', '.join(missing)}; export it again")
    for key, (words, holds) in {**EXPECTED, **OPTIONAL}.items():
        if key in found and not holds(found[key]):
            raise InputError(
                f"{path}: its metadata say {key} {shown(repr(found[key])[:60])}, expected is "
                f"{words}; export it again"
            )
    if found["labels"] is not None and len(found["labels"]) != found["num_classes"]:
        raise InputError(
            f"{path}: its metadata name {len(found['labels'])} labels for {found['num_classes']} "
            "classes; export it again"
        )
    return found


def _refuse_loops(path: str) -> None:
    with open(path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return  # onnxruntime says so
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            found = [name for name, typed in ENDLESS.items() if content.find(typed) >= 0]
    if found:
        raise InputError(
            f"{path}: has a {found[0]}, which may never end and no `qaudio export` writes: export "
            "it again"
        )


def session(model: str | bytes, threads: int | None = None) -> onnxruntime.InferenceSession:
    """An onnxruntime session on the CPU; raises ValueError for a file that is no ONNX model."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 4  # what goes wrong is raised, and said in one line
    # Threads that wait for work by spinning take the cores from what else runs, torch among it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own kinds, which it does not name in public
        name = model if isinstance(model, str) else "the exported model"
        raise InputError(f"{name}: onnxruntime cannot load it ({error})") from None
