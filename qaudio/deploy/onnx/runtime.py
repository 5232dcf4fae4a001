"""Exported models without torch: onnxruntime and numpy alone."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from msgspec import Meta

from qaudio.errors import AudioError, InputError
from qaudio.records import Record, Share, Text, parse
from qaudio.resampling import resample_array

if TYPE_CHECKING:
    import onnxruntime

MOST_METADATA = 1 << 20  # characters
# Operators that may go on for ever, which no network of ours has, as a file names them: NodeProto's
# field 4, its type.
ENDLESS = {name: b"\x22" + bytes([len(name)]) + name.encode() for name in ("Loop", "Scan")}
# Of what all sessions compute: a graph of a few bytes may ask for any amount. 64 clips of 10 s take
# half a GiB in resnet38_025.
MOST_MEMORY = 4 << 30
BEYOND = "AllocateRawInternal"  # so onnxruntime names where it has no more to give
LOUDEST = 1e15  # sample beyond which powers exceed float32


class Metadata(Record, kw_only=True):
    """What a file must say of itself; fields are those of `AudioModel`."""

    input: Literal["waveform", "features"]
    sample_rate: Annotated[int, Meta(ge=100, le=10_000_000)]
    num_classes: Annotated[int, Meta(ge=1, le=1_000_000)]
    labels: list[Text] | None
    task: Literal["multiclass", "multilabel"]
    min_samples: Annotated[int, Meta(ge=0, le=1 << 28)]
    eval_seconds: Annotated[float, Meta(gt=0, le=3600)] | None = None
    padded: bool = False
    temperature: Annotated[float, Meta(ge=0.01, le=100)] = 1.0
    thresholds: list[Share] | None = None


class OnnxModel:
    """A file of `qaudio export`, for `qaudio.predict` as an `AudioModel` is.

    Attributes:
        metadata: what the file says of itself: labels, task, sample_rate, min_samples, frontend,
            license, entry, and the figures of the export's check.

    Args:
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
        self.metadata, known = _decoded(stored, path)
        if known.input != "waveform":
            raise InputError(f"{path}: takes features; export it without --features to predict")
        inputs = [one.name for one in self.session.get_inputs()]
        outputs = [one.name for one in self.session.get_outputs()]
        if inputs != ["waveform"] or "logits" not in outputs:
            raise InputError(
                f"{path}: takes {', '.join(inputs)} and gives {', '.join(outputs)}, where "
                "`qaudio export` writes waveform and logits: export it again"
            )
        self.path = path
        self.sample_rate, self.num_classes = known.sample_rate, known.num_classes
        self.labels, self.task = known.labels, known.task
        self.eval_seconds, self.padded = known.eval_seconds, known.padded
        self.temperature, self.thresholds = known.temperature, known.thresholds
        self.min_samples = known.min_samples

    def logits(self, waveform: np.ndarray, sample_rate: int | None = None) -> np.ndarray:
        """Logits (B, classes) of mono waveforms (B, T), floats in −1…1.

        Args:
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
        missing = self.min_samples - waveform.shape[-1]
        if missing > 0:
            waveform = np.pad(waveform, ((0, 0), (0, missing)))
        try:
            logits = self.session.run(["logits"], {"waveform": waveform})[0]
        except Exception as error:  # onnxruntime's own kinds, which it does not name in public
            if BEYOND in str(error):
                raise InputError(
                    f"{self.path}: takes over {MOST_MEMORY >> 30} GiB of memory for "
                    f"{len(waveform)} sounds of {waveform.shape[1]} samples: give it fewer or "
                    "shorter ones, or export it again"
                ) from None
            raise InputError(f"{self.path}: onnxruntime cannot run it ({error})") from None
        shape = getattr(logits, "shape", None)
        if shape != (len(waveform), self.num_classes) or logits.dtype.kind != "f":
            raise InputError(
                f"{self.path}: gives {type(logits).__name__} {shape} for {len(waveform)} sounds "
                f"and {self.num_classes} classes: export it again"
            )
        return logits.astype(np.float32, copy=False)

    def probabilities(self, waveform: np.ndarray, sample_rate: int | None = None) -> np.ndarray:
        """Softmax or sigmoid of the logits / temperature, by the task; arguments as `logits`."""
        logits = self.logits(waveform, sample_rate).astype(np.float64) / self.temperature
        if self.task == "multilabel":
            return 0.5 * (1 + np.tanh(logits / 2))
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)


def _decoded(stored: dict[str, str], path: str) -> tuple[dict[str, Any], Metadata]:
    """Metadata as `qaudio export` wrote them; other tools add texts of their own."""
    found: dict[str, Any] = {}
    for key, text in stored.items():
        with contextlib.suppress(ValueError, RecursionError):
            if len(text) <= MOST_METADATA:
                found[key] = json.loads(text)
    try:
        known = parse(found, Metadata)
        if known.labels is not None and len(known.labels) != known.num_classes:
            raise InputError(f"{len(known.labels)} labels for {known.num_classes} classes")
    except InputError as error:
        raise InputError(f"{path}: its metadata: {error}; export it again") from None
    return found, known


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
    _limit_memory()
    options.add_session_config_entry("session.use_env_allocators", "1")
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own kinds, which it does not name in public
        name = model if isinstance(model, str) else "the exported model"
        raise InputError(f"{name}: onnxruntime cannot load it ({error})") from None


@cache
def _limit_memory() -> None:
    """Give sessions that take the process's allocator `MOST_MEMORY`, once for the process."""
    import onnxruntime as ort

    arena = ort.OrtArenaCfg(
        {
            "max_mem": MOST_MEMORY, "arena_extend_strategy": -1, "initial_chunk_size_bytes": -1,
            "max_dead_bytes_per_chunk": -1,
        }
    )  # fmt: skip
    kind = ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    place = ort.OrtMemoryInfo("Cpu", kind, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(place, arena)
