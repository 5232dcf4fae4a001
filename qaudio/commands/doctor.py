"""`qaudio doctor`: what works on this machine."""

import argparse
import contextlib
import importlib
import io
import json
import os
import platform
import shlex
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version

from qaudio.commands.common import Commands
from qaudio.text import one_line

# What each needs: modules that are imported, packages whose versions are told, and the extra.
RUNTIMES = {
    "onnx": (("onnx", "onnxscript", "onnxruntime"), ("onnx", "onnxruntime"), "onnx"),
    "executorch": (("executorch.exir", "executorch.runtime"), ("executorch",), "executorch"),
    "litert": (
        ("litert_torch", "ai_edge_litert.interpreter"),
        ("litert-torch", "ai-edge-litert"),
        "litert",
    ),
}
PACKAGES = ("torch", "torchaudio", "lightning", "timm", "huggingface_hub", "soundfile")
FORMATS = {"WAV": "PCM_16", "FLAC": "PCM_16", "OGG": "VORBIS", "MP3": "MPEG_LAYER_III"}
# LiteRT's exporter pins a package that others need newer.
APART = {"litert": "; best in an environment of its own: it needs typing_extensions below 4.13"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        works: None where there is nothing that could fail.
        detail: version, or what is missing and how it is had.
    """

    topic: str
    name: str
    works: bool | None
    detail: str


def register(command: Commands) -> None:
    """Add the subcommand."""
    sub = command(
        "doctor", _doctor, "what works on this machine: runtimes, exports, compilers, decoders",
        "qaudio doctor --json",
    )  # fmt: skip
    sub.add_argument("--json", action="store_true", help="print the findings as a list")


def _doctor(options: argparse.Namespace) -> int:
    found = list(findings())
    if options.json:
        print(json.dumps([asdict(one) for one in found], indent=1))
        return 0
    topic = None
    for one in found:
        if one.topic != topic:
            topic = one.topic
            print(topic)
        mark = {True: "yes", False: "no", None: ""}[one.works]
        print(f"  {one.name:<16} {mark:<4} {one.detail}".rstrip())
    return 0


def findings() -> Iterator[Finding]:
    """Everything that was found, topic by topic."""
    yield from _machine()
    yield from _packages()
    yield from _compilers()
    yield from _exports()
    yield from _decoders()


def _machine() -> Iterator[Finding]:
    import torch

    yield Finding("machine", "system", None, f"{platform.platform()}, Python "
                  f"{platform.python_version()}")  # fmt: skip
    instructions = torch.backends.cpu.get_cpu_capability()
    yield Finding("machine", "processor", None, f"{platform.machine()}, instructions "
                  f"{instructions}, {os.cpu_count()} cores, {torch.get_num_threads()} threads of "
                  "PyTorch")  # fmt: skip
    if torch.cuda.is_available():
        names = ", ".join(map(torch.cuda.get_device_name, range(torch.cuda.device_count())))
        yield Finding("machine", "GPU", True, names)
    else:
        metal = torch.backends.mps.is_available()
        yield Finding("machine", "GPU", metal, "Metal" if metal else "none that PyTorch can use")


def _packages() -> Iterator[Finding]:
    for name in PACKAGES:
        yield Finding("packages", name, None, _version(name) or "not installed")


def _compilers() -> Iterator[Finding]:
    from qaudio.deploy.c.export import compiler
    from qaudio.deploy.cpp_kernel import kernel

    yield _finding(
        "compilers", "C++ kernel", kernel() is not None, "of `qaudio.optimize`, compiled here",
        "no C++ compiler that makes it (g++ or clang++): `qaudio.optimize` takes slower layers",
    )  # fmt: skip
    command = compiler()
    yield _finding(
        "compilers", "C", command is not None, shlex.join(command or []),
        "no gcc, clang or cc, and no $CC: `export --to c` is written but not run",
    )  # fmt: skip


def _exports() -> Iterator[Finding]:
    for target, (modules, packages, extra) in RUNTIMES.items():
        try:
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")
                for module in modules:
                    importlib.import_module(module)
        except ModuleNotFoundError as error:
            reason = f"{error.name} is missing: pip install 'qaudio[{extra}]'"
            yield Finding("exports", target, False, reason + APART.get(target, ""))
        except Exception as error:  # whatever an installation that is broken raises
            yield Finding("exports", target, False, f"installed, but broken: {one_line(error)}")
        else:
            versions = ", ".join(f"{name} {_version(name)}" for name in packages)
            yield Finding("exports", target, True, versions)
    yield Finding("exports", "c", True, "needs no package; a C compiler checks what it writes")


def _decoders() -> Iterator[Finding]:
    """Formats that a made sound can be written in and read from."""
    import numpy as np
    import soundfile

    sound = np.sin(np.arange(8000) / 10).astype(np.float32)
    for name, coding in FORMATS.items():
        file = io.BytesIO()
        try:
            soundfile.write(file, sound, 16000, format=name, subtype=coding)
            file.seek(0)
            works = len(soundfile.read(file)[0]) > 0
        except (soundfile.SoundFileError, ValueError):
            works = False
        library = soundfile.__libsndfile_version__
        yield _finding("decoders", name, works, f"libsndfile {library}",
                       f"libsndfile {library} cannot: install a newer soundfile")  # fmt: skip


def _finding(topic: str, name: str, works: bool, good: str, bad: str) -> Finding:
    return Finding(topic, name, works, good if works else bad)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
