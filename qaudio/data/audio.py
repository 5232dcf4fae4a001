"""Decoding, resampling, and the cache of decoded clips."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import soundfile

from qaudio.data.headers import SoundWarning, not_heard
from qaudio.errors import NO_ARRAY, AudioError
from qaudio.paths import cache_folder, write_whole
from qaudio.resampling import resampled_length
from qaudio.text import shown

CACHE_VERSION = 1
# Extensions of the files that are looked for in folders, in lower case: what libsndfile reads by
# its own header.
SOUNDS = {
    ".wav", ".wave", ".bwf", ".rf64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".mp2", ".aif",
    ".aiff", ".aifc", ".au", ".snd", ".caf", ".w64", ".sph", ".nist", ".voc", ".avr", ".htk",
    ".iff", ".svx", ".8svx", ".paf", ".pvf", ".sds", ".sf", ".ircam", ".wve", ".xi",
}  # fmt: skip
# Sound that it does not read.
UNREAD = {
    ".m4a", ".m4b", ".m4r", ".mp4", ".mov", ".aac", ".ac3", ".alac", ".amr", ".3gp", ".wma", ".wmv",
    ".webm", ".mka", ".mkv", ".ape", ".wv", ".tta", ".dts", ".dsf", ".dff", ".ra", ".spx", ".aax",
}  # fmt: skip
CONTAINERS = (b"\x1a\x45\xdf\xa3", b"\x30\x26\xb2\x75")  # Matroska and WebM, WMA
NO_SAMPLES = "holds no samples, by its header"
PART = "not all of it is heard"
CONVERT = "not a format that is read; convert it to WAV or FLAC (ffmpeg -i IN OUT.flac)"
LONGEST = 1 << 28  # samples of a sound that is read whole: an hour and a half at 48 kHz
UNKNOWN = 1 << 62  # frames from which on a header says none
_BLOCK = 1 << 18  # samples read at once: a header that claims 2 GiB allocates no more than this


@dataclass(frozen=True)
class AudioInfo:
    """What a file's header says: `frames` samples per channel at `sample_rate` Hz."""

    frames: int
    sample_rate: int
    channels: int

    @property
    def seconds(self) -> float | None:
        """Length; None where the header does not know it."""
        return None if self.frames >= UNKNOWN else self.frames / self.sample_rate


def opened(path: str | os.PathLike) -> _Sound:
    """A sound file to read from; warns where not all of it will be. Raises AudioError."""
    name = display_name(path)
    if not os.path.exists(path):
        raise AudioError(f"{name}: no such file")
    if os.path.isdir(path):
        raise AudioError(f"{name}: is a folder")
    if not os.path.isfile(path):  # it may be read without end, or waited for
        raise AudioError(f"{name}: is a device or pipe, not a file")
    if os.path.getsize(path) == 0:
        raise AudioError(f"{name}: the file is empty")
    with open(path, "rb") as file:
        return _sound(os.fspath(path) if os.name == "nt" else os.fsencode(path), file, name)


class _Sound(soundfile.SoundFile):
    """A sound file that knows whether it was said that not all of it is heard."""

    told = False


def _sound(source: str | bytes | io.BytesIO, content: BinaryIO, name: str) -> _Sound:
    try:
        file = _Sound(source)
    except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError, OSError) as error:
        content.seek(0)
        start = content.read(8)
        if (
            start[4:] == b"ftyp"
            or start[:4] in CONTAINERS
            or os.path.splitext(name)[1].lower() in UNREAD
        ):
            raise AudioError(f"{name}: {CONVERT}") from None
        raise AudioError(f"{name}: not a readable sound file ({_fault(error)})") from None
    if missing := not_heard(content):
        file.told = True
        warnings.warn(f"{name}: {PART}: {missing}", SoundWarning, stacklevel=2)
    if file.samplerate < 100 or file.samplerate > 10_000_000:
        file.close()
        raise AudioError(f"{name}: sample rate {file.samplerate} Hz is outside 100 Hz to 10 MHz")
    return file


def _fault(error: Exception) -> str:
    """A library's message without the file name it repeats."""
    text = str(getattr(error, "error_string", "") or error)
    if text.startswith("File does not exist"):  # so libsndfile calls what is no MP3 in an .mp3
        return "Format not recognised"
    return " ".join(text.split()).rstrip(".")


def display_name(path: str | os.PathLike) -> str:
    """A path as one printable line, whatever bytes its name holds."""
    return shown(os.fsdecode(path))


def info(path: str | os.PathLike) -> AudioInfo:
    """Header of a sound file; raises AudioError."""
    with opened(path) as file:
        return AudioInfo(file.frames, file.samplerate, file.channels)


def blocks(path: str | os.PathLike) -> tuple[Iterator[np.ndarray], int]:
    """A file as a stream of mono blocks, its channels averaged, and its rate in Hz.

    Raises:
        AudioError: now, for a file that cannot be opened; from the stream, where it cannot be
            decoded or holds NaN or infinite samples.
    """
    file = opened(path)
    return _blocks(file, display_name(path)), file.samplerate


def _blocks(file: _Sound, name: str) -> Iterator[np.ndarray]:
    frames = max(1, _BLOCK // file.channels)
    unknown, count = file.frames >= UNKNOWN, 0
    with file:
        while True:
            try:
                if unknown:
                    block = _read_on(file, frames)
                else:
                    block = file.read(frames, dtype="float32", always_2d=True)
            except (soundfile.SoundFileError, RuntimeError, OSError) as error:
                raise AudioError(f"{name}: cannot be decoded ({_fault(error)})") from None
            if not len(block):
                if not unknown and 0 < count < file.frames and not file.told:
                    said, there = file.frames / file.samplerate, count / file.samplerate
                    missing = f"its header says {said:.1f} s, and {there:.1f} s can be decoded"
                    warnings.warn(f"{name}: {PART}: {missing}", SoundWarning, stacklevel=2)
                return
            count += len(block)
            if not np.isfinite(block).all():
                raise AudioError(f"{name}: holds NaN or infinite samples")
            if file.channels == 1:
                yield block[:, 0]
                continue
            # Wide sums: eight channels near float32's limit must not overflow.
            yield block.mean(axis=1, dtype=np.float64).astype(np.float32)


def _read_on(file: soundfile.SoundFile, frames: int) -> np.ndarray:
    """The next frames (T, C) of a stream of unknown length, as FLAC from a pipe is.

    soundfile seeks after every read, which libsndfile refuses there though it has the samples.
    """
    block = np.empty((frames, file.channels), np.float32)
    data = soundfile._ffi.cast("float *", block.__array_interface__["data"][0])
    count = soundfile._snd.sf_readf_float(file._file, data, frames)
    if not count and (code := soundfile._snd.sf_error(file._file)):
        raise soundfile.LibsndfileError(code)
    return block[:count]


def windows(
    path: str | os.PathLike, length: float, step: float, whole: float
) -> Iterator[tuple[float, np.ndarray, int]]:
    """A file as windows, read as a stream.

    Args:
        length, step: of the windows, seconds; step ≤ length.
        whole: a sound of up to this many seconds comes in one piece.

    Yields:
        Start in seconds, samples (T,), rate in Hz. A last window that would be short is shifted
        back; only a sound shorter than a window gives a short one.

    Raises:
        AudioError: missing, unreadable, without samples, or with NaN or infinite samples.
    """
    stream, rate = blocks(path)
    empty = True
    for window in windows_of(stream, rate, length, step, whole):
        empty = False
        yield window
    if empty:
        raise AudioError(f"{display_name(path)}: {NO_SAMPLES}")


def windows_of(
    stream: Iterator[np.ndarray], rate: int, length: float, step: float, whole: float
) -> Iterator[tuple[float, np.ndarray, int]]:
    """The same over a stream of blocks (T,)."""
    size, hop = max(1, round(length * rate)), max(1, round(step * rate))
    least = max(size, round(whole * rate)) + 1
    held, start, last = np.empty(0, np.float32), 0, None
    waiting: list[np.ndarray] = []
    for block in stream:
        waiting.append(block)
        # Until it cannot come in one piece any more, then until a window is full.
        if len(held) + sum(map(len, waiting)) < (least if last is None else size):
            continue
        held, waiting = np.concatenate((held, *waiting)), []
        while len(held) >= size:
            last = held[:size]
            yield start / rate, last, rate
            held, start = held[hop:], start + hop
    held = np.concatenate((held, *waiting))
    if last is None:
        if len(held):
            yield 0.0, held, rate
    elif len(held) > size - hop:  # samples that no window held yet
        fresh = held[size - hop :]
        tail = np.concatenate((last, fresh))[-size:]
        yield (start - hop + len(fresh)) / rate, tail, rate


def read(path: str | os.PathLike) -> tuple[np.ndarray, int]:
    """A whole file, its channels averaged: (T,) float32, and the rate in Hz.

    Raises:
        AudioError: missing, unreadable, without samples or with more than `LONGEST`, or with NaN
            or infinite samples.
    """
    stream, rate = blocks(path)
    return _whole(stream, display_name(path)), rate


def decode(data: bytes, name: str) -> tuple[np.ndarray, int]:
    """`read` of a file's content; raises AudioError, which calls it `name`."""
    file = _sound(io.BytesIO(data), io.BytesIO(data), name)
    return _whole(_blocks(file, name), name), file.samplerate


def _whole(stream: Iterator[np.ndarray], name: str) -> np.ndarray:
    """All blocks of a stream in one; raises AudioError for none, and for too many."""
    samples, count = [], 0
    for block in stream:
        samples.append(block)
        count += len(block)
        _check_length(count, name)  # a megabyte of FLAC can hold a day of silence
    if not samples:
        raise AudioError(f"{name}: {NO_SAMPLES}")
    return np.concatenate(samples)


def _check_length(count: int, name: str) -> None:
    if count > LONGEST:
        raise AudioError(f"{name}: holds over {LONGEST} samples: cut it into shorter files")


def load(path: str | os.PathLike, sample_rate: int) -> np.ndarray:
    """A whole file, mono, at `sample_rate` Hz: (T,) float32. Raises AudioError."""
    import torch  # here: decoding alone works without it

    from qaudio.frontend import resample

    samples, rate = read(path)
    _check_length(resampled_length(len(samples), rate, sample_rate), display_name(path))
    return resample(torch.from_numpy(samples), rate, sample_rate).numpy()


def sound_files(folder: str | os.PathLike, suffixes: Collection[str] = SOUNDS) -> list[Path]:
    """Sound files in a folder and below it, by extension in any case; sorted, hidden ones not.

    Links to folders are followed, each folder once.
    """
    found, seen = [], set()
    for where, folders, names in os.walk(os.fsdecode(folder), followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        real = os.path.realpath(where)
        if real in seen:
            folders[:] = []
            continue
        seen.add(real)
        for name in names:
            # macOS leaves ._NAME.wav beside NAME.wav on foreign disks.
            if os.path.splitext(name)[1].lower() in suffixes and not name.startswith("."):
                found.append(Path(where, name))
    return sorted(found)


def sounds_by_name(folder: str | os.PathLike) -> dict[str, Path]:
    """`sound_files` by name without extension; of several with one name, the first."""
    return {path.stem: path for path in reversed(sound_files(folder))}


class AudioCache:
    """Clips decoded once, kept as memory-mapped arrays.

    Keyed by the file (path, size, times of change, inode) and the rate. Two processes may fill it
    at the same time: each writes a file of its own and renames it into place.

    Args:
        folder: None: `cache_folder()/audio`.
        bits: 32 keeps samples as float32; 16 as int16 of full scale 32767, at half the size.
    """

    def __init__(self, folder: str | os.PathLike | None = None, bits: Literal[16, 32] = 32):
        self.folder = Path(folder) if folder else cache_folder() / "audio"
        self.bits = bits

    def entry(self, path: str | os.PathLike, sample_rate: int) -> Path:
        """The cache's file for a sound file at a rate; raises AudioError if that is missing."""
        try:
            stat = os.stat(path)
        except OSError:
            raise AudioError(f"{display_name(path)}: no such file") from None
        # Size and time of change may be those of the file that was there before, as where one is
        # copied over another; inode or time of that differ then.
        facts = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
        key = "|".join(map(str, (CACHE_VERSION, os.path.abspath(path), *facts)))
        form = "" if self.bits == 32 else f"|{self.bits}"
        digest = hashlib.sha256(os.fsencode(f"{key}|{sample_rate}{form}")).hexdigest()
        return self.folder / digest[:2] / f"{digest[2:32]}.npy"

    def has(self, path: str | os.PathLike, sample_rate: int) -> bool:
        """Whether a file was decoded before, or is none to decode."""
        try:
            return self.entry(path, sample_rate).is_file()
        except AudioError:
            return True

    def _kept(self, entry: Path) -> np.ndarray | None:
        """What a file of the cache holds; None where it is not there, or not whole: it is made."""
        if entry.is_symlink() or not entry.is_file():  # a pipe would be waited for
            return None
        try:
            found = np.load(entry, mmap_mode="r")
        except NO_ARRAY:
            return None
        kind = np.float32 if self.bits == 32 else np.int16
        sound = isinstance(found, np.memmap) and found.ndim == 1 and found.dtype == kind
        return found if sound and len(found) else None

    def get(self, path: str | os.PathLike, sample_rate: int) -> np.ndarray:
        """Samples of a file at a rate, (T,), read-only; decodes at the first call."""
        entry = self.entry(path, sample_rate)
        kept = self._kept(entry)
        if kept is not None:
            return kept
        samples = load(path, sample_rate)
        if self.bits == 16:
            samples = np.round(np.clip(samples, -1, 1) * 32767).astype(np.int16)
        content = io.BytesIO()  # into a file, numpy hides what a disk says
        np.save(content, samples)
        try:
            write_whole(entry, content.getbuffer(), follow=False)
        except PermissionError:
            # Windows replaces no file that another process reads: it has filled the cache first.
            if not entry.is_file():
                raise
        return np.load(entry, mmap_mode="r")
