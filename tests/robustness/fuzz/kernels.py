"""Compiled kernels in the cache: spoilt, linked, or put there by somebody else."""

from __future__ import annotations

import hashlib
import os
import random
import shlex
import shutil
from functools import partial
from pathlib import Path
from unittest import mock

from qaudio.deploy import cpp_kernel
from tests.robustness.fuzz.sandbox import Kind, Trial, flipped, misplaced

LIBRARY, COMPILER = "library.so", "c++"
# Stands for the compiler, which takes seconds.
SCRIPT = '#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\nexec cp "${0%/*}/library.so" "$2"\n'
NOBODY = 65534


def prepare(folder: Path) -> None:
    compiler = folder / COMPILER
    made(folder / "first", {})
    (library,) = (folder / "first" / "kernels").glob("*.so")
    shutil.copy(library, folder / LIBRARY)
    compiler.write_text(SCRIPT)
    compiler.chmod(0o700)
    made(folder / "cache", {"CXX": shlex.quote(str(compiler))})


def made(cache: Path, environment: dict[str, str]) -> None:
    cpp_kernel.kernel.cache_clear()
    with mock.patch.dict(os.environ, environment | {"QAUDIO_CACHE": str(cache)}):
        assert cpp_kernel.kernel() is not None, "this machine has no C++ compiler that makes it"
    cpp_kernel.kernel.cache_clear()


def planted(library: Path) -> None:
    """Other code, with the hash that belongs to it."""
    library.write_bytes(library.read_bytes() + b"\0")
    digest = hashlib.sha256(library.read_bytes()).hexdigest()
    library.with_suffix(".sha256").write_text(digest)


def spoil(library: Path, sandbox: Path, rng: random.Random) -> str:
    folder = library.parent
    path = rng.choice((library, library.with_suffix(".sha256")))
    way = rng.choice(("bytes", "bytes", "misplaced", "gone", "linked", "writable", "folder"))
    if os.getuid() == 0 and rng.random() < 0.2:  # who else could give files away?
        planted(library)
        owned = rng.choice((path, folder))
        os.chown(owned, NOBODY, NOBODY)
        return f"another's {owned.suffix or 'folder'}"
    if way == "bytes":
        path.write_bytes(flipped(path.read_bytes(), rng))
    elif way == "misplaced":
        way = misplaced(path, sandbox, rng)
    elif way == "gone":
        path.unlink()
    elif way == "linked":
        planted(library)
        other = sandbox / "outside" / path.name
        shutil.move(path, other)
        path.symlink_to(other)
    elif way == "writable":
        planted(library)
        written = rng.choice((path, folder))
        written.chmod(written.stat().st_mode | rng.choice((0o002, 0o020)))
    else:
        planted(library)
        other = sandbox / "outside" / folder.name
        shutil.copytree(folder, other)
        way = misplaced(folder, sandbox, rng)
        if way == "a link out":
            folder.unlink()
            folder.symlink_to(other)
        return f"folder: {way}"
    return f"{path.suffix}: {way}"


def trial(rng: random.Random, whole: Path, sandbox: Path, keep: bool) -> Trial:
    from qaudio.commands import doctor

    doctor.RUNTIMES.clear()  # of other exports, which take seconds to import
    work = sandbox / "work"
    shutil.copytree(whole / "cache", work / "cache")
    os.environ["CXX"] = shlex.quote(str(whole / COMPILER))
    (library,) = (work / "cache" / "kernels").glob("*.so")
    way = "whole" if keep else spoil(library, sandbox, rng)
    return Trial(way, [["doctor"]], runs=partial(fine, whole))


def fine(whole: Path, event: str, arguments: tuple) -> bool:
    """Whether the compiler is run, or what it makes, or the machine is asked for its name."""
    if event == "subprocess.Popen":
        return arguments[1][0] in (str(whole / COMPILER), "uname")
    return Path(arguments[0]).read_bytes() == (whole / LIBRARY).read_bytes()


KIND = Kind(prepare, trial)
