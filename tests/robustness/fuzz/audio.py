"""Sound files that are cut short, garbled or lie, and what `predict` and a DataModule make of them.

Every tenth file is whole: those must be answered, whatever lies beside them.
"""

from __future__ import annotations

import io
import json
import os
import random
import re
import struct
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from unittest import mock

import numpy as np
import soundfile

from qaudio.cards.entries import save
from tests.robustness.fuzz.entries import made_model
from tests.robustness.fuzz.isolated import Begin, Outcome, captured, in_child

RATE, SECONDS = 16000, 0.2  # of the DataModule
# Format, subtype, rate and channels of the sounds that are spoilt.
SOUNDS = (
    ("WAV", "PCM_16", 16000, 1), ("WAV", "PCM_U8", 8000, 2), ("WAV", "PCM_24", 44100, 3),
    ("WAV", "FLOAT", 48000, 1), ("WAV", "DOUBLE", 22050, 2), ("WAV", "ULAW", 8000, 1),
    ("WAV", "IMA_ADPCM", 16000, 1), ("WAV", "MS_ADPCM", 22050, 2), ("WAV", "GSM610", 8000, 1),
    ("WAVEX", "PCM_16", 96000, 8), ("FLAC", "PCM_16", 16000, 1), ("FLAC", "PCM_24", 44100, 2),
    ("FLAC", "PCM_S8", 8000, 8), ("OGG", "VORBIS", 16000, 1), ("OGG", "VORBIS", 44100, 2),
    ("OGG", "OPUS", 48000, 1), ("MP3", "MPEG_LAYER_III", 16000, 1),
    ("MP3", "MPEG_LAYER_III", 44100, 2),
)  # fmt: skip
# Values that a field of a header may claim.
CLAIMS = (0, 1, 2, 3, 127, 128, 255, 256, 1024, 1025, 0x7FFF, 0x8000, 0xFFFF, 99, 100, 10_000_000,
          10_000_001, 0x7FFFFFFF, 0x7FFFFF9C, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)  # fmt: skip
# Offset and struct format of a plain WAV header's fields.
WAV_FIELDS = {
    "RIFF size": (4, "<I"), "fmt size": (16, "<I"), "format": (20, "<H"), "channels": (22, "<H"),
    "rate": (24, "<I"), "byte rate": (28, "<I"), "block align": (32, "<H"), "bits": (34, "<H"),
    "data size": (40, "<I"),
}  # fmt: skip
NAMES = (
    b"%d", b"two\nlines %d", b"\xff\xfe not text %d", b"a\rb %d", b"escape \x1b[31m %d",
    b"spaces  and 'quotes' \" %d", b"%%s {} %d", "ünï çödé 音 %d".encode(), b"-%d",
    b"x" * 200 + b"%d", "right\u202eto left \u2028 %d".encode(),
)  # fmt: skip
# What the MP3 decoder inside libsndfile writes to stderr by itself.
DECODER = ("Warning: Xing stream size off", "[src/libmpg123/", "Note: ")
EXTENSIONS = {"WAV": b".wav", "WAVEX": b".wav", "FLAC": b".flac", "OGG": b".ogg", "MP3": b".mp3"}


@lru_cache
def sound(number: int) -> bytes:
    """A quarter of a second of noise and tone as a file of `SOUNDS[number]`."""
    kind, subtype, rate, channels = SOUNDS[number]
    rng, time = np.random.default_rng(number), np.arange(rate // 4) / rate
    samples = 0.3 * np.sin(2 * np.pi * (300 + 200 * number) * time)[:, None]
    samples = samples + 0.05 * rng.standard_normal((len(time), channels))
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format=kind, subtype=subtype)
    return stream.getvalue()


def _cut(data: bytearray, rng: random.Random) -> bytes:
    return bytes(data[: rng.choice((rng.randrange(len(data)), rng.randrange(64)))])


def _flip(data: bytearray, rng: random.Random) -> bytes:
    reach = rng.choice((64, 256, len(data)))
    for _ in range(rng.choice((1, 1, 4, 32))):
        data[rng.randrange(min(reach, len(data)))] ^= 1 << rng.randrange(8)
    return bytes(data)


def _lie(data: bytearray, rng: random.Random) -> bytes:
    """One or two fields of a header say something else."""
    for _ in range(rng.choice((1, 1, 2))):
        if data[:4] == b"RIFF" and rng.random() < 0.8:
            offset, form = WAV_FIELDS[rng.choice(sorted(WAV_FIELDS))]
        else:
            offset, form = rng.randrange(96), rng.choice("BHI")
            form = rng.choice("<>") + form
        size = struct.calcsize(form)
        struct.pack_into(form, data, offset, rng.choice(CLAIMS) % (1 << 8 * size))
    return bytes(data)


def _claim(data: bytearray, rng: random.Random) -> bytes:
    """A WAV of a few samples whose header claims 2 GiB, or absurd rates and channel counts."""
    subtype = rng.choice((1, 1, 3, 6, 7, 2, 17, 49, 0xFFFE))
    rate = rng.choice((0, 1, 99, 100, 8000, 44100, 9_999_991, 10_000_000, 0x7FFFFFFF, 0xFFFFFFFF))
    channels = rng.choice((0, 1, 2, 255, 1000, 1024, 1025, 0xFFFF))
    bits = rng.choice((0, 1, 7, 8, 16, 24, 32, 33, 64))
    align = rng.choice((0, 1, max(1, channels * bits // 8) & 0xFFFF, 0xFFFF))
    size = rng.choice((0, 0x7FFFFF9C, 0x7FFFFFFF, 0xFFFFFFFF, 4096))
    form = struct.pack("<HHIIHH", subtype, channels, rate, rate * align & 0xFFFFFFFF, align, bits)
    head = b"RIFF" + struct.pack("<I", size) + b"WAVEfmt " + struct.pack("<I", 16) + form
    return head + b"data" + struct.pack("<I", size) + bytes(data[:4096])


def _unreal(data: bytearray, rng: random.Random) -> bytes:
    """Samples that are no numbers, or far too large."""
    samples = 0.1 * np.random.default_rng(rng.randrange(1 << 30)).standard_normal((4000, 2))
    values = (np.nan, np.inf, -np.inf, 1e38, -3e38, 1e300, 1e-320)
    for _ in range(rng.choice((1, 3, 2000))):
        samples[rng.randrange(4000), rng.randrange(2)] = rng.choice(values)
    stream = io.BytesIO()
    kind, subtype = rng.choice((("WAV", "FLOAT"), ("WAV", "DOUBLE"), ("AIFF", "FLOAT"),
                                ("W64", "DOUBLE"), ("AU", "FLOAT")))  # fmt: skip
    with np.errstate(over="ignore"):
        soundfile.write(stream, samples, 16000, format=kind, subtype=subtype)
    return stream.getvalue()


def _splice(data: bytearray, rng: random.Random) -> bytes:
    """A stretch is left out, doubled, zeroed, made noise, or another file's."""
    start = rng.randrange(len(data))
    end = min(len(data), start + rng.choice((1, 16, 512, 4096)))
    other = sound(rng.randrange(len(SOUNDS)))
    new = rng.choice((b"", bytes(data[start:end]) * rng.choice((2, 50)), bytes(end - start),
                      rng.randbytes(end - start), other[start:end], other))  # fmt: skip
    return bytes(data[:start]) + new + bytes(data[end:])


def _other(data: bytearray, rng: random.Random) -> bytes:
    """What is no sound at all, or little more than the beginning of one."""
    return rng.choice((
        b"", b"\0", b"RIFF", b"fLaC", b"OggS", b"ID3\x04\0\0\x7f\x7f\x7f\x7f",
        b"not a sound\n" * 50, rng.randbytes(2000), bytes(data[:4]) + rng.randbytes(2000),
        b"\xff\xfb" * 1000,
    ))  # fmt: skip


SPOIL: tuple[Callable[[bytearray, random.Random], bytes], ...] = (
    _cut, _flip, _lie, _claim, _unreal, _splice, _other
)  # fmt: skip


def is_whole(case: int) -> bool:
    return case % 10 == 0


def make(seed: int, case: int, folder: Path) -> Path:
    """The file of a case, the same for the same seed."""
    rng = random.Random(f"audio {seed} {case}")
    kind = rng.randrange(len(SOUNDS))
    data, extension = sound(kind), EXTENSIONS[SOUNDS[kind][0]]
    if not is_whole(case):
        for _ in range(rng.choice((1, 1, 1, 2))):
            data = rng.choice(SPOIL)(bytearray(data.ljust(100, b"\0")), rng)
        if rng.random() < 0.1:
            extension = rng.choice(sorted(set(EXTENSIONS.values())))
    name = rng.choice(NAMES) % case + extension
    path = os.fsencode(folder) + b"/" + name
    with open(path, "wb") as file:
        file.write(data)
    return Path(os.fsdecode(path))


def run(seed: int, cases: Sequence[int]) -> Iterator[tuple[int, Outcome]]:
    """Outcomes of cases, fifty files to a call."""
    with tempfile.TemporaryDirectory() as folder:
        entry = save(made_model(), Path(folder, "tiny.made"))
        yield from in_child(partial(try_out, seed=seed, entry=str(entry)), cases, together=50)


def try_out(cases: Sequence[int], begin: Begin, *, seed: int, entry: str) -> dict[int, Outcome]:
    """Files of the cases through one `qaudio predict` and one DataModule."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "sounds")
        paths = {}
        for case in cases:
            below = root / ("low" if case // 10 % 2 else "high")  # every class gets whole files
            below.mkdir(parents=True, exist_ok=True)
            paths[case] = make(seed, case, below)
        predicted = _predicted(paths, begin, entry)
        begin(-1)
        loaded = _loaded(paths, begin, root, Path(folder, "cache"))
    outcomes = {}
    for case in cases:
        found = (predicted[case], loaded[case])
        faults = [one for one in found if one.fault]
        if not faults and is_whole(case) and {one.ended for one in found} != {"answered"}:
            faults = [Outcome("whole file refused", "; ".join(o.detail for o in found), fault=True)]
        outcomes[case] = faults[0] if faults else found[0]
    return outcomes


def _predicted(paths: dict[int, Path], begin: Begin, entry: str) -> dict[int, Outcome]:
    from qaudio.cli import main
    from qaudio.data.audio import PART, display_name
    from qaudio.inference import files

    numbers = {os.fspath(path): case for case, path in paths.items()}
    real = files.analyse

    def analyse(model, audio, **settings):
        begin(numbers[audio])
        return real(model, audio, **settings)

    with captured() as texts, mock.patch.object(files, "analyse", analyse):
        try:
            code = main(["predict", "--json", "--model", entry, "--", *numbers])
        except BaseException as error:
            fine = dict.fromkeys(paths, Outcome("answered"))
            return fine | {min(paths): Outcome("traceback", repr(error), fault=True)}
        out, err = texts()
    answers = {document["file"]: document for document in map(json.loads, out.splitlines())}
    lines = err.splitlines()
    outcomes = {}
    for case, path in paths.items():
        shown = display_name(path)
        said = [line for line in lines if line.startswith(f"qaudio: {shown}: ")]
        lines = [line for line in lines if line not in said]
        said = [line for line in said if not line.startswith(f"qaudio: {shown}: {PART}: ")]
        if shown in answers and not said:
            best = answers[shown]["predictions"][0]["probability"]
            sound = 0 < best <= 1
            outcomes[case] = Outcome("answered" if sound else "no answer", str(best), not sound)
        elif len(said) == 1 and shown not in answers:
            outcomes[case] = Outcome("refused: " + _fault(said[0], shown), said[0])
        else:
            outcomes[case] = Outcome("neither answered nor refused", repr(said), fault=True)
    lost = sum(one.ended != "answered" for one in outcomes.values())
    wrong, total = min(lost, 1), f"qaudio: {lost} of {len(paths)} files could not be used"
    if lost > 1 and total in lines:
        lines.remove(total)
    lines = [line for line in lines if not line.startswith(DECODER)]
    if lines or code != wrong:  # whose fault is not known: the first's
        detail = f"of {len(paths)} from here: exit code {code}; besides on stderr: {lines[:3]}"
        outcomes[min(paths)] = Outcome("stray words or exit code", detail, fault=True)
    return outcomes


def _loaded(paths: dict[int, Path], begin: Begin, root: Path, cache: Path) -> dict[int, Outcome]:
    """The same files as a folder of recordings: every clip decoded, then trained and scored on."""
    from qaudio.data.audio import AudioCache, display_name
    from qaudio.data.benchmarks.folder import AudioFolder

    numbers = {os.fspath(path): case for case, path in paths.items()}
    real = AudioCache.get

    def get(self, path, sample_rate):
        begin(numbers[os.fspath(path)])
        return real(self, path, sample_rate)

    with captured(), mock.patch.object(AudioCache, "get", get), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the one that names what is left out
        ids: set[str] = set()
        try:
            for fold in (1, 2):  # each clip is scored in one of them
                data = AudioFolder(
                    str(root), folds=2, fold=fold, seconds=SECONDS, sample_rate=RATE, batch_size=8,
                    seed=0, cache_dir=str(cache),
                )  # fmt: skip
                data.setup()
                for batch in (*data.train_dataloader(), *data.test_dataloader()):
                    assert np.isfinite(batch["waveform"].numpy()).all()
                ids |= {one for batch in data.test_dataloader() for one in batch["id"]}
        except Exception as error:  # whose fault is not known: the first's
            fine = dict.fromkeys(paths, Outcome("answered"))
            return fine | {min(paths): Outcome("DataModule: traceback", repr(error), fault=True)}
    outcomes = {}
    for case, path in paths.items():
        shown = display_name(path)
        said = [line for line in data.left_out if line.startswith(f"{shown}: ")]
        if (path.relative_to(root).as_posix() in ids) == bool(said):
            outcomes[case] = Outcome("DataModule: neither used nor named", repr(said), fault=True)
        elif said and (len(said) > 1 or not said[0].isprintable()):
            outcomes[case] = Outcome("DataModule: not one line", repr(said), fault=True)
        else:
            outcomes[case] = Outcome("refused" if said else "answered", *said)
    return outcomes


def _fault(line: str, shown: str) -> str:
    """A refusal without file and figures, to count its like by."""
    text = line.removeprefix(f"qaudio: {shown}: ")
    return re.sub(r"-?\d[\d.]*", "N", text)
