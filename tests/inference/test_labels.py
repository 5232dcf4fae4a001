import csv
import io
from pathlib import Path

import pytest

from qaudio.inference.labels import label_file, label_paths, record_of, write_csv
from qaudio.prediction import Prediction

ROWS = [Prediction("dog", 0, 0.91234, 0.0, 2.5), Prediction("=rain,\t\x1b[2J\n", 1, 0.5, 1.0, 2.0)]


def test_audacity_labels_are_start_end_and_text():
    assert label_file(ROWS, "audacity", 16000) == (
        "0.000\t2.500\tdog 0.91\n1.000\t2.000\t=rain,\\t\\x1b[2J\\n 0.50\n"
    )
    assert label_file([], "audacity", 16000) == ""


def test_raven_selections_have_a_header_and_a_band():
    table = list(csv.DictReader(io.StringIO(label_file(ROWS, "raven", 16000)), delimiter="\t"))
    assert table[0] == {
        "Selection": "1", "View": "Spectrogram 1", "Channel": "1", "Begin Time (s)": "0.000",
        "End Time (s)": "2.500", "Low Freq (Hz)": "0.0", "High Freq (Hz)": "8000.0",
        "Annotation": "dog", "Confidence": "0.9123",
    }  # fmt: skip
    assert table[1]["Annotation"] == r"=rain,\t\x1b[2J\n"
    assert label_file([], "raven", 16000).count("\n") == 1


def test_csv_has_a_row_per_prediction_and_per_failure():
    file = io.StringIO()
    records = [
        {"path": 'a,"b"\n\x1b[31m.wav'} | record_of(ROWS),
        {"path": "-bad.wav", "error": "cannot be\ndecoded"},
        {"path": "silent.wav"} | record_of([]),
    ]
    write_csv(file, records)
    assert "\x1b" not in file.getvalue()
    assert list(csv.reader(io.StringIO(file.getvalue()))) == [
        ["file", "start", "end", "label", "probability", "error"],
        ['a,"b"\\n\\x1b[31m.wav', "0.0", "2.5", "dog", "0.91234", ""],
        ['a,"b"\\n\\x1b[31m.wav', "1.0", "2.0", r"'=rain,\t\x1b[2J\n", "0.5", ""],
        ["'-bad.wav", "", "", "", "", "cannot be decoded"],
    ]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["s/a.wav", "s/b/a.wav"], ["a.wav", "b/a.wav"]),
        (["s/x/a.wav", "s/y/a.wav", "s/y/a.flac"], ["x/a.wav", "y/a.wav", "y/a.flac"]),
        (["a.wav"], ["a.wav"]),
        ([], []),
    ],
)
def test_label_files_lie_as_the_sounds_do(paths, expected):
    found = label_paths(paths, "out", "audacity")
    assert list(found) == paths
    assert list(found.values()) == [Path("out", f"{name}.labels.txt") for name in expected]
