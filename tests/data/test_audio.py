import contextlib
import io
import multiprocessing
import os
import threading
import tracemalloc

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from qaudio.data import audio
from qaudio.data.audio import AudioCache, windows, windows_of
from qaudio.errors import AudioError


@pytest.mark.parametrize(("suffix", "off_by"), [("wav", 1e-4), ("flac", 1e-4), ("ogg", 0.1)])
def test_read_gives_the_mean_of_the_channels(write_sound, suffix, off_by):
    time = np.arange(16000) / 16000
    samples = np.stack([n * 0.1 * np.sin(2 * np.pi * 200 * time) for n in range(8)], axis=1)
    path = write_sound(f"eight.{suffix}", samples=samples, rate=16000)
    mono, rate = audio.read(path)
    assert (mono.shape, mono.dtype, rate) == ((16000,), np.float32, 16000)
    assert np.abs(mono - samples.mean(axis=1)).max() < off_by
    assert audio.info(path) == audio.AudioInfo(16000, 16000, 8)


def test_flac_of_unknown_length_is_read(write_sound, tmp_path):
    """As a FLAC has it that was written to a pipe: no number of samples in its header."""
    whole = write_sound("whole.flac", seconds=20.0, rate=44100)
    content = bytearray(whole.read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    path = tmp_path / "pipe.flac"
    path.write_bytes(content)
    assert np.array_equal(audio.read(path)[0], audio.read(whole)[0])
    assert audio.info(path).seconds is None
    path.write_bytes(content[: len(content) // 2])
    with contextlib.suppress(AudioError):
        assert len(audio.read(path)[0]) < 44100 * 20


@pytest.mark.parametrize("rate", [8000, 44100, 192000])
def test_load_resamples(write_sound, rate):
    time = np.arange(rate) / rate
    path = write_sound("tone.wav", samples=0.5 * np.sin(2 * np.pi * 440 * time), rate=rate)
    loaded = audio.load(path, 16000)
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    assert loaded.shape == (16000,)
    assert np.abs(loaded - expected)[200:-200].max() < 0.01


def test_unusable_files_are_named_in_one_line(bad_sounds, tmp_path):
    for fault, path in {**bad_sounds, "is a folder": tmp_path}.items():
        with pytest.raises(AudioError) as caught:
            audio.read(path)
        message = str(caught.value)
        assert fault in message
        assert message.startswith(f"{path}: ")
        assert message.count(str(path)) == 1
        assert "\n" not in message
        with pytest.raises(AudioError, match=fault):
            list(windows(path, 1.0, 0.5, 3.0))


@pytest.mark.filterwarnings("error")  # the user would see numpy's
@pytest.mark.parametrize("bad", [np.inf, -np.inf, 1e39])
def test_infinite_samples_are_refused_even_where_channels_would_hide_them(write_sound, bad):
    samples = np.zeros((100, 2))
    samples[50] = bad, -bad
    path = write_sound("loud.wav", samples=samples, subtype="DOUBLE")
    with pytest.raises(AudioError, match="NaN or infinite"):
        audio.read(path)


def test_a_wav_cut_short_gives_the_samples_that_are_there(write_sound):
    path = write_sound("cut.wav", seconds=1)
    whole, _ = audio.read(path)
    path.write_bytes(path.read_bytes()[: 44 + 2 * 5000])
    cut, _ = audio.read(path)
    assert 4900 <= len(cut) <= 5000  # libsndfile reads whole blocks only
    assert np.array_equal(cut, whole[: len(cut)])


@pytest.mark.skipif(os.name != "posix", reason="no such files")
def test_what_could_be_read_without_end_is_no_sound(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    for path in ("/dev/zero", tmp_path / "pipe.wav"):
        with pytest.raises(AudioError, match=rf"{path}: is a device or pipe, not a file"):
            audio.read(path)


def test_a_header_that_claims_two_gigabytes_allocates_none_of_it(write_sound):
    path = write_sound("liar.wav", seconds=0.1)
    content = bytearray(path.read_bytes())
    content[40:44] = (2**31 - 100).to_bytes(4, "little")
    path.write_bytes(content)
    assert len(audio.read(path)[0]) == 800


def test_display_name_is_one_line_that_can_be_written():
    name = "two\nlines\r\u2028\x1b[2J\u202e\ufeff\u200b".encode() + b"\xff.wav"
    shown = audio.display_name(name)
    assert shown == r"two\nlines\r\u2028\x1b[2J\u202e\ufeff\u200b\udcff.wav"
    assert audio.display_name("été 音\xa0👩\u200d🎤.wav") == "été 音\xa0👩\u200d🎤.wav"


def test_text_that_is_called_mp3_is_not_called_missing(tmp_path):
    (tmp_path / "text.mp3").write_text("not a sound\n" * 100)
    with pytest.raises(AudioError, match=r"not a readable sound file \(Format not recognised\)"):
        audio.read(tmp_path / "text.mp3")


def test_many_channels_are_read_in_smaller_blocks(write_sound):
    samples = np.zeros((60_000, 64), np.float32)
    path = write_sound("many.wav", samples=samples, subtype="PCM_U8")
    tracemalloc.start()
    for _ in windows(path, 1.0, 0.5, 1.0):
        pass
    try:
        assert tracemalloc.get_traced_memory()[1] < samples.nbytes / 2
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("rate", [8000, 200])
def test_a_sound_too_long_to_be_read_whole_is_refused(write_sound, monkeypatch, rate):
    """By its own samples, or by those that resampling would make of them."""
    path = write_sound("silence.flac", samples=np.zeros(8000), rate=rate)
    monkeypatch.setattr(audio, "LONGEST", 8000)
    assert len(audio.load(path, rate)) == 8000
    monkeypatch.setattr(audio, "LONGEST", 7999 if rate == 8000 else 8000)
    with pytest.raises(AudioError, match=r"silence\.flac: holds over .* cut it into shorter files"):
        audio.load(path, 8000)


def test_content_at_an_absurd_rate_is_refused(write_sound):
    content = write_sound("slow.wav", rate=99).read_bytes()
    with pytest.raises(AudioError, match="made: sample rate 99 Hz is outside"):
        audio.decode(content, "made")


# Windows.


def reference_windows(samples, size, hop, whole):
    """Starts and windows by plain slicing."""
    count = len(samples)
    if count <= max(size, whole):
        return [(0, samples)] if count else []
    starts = list(range(0, count - size + 1, hop))
    if starts[-1] + size < count:
        starts.append(count - size)
    return [(start, samples[start : start + size]) for start in starts]


@given(st.data())
def test_windows_are_those_of_plain_slicing_whatever_the_blocks(data):
    rate = 100
    count = data.draw(st.integers(0, 200), "samples")
    size = data.draw(st.integers(1, 40), "window")
    hop = data.draw(st.integers(1, size), "hop")
    whole = data.draw(st.integers(0, 80), "whole")
    cuts = sorted(data.draw(st.lists(st.integers(0, count), max_size=6), "cuts"))
    samples = np.arange(count, dtype=np.float32)
    stream = iter(np.split(samples, cuts))
    found = list(windows_of(stream, rate, size / rate, hop / rate, whole / rate))
    expected = reference_windows(samples, size, hop, whole)
    assert [start for start, _, _ in found] == [start / rate for start, _ in expected]
    for (_, window, found_rate), (_, wanted) in zip(found, expected, strict=True):
        assert np.array_equal(window, wanted)
        assert found_rate == rate


@pytest.mark.parametrize("block", [7, 1000, 4000, 1 << 18])
def test_windows_of_a_file_cover_it_exactly(write_sound, monkeypatch, block):
    monkeypatch.setattr(audio, "_BLOCK", block)
    path = write_sound("sound.wav", seconds=3.3, rate=1000)
    samples, _ = audio.read(path)
    found = list(windows(path, 1.0, 0.5, 2.0))
    assert [start for start, _, _ in found] == [0, 0.5, 1, 1.5, 2, 2.3]  # the last, shifted back
    for start, window, rate in found:
        assert rate == 1000
        assert np.array_equal(window, samples[round(1000 * start) :][:1000])


@pytest.mark.parametrize(
    ("seconds", "count"), [(0.001, 1), (0.5, 1), (2.0, 1), (2.001, 4), (2.5, 4)]
)
def test_sounds_up_to_whole_come_in_one_piece(write_sound, seconds, count):
    path = write_sound("sound.wav", seconds=seconds, rate=1000)
    found = list(windows(path, 1.0, 0.5, 2.0))
    assert len(found) == count
    if count == 1:
        assert np.array_equal(found[0][1], audio.read(path)[0])


def test_windows_do_not_hold_the_file(write_sound, monkeypatch):
    """A consumer that keeps no window must not pay for the file's length."""
    monkeypatch.setattr(audio, "_BLOCK", 1 << 12)

    def peak(seconds):
        path = write_sound(f"{seconds}.wav", seconds=seconds)
        tracemalloc.start()
        for _ in windows(path, 1.0, 0.5, 3.0):
            pass
        try:
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(120) < 1.2 * peak(15)


# The cache.


@pytest.fixture
def decoded(monkeypatch):
    """What was decoded, in order."""
    calls, real = [], audio.load

    def load(path, rate):
        calls.append((str(path), rate))
        return real(path, rate)

    monkeypatch.setattr(audio, "load", load)
    return calls


def test_cache_decodes_once_and_maps(write_sound, tmp_path, decoded):
    path = write_sound("sound.wav")
    first = AudioCache(tmp_path / "cache").get(path, 8000)
    again = AudioCache(tmp_path / "cache").get(path, 8000)
    assert decoded == [(str(path), 8000)]
    assert np.array_equal(first, audio.load(path, 8000))
    assert np.array_equal(again, first)
    assert isinstance(again, np.memmap)
    assert not again.flags.writeable


def test_cache_is_below_the_variables_folder():
    assert AudioCache().folder.is_relative_to(os.environ["QAUDIO_CACHE"])


def test_cache_is_keyed_by_rate(write_sound, tmp_path):
    path, cache = write_sound("sound.wav", seconds=1, rate=8000), AudioCache(tmp_path / "cache")
    assert len(cache.get(path, 8000)) == 8000
    assert len(cache.get(path, 16000)) == 16000
    assert len(cache.get(path, 8000)) == 8000


def test_cache_is_keyed_by_file(write_sound, tmp_path):
    cache = AudioCache(tmp_path / "cache")
    one, two = write_sound("one.wav", seed=1), write_sound("two.wav", seed=2)
    os.utime(two, ns=(os.stat(one).st_atime_ns, os.stat(one).st_mtime_ns))
    assert not np.array_equal(cache.get(one, 8000), cache.get(two, 8000))


def stored(values, save=np.save) -> bytes:
    stream = io.BytesIO()
    save(stream, values)
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"", b"PK\3\4", b"\x80\x04", stored(np.zeros(9, np.float32))[:-4],
        stored(np.zeros(9, np.float32), np.savez), stored(np.zeros((3, 3), np.float32)),
        stored(np.zeros(9)), stored(np.zeros(0, np.float32)),
        stored(np.array([os.getcwd], dtype=object)), b"\x93NUMPY\1\0\x0b\0{'descr': (",
    ],
    ids=["empty", "zip", "pickle", "cut", "npz", "2-D", "float64", "no samples", "objects",
         "no Python"],
)  # fmt: skip
def test_cache_makes_anew_what_is_none_of_its_files(write_sound, tmp_path, content):
    path, cache = write_sound("sound.wav"), AudioCache(tmp_path / "cache")
    whole = np.array(cache.get(path, 8000))
    cache.entry(path, 8000).write_bytes(content)
    assert np.array_equal(cache.get(path, 8000), whole)
    assert np.array_equal(np.load(cache.entry(path, 8000)), whole)


def test_cache_is_renewed_when_size_and_time_of_change_stay(write_sound, tmp_path):
    """As where a file is copied over another with its times."""
    cache, path = AudioCache(tmp_path / "cache"), write_sound("sound.wav", seed=1)
    before, stat = np.array(cache.get(path, 8000)), os.stat(path)
    other = write_sound("other.wav", seed=2)
    for change in (lambda: path.write_bytes(other.read_bytes()), lambda: os.replace(other, path)):
        change()
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert os.stat(path).st_size == stat.st_size
        assert not np.array_equal(cache.get(path, 8000), before)
        assert np.array_equal(cache.get(path, 8000), audio.load(path, 8000))


def test_cache_is_renewed_when_the_file_changes(write_sound, tmp_path):
    cache, path = AudioCache(tmp_path / "cache"), write_sound("sound.wav", seed=1)
    before, modified = np.array(cache.get(path, 8000)), os.stat(path).st_mtime_ns
    write_sound("sound.wav", seed=2)  # of the same size
    os.utime(path, ns=(modified + 1000, modified + 1000))
    after = cache.get(path, 8000)
    assert not np.array_equal(before, after)
    assert np.array_equal(after, audio.load(path, 8000))


@pytest.mark.parametrize("left", [0, 5, 64, 128, 5000])
def test_a_truncated_cache_file_is_written_anew(write_sound, tmp_path, left):
    path, cache = write_sound("sound.wav"), AudioCache(tmp_path / "cache")
    expected = np.array(cache.get(path, 8000))
    entry = cache.entry(path, 8000)
    entry.write_bytes(entry.read_bytes()[:left])
    assert np.array_equal(cache.get(path, 8000), expected)
    assert np.array_equal(np.load(entry), expected)


def test_cache_keeps_nothing_of_an_unusable_file(bad_sounds, tmp_path):
    cache = AudioCache(tmp_path / "cache")
    for fault, path in bad_sounds.items():
        with pytest.raises(AudioError, match=fault):
            cache.get(path, 8000)
    assert not [path for path in cache.folder.rglob("*") if path.is_file()]


def test_a_cache_write_that_fails_leaves_nothing(write_sound, tmp_path, monkeypatch):
    path, cache = write_sound("sound.wav"), AudioCache(tmp_path / "cache")

    def full(*arguments, **settings):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="No space"):
        cache.get(path, 8000)
    assert not [path for path in cache.folder.rglob("*") if path.is_file()]


def test_a_cache_that_another_process_filled_first_is_read(write_sound, tmp_path, monkeypatch):
    """As on Windows, where a file that is read is not replaced."""
    path, cache = write_sound("sound.wav"), AudioCache(tmp_path / "cache")
    expected = np.array(cache.get(path, 8000))
    entry, content = cache.entry(path, 8000), cache.entry(path, 8000).read_bytes()
    entry.write_bytes(b"")  # found empty, then filled by the other while this one decodes

    def write_whole(target, samples, follow):
        target.write_bytes(content)
        raise PermissionError(13, "in use")

    monkeypatch.setattr(audio, "write_whole", write_whole)
    assert np.array_equal(cache.get(path, 8000), expected)


def test_links_to_folders_are_followed_once(write_sound, tmp_path):
    path = write_sound("far/Actor_01/a.wav")
    near = tmp_path / "near"
    near.mkdir()
    (near / "Actor_01").symlink_to(path.parent, target_is_directory=True)
    (path.parent / "again").symlink_to(near, target_is_directory=True)  # a circle
    assert audio.sound_files(near) == [near / "Actor_01" / "a.wav"]


def _fill(path, folder, out, barrier):
    """Decode at the same time as the other process, so that both write."""
    real = audio.load

    def load(*arguments):
        samples = real(*arguments)
        barrier.wait(120)
        return samples

    audio.load = load
    np.save(out, AudioCache(folder).get(path, 16000))


def test_two_processes_fill_the_cache_at_once(write_sound, tmp_path):
    path, folder = write_sound("sound.wav", seconds=20), tmp_path / "cache"
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(2)
    outs = [tmp_path / f"{n}.npy" for n in range(2)]
    processes = [spawn.Process(target=_fill, args=(path, folder, out, barrier)) for out in outs]
    for process in processes:
        process.start()
    for process in processes:
        process.join(180)
    assert [process.exitcode for process in processes] == [0, 0]
    for out in outs:
        assert np.array_equal(np.load(out), audio.load(path, 16000))
    assert [file.suffix for file in folder.rglob("*") if file.is_file()] == [".npy"]


def test_threads_of_one_process_share_a_cache(write_sound, tmp_path):
    path, cache = write_sound("sound.wav"), AudioCache(tmp_path / "cache")
    found = []
    threads = [threading.Thread(target=lambda: found.append(cache.get(path, 8000))) for _ in "1234"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = soundfile.read(path, dtype="float32")[0]
    assert len(found) == 4
    assert all(np.array_equal(array, expected) for array in found)
