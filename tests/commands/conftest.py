"""The command in a process that is killed, and what it reads."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import qaudio

KILLED = """
import os, signal, sys
from qaudio.cli import main
from qaudio.inference.journal import Journal
real, count = Journal.add, int(sys.argv[1])
def add(self, path, record):
    real(self, path, record)
    if len(self.done) == count:
        self._file.write(b'{"path":"half of a li')
        self._file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
Journal.add = add
main(sys.argv[2:])
"""


@pytest.fixture
def killed():
    """Call the command in a process that is killed in the middle of a write, after some files."""

    def call(files, *arguments):
        root = str(Path(qaudio.__file__).parents[1])
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(files), *map(os.fspath, arguments)],
            env=os.environ | {"PYTHONPATH": root}, capture_output=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()

    return call


@pytest.fixture
def folder(write_sound):
    """A folder of six sounds of a second and a file that is none."""
    for n in range(6):
        path = write_sound(f"sounds/{n}.wav", seed=n)
    (path.parent / "bad.wav").write_text("not a sound")
    return path.parent


@pytest.fixture
def reads(monkeypatch):
    """Names of the files that a network is run on from here on."""
    from qaudio import prediction

    names, real = [], prediction.windows
    monkeypatch.setattr(
        prediction, "windows",
        lambda path, *arguments: names.append(os.path.basename(path)) or real(path, *arguments),
    )  # fmt: skip
    return names
