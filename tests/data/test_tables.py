import tracemalloc
import unicodedata

import pyarrow
import pytest
from pyarrow import parquet

from qaudio.data import tables
from qaudio.data.tables import look_alike, normal, read_rows
from qaudio.errors import DataError

COMPOSED = "caf\u00e9"
DECOMPOSED = unicodedata.normalize("NFD", COMPOSED)


@pytest.fixture
def table(tmp_path):
    def write(text, name="table.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_read_rows_gives_cells_by_column_without_blanks(table):
    rows = read_rows(table('\ufefffile , label,\n"a, b.wav", no,\n\n"c.wav",yes ,\n'))
    assert rows == [{"file": "a, b.wav", "label": "no"}, {"file": "c.wav", "label": "yes"}]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,label\na.wav,x\ntake one, again.wav,x\n", "row 3: 3 cells under 2 columns: quote"),
        ("file,label,dog\na.wav,x\n", "row 2: 2 cells under 3 columns"),
        ("file,label, label\na.wav,x,y\n", "two columns are named 'label'"),
        (f"file,{COMPOSED},{DECOMPOSED}\n", f"two columns are named '{COMPOSED}'"),
        ('file,label\n"a.wav,x\nb.wav,y\n', "line 3 is not readable: unexpected end of data"),
        ('file,label\n"' + "a" * 200_000 + '",x\n', "line 2 is not readable: field larger"),
        (b"file,label\na\0.wav,x\n", "is not readable: .*NUL"),
        ('file,label\n"a" b,x\n', "line 2 is not readable"),
        ("file,label\na.wav,hören\n".encode("cp1252"), "not in UTF-8: save it as 'CSV UTF-8'"),
    ],
    ids=range(9),
)
def test_read_rows_refuses_what_it_would_read_as_something_else(table, text, said):
    with pytest.raises(DataError, match=said):
        read_rows(table(text))


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(99) + b"PAR1"])
def test_read_rows_refuses_a_broken_parquet_file(table, content):
    pytest.importorskip("pyarrow")
    with pytest.raises(DataError, match=r"t\.parquet is no whole Parquet file"):
        read_rows(table(content, "t.parquet"))


def test_read_rows_refuses_doubled_columns_in_parquet(tmp_path):
    pyarrow, parquet = (pytest.importorskip(name) for name in ("pyarrow", "pyarrow.parquet"))
    columns = [pyarrow.array(["a"])] * 3
    path = tmp_path / "t.parquet"
    parquet.write_table(pyarrow.table(columns, names=["file", "label", "label"]), path)
    with pytest.raises(DataError, match="two columns are named 'label'"):
        read_rows(path)


def test_read_rows_composes_labels_but_not_files(table):
    (row,) = read_rows(table(f"file,label\n{DECOMPOSED}.wav,{DECOMPOSED}\n"))
    assert row == {"file": f"{DECOMPOSED}.wav", "label": COMPOSED}
    assert normal(f" {DECOMPOSED} ") == COMPOSED


@pytest.mark.parametrize(
    ("one", "two", "alike"),
    [
        ("tea", "Tea", True), ("1", "1.0", True), ("01", "1", True), ("tea cup", "tea  cup", True),
        ("dog", "\uff44og", True), ("stra\u00dfe", "STRASSE", True), ("1", "2", False),
        ("1.5", "1.50", True), ("dog", "dogs", False), ("a1", "a1.0", False),
        ("dog", "\ufeffdog", True), ("dog", "d\u200bog", True), ("a b", "ab", False),
    ],
)  # fmt: skip
def test_look_alike_finds_names_that_people_take_for_one(one, two, alike):
    assert look_alike(["other", one, two]) == ((one, two) if alike else None)


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_a_table_that_is_too_large_is_refused_before_it_is_held(table, tmp_path, monkeypatch, name):
    """A Parquet file of a few bytes may hold any number of rows."""
    monkeypatch.setattr(tables, "MOST_CELLS", 100)
    path, rows = tmp_path / name, 100_000
    if name.endswith("csv"):
        path.write_text("file,label\n" + "a.wav,x\n" * rows)
    else:
        columns = {one: pyarrow.array([one]).take(pyarrow.array([0] * rows)) for one in "ab"}
        parquet.write_table(pyarrow.table(columns), path)
        assert path.stat().st_size < 10_000
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=rf"{name}: over 100 cells or 256 MB of text"):
            read_rows(path)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    monkeypatch.setattr(tables, "MOST_CELLS", 10 * rows)
    monkeypatch.setattr(tables, "LARGEST", 10_000)
    with pytest.raises(DataError, match=r"over .* MB of text"):
        read_rows(path)
