import errno
import json
import os
import stat
from types import SimpleNamespace

import pytest

from qaudio import cli
from qaudio.compare import html, peers, plots
from qaudio.zoo import store
from tests.support.comparison import made


@pytest.fixture
def run(capsys):
    """`qaudio compare` in this process; gives code, out, err."""

    def call(*arguments):
        capsys.readouterr()
        try:
            code = cli.main(["compare", *map(str, arguments)])
        except SystemExit as stop:  # argparse's way out
            code = stop.code
        out, err = capsys.readouterr()
        return SimpleNamespace(code=code, out=out, err=err)

    return call


def test_all_shipped_entries_are_compared_by_default(run, zoo, monkeypatch):
    monkeypatch.setattr(store, "zoo_folder", lambda: zoo[0].parent)
    result = run()
    assert (result.code, result.err) == (0, "")
    for folder in zoo:
        assert folder.name in result.out


def test_one_failing_entry_is_one_line_and_the_rest_is_shown(run, zoo):
    result = run(*zoo, "no_such.entry")
    assert result.code == 1
    (line,) = result.err.splitlines()
    assert line.startswith("qaudio: no entry or folder named 'no_such.entry'")
    assert "big.made" in result.out


COSTS = (("params", "--max-params"), ("macs", "--max-macs"), ("bytes", "--max-bytes"))


def test_entries_over_a_limit_are_left_out(run, zoo):
    document = json.loads(run(*zoo, "--json").out)
    rows = [entry for group in document["groups"] for entry in group["entries"]]
    for key, option in COSTS:
        costs = sorted({row[key] for row in rows})
        assert len(costs) > 1
        for most in costs:
            left = json.loads(run(*zoo, "--json", option, most).out)["groups"]
            found = [entry[key] for group in left for entry in group["entries"]]
            assert sorted(found) == sorted(row[key] for row in rows if row[key] <= most)
        refused = run(*zoo, option, costs[0] / 2)
        assert refused.code == 1 and f"from {costs[0]:g}" in refused.err
    slowest = max(row["macs"] / row["seconds"] for row in rows)
    left = json.loads(run(*zoo, "--json", "--max-macs-per-second", 0.99 * slowest).out)["groups"]
    found = [entry["macs"] / entry["seconds"] for group in left for entry in group["entries"]]
    assert 0 < len(found) < len(rows) and max(found) < slowest
    assert run(*zoo, "--max-params", "1k").code == 1 and run(*zoo, "--max-macs", "1000G").code == 0
    for wrong in ("1kk", "0", "-3", "k", "nan", "many"):
        assert run(*zoo, "--max-params", wrong).code == 2


def test_nothing_to_compare_is_one_line_and_writes_nothing(run, tmp_path):
    result = run("no_such.entry", "--csv", tmp_path / "a.csv")
    assert (result.code, result.out) == (1, "")
    assert len(result.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_json_is_a_document_and_peers_stand_apart(run, zoo):
    plain = json.loads(run(*zoo, "--json").out)
    assert [group["protocol"] for group in plain["groups"]] == ["another split", "two folds"]
    assert "peers" not in str(plain) and "EfficientAT" not in str(plain)
    document = json.loads(run(*zoo, "--json", "--peers").out)
    assert document.pop("published_by_others_not_measured_here") == [
        peer.to_dict() for peer in peers.read()
    ]
    assert document == plain


def test_peers_come_after_all_that_was_measured(run, zoo):
    measured, published = run(*zoo, "--peers").out.split(peers.HEADING)
    assert "EfficientAT" not in measured
    assert "EfficientAT" in published
    assert ".made" not in published


def test_files_are_written_and_replaced_whole(run, zoo, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    files = {"--csv": out / "a.csv", "--html": out / "a.html", "--plot": out / "A.PNG"}
    (out / "a.csv").write_text("old")
    (out / "a.html").symlink_to(tmp_path / "elsewhere.html")
    arguments = [word for pair in files.items() for word in pair]
    assert run(*zoo, *arguments).code == 0
    assert sorted(path.name for path in out.iterdir()) == ["A.PNG", "a.csv", "a.html"]
    assert (out / "a.csv").read_text().startswith("benchmark,protocol,name")
    assert (out / "A.PNG").read_bytes().startswith(b"\x89PNG")
    assert (out / "a.html").is_symlink()
    assert (tmp_path / "elsewhere.html").read_text().startswith("<!DOCTYPE html>")
    (tmp_path / "plain").touch()
    assert stat.S_IMODE((out / "a.csv").stat().st_mode) == stat.S_IMODE(
        (tmp_path / "plain").stat().st_mode
    )


@pytest.mark.parametrize("option", ["--csv", "--html", "--plot"])
@pytest.mark.parametrize(
    "place", ["no_folder/x", "file/x", "folder", *(["pipe"] if hasattr(os, "mkfifo") else [])]
)
def test_a_path_that_cannot_be_written_is_told_before_the_work(
    run, tmp_path, monkeypatch, option, place
):
    def work(*_):
        raise AssertionError("the work began")

    monkeypatch.setattr("qaudio.compare.gather.gather", work)
    (tmp_path / "file").touch()
    (tmp_path / "folder.svg").mkdir()
    if place == "pipe":
        os.mkfifo(tmp_path / "pipe.svg")
    before = sorted(tmp_path.iterdir())
    result = run(option, tmp_path / f"{place}.svg")
    assert (result.code, result.out) == (1, "")
    (line,) = result.err.splitlines()
    assert f"{place}.svg cannot be written: " in line
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("module", [plots, html], ids=["plot", "html"])
def test_a_failure_leaves_the_old_files_and_no_litter(run, zoo, tmp_path, monkeypatch, module):
    def fail(*_):
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(module, "draw" if module is plots else "render", fail)
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.csv").write_text("old")
    result = run(*zoo, "--csv", out / "a.csv", "--html", out / "a.html", "--plot", out / "a.svg")
    assert result.code == 1
    (line,) = result.err.splitlines()
    assert line.startswith("qaudio: ") and "disk full" in line
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [("a.csv", "old")]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--plot", "a.pdf"],
        ["--plot", "a"],
        ["--csv", "a.svg", "--plot", "a.svg"],
        ["--sort", "beauty"],
        ["--csv"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_two(run, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert (result.code, result.out) == (2, "")
    assert list(tmp_path.iterdir()) == []


def test_predictions_that_cannot_be_read_are_told_and_the_results_are_shown(run, write_entry):
    one, two = write_entry("one.made", made(1)), write_entry("two.made", made(2))
    (two / "predictions.npz").write_bytes(b"PK")
    result = run(one, two)
    assert result.code == 1
    (line,) = result.err.splitlines()
    assert "predictions.npz" in line and "two.made" in line
    assert "one.made" in result.out and "two.made" in result.out
