"""What a network costs: parameters, multiply-accumulates, bytes, latency."""

import contextlib
import platform
import subprocess
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from qaudio.compress.measured import Cost, Latency
from qaudio.compress.timing import in_processor_time, seconds_of
from qaudio.errors import InputError
from qaudio.models.base import AudioModel, check_model, evaluating, sharing_copy

WARMUP, REPEATS = 3, 15
TURN = 2  # timed runs of one of two networks, one after the other
FEWEST, LONG_ENOUGH = 2, 1.0  # turns of each at least, and seconds after which they end

# Of exports and of counts: torch's exporter changes, for every thread, what modules do meanwhile.
ONE_AT_A_TIME = threading.RLock()


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """FLOPs of attention on tensors of these shapes, (B, heads, tokens, dimensions) each."""
    return sdpa_flop_count(query, key, value)


# The one form of attention that torch's counter misses.
ON_CPU = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}


def cost(model: AudioModel, *, seconds: float = 10.0, latency: bool = False) -> Cost:
    """Parameters, MACs and bytes of a model on one clip, and its latency on this machine.

    Operators are counted as they run (`torch.utils.flop_counter`), so a quaternion convolution
    counts the real products that its matrix form does.

    Args:
        model: left as it is.
        seconds: length of the clip.
        latency: measure it too: median of 15 runs after 3; in processor time on a single CPU
            thread, which other programs hardly disturb.

    Raises:
        ValueError: for a clip of no length.
        TypeError: for something else than a model.
    """
    check_model(model)
    if not seconds > 0:
        raise InputError(f"seconds must be positive, not {seconds}")
    # An optimized model counts as what it was made from; its latency is its own.
    counted: AudioModel = getattr(model, "original", model)
    macs = sum(macs_by_layer(counted, seconds).values())
    state = counted.state_dict().values()
    return Cost(
        params=sum(p.numel() for p in counted.parameters()),
        macs=macs,
        bytes=sum(t.numel() * t.element_size() for t in state),
        seconds=seconds,
        latency=measure_latency(model, seconds) if latency else None,
    )


def macs_by_layer(model: AudioModel, seconds: float) -> dict[str, int]:
    """MACs of one clip for each layer that has any, by its name."""
    net = sharing_copy(model).eval()
    with ONE_AT_A_TIME, torch.inference_mode():
        features = net.features(silence(net, seconds))
        with _Counter(net) as counter:
            net.classify(net.embed_features(features))
    # A layer's count includes those below it, which is taken off.
    flops = {
        name: sum(by_operator.values())
        for name, by_operator in counter.get_flop_counts().items()
        if name != _Counter.WHOLE
    }
    counted = dict(flops)
    for name, own in flops.items():
        above = name.rpartition(".")[0]
        while above and above not in flops:
            above = above.rpartition(".")[0]
        if above:
            counted[above] -= own
    counted = {name: own // 2 for name, own in counted.items() if own}
    if 2 * sum(counted.values()) != counter.get_total_flops():
        raise RuntimeError("operators outside the layers were counted; the sum would miss them")
    return counted


def measure_latency(model: AudioModel, seconds: float) -> Latency:
    """Median latency of one clip on this machine, as the model stands.

    Whole and front-end are timed in turns: other work on the machine slows both alike.
    """
    waveform = silence(model, seconds)
    device = waveform.device
    with evaluating(model) as net, torch.inference_mode():
        whole, frontend = _milliseconds(
            (lambda: net(waveform), lambda: net.features(waveform)), device
        )
    method = f"median of {REPEATS}" + ", processor time" * in_processor_time(device)
    return Latency(
        milliseconds=round(whole, 3), frontend_milliseconds=round(frontend, 3),
        device=device_name(device), method=method,
    )  # fmt: skip


def latency_of(model: AudioModel, seconds: float) -> float:
    """Milliseconds of one clip on this machine, as the model stands, from few runs."""
    waveform = silence(model, seconds)
    with evaluating(model) as net, torch.inference_mode():
        (whole,) = _milliseconds((lambda: net(waveform),), waveform.device, FEWEST * TURN)
        return whole


def latency_ratio(model: AudioModel, other: AudioModel, seconds: float) -> float:
    """Latency of a model over another's on one clip, both as they run by themselves.

    The two are timed in turns, and the medians count. Each turn begins with an untimed run: what
    the other left in the caches slows it. Slow networks take fewer turns.
    """
    calls = []
    with evaluating(model) as one, evaluating(other) as two, torch.inference_mode():
        for network in (one, two):
            waveform = silence(network, seconds)
            calls.append((partial(network, waveform), waveform.device, list[float]()))
        for turn in range(1, REPEATS + 1):
            for call, device, times in calls:
                call()
                times += [seconds_of(call, device) for _ in range(TURN)]
            if turn >= FEWEST and sum(sum(times) for *_, times in calls) > LONG_ENOUGH:
                break
    ours, theirs = (median(times) for *_, times in calls)
    return ours / theirs


def device_name(device: torch.device) -> str:
    """A device in words, with the number of threads where it is a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return f"{_processor()}, {threads} {'thread' if threads == 1 else 'threads'}"
    return f"{_processor()}, {device.type.upper()}"


def _processor() -> str:
    """The processor's name as its system gives it: on Linux, macOS, Windows, or a small board."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line for line in lines if line.startswith("model name")).split(":")[1].strip()
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        if found:
            return found
    with contextlib.suppress(ImportError, OSError):
        import winreg

        key = r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, key) as opened:  # type: ignore[attr-defined]
            return str(winreg.QueryValueEx(opened, "ProcessorNameString")[0]).strip()  # type: ignore[attr-defined]
    with contextlib.suppress(OSError):  # "Raspberry Pi 5 Model B Rev 1.0"
        return Path("/proc/device-tree/model").read_text(encoding="utf-8").strip("\0\n")
    return platform.processor() or platform.machine()


def _milliseconds(
    calls: Sequence[Callable[[], Any]], device: torch.device, repeats: int = REPEATS
) -> list[float]:
    """Median of each of the calls, which take turns."""
    turns = [[seconds_of(call, device) for call in calls] for _ in range(WARMUP + repeats)]
    return [1000 * median(times) for times in zip(*turns[WARMUP:], strict=True)]


def silence(model: AudioModel, seconds: float) -> torch.Tensor:
    """A clip (1, T) at a model's rate, on its device."""
    device = next(model.parameters()).device
    samples = round(seconds * model.sample_rate)
    return torch.zeros(1, samples, device=device, dtype=torch.float32)


class _Counter(FlopCounterMode):
    """Counts what a network's layers run, by their names, and nothing of other threads.

    torch's own way to know the layers hooks into all modules of the process.
    """

    WHOLE = "Global"  # as it calls what belongs to no layer

    def __init__(self, network: nn.Module):
        super().__init__(display=False, custom_mapping=ON_CPU)
        self.mod_tracker = _Layers(network)  # type: ignore[assignment]


class _Layers:
    """The layers that a network is in while it runs: `parents`, by name."""

    def __init__(self, network: nn.Module):
        self.network, self.parents = network, {_Counter.WHOLE}

    def __enter__(self) -> None:
        self.handles = []
        for name, layer in self.network.named_modules():
            for add, act in (
                (layer.register_forward_pre_hook, self.parents.add),
                (layer.register_forward_hook, self.parents.discard),
            ):
                self.handles.append(add(lambda *_, act=act, name=name: act(name)))

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()
