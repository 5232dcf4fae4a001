"""Records of JSON objects, read from and written to an entry's files."""

import json
from pathlib import Path

import pytest

from qaudio.errors import EntryError, InputError
from qaudio.records import InnerPath, Name, fits, parse
from qaudio.study.grid import study_entries
from qaudio.zoo.schema import Parent, Results
from qaudio.zoo.store import entries, read_config, read_record, read_results, to_json
from tests.support.entries import results_of
from tests.support.predictions import made

FROZEN = Path(__file__).parent / "zoo" / "schema1"


@pytest.fixture
def document():
    parent = {"name": "whole.made", "how": "pruned from", "license": None, "later": [1]}
    return results_of(made()) | {"parent": parent, "later": {"key": 1}}


def test_record_of_every_shipped_entry_is_written_as_it_was_read():
    folders = [*entries().values(), *study_entries(), FROZEN]
    read = {folder: read_results(folder) for folder in folders}
    assert len(read) > 40
    for folder, results in read.items():
        if results is not None:
            assert to_json(results) == (folder / "results.json").read_text(encoding="utf-8"), folder
        stored = (folder / "config.json").read_text(encoding="utf-8")
        assert to_json(read_config(folder)) == stored, folder


def test_record_keeps_unknown_keys_nulls_and_order(document):
    results = parse(document, Results)
    assert list(results.to_dict()) == list(document) and results.to_dict() == document
    results.parent.license = "mit"
    results.transfer = []
    document["parent"]["license"] = "mit"
    assert results.to_dict() == document


def test_record_of_ones_own_leaves_out_empty_options():
    assert Parent("whole.made", "pruned from").to_dict() == {
        "name": "whole.made", "how": "pruned from"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("result.mean", "0.9", "result.mean: expected a finite number, found str '0.9'"),
        ("result.mean", float("nan"), "result.mean: expected a finite number"),
        ("result.mean", 91.0, "result.mean: expected a finite number <= 1.0, found float 91.0"),
        ("result.interval95", [0.1], "result.interval95: expected a list of length 2"),
        ("result.interval95", [0, "x"], r"result.interval95\[1\]: expected a finite number"),
        ("result.metric", "beauty", "result.metric: invalid enum value 'beauty'"),
        ("complete", 1, "complete: expected true or false, found int 1"),
        ("seeds", [True], r"seeds\[0\]: expected a whole number, found bool True"),
        ("benchmark", "../x", "benchmark: expected a name without slashes, found str '../x'"),
        ("entry", "../x", "entry: expected a path inside the entry"),
        ("protocol", "two\nlines", r"protocol: expected text of one line, found str 'two\\nlines'"),
        ("protocol", "x" * 30_000, "protocol: expected text of length <= 20000"),
        ("parent", {"how": "x"}, "parent.name is missing"),
        ("parent", 3, "parent: expected an object or null, found int 3"),
        ("versions", {"a\nb": "1"}, "versions: of its keys: expected text of one line"),
        ("cost.params", 0, "cost.params: expected a whole number >= 1, found int 0"),
    ],
)  # fmt: skip
def test_parse_names_the_place_what_was_expected_and_what_was_found(
    document, place, value, message
):
    *holders, key = place.split(".")
    holder = document
    for name in holders:
        holder = holder[name]
    holder[key] = value
    with pytest.raises(InputError, match=f"^{message}"):
        parse(document, Results)


@pytest.mark.parametrize("kind", [[], 3, None, "text"])
def test_parse_refuses_what_is_no_object(kind):
    with pytest.raises(InputError, match=r"^expected an object"):
        parse(kind, Results)


def test_read_record_names_entry_and_file(tmp_path, document):
    path = tmp_path / "some.made" / "results.json"
    path.parent.mkdir()
    assert read_record(path, Results) is None
    path.write_text(json.dumps(document | {"seeds": 3}))
    with pytest.raises(EntryError, match=r"^some\.made: results\.json: seeds: expected a list"):
        read_record(path, Results)


@pytest.mark.parametrize("path", ["a", "a/b.npz", "a..b/.c"])
def test_inner_paths_lie_below_their_entry(path):
    assert fits(path, InnerPath)


@pytest.mark.parametrize(
    "path", ["", ".", "..", "/a", "a/", "a//b", "./a", "a/./b", "a/../b", "C:x", "a\\b", "a\nb", 1]
)
def test_other_paths_are_refused(path):
    assert not fits(path, InnerPath)
    assert not fits(path, Name) or path in ("C:x",)
