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


Row = tuple[str, bool | None, str]  # of a Finding, without its topic


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
    for topic, rows in (
        ("machine", _machine()), ("packages", _packages()), ("compilers", _compilers()),
        ("exports", _exports()), ("decoders", _decoders()),
    ):  # fmt: skip
        yield from (Finding(topic, *row) for row in rows)


def _machine() -> Iterator[Row]:
    import torch

    yield "system", None, f"{platform.platform()}, Python {platform.python_version()}"
    instructions = torch.backends.cpu.get_cpu_capability()
    cores = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads of PyTorch"
    yield "processor", None, f"{platform.machine()}, instructions {instructions}, {cores}"
    if torch.cuda.is_available():
        names = ", ".join(map(torch.cuda.get_device_name, range(torch.cuda.device_count())))
        yield "GPU", True, names
    else:
        metal = torch.backends.mps.is_available()
        yield "GPU", metal, "Metal" if metal else "none that PyTorch can use"


def _packages() -> Iterator[Row]:
    for name in PACKAGES:
        yield name, None, _version(name) or "not installed"


def _compilers() -> Iterator[Row]:
    from qaudio.deploy.c.export import compiler
    from qaudio.deploy.cpp_kernel import kernel

    said = "of `qaudio.optimize`, compiled here"
    if kernel() is None:
        said = (
            "no C++ compiler that makes it (g++ or clang++): `qaudio.optimize` takes slower layers"
        )
    yield "C++ kernel", kernel() is not None, said
    command = compiler()
    missing = "no gcc, clang or cc, and no $CC: `export --to c` is written but not run"
    yield "C", command is not None, shlex.join(command) if command else missing


def _exports() -> Iterator[Row]:
    for target, (modules, packages, extra) in RUNTIMES.items():
        try:
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")
                for module in modules:
                    importlib.import_module(module)
        except ModuleNotFoundError as error:
            reason = f"{error.name} is missing: pip install 'qaudio[{extra}]'"
            yield target, False, reason + APART.get(target, "")
        except Exception as error:  # whatever an installation that is broken raises
            yield target, False, f"installed, but broken: {one_line(error)}"
        else:
            yield target, True, ", ".join(f"{name} {_version(name)}" for name in packages)
    yield "c", True, "needs no package; a C compiler checks what it writes"


def _decoders() -> Iterator[Row]:
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
        cannot = "" if works else " cannot: install a newer soundfile"
        yield name, works, f"libsndfile {soundfile.__libsndfile_version__}{cannot}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
