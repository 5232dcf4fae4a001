"""Seconds of every implementation of a network's layers, each measured alone.

`python -m tests.benchmarks.implementations qcnn14 qcnn10_050` prints a row for each layer, the
fastest marked, and what the network's layers would take together without each implementation.
`ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 CXX='g++ -mno-avx512f'` stands for a processor
without AVX-512.
"""

from __future__ import annotations

import argparse

import torch

import qaudio
from qaudio.deploy import fused_layers
from qaudio.deploy.autotune import Layer
from qaudio.deploy.optimize import known_units, observe
from qaudio.deploy.timing import KnownTimes


@torch.no_grad()
def measure(arch: str, seconds: float = 10.0) -> dict[str, dict[str, float]]:
    """Seconds by layer and implementation, of one clip."""
    torch.manual_seed(0)
    model = qaudio.create_model(arch, num_classes=50).eval()
    noise = 0.1 * torch.randn(1, round(seconds * model.sample_rate))
    shapes, _ = observe(model, model.features(noise))
    known = KnownTimes(torch.device("cpu"))
    found, fused = {}, fused_layers.can_compile()
    for unit in known_units(model):
        names = fused_layers.forms(unit.layer)
        layer = Layer(unit, names, shapes[unit.name], torch.float32, fused, known)
        found[unit.name] = layer.seconds()
    return found


def table(found: dict[str, dict[str, float]]) -> list[str]:
    """Lines of a table of milliseconds; the fastest of a layer has a star."""
    names = list({name: None for times in found.values() for name in times})
    width = max(map(len, found))
    lines = [f"{'':{width}}" + "".join(f"{name:>11}" for name in names)]
    for layer, times in found.items():
        best = min(times, key=times.__getitem__)
        cells = [
            f"{1000 * times[name]:.2f}{'*' if name == best else ' '}" if name in times else ""
            for name in names
        ]
        lines.append(f"{layer:{width}}" + "".join(f"{cell:>11}" for cell in cells))
    lines.append(f"{'all, fastest of each':{width}}{1000 * _together(found):>10.2f}")
    for name in names:
        without = {
            layer: {other: time for other, time in times.items() if other != name} or times
            for layer, times in found.items()
        }
        more = _together(without) / _together(found) - 1
        lines.append(f"{'without ' + name:{width}}{1000 * _together(without):>10.2f}  +{more:.1%}")
    return lines


def _together(found: dict[str, dict[str, float]]) -> float:
    return sum(min(times.values()) for times in found.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("architectures", nargs="+")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{torch.backends.cpu.get_cpu_capability()}, {options.threads} threads, torch "
          f"{torch.__version__}", flush=True)  # fmt: skip
    for arch in options.architectures:
        print(f"\n{arch}, milliseconds", *table(measure(arch)), sep="\n", flush=True)


if __name__ == "__main__":
    main()
