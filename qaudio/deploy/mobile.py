"""Networks as files of ExecuTorch and LiteRT, checked against PyTorch before they are kept.

Both run on phones and boards, with XNNPACK's kernels on the processor. Such a file holds the whole
model, waveform to logits, for one clip of one length, and what a program needs to use it: labels,
task, rate, temperature and thresholds (see `Export.metadata`).
"""

import contextlib
import io
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from qaudio.compress.cost import ONE_AT_A_TIME
from qaudio.deploy.export_checks import (
    TOLERANCE,
    Export,
    ExportError,
    checked,
    facts_of,
    prepared,
    trial,
)
from qaudio.deploy.onnx.modules import FrontendGraph, NetworkGraph
from qaudio.errors import InputError
from qaudio.models.base import AudioModel
from qaudio.paths import write_whole

Runtime = Literal["executorch", "litert"]
Run = Callable[[np.ndarray], np.ndarray]  # waveform (1, T) to logits (1, classes)

SUFFIXES: dict[Runtime, str] = {"executorch": ".pte", "litert": ".tflite"}
SECONDS = 10.0  # of sound, for models that are scored on clips of any length
METADATA = "qaudio"  # name of the entry in a LiteRT file that holds labels and the rest, as JSON


class WaveformGraph(nn.Module):
    """A model in plain operators, front-end included: waveform (1, T) to logits (1, classes)."""

    def __init__(self, model: AudioModel):
        super().__init__()
        self.frontend = FrontendGraph(model.frontend)
        self.network = NetworkGraph(model, "matrix")

    def forward(self, waveform: Tensor) -> Tensor:
        return self.network(self.frontend(waveform))


def export_mobile(
    model: AudioModel,
    path: str | os.PathLike,
    runtime: Runtime,
    *,
    seconds: float | None = None,
    entry: str | None = None,
    license: str | None = None,
) -> Export:
    """Write a model as a file of ExecuTorch (.pte) or LiteRT (.tflite), in fp32.

    Input: a waveform (1, samples) at the model's rate, mono, of exactly `samples`; output: logits
    (1, classes). An ExecuTorch program has labels and the rest as JSON from its method `metadata`,
    a LiteRT file under the name "qaudio" of its own metadata.

    Args:
        model: exported in eval mode; left as it is.
        path: file to write, ending in .pte or .tflite; replaced when it exists.
        runtime: "executorch" or "litert", whose package (`pip install 'qaudio[executorch]'`,
            `'qaudio[litert]'`) also runs the file here, to check it.
        seconds: length of the clips that it takes; None: as the model is scored, or 10 s.
        entry: its name, for the metadata.
        license: of the weights, for the metadata.

    Raises:
        ExportError: for a network that the runtime's exporter does not take, or whose logits in
            the runtime differ from PyTorch's by more than 1e-4 of their range. No file is left
            then.
        ModuleNotFoundError: where the runtime's package is not installed.
        ValueError: for weights that are NaN or infinite.
        TypeError: for something else than a model, or weights that are computed from others.
    """
    path = Path(path)
    if path.suffix != SUFFIXES[runtime]:
        raise ExportError(f"{path}: the file's name must end in {SUFFIXES[runtime]}")
    if seconds is not None and not 0 < seconds <= 600:
        raise InputError(f"seconds must be above 0 and at most 600, not {seconds}")
    model = prepared(model)
    samples = round((seconds or model.eval_seconds or SECONDS) * model.sample_rate)
    samples = max(samples, model.min_samples)
    metadata = facts_of(model, entry, license) | {"samples": samples}
    convert, open_file = _RUNTIMES[runtime]
    graph, example = WaveformGraph(model).eval(), torch.zeros(1, samples, dtype=torch.float32)
    try:
        with ONE_AT_A_TIME, _quiet(), torch.no_grad():
            content = convert(graph, example, json.dumps(metadata, ensure_ascii=False))
    except ModuleNotFoundError:
        raise
    except Exception as error:  # the exporters' own kinds, with pages of advice
        reason = str(error).strip().split("\n")[0]
        raise ExportError(f"no {runtime} program of this network: {reason}") from error
    run = open_file(content)
    metadata |= {"bytes": len(content), "check": _check(runtime, run, model, samples)}
    metadata["milliseconds"] = 1000 * _seconds(run, samples)
    write_whole(path, content)
    return Export(path, metadata)


# ExecuTorch.


def _to_executorch(graph: nn.Module, example: Tensor, metadata: str) -> bytes:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    program = torch.export.export(graph, (example,))
    lowered = to_edge_transform_and_lower(
        program, partitioner=[XnnpackPartitioner()], constant_methods={"metadata": metadata}
    )
    return bytes(lowered.to_executorch().buffer)


def _in_executorch(content: bytes) -> Run:
    from executorch.runtime import Runtime as ExecuTorch

    program = ExecuTorch.get().load_program(content)
    method = program.load_method("forward")
    assert method is not None
    held = (content, program, method)  # a method reads the bytes, but does not keep them

    def run(waveform: np.ndarray) -> np.ndarray:
        return held[-1].execute([torch.from_numpy(waveform)])[0].numpy().copy()

    return run


# LiteRT.


def _to_litert(graph: nn.Module, example: Tensor, metadata: str) -> bytes:
    import litert_torch
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    made = flatbuffer_utils.read_model_from_bytearray(
        litert_torch.convert(graph, (example,)).model_content()
    )
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = list(metadata.encode())
    entry.name, entry.buffer = METADATA, len(made.buffers)
    made.buffers.append(buffer)
    made.metadata = [*(made.metadata or []), entry]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(made))


def _in_litert(content: bytes) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=torch.get_num_threads())
    interpreter.allocate_tensors()
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(waveform: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(source["index"], waveform)
        interpreter.invoke()
        return np.array(interpreter.get_tensor(result["index"]))

    return run


_RUNTIMES: dict[
    Runtime, tuple[Callable[[nn.Module, Tensor, str], bytes], Callable[[bytes], Run]]
] = {
    "executorch": (_to_executorch, _in_executorch),
    "litert": (_to_litert, _in_litert),
}


# Checks.


def _check(runtime: str, run: Run, model: AudioModel, samples: int) -> dict[str, Any]:
    """The largest difference to PyTorch's logits on made sounds."""
    clips = trial(samples)
    with torch.inference_mode():
        expected = model(clips).numpy()
    found = np.concatenate([run(clip.unsqueeze(0).numpy()) for clip in clips])
    share = checked(runtime, expected, found)
    return {"samples": samples, "largest_difference": share, "tolerance": TOLERANCE}


def _seconds(run: Run, samples: int) -> float:
    """The shortest of five runs."""
    waveform, times = trial(samples)[:1].numpy(), []
    for _ in range(5):
        start = time.perf_counter()
        run(waveform)
        times.append(time.perf_counter() - start)
    return min(times)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what exporters print of their steps, and what they warn of their own code."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
