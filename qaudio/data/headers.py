"""What a sound file holds beyond what its header says, or short of it: found without decoding."""

import mmap
import os
import struct
from typing import BinaryIO

LEAST = 0.05  # seconds: less is padding
MENDED = "ffmpeg -ignore_length 1 -i IN OUT.flac reads it to its end"
PARTED = "part it, for only the first is read"
MOST_PAGES = 1_000_000  # of Ogg: a day and more


class SoundWarning(UserWarning):
    """A sound of which not all is heard."""


def not_heard(file: BinaryIO) -> str | None:
    """What of a sound file libsndfile does not read, in words; None where it reads all.

    Args:
        file: read where it likes; formats that are not known here are let be.
    """
    file.seek(0, os.SEEK_END)
    size = file.tell()
    file.seek(0)
    start = file.read(12)
    try:
        if start[:4] in (b"RIFF", b"RIFX", b"RF64") and start[8:] == b"WAVE":
            return _wav(file, size, ">" if start[:4] == b"RIFX" else "<")
        if start[:4] == b"OggS":
            return _ogg(file, size)
        if start[:4] == b"fLaC":
            return _flac(file)
        if start[:3] == b"ID3" or start[:1] == b"\xff":
            return _mp3(file, size)
    except (struct.error, ValueError, OSError):
        pass  # too short, or too odd: whoever decodes it says so
    return None


def _wav(file: BinaryIO, size: int, order: str) -> str | None:
    """Of plain WAV: a data chunk that says less, as in recordings over 4 GB, or that was cut."""
    position, rate, long = 12, 0, None
    while position + 8 <= size:
        file.seek(position)
        name, length = struct.unpack(f"{order}4sI", file.read(8))
        position += 8
        if name == b"ds64":
            long = struct.unpack(f"{order}Q", file.read(16)[8:])[0]
        elif name == b"fmt ":
            rate = struct.unpack(f"{order}I", file.read(12)[8:])[0]  # bytes a second
        elif name == b"data":
            break
        position += length + length % 2
    else:
        return None
    if not rate:
        return None
    if length == 0xFFFFFFFF and long is not None:
        length = long
    there = size - position
    if length >= 0x7FFFFF00 and long is None and length > there:
        return None  # as streams have it: read to the end
    if length > there + rate * LEAST:
        return (
            f"its header says {length / rate:.1f} s, and {there / rate:.1f} s are there: it was cut"
        )
    if length < there - rate * LEAST and not _is_chunk(file, position + length, size, order):
        return (
            f"its header says {length / rate:.1f} s, and {(there - length) / rate:.1f} s more "
            f"follow: {MENDED}"
        )
    return None


def _is_chunk(file: BinaryIO, position: int, size: int, order: str) -> bool:
    """Whether a RIFF chunk begins there, or after a byte of padding, and fits into the file."""
    for start in (position, position + 1):
        file.seek(start)
        name, length = struct.unpack(f"{order}4sI", file.read(8))
        if all(32 <= byte < 127 for byte in name) and start + 8 + length <= size + 1:
            return True
    return False


def _ogg(file: BinaryIO, size: int) -> str | None:
    """Of Ogg: streams one after the other, or one without its end."""
    position, flags, begun = 0, 0, False
    for _ in range(MOST_PAGES):
        if position + 27 > size:
            break
        file.seek(position)
        page = file.read(27)
        if page[:4] != b"OggS":
            return None  # garbled: the decoder looks for the next page
        flags = page[5]
        if flags & 2 and begun:
            return f"several Ogg streams were joined in it: {PARTED}"
        begun = begun or not flags & 2
        position += 27 + page[26] + sum(file.read(page[26]))
    if position > size or not flags & 4:
        return "it ends without the mark of its end: it was cut"
    return None


def _flac(file: BinaryIO) -> str | None:
    """Of FLAC: another one behind it."""
    file.seek(0)
    try:
        content: mmap.mmap | bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):  # no file of the system's
        content = file.read()
    if content.find(b"fLaC\x00\x00\x00\x22", 8) > 0:
        return f"several FLAC files were joined in it: {PARTED}"
    return None


def _mp3(file: BinaryIO, size: int) -> str | None:
    """Of MP3: a header that tells of fewer bytes than follow, as where files were joined."""
    position = 0
    file.seek(0)
    tag = file.read(10)
    if tag[:3] == b"ID3":
        position = 10 + sum((byte & 127) << 7 * (3 - n) for n, byte in enumerate(tag[6:10]))
    file.seek(position)
    first = file.read(256)
    found = max(first.find(b"Xing"), first.find(b"Info"))
    if first[:1] != b"\xff" or found < 0:
        return None
    flags = struct.unpack(">I", first[found + 4 : found + 8])[0]
    if flags & 3 != 3:
        return None
    frames, length = struct.unpack(">II", first[found + 8 : found + 16])
    if not frames or not length:
        return None
    there = size - position
    slack = 4 * length // frames + 256  # frames around, and a tag of the first kind
    if there < length - slack:
        return f"its header says {length} bytes, and {there} are there: it was cut"
    file.seek(position + length)
    rest = file.read(1 << 16)
    if there > length + slack and any(rest.find(mark) >= 0 for mark in (b"Xing", b"Info")):
        return f"its header says {length} bytes, and {there - length} more follow: {PARTED}"
    return None
