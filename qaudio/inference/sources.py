"""Sound as it comes: blocks of a file, of a pipe, or of a microphone."""

import os
import queue
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import IO, Any

import numpy as np

from qaudio.data.audio import blocks
from qaudio.errors import AudioError
from qaudio.resampling import check_rate

BLOCK_SECONDS = 0.1
HELD_SECONDS = 30.0  # of a live source that waits; older sound is lost
PIPE = "standard input"
RAW: dict[str, np.dtype] = {"s16": np.dtype("<i2"), "s32": np.dtype("<i4"), "f32": np.dtype("<f4")}
BYTES24 = np.dtype("V3")  # integers that NumPy has no type for
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE  # formats in a WAV header


@dataclass
class Source:
    """Blocks of mono sound, once.

    Attributes:
        sample_rate: Hz.
        blocks: (T,) float32 in −1…1, each up to `BLOCK_SECONDS` long or as it came.
    """

    name: str
    sample_rate: int
    blocks: Iterator[np.ndarray]
    close: Callable[[], None] = field(default=lambda: None)


def from_file(path: str | os.PathLike) -> Source:
    """A sound file as fast as it is taken; raises AudioError."""
    stream, rate = blocks(path)
    return Source(os.fsdecode(path), rate, _small(stream, rate))


def _small(stream: Iterator[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    size = max(1, round(BLOCK_SECONDS * rate))
    for block in stream:
        for at in range(0, len(block), size):
            yield block[at : at + size]


def from_pipe(
    stream: IO[bytes], raw: str | None = None, sample_rate: int = 0, channels: int = 1
) -> Source:
    """Sound from a pipe, as it comes.

    Args:
        stream: open for reading bytes, unbuffered where sound shall not wait.
        raw: a key of `RAW` for samples without header; None: a WAV file.
        sample_rate, channels: of raw samples.

    Raises:
        AudioError: where it is no WAV file of 16-, 24- or 32-bit samples.
        ValueError: for a sample rate out of range.
    """
    if raw is None:
        kind, sample_rate, channels, left = _wav_header(stream)
    else:
        kind, left = RAW[raw], None
    check_rate(sample_rate)
    return Source(PIPE, sample_rate, _from_bytes(stream, kind, sample_rate, channels, left))


def _from_bytes(
    stream: IO[bytes], kind: np.dtype, rate: int, channels: int, left: int | None
) -> Iterator[np.ndarray]:
    """Blocks of interleaved samples; `left` bytes of them, or None: to the end."""
    width = channels * kind.itemsize
    most = max(1, round(BLOCK_SECONDS * rate)) * width
    rest = b""
    while left is None or left > 0:
        data = stream.read(most if left is None else min(most, left))
        if not data:
            break
        left = None if left is None else left - len(data)
        data = rest + data
        whole = len(data) // width * width
        rest = data[whole:]
        if whole:
            samples = _samples(data[:whole], kind).reshape(-1, channels)
            if not np.isfinite(samples).all():
                raise AudioError(f"{PIPE}: holds NaN or infinite samples")
            yield samples.mean(axis=1, dtype=np.float64).astype(np.float32)


def _samples(data: bytes, kind: np.dtype) -> np.ndarray:
    if kind == BYTES24:
        padded = np.zeros((len(data) // 3, 4), np.uint8)
        padded[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        return padded.reshape(-1).view("<i4") / 2**31
    values = np.frombuffer(data, kind)
    return values if values.dtype.kind == "f" else values / float(2 ** (8 * values.itemsize - 1))


def _wav_header(stream: IO[bytes]) -> tuple[np.dtype, int, int, int | None]:
    """Kind of samples, rate, channels and bytes of sound (None: unknown) of a WAV stream."""
    no_wav = AudioError(f"{PIPE}: is no WAV file; say what raw samples are: --raw s16 --rate 16000")
    riff = _exactly(stream, 12)
    if riff is None or riff[:4] not in (b"RIFF", b"RF64") or riff[8:] != b"WAVE":
        raise no_wav
    kind: np.dtype | None = None
    rate = channels = 0
    while (head := _exactly(stream, 8)) is not None:
        name, size = struct.unpack("<4sI", head)
        if name == b"data":
            if kind is None:
                raise no_wav
            # Programs that write to a pipe do not know the length.
            return kind, rate, channels, None if size in (0, 0xFFFFFFFF, 0x7FFFFFFF) else size
        body = _exactly(stream, min(size + size % 2, 1 << 20))
        if body is None:
            break
        if name == b"fmt " and size >= 16:
            tag, channels, rate, _, _, bits = struct.unpack("<HHIIHH", body[:16])
            if tag == EXTENSIBLE and size >= 26:
                (tag,) = struct.unpack("<H", body[24:26])
            kinds: dict[tuple[int, int], np.dtype] = {
                (PCM, 16): RAW["s16"], (PCM, 24): BYTES24, (PCM, 32): RAW["s32"],
                (FLOAT, 32): RAW["f32"], (FLOAT, 64): np.dtype("<f8"),
            }  # fmt: skip
            kind = kinds.get((tag, bits))
            if kind is None or not channels:
                raise AudioError(f"{PIPE}: WAV of {bits} bits in format {tag} is not read")
    raise no_wav


def _exactly(stream: IO[bytes], count: int) -> bytes | None:
    """So many bytes, or None where the stream ends before."""
    data = b""
    while len(data) < count:
        more = stream.read(count - len(data))
        if not more:
            return None
        data += more
    return data


def in_real_time(source: Source) -> Source:
    """A source that comes no faster than it sounds, as a microphone does."""

    def paced() -> Iterator[np.ndarray]:
        begun, position = time.monotonic(), 0
        for block in source.blocks:
            position += len(block)
            time.sleep(max(0.0, begun + position / source.sample_rate - time.monotonic()))
            yield block

    return Source(source.name, source.sample_rate, paced(), source.close)


def microphone(device: str | int | None = None) -> Source:
    """The microphone, by sounddevice (extra `live`).

    Args:
        device: number or part of the name; None: the system's choice.

    Raises:
        AudioError: where there is no microphone, or it cannot be opened.
        ModuleNotFoundError: without sounddevice.
    """
    sounddevice = _sounddevice()
    arrived: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()

    def take(data: np.ndarray, frames: int, when: Any, status: Any) -> None:
        arrived.put(data.mean(axis=1, dtype=np.float32))

    try:
        rate = int(sounddevice.query_devices(device, "input")["default_samplerate"])
        stream = sounddevice.InputStream(
            device=device, samplerate=rate, channels=1, dtype="float32",
            blocksize=round(BLOCK_SECONDS * rate), callback=take,
        )  # fmt: skip
        stream.start()
    except (sounddevice.PortAudioError, ValueError) as error:
        raise AudioError(
            f"no microphone ({' '.join(str(error).split())}); --list-devices shows what there is"
        ) from None

    def come() -> Iterator[np.ndarray]:
        while stream.active:
            try:
                yield arrived.get(timeout=1.0)
            except queue.Empty:
                continue

    return Source("microphone", rate, come(), stream.close)


def microphones() -> list[str]:
    """A line for each device that takes sound; raises as `microphone`."""
    devices = _sounddevice().query_devices()
    return [
        f"{number}  {found['name']}  ({found['default_samplerate']:.0f} Hz)"
        for number, found in enumerate(devices)
        if found["max_input_channels"] > 0
    ]


def _sounddevice() -> Any:
    try:
        import sounddevice
    except OSError as error:  # the package is there and its library is not
        raise AudioError(
            f"sounddevice cannot be used ({error}): apt-get install libportaudio2"
        ) from None
    return sounddevice


@dataclass(frozen=True)
class Block:
    """Samples (T,) float32, when they came (`time.monotonic`), and how many were lost before."""

    samples: np.ndarray
    arrived: float
    lost: int = 0


class Waiting:
    """Blocks of a live source, read by a thread of their own whether they are taken or not.

    What is not taken within `HELD_SECONDS` is lost, oldest first, so that memory stays as it is.
    """

    def __init__(self, source: Source):
        self._source = source
        self._most = round(HELD_SECONDS * source.sample_rate)
        self._blocks: deque[tuple[np.ndarray, float]] = deque()
        self._held = self._lost = 0
        self._ended = False
        self._error: Exception | None = None
        self._changed = threading.Condition()
        threading.Thread(target=self._read, name="qaudio-source", daemon=True).start()

    def __iter__(self) -> Iterator[list[Block]]:
        """All blocks that wait, in order; again and again until the source ends."""
        while True:
            with self._changed:
                while not self._blocks and not self._ended:
                    self._changed.wait(0.5)  # now and then, so that Ctrl-C is heard everywhere
                if not self._blocks:
                    if self._error is not None:
                        raise self._error
                    return
                found = [Block(samples, arrived) for samples, arrived in self._blocks]
                found[0] = replace(found[0], lost=self._lost)
                self._blocks.clear()
                self._held = self._lost = 0
            yield found

    def _read(self) -> None:
        try:
            for samples in self._source.blocks:
                with self._changed:
                    self._blocks.append((samples, time.monotonic()))
                    self._held += len(samples)
                    while self._held > self._most and len(self._blocks) > 1:
                        count = len(self._blocks.popleft()[0])
                        self._held, self._lost = self._held - count, self._lost + count
                    self._changed.notify()
        except Exception as error:  # raised where the blocks are taken
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify()
