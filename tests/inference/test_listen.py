import gc
import io
import struct
import threading
import time
import weakref

import numpy as np
import pytest
import soundfile

from qaudio.errors import AudioError, InputError
from qaudio.inference import listen, sources
from qaudio.inference.listen import Listener
from qaudio.inference.sources import Source, Waiting, from_file, from_pipe, in_real_time
from qaudio.prediction import analyse

RATE = 8000


def noise(seconds, seed=0):
    samples = 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))
    return samples.astype(np.float32)


def source_of(*blocks, rate=RATE):
    return Source("made", rate, iter(blocks))


def test_listener_finds_what_analyse_finds(tiny_model, write_sound):
    """Window after window, with the last one shifted back, from blocks of any length."""
    path = write_sound("a.wav", seconds=5.3)
    expected = analyse(tiny_model, path, window=2.0, hop=0.5)
    heard = list(Listener(tiny_model, from_file(path), window=2.0, hop=0.5))
    assert np.concatenate([h.analysis.spans for h in heard]) == pytest.approx(expected.spans)
    probabilities = np.concatenate([h.analysis.probabilities for h in heard])
    assert probabilities == pytest.approx(expected.probabilities, abs=1e-5)


@pytest.mark.parametrize("size", [1, 777, 16000, 10**6])
def test_listener_takes_blocks_of_any_length(tiny_model, size):
    samples = noise(3)
    count = 3000 if size == 1 else len(samples)
    parts = [samples[at : min(at + size, count)] for at in range(0, count, size)]
    listener = Listener(tiny_model, source_of(*parts), window=1.0, hop=0.25)
    ends = [float(h.analysis.spans[0, 1]) for h in listener]
    assert ends == ([0.375] if size == 1 else [1, 1.25, 1.5, 1.75, 2, 2.25, 2.5, 2.75, 3])
    assert listener.heard == count / RATE


def test_listener_runs_sound_that_is_shorter_than_a_window(tiny_model):
    (heard,) = Listener(tiny_model, source_of(noise(0.3)), window=2.0)
    assert heard.analysis.spans.tolist() == [[0, 0.3]]
    assert list(Listener(tiny_model, source_of(), window=2.0)) == []


def test_listener_runs_exported_models(tiny_model, tiny_export):
    import qaudio

    found = [
        [h.analysis.probabilities for h in Listener(model, source_of(noise(2)), window=1.0)]
        for model in (tiny_model, qaudio.OnnxModel(tiny_export))
    ]
    assert np.array(found[0]) == pytest.approx(np.array(found[1]), abs=1e-4)


def test_live_listener_skips_windows_rather_than_being_late(tiny_model, monkeypatch):
    """A network that takes three hops for each window; sound comes in real time."""

    def slow(*given, **settings):
        time.sleep(0.3)
        return analyse(*given, **settings)

    monkeypatch.setattr(listen, "analyse", slow)
    source = in_real_time(source_of(*np.split(noise(3), 60)))
    listener = Listener(tiny_model, source, window=0.2, hop=0.1, live=True)
    heard = list(listener)
    assert listener.skipped > listener.windows
    ends = [float(h.analysis.spans[0, 1]) for h in heard]
    assert ends == sorted(ends)
    assert ends[-1] == 3
    assert f"{listener.skipped} skipped" in listener.summary()


def test_listener_runs_every_window_of_what_is_not_live(tiny_model, monkeypatch):
    monkeypatch.setattr(
        listen, "analyse", lambda *given, **how: time.sleep(0.01) or analyse(*given, **how)
    )
    listener = Listener(tiny_model, source_of(*np.split(noise(3), 60)), window=0.2, hop=0.1)
    assert len(list(listener)) == listener.windows == 29
    assert listener.skipped == 0


def test_windows_do_not_reach_over_lost_sound(tiny_model, monkeypatch):
    blocks = [
        [sources.Block(noise(1), 0.0)],
        [sources.Block(noise(0.6), 0.0, lost=4 * RATE), sources.Block(noise(0.6), 0.0)],
    ]
    monkeypatch.setattr(listen, "Waiting", lambda source: iter(blocks))
    listener = Listener(tiny_model, source_of(), window=1.0, hop=0.5, live=True)
    spans = [h.analysis.spans[0].tolist() for h in listener]
    assert spans == [[0, 1], [5, 6], pytest.approx([5.2, 6.2])]
    assert listener.lost == 4
    assert "4.0 s of sound lost" in listener.summary()


def test_waiting_loses_the_oldest_sound_and_says_so(monkeypatch):
    monkeypatch.setattr(sources, "HELD_SECONDS", 2.0)
    done = threading.Event()

    def come():
        for n in range(10):
            yield np.full(RATE, n, np.float32)
        done.set()

    waiting = Waiting(Source("made", RATE, come()))
    assert done.wait(10)
    (blocks,) = waiting
    assert [int(b.samples[0]) for b in blocks] == [8, 9]
    assert [b.lost for b in blocks] == [8 * RATE, 0]


def test_waiting_raises_what_the_source_raises():
    def come():
        yield noise(0.1)
        raise AudioError("gone")

    with pytest.raises(AudioError, match="gone"):
        list(Waiting(Source("made", RATE, come())))


@pytest.mark.parametrize("live", [False, True])
def test_listener_holds_no_more_than_a_window(tiny_model, live):
    """However long the sound: of the blocks that came, few are alive at any time."""
    alive: weakref.WeakSet = weakref.WeakSet()
    most = 0

    class Samples(np.ndarray):
        __hash__ = object.__hash__

    def come():
        nonlocal most
        for n in range(600):
            block = noise(0.1, n).view(Samples)
            alive.add(block)
            most = max(most, len(alive))
            if live:
                time.sleep(0.001)
            yield block
            del block

    listener = Listener(tiny_model, Source("made", RATE, come()), window=1.0, hop=0.5, live=live)
    for _ in listener:
        pass
    gc.collect()
    assert len(alive) <= 2
    assert most < 310  # what waits in a live source at most; of others, a handful
    assert live or most < 15


@pytest.mark.parametrize("kind", ["PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("channels", [1, 2])
def test_from_pipe_reads_wav(kind, channels):
    samples = 0.5 * np.random.default_rng(0).uniform(-1, 1, (5000, channels))
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV", subtype=kind)
    source = from_pipe(Trickle(file.getvalue()))
    assert source.sample_rate == RATE
    found = np.concatenate(list(source.blocks))
    assert found == pytest.approx(samples.mean(axis=1), abs=1e-4)


class Trickle(io.BytesIO):
    """Gives fewer bytes than asked for, as pipes do."""

    def read(self, count=-1):
        return super().read(min(count, 333))


def test_from_pipe_reads_raw_samples():
    samples = np.array([[0, 2], [16384, 0], [-32768, 32767]], "<i2")
    source = from_pipe(io.BytesIO(samples.tobytes() + b"\x01"), "s16", RATE, 2)
    found = np.concatenate(list(source.blocks))
    assert found == pytest.approx([1 / 32768, 0.25, -0.5 / 32768])


def test_from_pipe_reads_wav_of_unknown_length():
    file = io.BytesIO()
    soundfile.write(file, noise(1), RATE, format="WAV", subtype="PCM_16")
    data = bytearray(file.getvalue())
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", 0xFFFFFFFF)
    assert sum(map(len, from_pipe(io.BytesIO(bytes(data))).blocks)) == RATE


@pytest.mark.parametrize(
    "data",
    [b"", b"RIFF", b"fLaC" + bytes(100), b"RIFF\0\0\0\0WAVE" + bytes(4),
     b"RIFF\0\0\0\0WAVEdata\0\0\0\0"],
)  # fmt: skip
def test_from_pipe_refuses_what_is_no_wav(data):
    with pytest.raises(AudioError, match="is no WAV file; say what raw samples are"):
        from_pipe(io.BytesIO(data))


def test_from_pipe_refuses_wav_that_it_cannot_read():
    file = io.BytesIO()
    soundfile.write(file, noise(1), RATE, format="WAV", subtype="ULAW")
    with pytest.raises(AudioError, match="8 bits in format 7 is not read"):
        from_pipe(io.BytesIO(file.getvalue()))
    with pytest.raises(InputError, match="sample rate 1 Hz"):
        from_pipe(io.BytesIO(), "s16", 1)


@pytest.mark.parametrize(("window", "hop"), [(0.01, 0.01), (61, 1), (1, 2), (1, 0)])
def test_listener_refuses_windows_out_of_range(tiny_model, window, hop):
    with pytest.raises(InputError, match=r"must be 0\.0"):
        Listener(tiny_model, source_of(), window=window, hop=hop)
