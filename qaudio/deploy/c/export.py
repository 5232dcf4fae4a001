"""Networks as C99 for microcontrollers, checked against PyTorch and against their own compiler."""

import os
import shlex
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from qaudio import __version__
from qaudio.deploy.c.header import header
from qaudio.deploy.c.integers import IntegerNetwork, quantise
from qaudio.deploy.calibration import calibration_clips, split
from qaudio.deploy.export_checks import (
    Export,
    ExportError,
    difference,
    facts_of,
    prepared,
    quantised_figures,
    trial,
)
from qaudio.models.base import AudioModel
from qaudio.paths import write_whole
from qaudio.progress import progress

FOLDER = Path(__file__).parent
SOURCES = ("qaudio.c", "qaudio.h")  # as they are; model.h is made
COMPILERS = ("gcc", "clang", "cc")
OPTIONS = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O2")
SECONDS = 120  # that a compiler or a run may take
EXACT = 1e-6  # of the logits' range: float32 rounding of sums that are integers until the last
INPUT_STEPS = 1  # that the network's input may be off: spectra differ in their last bits
NEAR = 0.05  # of the logits' range, where the input is off by that


def export_c(
    model: AudioModel,
    folder: str | os.PathLike,
    *,
    calibrate: str | os.PathLike,
    entry: str | None = None,
    license: str | None = None,
) -> Export:
    """Write a CNN or QCNN as C99: model.h, its tables, and qaudio.c and qaudio.h, which run them.

    Weights are int8, activations 8 bits, spectra float. Quaternion weights are stored as
    quaternions, a quarter of the real matrix, and multiplied as such. Samples come as a stream,
    and memory does not grow with the sound's length; there is no heap.

    Args:
        model: exported in eval mode; left as it is.
        folder: made when it is not there; the three files in it are replaced.
        calibrate: folder of sounds like those to come, which set the activations' scales; one in
            four tells how far the result is from fp32.
        entry: its name, for the header.
        license: of the weights, for the header.

    Returns:
        The folder, and as metadata `bytes` (of tables, by part), `int8` (against PyTorch's fp32)
        and, where a C compiler was found, `check` (the compiled program's largest difference to
        the same integers in PyTorch, from features and from waveforms, as shares of the logits'
        range; bytes of memory, milliseconds).

    Warns where there is no C compiler.

    Raises:
        ExportError: for another architecture or a front-end that C does not take, too few sounds,
            or a program that does not compile or gives other logits. No file is left then.
        ValueError: for weights that are NaN or infinite.
        TypeError: for something else than a model, or weights that are computed from others.
    """
    model = prepared(model)
    calibrating, checking = split(calibration_clips(calibrate, model))
    network = quantise(model, calibrating)
    comment = [
        f"{entry or model.architecture}, by qaudio {__version__}: tables of qaudio.c.",
        f"Licence of the weights: {license or 'not given'}.",
    ]
    text, sizes = header(model, network, comment)
    metadata: dict[str, Any] = {
        **facts_of(model, entry, license),
        "bytes": sizes,
        "int8": _compare(network, model, checking) | {"calibrated_on": len(calibrating)},
    }
    with tempfile.TemporaryDirectory() as scratch:
        _write(Path(scratch), text)
        program = compiled(Path(scratch))
        if program is None:
            warnings.warn("no C compiler here: the exported program was not run", stacklevel=2)
        else:
            metadata["check"] = _check(program, network, model, checking)
    _write(Path(folder), text)
    return Export(Path(folder), metadata)


def compiler() -> list[str] | None:
    """The command of this machine's C compiler: $CC, or the first of the usual names."""
    given = shlex.split(os.environ.get("CC", ""))
    found = next((path for path in map(shutil.which, COMPILERS) if path), None)
    return given or ([found] if found else None)


class Run(NamedTuple):
    """Logits (classes,) of one sound, bytes of the program's state, milliseconds."""

    logits: np.ndarray
    memory: int
    milliseconds: float


@dataclass(frozen=True)
class Program:
    """An exported network, compiled for this machine."""

    path: Path

    def of_waveform(self, waveform: Tensor) -> Run:
        """Logits and cost of samples (T,)."""
        return self._logits(waveform.numpy())

    def of_features(self, quantised: Tensor) -> Run:
        """Logits and cost of a network's input in steps (channels, frames, mels)."""
        return self._logits(quantised.permute(1, 2, 0).numpy().astype(np.uint8), "rows")

    def features(self, waveform: Tensor, channels: int, mels: int) -> Tensor:
        """The network's input in steps (channels, frames', mels) that it makes of samples (T,).

        Without the last few frames, which the end of the sound completes.
        """
        rows = np.frombuffer(self._run(waveform.numpy(), "features").stdout, np.uint8)
        return torch.from_numpy(rows.reshape(-1, mels, channels).astype(np.int64)).permute(2, 0, 1)

    def _logits(self, given: np.ndarray, *arguments: str) -> Run:
        done = self._run(given, *arguments)
        state, milliseconds = done.stderr.split()
        logits = [float(line.split()[0]) for line in done.stdout.splitlines()]
        return Run(np.array(logits, np.float32), int(state), float(milliseconds))

    def _run(self, given: np.ndarray, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        content = np.ascontiguousarray(given).tobytes()
        return subprocess.run(
            [str(self.path), *arguments], input=content, capture_output=True, check=True,
            timeout=SECONDS,
        )  # fmt: skip


def compiled(folder: Path, options: Sequence[str] = OPTIONS) -> Program | None:
    """The program of an exported folder, in that folder; None without a compiler.

    Raises:
        ExportError: where it does not compile; with the compiler's first error.
    """
    command, path = compiler(), folder / "qaudio"
    if command is None:
        return None
    arguments = [*command, *options, "-DQAUDIO_MAIN", "-o", str(path), str(folder / SOURCES[0])]
    done = subprocess.run([*arguments, "-lm"], capture_output=True, text=True, timeout=SECONDS)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line]
        raise ExportError(f"{command[0]} does not compile the C code: {(lines or ['?'])[0]}")
    return Program(path)


def _write(folder: Path, text: str) -> None:
    for name in SOURCES:
        write_whole(folder / name, (FOLDER / name).read_bytes())
    write_whole(folder / "model.h", text)


def _compare(network: IntegerNetwork, model: AudioModel, clips: list[Tensor]) -> dict[str, Any]:
    """The integers in PyTorch against fp32 on clips that did not calibrate."""
    expected, found = [], []
    with torch.inference_mode():
        for clip in progress(clips, unit="clip"):
            features = model.features(clip)
            expected.append(model.classify(model.embed_features(features)).numpy())
            found.append(network.logits(network.quantised(features)).numpy())
    return quantised_figures(model.task, np.concatenate(expected), np.concatenate(found))


def _check(
    program: Program, network: IntegerNetwork, model: AudioModel, clips: list[Tensor]
) -> dict[str, Any]:
    """The program against the same integers in PyTorch, on sounds and on features.

    Raises:
        ExportError: for another result than the integers have from the same features, and for
            features more than a step away, or logits from them that are far off.
    """
    sounds = [*trial(model.sample_rate + model.min_samples + 7), *(clip[0] for clip in clips[:4])]
    expected, rows, whole, steps, pace = [], [], [], [], []
    with torch.inference_mode():
        for sound in sounds:
            quantised = network.quantised(model.features(sound.unsqueeze(0)))[0]
            expected.append(network.logits(quantised.unsqueeze(0))[0].numpy())
            rows.append(program.of_features(quantised).logits)
            made = program.features(sound, *network.scales.shape)
            steps.append(int((made - quantised[:, : made.shape[1]]).abs().max()))
            run = program.of_waveform(sound)
            whole.append(run.logits)
            pace.append(run.milliseconds / (len(sound) / model.sample_rate))
    figures = {
        "from_features": difference(np.stack(expected), np.stack(rows)),
        "input_steps": max(steps),
        "from_waveforms": difference(np.stack(expected), np.stack(whole)),
    }
    for name, most in (("from_features", EXACT), ("input_steps", INPUT_STEPS),
                       ("from_waveforms", NEAR)):  # fmt: skip
        if not figures[name] <= most:
            raise ExportError(
                f"the C program differs from the same integers in PyTorch: {name} "
                f"{figures[name]:.1e}, allowed {most:.0e}"
            )
    return figures | {"memory_bytes": run.memory, "milliseconds_per_second": min(pace)}
