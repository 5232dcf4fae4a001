import io
import struct
import warnings

import numpy as np
import pytest
import soundfile

from qaudio import predict
from qaudio.data import audio
from qaudio.data.benchmarks.folder import AudioFolder
from qaudio.data.headers import SoundWarning
from qaudio.errors import AudioError
from tests.robustness.fuzz.entries import made_model

RATE = 16000


def wav(seconds: float, claimed: float, order: str = "<", more: bytes = b"") -> bytes:
    """A WAV of 16 bit whose header claims another length than it has."""
    rng = np.random.default_rng(0)
    samples = (3000 * rng.standard_normal(round(seconds * RATE))).astype(f"{order}i2").tobytes()
    size = 2 * round(claimed * RATE)
    form = struct.pack(f"{order}HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16)
    head = b"RIFX" if order == ">" else b"RIFF"
    head += struct.pack(f"{order}I", 36 + size) + b"WAVEfmt " + struct.pack(f"{order}I", 16) + form
    return head + b"data" + struct.pack(f"{order}I", size) + samples + more


def encoded(kind: str, seconds: float = 3.0, **settings) -> bytes:
    file, rng = io.BytesIO(), np.random.default_rng(0)
    samples = 0.1 * rng.standard_normal(round(seconds * RATE))
    soundfile.write(file, samples, RATE, format=kind, **settings)
    return file.getvalue()


def said(data: bytes, tmp_path) -> list[str]:
    """What is said of a sound, as a file and as its content."""
    path = tmp_path / "sound"
    path.write_bytes(data)
    found = []
    for read in (lambda: audio.read(path), lambda: audio.decode(data, str(path))):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            read()
        assert all(one.category is SoundWarning for one in caught)
        found.append([str(one.message).removeprefix(f"{path}: ") for one in caught])
    assert found[0] == found[1]
    return found[0]


PARTIAL = "not all of it is heard: "


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (wav(60, 7), "its header says 7.0 s, and 53.0 s more follow: ffmpeg -ignore_length"),
        (wav(60, 7, ">"), "its header says 7.0 s, and 53.0 s more follow"),
        (wav(3, 60), "its header says 60.0 s, and 3.0 s are there: it was cut"),
        (encoded("OGG") * 2, "several Ogg streams were joined in it: part it"),
        (encoded("OGG")[:-2000], "it ends without the mark of its end: it was cut"),
        (encoded("FLAC") * 2, "several FLAC files were joined in it"),
        (encoded("MP3") * 2, "more follow: part it"),
        (encoded("MP3")[:-9000], "are there: it was cut"),
    ],
    ids=["long", "long big-endian", "cut", "two ogg", "cut ogg", "two flac", "two mp3", "cut mp3"],
)  # fmt: skip
def test_a_sound_that_is_not_heard_to_its_end_is_said(data, expected, tmp_path):
    (line,) = said(data, tmp_path)
    assert line.startswith(PARTIAL)
    assert expected in line


@pytest.mark.parametrize(
    "data",
    [
        wav(3, 3),
        wav(3, 3, more=b"LIST" + struct.pack("<I", 20_000) + bytes(20_000)),
        wav(3, 3, more=bytes(100)),
        encoded("RF64"), encoded("WAVEX"), encoded("AIFF"), encoded("OGG"), encoded("MP3"),
        encoded("OGG", subtype="OPUS"), encoded("FLAC"), encoded("W64"), encoded("AU"),
        wav(3, 3)[:40] + b"\xff\xff\xff\xff" + wav(3, 3)[44:],
    ],
    ids=range(13),
)  # fmt: skip
def test_nothing_is_said_of_a_whole_sound(data, tmp_path):
    assert said(data, tmp_path) == []


def test_a_header_of_no_samples_is_not_taken_for_silence(tmp_path):
    path = tmp_path / "unfinished.wav"
    path.write_bytes(wav(3, 0))
    with (
        pytest.warns(SoundWarning, match=r"says 0.0 s, and 3.0 s more follow"),
        pytest.raises(AudioError, match="no samples, by its header"),
    ):
        audio.read(path)


def test_predict_warns_of_what_it_did_not_hear(tmp_path):
    (tmp_path / "long.wav").write_bytes(wav(60, 7))
    with pytest.warns(SoundWarning, match=r"long.wav: not all of it is heard"):
        predict(made_model(), tmp_path / "long.wav")


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("a.m4a", b"\0\0\0 ftypM4A "),
        ("a.wma", b"?" * 50),
        ("renamed.wav", b"\x1a\x45\xdf\xa3" + bytes(50)),
    ],
)
def test_formats_that_are_not_read_say_how_to_convert(tmp_path, name, start):
    (tmp_path / name).write_bytes(start)
    with pytest.raises(
        AudioError, match=rf"{name}: not a format that is read; convert it .*ffmpeg"
    ):
        audio.read(tmp_path / name)


def test_data_sets_name_the_clips_that_are_not_heard_whole_in_one_line(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for take in range(4):
            (tmp_path / name / f"{take}.wav").write_bytes(wav(0.5, 0.2 if take < 2 else 0.5))
    data = AudioFolder(str(tmp_path), folds=2, sample_rate=8000, cache_dir=str(tmp_path / "cache"))
    with pytest.warns(UserWarning, match="of 4 clips not all is heard: .*0.wav: ") as caught:
        data.setup()
    assert len(caught) == 1
