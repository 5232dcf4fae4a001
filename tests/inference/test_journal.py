import os

import pytest

from qaudio.errors import DataError
from qaudio.inference.journal import Journal

SETTINGS = {"command": "embed", "window": 2.0, "hop": None}


@pytest.fixture
def journal(tmp_path):
    """Open a journal, by default one that goes on; all are closed at the end."""
    opened = []

    def make(resume=True, path=tmp_path / "out.partial", **settings):
        opened.append(Journal(path, SETTINGS | settings, resume))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


@pytest.fixture
def interrupted(journal):
    """The path of a journal that holds two files."""
    first = journal()
    first.add("a.wav", {"windows": 3})
    first.add("b\n\udcff.wav", {"error": "holds no samples"})
    first.close()
    return first.path


def test_journal_goes_on_with_what_it_holds(interrupted, journal):
    again = journal()
    assert again.done == {os.path.abspath("a.wav"), os.path.abspath("b\n\udcff.wav")}
    assert (again.failed, again.windows) == (1, 3)
    again.add("c.wav", {"windows": 4})
    assert [record["path"] for record in again.records()] == ["a.wav", "b\n\udcff.wav", "c.wav"]
    assert again.windows == 7
    again.close(keep=False)
    assert not interrupted.exists()


@pytest.mark.parametrize("cut", range(1, 30, 4))
def test_journal_drops_a_line_that_was_cut_off(interrupted, journal, cut):
    interrupted.write_bytes(interrupted.read_bytes()[:-cut])
    again = journal()
    assert len(again.done) == 1
    again.add("c.wav", {})
    again.close()
    assert [record["path"] for record in journal().records()] == ["a.wav", "c.wav"]


def test_journal_cut_off_in_its_first_line_begins_again(interrupted, journal):
    whole = interrupted.read_bytes()
    for length in (0, 1, 5, 20, whole.index(b"\n")):
        interrupted.write_bytes(whole[:length])
        again = journal()
        assert again.done == set()
        again.add("c.wav", {})
        assert len(list(again.records())) == 1
        again.close()


def test_journal_is_not_overwritten_unasked(interrupted, journal):
    with pytest.raises(DataError, match="holds 2 files of an unfinished run: go on with --resume"):
        journal(resume=False)
    assert len(journal().done) == 2


def test_journal_without_files_is_begun_again(journal):
    journal(window=1.0).close()
    assert journal(resume=False).done == set()


def test_journal_of_other_settings_is_refused(interrupted, journal):
    with pytest.raises(DataError, match=r"window of the unfinished run was 2.0, not 3.0: repeat"):
        journal(window=3.0)
    assert len(journal().done) == 2


@pytest.mark.parametrize("content", [b"notes of a user", b"line\nline\n", b"[]\n", b'{"a": 1}\n'])
def test_journal_leaves_files_of_others_alone(tmp_path, journal, content):
    path = tmp_path / "other.partial"
    path.write_bytes(content)
    with pytest.raises(DataError, match="is not the unfinished part of a run"):
        journal(path=path)
    assert path.read_bytes() == content


@pytest.mark.skipif(os.name == "nt", reason="no such locks on Windows")
def test_journal_is_written_by_one_run_at_a_time(journal):
    journal().add("a.wav", {})
    with pytest.raises(DataError, match="another run is writing it"):
        journal()
