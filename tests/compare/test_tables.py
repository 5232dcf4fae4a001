import csv
import io
import json
import re

import pytest

from qaudio.compare.gather import gather
from qaudio.compare.tables import (
    WIDTH,
    columns,
    document,
    short_si,
    shorten,
    si,
    text,
    to_csv,
)
from qaudio.evaluation.bootstrap import paired_difference
from tests.support.comparison import LABELS, made


def blocks(shown):
    """Title, head and rows of every table, each row split at two or more spaces."""
    parts, found = shown.split("\n\n"), []
    for title, table in zip(parts[0::3], parts[1::3], strict=False):  # then come its notes
        head, *rows = [re.split(r"  +", line.strip()) for line in table.splitlines()]
        found.append((title, head, rows))
    return found


def test_every_protocol_has_a_table_of_its_own(comparison):
    (one, _, others), (two, head, rows) = blocks(text(comparison))[:2]
    assert (one, two) == ("made: another split", "made: two folds")
    assert [row[0] for row in others] == ["other.made"]
    assert {row[0] for row in rows} == {"big.made", "small.made", "tiny.made", "plain.made"}
    assert head == ["accuracy %", "interval", "params", "macs", "latency", "to the best"]
    assert "other.made" not in str(rows)


def test_the_cells_are_the_results(comparison):
    _, (_, _, rows) = blocks(text(comparison))[:2]
    group = comparison.groups[1]
    best = group.members[0]
    for row, member in zip(rows, group.members, strict=True):
        name, score, interval, params, macs, latency, *to_best = row
        assert name == member.name
        assert score == f"{100 * member.mean:.1f} ± {100 * member.std:.1f}"
        assert interval == f"{100 * member.low:.1f}–{100 * member.high:.1f}"
        assert (params, macs) == (si(member.params), si(member.macs))
        assert latency == (f"{member.latency:.1f} ms" if member.latency else "-")
        if member is best:
            assert to_best == []
            continue
        found = paired_difference(member.predictions, best.predictions)
        low, high = (f"{100 * bound:+.1f}" for bound in found.interval95)
        assert to_best == [f"{100 * found.mean:+.1f} ({low} to {high})"]


def test_tables_are_aligned_and_fit_a_terminal(write_entry):
    long = "qresnet38_050." + "very_long_benchmark" * 5 + "_pruned50"
    folders = [
        write_entry(long, made(1), folder="long", params=80_753_615, latency=12345.6),
        write_entry("短い名前.made", made(2), folder="wide", latency=1.0, device="another machine"),
        write_entry("a.made", made(3), changes={"complete": False}),
    ]
    shown = text(gather(folders))
    assert max(map(columns, shown.splitlines())) <= WIDTH
    table = shown.split("\n\n")[1].splitlines()
    ends = {columns(line[: line.index("–")]) for line in table[1:]}
    assert len(ends) == 1  # the intervals stand under one another
    assert "_pruned50" in table[1] + table[2] + table[3]
    assert " ± " in shown and "*  " in next(line for line in table if line.startswith("a.made"))
    assert "\n*: some folds are still to be trained" in shown


@pytest.mark.parametrize("sort", ["params", "macs", "latency", "name"])
def test_sorting(comparison, sort):
    _, (_, _, rows) = blocks(text(comparison, sort))[:2]
    members = comparison.groups[1].members
    key = {
        "name": lambda m: m.name,
        "latency": lambda m: m.latency or 1e9,  # not measured: last
    }.get(sort, lambda m: getattr(m, sort))
    assert [row[0] for row in rows] == [m.name for m in sorted(members, key=key)]


def test_conditions_that_differ_are_marked_and_said(write_entry):
    folders = [
        write_entry("a.made", made(1), latency=10.0, device="phone"),
        write_entry("b.made", made(2), latency=1.0, device="server"),
    ]
    shown = text(gather(folders))
    assert "10.0 ms[a]" in shown
    assert "1.0 ms[b]" in shown
    notes = " ".join(shown.split())
    assert "latency: [a] 10 s of sound, phone; [b] 10 s of sound, server; values of" in notes
    assert "MACs: 10 s of sound" in notes


def test_entries_without_results_are_listed(comparison):
    shown = text(comparison)
    assert shown.rstrip().splitlines()[-2] == "Without results, so not compared:"
    assert shown.rstrip().endswith("bare.made")
    assert "Without results" not in text(gather([]))


def test_csv_holds_every_field_of_every_member(comparison):
    rows = list(csv.DictReader(io.StringIO(to_csv(comparison))))
    members = {m.name: (g, m) for g in comparison.groups for m in g.members}
    assert [row["name"] for row in rows] == list(members)
    for row in rows:
        group, member = members[row["name"]]
        assert row["protocol"] == group.protocol
        assert float(row["mean"]) == member.mean
        assert float(row["params"]) == member.params
        assert row["latency"] == ("" if member.latency is None else str(member.latency))
        best = group.members[0]
        if member is best:
            assert row["difference"] == row["best"] == ""
        else:
            found = paired_difference(member.predictions, best.predictions)
            assert row["best"] == best.name
            assert float(row["difference"]) == found.mean
            bounds = (float(row["difference_low"]), float(row["difference_high"]))
            assert bounds == found.interval95


@pytest.mark.parametrize("name", ["=1+2", "+1", "-1", "@SUM(A1)"])
def test_no_text_is_a_formula_in_a_spreadsheet(write_entry, name):
    found = gather([write_entry(name, made(1), folder="odd")])
    (row,) = csv.DictReader(io.StringIO(to_csv(found)))
    assert row["name"] == f"'{name}"


def test_the_document_is_json_with_pairs_and_classes(comparison):
    found = json.loads(json.dumps(document(comparison), allow_nan=False))
    other, group = found["groups"]
    assert (other["protocol"], group["protocol"]) == ("another split", "two folds")
    assert len(group["paired_differences"]) == 6
    members = {member.name: member for member in comparison.groups[1].members}
    for pair in group["paired_differences"]:
        one, less = members[pair["of"]], members[pair["less"]]
        expected = paired_difference(one.predictions, less.predictions).to_dict()
        assert {key: pair[key] for key in expected} == expected
    for entry in group["entries"]:
        assert [row["label"] for row in entry["by_class"]] == LABELS
        assert [row["score"] for row in entry["by_class"]] == members[entry["name"]].by_class
    assert found["without_results"] == comparison.unscored
    assert found["failed"] == []


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (5, "5.00"),
        (85_786, "85.8 k"),
        (314_538, "315 k"),
        (999_600, "1.00 M"),
        (1_241_130, "1.24 M"),
        (20.04e9, "20.0 G"),
        (5e15, "5000 T"),
    ],
)
def test_three_digits_and_a_prefix(value, shown):
    assert si(value) == shown


def test_no_more_digits_than_say_something():
    assert (short_si(20_000), short_si(9.9e9), short_si(100)) == ("20 k", "9.9 G", "100")


def test_names_are_cut_in_their_middle():
    assert shorten("abcdefgh", 8) == "abcdefgh"
    assert shorten("abcdefghi", 8) == "abc…ghi"
