"""Latency of exported models: ONNX fp32 against PyTorch, int8 against fp32, batch 1.

`python -m tests.benchmarks.onnx_latency qcnn10_050.esc10_pruned50 qcnn14 --calibrate FOLDER`
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

import qaudio
from qaudio.compress.cost import device_name
from qaudio.models.registry import parse_architecture

WARMUP, REPEATS = 3, 15


def row(name: str, calibrate: str, seconds: float = 10.0, threads: int = 2) -> dict:
    """Medians in ms and their ratios for an entry, or an architecture with random weights.

    The three are timed in turn, so that what else the machine does falls on all of them.
    """
    try:
        parse_architecture(name)
        model = qaudio.create_model(name, num_classes=10).eval()
    except ValueError:
        model = qaudio.load(name)
    samples = 0.1 * np.random.default_rng(0).standard_normal(
        (1, round(seconds * model.sample_rate))
    )
    waveform = samples.astype(np.float32)
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        runs = {"torch": lambda: model(torch.from_numpy(waveform))}
        for kind, settings in (("fp32", {}), ("int8", {"calibrate": calibrate})):
            path = Path(folder, f"{kind}.onnx")
            qaudio.export_onnx(model, path, **settings)
            exported = qaudio.OnnxModel(path, threads)
            runs[kind] = lambda exported=exported: exported.logits(waveform)
        times: dict[str, list[float]] = {kind: [] for kind in runs}
        for _ in range(WARMUP + REPEATS):
            for kind, call in runs.items():
                start = time.perf_counter()
                call()
                times[kind].append(1000 * (time.perf_counter() - start))
    found = {f"{kind}_ms": median(values[WARMUP:]) for kind, values in times.items()}
    return {
        "name": name,
        **found,
        "fp32_against_torch": found["fp32_ms"] / found["torch_ms"],
        "int8_against_fp32": found["int8_ms"] / found["fp32_ms"],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+")
    parser.add_argument("--calibrate", required=True, help="folder of sounds")
    options = parser.parse_args()
    torch.set_num_threads(2)
    print(device_name(torch.device("cpu")))
    for name in options.names:
        print({key: round(value, 3) if isinstance(value, float) else value
               for key, value in row(name, options.calibrate).items()}, flush=True)  # fmt: skip
