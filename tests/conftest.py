"""Sounds, data sets and entries that the tests make for themselves; nothing leaves the machine."""

import ipaddress
import os
import socket
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

import qaudio
from qaudio import cli
from qaudio.data.benchmarks import registry as benchmarks
from qaudio.models import registry as architectures
from tests.support.esc50 import SETTINGS, make_esc50
from tests.support.hub import ENDPOINT, TOKEN, hub_on_loopback

os.environ["HF_ENDPOINT"] = ENDPOINT  # huggingface_hub reads it when it is imported
# Networks and sounds of tests are so small that threads would mostly wait for one another.
os.environ["OMP_NUM_THREADS"] = "1"  # of processes that tests start
torch.set_num_threads(1)

LABELS = ["dog", "rain", "clock_tick"]


def _local(address) -> bool:
    if not isinstance(address, tuple):
        return True  # a Unix socket's path
    if address[0] == "localhost":
        return True
    try:
        return ipaddress.ip_address(address[0].split("%")[0]).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True, scope="session")
def offline():
    """Fail every connection that would leave this machine."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            real = getattr(socket.socket, name)

            def guarded(self, address, real=real):
                if not _local(address):
                    raise RuntimeError(f"a test tried to reach {address}")
                return real(self, address)

            patch.setattr(socket.socket, name, guarded)
        patch.setenv("HF_HUB_OFFLINE", "1")  # for processes that tests start
        yield


@pytest.fixture(autouse=True, scope="session")
def cache_of_the_session(tmp_path_factory):
    """Keep the user's cache out of the tests, and the tests out of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QAUDIO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def run(capsys):
    """Call the command in this process; gives code, out, err."""

    def call(*arguments):
        capsys.readouterr()
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as stop:  # argparse's way out
            code = stop.code
        out, err = capsys.readouterr()
        return SimpleNamespace(code=code, out=out, err=err)

    return call


@pytest.fixture
def registries(monkeypatch):
    """What a test registers is forgotten after it."""
    known = {one.name: one for one in architectures.registered()}
    monkeypatch.setattr(architectures, "_registered", known)
    modules = {one[:2]: one for one in benchmarks.data_modules()}
    monkeypatch.setattr(benchmarks, "_registered", modules)


@pytest.fixture
def write_sound(tmp_path):
    """Write faint seeded noise, or given samples, as a file below tmp_path; returns its path."""

    def write(name, seconds=1.0, rate=8000, channels=1, samples=None, seed=0, **options) -> Path:
        if samples is None:
            shape = (round(seconds * rate), channels)
            samples = 0.1 * np.random.default_rng(seed).standard_normal(shape)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, rate, **options)
        return path

    return write


@pytest.fixture
def sound_tree(tmp_path, write_sound):
    """Make a tree of short files, all links to one sound of a kind; returns its root."""

    def make(name, files) -> Path:
        root = tmp_path / name
        for file in files:
            path = root / file
            first = tmp_path / f"one{path.suffix.lower()}"
            if not first.exists():
                write_sound(first.name, seconds=0.1)
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(first, path)
        return root

    return make


@pytest.fixture
def bad_sounds(tmp_path, write_sound):
    """Files that cannot be used: what is wrong, as a message says it, to path."""
    text, empty, cut = tmp_path / "text.wav", tmp_path / "empty.wav", tmp_path / "cut.flac"
    text.write_text("not a sound\n" * 100)
    empty.touch()
    cut.write_bytes(write_sound("whole.flac", seconds=3).read_bytes()[:9000])
    (tmp_path / "whole.flac").unlink()
    spoilt = np.zeros(800)
    spoilt[700] = np.nan
    return {
        "no such file": tmp_path / "missing.wav",
        "not a readable sound file": text,
        "the file is empty": empty,
        "holds no samples": write_sound("header_only.wav", seconds=0),
        "holds NaN": write_sound("nan.wav", samples=spoilt, subtype="FLOAT"),
        "cannot be decoded": cut,
    }


@pytest.fixture
def esc50_tree(tmp_path) -> Path:
    return make_esc50(tmp_path / "ESC-50")


@pytest.fixture(scope="session")
def tiny_model() -> qaudio.AudioModel:
    """The smallest QCNN6 with norms that fit its input, so that sounds get different answers."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = qaudio.create_model("qcnn6_006", num_classes=len(LABELS), frontend=SETTINGS)
        for _ in range(20):
            model.train()(0.1 * torch.randn(4, 8000))
    model.labels = list(LABELS)
    return model.eval()


@pytest.fixture
def tiny_entry(tmp_path, tiny_model) -> Path:
    """An entry folder without results."""
    return qaudio.save(tiny_model, tmp_path / "zoo" / "tiny.made", license="cc0-1.0")


@pytest.fixture(scope="session")
def tiny_export(tiny_model, tmp_path_factory) -> Path:
    """The tiny model as an ONNX file, waveform to logits."""
    path = tmp_path_factory.mktemp("export") / "tiny.onnx"
    return qaudio.export_onnx(tiny_model, path, entry="tiny.made", license="cc0-1.0").path


@pytest.fixture
def slept(monkeypatch) -> list[float]:
    """Seconds that were slept, without sleeping."""
    seconds: list[float] = []
    monkeypatch.setattr(time, "sleep", seconds.append)
    return seconds


@pytest.fixture
def threads():
    """Set torch's number of threads for this test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def hub_client(monkeypatch, tmp_path, slept):
    """huggingface_hub online, with a token and an empty cache of its own."""
    import huggingface_hub
    from huggingface_hub import constants

    assert constants.ENDPOINT == ENDPOINT, "huggingface_hub was imported before HF_ENDPOINT was set"
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub_cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    huggingface_hub.close_session()


@pytest.fixture
def hub(hub_client):
    """An empty Hub on loopback."""
    with hub_on_loopback() as hub:
        yield hub
