import csv
import io

import numpy as np
import pytest

from qaudio.inference.vectors import WRITERS, record_of, rows_of
from qaudio.prediction import Embeddings

VECTORS = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
NAMES = ['=1+1, "x".wav', "b\x1b[31m\n\udcff.wav", "żółw.wav"]
SHOWN = ['=1+1, "x".wav', r"b\x1b[31m\n\udcff.wav", "żółw.wav"]


@pytest.fixture
def rows():
    """Rows of a sound of two windows, a file that cannot be used, and a sound of one window."""
    two = Embeddings(np.array([[0.0, 1.0], [0.5, 1.5]]), VECTORS[:2])
    one = Embeddings(np.array([[0.0, 0.25]]), VECTORS[2:])
    records = [
        {"path": NAMES[0]} | record_of(two),
        {"path": NAMES[1], "error": "holds no\nsamples"},
        {"path": NAMES[2]} | record_of(one),
    ]
    return lambda: rows_of(records)


def written(suffix, rows):
    file = io.BytesIO()
    WRITERS[suffix](file, rows, 4)
    file.seek(0)
    return file


def test_npz_has_arrays_of_equal_length(rows):
    found = np.load(written(".npz", rows))  # without pickle
    assert found["file"].tolist() == [SHOWN[0], SHOWN[0], SHOWN[1], SHOWN[2]]
    assert found["start"] == pytest.approx([0, 0.5, np.nan, 0], nan_ok=True)
    assert found["end"] == pytest.approx([1, 1.5, np.nan, 0.25], nan_ok=True)
    assert found["error"].tolist() == ["", "", "holds no samples", ""]
    assert found["vector"].dtype == np.float32
    assert np.array_equal(found["vector"][[0, 1, 3]], VECTORS)
    assert np.isnan(found["vector"][2]).all()


def test_parquet_has_null_where_there_is_no_vector(rows):
    parquet = pytest.importorskip("pyarrow.parquet")
    found = parquet.read_table(written(".parquet", rows)).to_pydict()
    assert found["file"] == [SHOWN[0], SHOWN[0], SHOWN[1], SHOWN[2]]
    assert found["start"] == [0, 0.5, None, 0]
    assert found["end"] == [1, 1.5, None, 0.25]
    assert found["error"] == [None, None, "holds no samples", None]
    assert found["vector"][2] is None
    assert np.array_equal(np.float32([found["vector"][n] for n in (0, 1, 3)]), VECTORS)


def test_csv_reads_back_to_the_same_floats(rows):
    text = written(".csv", rows).read().decode()
    assert "\x1b" not in text
    found = list(csv.DictReader(io.StringIO(text)))
    assert list(found[0]) == ["file", "start", "end", "error", "v0", "v1", "v2", "v3"]
    assert found[0]["file"] == "'" + SHOWN[0]  # no formula
    assert [row["file"] for row in found[1:]] == ["'" + SHOWN[0], SHOWN[1], SHOWN[2]]
    assert (found[2]["start"], found[2]["v0"]) == ("", "")
    assert found[2]["error"] == "holds no samples"
    vectors = [[np.float32(found[n][f"v{d}"]) for d in range(4)] for n in (0, 1, 3)]
    assert np.array_equal(vectors, VECTORS)


def test_npz_of_nothing_but_failures_has_the_width_of_the_others():
    found = np.load(
        written(".npz", lambda: rows_of([{"path": "a.wav", "error": "the file is empty"}]))
    )
    assert found["vector"].shape == (1, 4)
    assert found["error"].tolist() == ["the file is empty"]
