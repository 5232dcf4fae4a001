"""A network's file in what it can run in; as a program, its first answer in a fresh process.

    python -m tests.benchmarks.speed.runtimes RUNTIME FILE THREADS

prints the seconds of the runtime's imports, those until the first answer after them, and the peak
MB. Each runtime is imported where it is used, so that no other is timed and weighed with it.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.benchmarks.speed.memory import resident

SECONDS = 10
WINDOW, HOP, RATE = 15_600, 7_680, 16_000  # of YAMNet: samples, samples, Hz
Answer = Callable[[], object]


def sound(rate: int) -> np.ndarray:
    """Noise, (1, T)."""
    noise = np.random.default_rng(0).standard_normal((1, SECONDS * rate))
    return 0.1 * noise.astype(np.float32)


def eager(path: Path, threads: int) -> Answer:
    """A folder of an entry, in PyTorch."""
    import qaudio

    return _in_torch(qaudio.load(path).eval(), threads)


def optimized(path: Path, threads: int) -> Answer:
    """The same by `qaudio.optimize`."""
    import torch

    import qaudio

    torch.set_num_threads(threads)  # which the fastest forms depend on
    return _in_torch(qaudio.optimize(qaudio.load(path).eval()), threads)


def _in_torch(model, threads: int) -> Answer:
    import torch

    torch.set_num_threads(threads)
    waveform = torch.from_numpy(sound(model.sample_rate))
    return torch.inference_mode()(lambda: model(waveform))


def in_onnxruntime(path: Path, threads: int) -> Answer:
    """A file of `qaudio export`."""
    import qaudio

    model = qaudio.OnnxModel(path, threads)
    waveform = sound(model.sample_rate)
    return lambda: model.logits(waveform)


def in_litert(path: Path, threads: int) -> Answer:
    """YAMNet's file: windows of .975 s every .48 s, the last one padded."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=threads)
    interpreter.allocate_tensors()
    source, scores = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    hops = -(-(SECONDS * RATE - WINDOW) // HOP)
    padded = np.zeros((1, WINDOW + hops * HOP), np.float32)
    padded[:, : SECONDS * RATE] = sound(RATE)

    def answer() -> np.ndarray:
        found = []
        for n in range(hops + 1):
            interpreter.set_tensor(source["index"], padded[:, n * HOP : n * HOP + WINDOW])
            interpreter.invoke()
            found.append(interpreter.get_tensor(scores["index"]))
        return np.mean(found, axis=0)

    return answer


# The package of each runtime, and what loads a file in it.
RUNTIMES: dict[str, tuple[str, Callable[[Path, int], Answer]]] = {
    "PyTorch": ("torch", eager),
    "optimize": ("torch", optimized),
    "ONNX fp32": ("onnxruntime", in_onnxruntime),
    "ONNX int8": ("onnxruntime", in_onnxruntime),
    "LiteRT": ("ai_edge_litert.interpreter", in_litert),
}


def main(runtime: str, path: str, threads: str) -> None:
    package, load = RUNTIMES[runtime]
    start = time.perf_counter()
    importlib.import_module(package)
    imported = time.perf_counter()
    load(Path(path), int(threads))()
    seconds = imported - start, time.perf_counter() - imported
    print(json.dumps([*seconds, resident("self", "VmHWM")]))


if __name__ == "__main__":
    main(*sys.argv[1:])
