import json
import re

import pytest

import qaudio
from qaudio.models.registry import architectures
from qaudio.zoo import store


@pytest.fixture
def shipped(tiny_entry, monkeypatch):
    """A zoo that holds the tiny entry alone."""
    monkeypatch.setattr(store, "zoo_folder", lambda: tiny_entry.parent)
    return tiny_entry.name


def test_list_shows_architectures_and_entries_with_their_licence(run, shipped):
    result = run("list")
    assert result.code == 0
    lines = {line.split()[0]: line for line in result.out.splitlines()}
    assert set(lines) == {*architectures(), shipped}
    assert "no weights" in lines["cnn6"]
    assert "cc0-1.0" in lines[shipped]


def test_list_narrows_down(run, shipped):
    assert [line.split()[0] for line in run("list", "q*").out.splitlines()] == [
        "qcnn6", "qcnn10", "qcnn14", "qresnet38",
    ]  # fmt: skip
    assert run("list", "--pretrained").out.split()[0] == shipped
    assert run("list", "--benchmark", "made").out.split()[0] == shipped
    nothing = run("list", "zzz*")
    assert (nothing.code, nothing.out) == (1, "")
    (line,) = nothing.err.splitlines()
    assert line.endswith("'zzz*'")
    assert run("list", "made").err.endswith("'made': patterns match whole names, '*made*' a part\n")


def test_list_is_aligned_however_long_a_name_is(run, shipped, tiny_entry):
    tiny_entry.rename(tiny_entry.with_name("a_name_of_more_than_thirty_two_characters.made"))
    lines = run("list").out.splitlines()
    assert len({re.search(r"architecture,|cc0", line).start() for line in lines}) == 1


def test_list_json(run, shipped):
    rows = {row["name"]: row for row in json.loads(run("list", "--json").out)}
    assert rows[shipped] == {"name": shipped, "pretrained": True, "license": "cc0-1.0"}
    assert rows["cnn14"] == {"name": "cnn14", "pretrained": False}


def test_a_missing_licence_is_said_in_words(run, tmp_path, tiny_model, monkeypatch):
    qaudio.save(tiny_model, tmp_path / "zoo" / "bare.made")
    monkeypatch.setattr(store, "zoo_folder", lambda: tmp_path / "zoo")
    for result in (run("list"), run("info", "bare.made")):
        assert result.code == 0
        assert "not stated" in result.out
        assert "None" not in result.out
