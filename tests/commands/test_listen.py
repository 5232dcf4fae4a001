import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import qaudio
from qaudio.commands.listen import KINDS
from qaudio.inference.sources import RAW


@pytest.fixture
def listen(run, tiny_entry):
    return lambda *arguments: run("listen", "--model", tiny_entry, *arguments)


def test_listen_prints_a_line_for_each_window(listen, write_sound, tiny_model):
    sound = write_sound("a.wav", seconds=4)
    done = listen("--input", sound, "--window", 2, "--hop", 1)
    assert done.code == 0
    lines = [line.split() for line in done.out.splitlines()]
    assert [line[:2] for line in lines] == [["0.00", "2.00"], ["1.00", "3.00"], ["2.00", "4.00"]]
    expected = qaudio.predict(tiny_model, sound, window=2, hop=1, top_k=1)
    assert [line[3] for line in lines] == [p.label for p in expected]
    assert "4.0 s of sound, 3 windows; lag" in done.err
    assert "% of a core" in done.err


def test_listen_prints_json_lines(listen, write_sound, tiny_model):
    sound = write_sound("a.wav", seconds=3)
    done = listen("--input", sound, "--json", "--top-k", 1, "--hop", 1)
    found = [json.loads(line) for line in done.out.splitlines()]
    expected = qaudio.predict(tiny_model, sound, window=2, hop=1, top_k=1)
    assert [(d["start"], d["end"]) for d in found] == [(p.start, p.end) for p in expected]
    for document, prediction in zip(found, expected, strict=True):
        (first,) = document["predictions"]
        assert first["label"] == prediction.label
        assert first["probability"] == pytest.approx(prediction.probability, abs=1e-5)
        assert document["lag"] >= 0


def test_listen_prints_only_what_reaches_the_threshold(listen, write_sound):
    sound = write_sound("a.wav", seconds=3)
    assert listen("--input", sound, "--threshold", 1).out == ""
    assert len(listen("--input", sound, "--threshold", 0).out.split("%")) == 1 + 3 * 3


def test_listen_stops_after_so_much_sound(listen, write_sound):
    sound = write_sound("a.wav", seconds=10)
    done = listen("--input", sound, "--seconds", 3, "--hop", 1)
    assert len(done.out.splitlines()) == 2


def test_listen_in_real_time_is_live(listen, write_sound):
    """As long as the sound, with lag."""
    done = listen("--input", write_sound("a.wav", seconds=2), "--window", 1, "--realtime")
    assert done.code == 0
    assert done.out.splitlines()[-1].split()[1] == "2.00"


@pytest.mark.parametrize(
    ("arguments", "convert"),
    [([], None), (["--raw", "s16", "--rate", "8000"], "<i2")],
    ids=["wav", "raw"],
)
def test_listen_hears_standard_input(tiny_entry, write_sound, arguments, convert):
    sound = write_sound("a.wav", seconds=3, subtype="PCM_16")
    data = sound.read_bytes() if convert is None else sound.read_bytes()[44:]
    done = subprocess.run(
        [sys.executable, "-m", "qaudio.cli", "listen", "--model", tiny_entry, "--input", "-",
         "--hop", "1", *arguments],
        input=data, env=os.environ | {"PYTHONPATH": str(Path(qaudio.__file__).parents[1])},
        capture_output=True, check=True,
    )  # fmt: skip
    assert len(done.stdout.splitlines()) == 2
    assert b"3.0 s of sound, 2 windows" in done.stderr


class Microphone:
    """What sounddevice gives, for a microphone that hears two seconds of noise."""

    PortAudioError = OSError

    def __init__(self):
        self.closed = False

    def query_devices(self, device=None, kind=None):
        devices = [
            {"name": "speaker", "default_samplerate": 48000.0, "max_input_channels": 0},
            {"name": "built-in", "default_samplerate": 8000.0, "max_input_channels": 2},
        ]
        if kind is None:
            return devices
        if device not in (None, 1, "built-in"):
            raise ValueError(f"No input device matching {device!r}")
        return devices[1]

    def InputStream(self, *, device, samplerate, channels, dtype, blocksize, callback):
        stream = SimpleNamespace(active=True)

        def start():
            for n in range(20):
                data = 0.1 * np.random.default_rng(n).standard_normal((blocksize, channels))
                callback(data.astype(dtype), blocksize, None, None)

        def close():
            self.closed, stream.active = True, False

        stream.start, stream.close = start, close
        return stream


def test_listen_hears_a_microphone(listen, monkeypatch):
    fake = Microphone()
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    assert listen("--list-devices").out == "1  built-in  (8000 Hz)\n"
    done = listen("--window", 1, "--seconds", 2, "--device", "1")
    assert done.code == 0
    assert done.out.splitlines()[-1].split()[1] == "2.00"
    assert "microphone, 8000 Hz; Ctrl-C stops" in done.err
    assert fake.closed


def test_listen_says_that_there_is_no_such_microphone(listen, monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", Microphone())
    done = listen("--device", "lavalier")
    assert (done.code, done.out) == (1, "")
    assert "no microphone (No input device matching 'lavalier'); --list-devices" in done.err


def test_listen_says_what_is_not_installed(listen, monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    done = listen()
    assert done.code == 1
    assert done.err == "qaudio: this needs sounddevice: pip install 'qaudio[live]'\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--raw", "s16"], "--raw goes with --input -"),
        (["--input", "-", "--raw", "s16"], "--raw and --rate go together"),
        (["--input", "a.wav", "--channels", "2"], "--channels goes with --raw"),
        (["--realtime"], "--realtime goes with --input"),
        (["--input", "a.wav", "--device", "1"], "--device goes with the microphone"),
        (["--input", "a.wav", "--window", "0"], "--window must be 0.05 to 60 seconds"),
        (["--input", "a.wav", "--hop", "3"], "--hop must be 0.01 seconds to the window"),
        (["--input", "a.wav", "--seconds", "0"], "--seconds must be above 0"),
        (["--input", "a.wav", "--threshold", "2"], "--threshold must be 0 to 1"),
    ],
)
def test_listen_refuses_wrong_usage_in_one_line(listen, arguments, message):
    done = listen(*arguments)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1


def test_listen_of_a_file_that_is_no_sound(listen, bad_sounds):
    done = listen("--input", bad_sounds["not a readable sound file"])
    assert done.code == 1
    assert "not a readable sound file" in done.err


def test_kinds_of_raw_samples_are_those_that_are_read():
    assert set(KINDS) == set(RAW)


@pytest.mark.slow
def test_listen_hears_an_hour_in_the_memory_of_minutes(tiny_entry):
    """The most memory of a process that hears so many seconds of noise, through a pipe."""
    code = "import resource, sys; from qaudio.cli import main; main(sys.argv[1:]); "
    code += "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"

    def most(seconds):
        process = subprocess.Popen(
            [sys.executable, "-c", code, "listen", "--model", tiny_entry, "--input", "-", "--raw",
             "s16", "--rate", "8000", "--hop", "2", "--threshold", "1"],
            stdin=subprocess.PIPE, stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(Path(qaudio.__file__).parents[1])},
        )  # fmt: skip
        second = np.random.default_rng(0).integers(-3000, 3000, 8000).astype("<i2").tobytes()
        for _ in range(seconds):
            process.stdin.write(second)
        process.stdin.close()
        lines = process.stderr.read().decode().splitlines()
        assert process.wait() == 0
        assert f"{seconds}.0 s of sound" in lines[0]
        return int(lines[1])

    assert most(3600) < 1.03 * most(120)
