"""The benchmark's own arithmetic: what a row concludes from its figures, and what it prints."""

import json
import sys
import time

import pytest
import torch

pytest.importorskip("resource", reason="peaks of memory are measured where Unix counts them")
from tests.benchmarks.speed import __main__ as command
from tests.benchmarks.speed import exports, networks, processes, record, table
from tests.benchmarks.speed.table import LEAST, Row, Session, Start, Table, milliseconds, profile


def row(first, second, **settings) -> Row:
    return Row("made", "a", "b", "ms", first, second, **settings)


@pytest.mark.parametrize(
    ("made", "figure", "holds"),
    [
        (row(3.0, 6.0, limit=0.5), 0.5, True),
        (row(3.1, 6.0, limit=0.5), 3.1 / 6, False),
        (row(250.0, 100.0, kind="difference", limit=150), 150, True),
        (row(251.0, 100.0, kind="difference", limit=150), 151, False),
        (row(89.0, 90.0, kind="difference", limit=-1.0, least=True), -1, True),
        (row(88.9, 90.0, kind="difference", limit=-1.0, least=True), 88.9 - 90, False),
        (row(97.0, None, kind="value", limit=97.0, least=True), 97, True),
        (row(96.9, None, kind="value", limit=97.0, least=True), 96.9, False),
        (row(2.0, 1.0), 2, None),
    ],
)
def test_a_row_concludes_from_its_figures(made, figure, holds):
    assert made.figure == pytest.approx(figure)
    assert made.holds is holds
    assert made.to_dict()["holds"] is holds


def test_lines_show_figures_limits_and_verdicts():
    line = row(30.04, 60.0, limit=0.5, alone=(20.0, 50.0)).to_line()
    assert line == "| a | b | ms | 30.04 | 60 | 0.5007 | ≤ 0.5 | NO | 20.0 / 50.0 = 0.400 |"
    assert "| ≥ -1 | yes |" in row(1.0, 1.5, kind="difference", limit=-1, least=True).to_line()
    assert row(1.0, None).to_line().count("|") == table.HEAD.count("|")
    assert "| 12346 |" in row(12345.6, None, kind="value").to_line()


def test_calls_take_turns_and_the_first_of_each_turn_does_not_count(threads, monkeypatch):
    threads(2)  # by the wall clock
    order: list[str] = []
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def call(name, seconds, first):
        """Slow when the other ran before it."""

        def run():
            now[0] += first if not order or order[-1] != name else seconds
            order.append(name)

        return run

    found = milliseconds(call("a", 0.002, 0.05), call("b", 0.004, 0.05), 0.0)
    assert found == pytest.approx((2, 4))
    assert "".join(order) == "ab" + "aaabbb" * (LEAST // table.TURN)


@pytest.mark.parametrize(
    ("count", "clock"), [(1, "children_seconds"), (2, "perf_counter")], ids=["processor", "wall"]
)
def test_of_starts_the_shortest_counts(count, clock, monkeypatch, threads):
    threads(count)
    taken = iter([0, 9, 4, 9, 3, 10, 1, 9, 2, 9])  # of the two in turn; the first ones uncounted
    now = [0.0]
    home = table if clock == "children_seconds" else table.time
    monkeypatch.setattr(home, clock, lambda: now[0])

    def call(start):
        now[0] += next(taken)

    monkeypatch.setattr(Start, "__call__", call)
    assert milliseconds(Start(("a",)), Start(("b",)), 0.0) == (1000.0, 9000.0)


def test_processes_are_timed_by_what_they_do():
    before = table.children_seconds()
    Start(("-c", "import time\nwhile time.process_time() < 0.2: pass\ntime.sleep(0.5)"))()
    assert 0.2 <= table.children_seconds() - before < 0.5


def test_a_group_prints_its_rows_and_writes_them(monkeypatch, tmp_path, capsys):
    def group(made: Table) -> None:
        made.pair("quick", "slow", 0.9, lambda: time.sleep(0.001), lambda: time.sleep(0.01))
        made.figure("share", "", "%", 97, lambda: (90.0, None), kind="value", least=True)

    monkeypatch.setitem(command.GROUPS, "large", group)
    path = tmp_path / "rows.json"
    arguments = ["--only", "large", "--threads", "2", "--budget", "0", "--json", str(path)]
    monkeypatch.setattr(sys, "argv", ["speed", *arguments])
    before = torch.get_num_threads()
    command.main()
    torch.set_num_threads(before)
    printed = capsys.readouterr().out
    assert "2 threads" in printed and table.HEAD in printed
    assert "1 of 2 rows miss their limit\n- share" in printed
    ((machine, groups),) = json.loads(path.read_text()).items()
    assert [(found["what"], found["group"], found["holds"]) for found in groups["large"]] == [
        ("quick", "large", True), ("share", "large", False),
    ]  # fmt: skip
    assert "2 threads" in machine


def test_groups_and_machines_that_were_not_measured_stay(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"another": {}}))
    for group, figure in (("large", 1.0), ("onnx", 2.0), ("large", 3.0)):
        made = Table()
        made.group = group
        made.figure("a figure", "", "ms", 2.0, lambda figure=figure: (figure, None), kind="value")
        found = made.write(path)
    assert found == json.loads(path.read_text())
    here = found[table.machine()]
    assert {group: rows[0]["first"] for group, rows in here.items()} == {"large": 3.0, "onnx": 2.0}
    found["another"]["onnx"] = here.pop("onnx")
    made = record.tables(found)
    assert made.startswith("1 of 2 limits are kept.")
    assert made.count(table.HEAD) == 2  # a table for each machine


def test_the_recorded_tables_are_those_of_the_recorded_figures():
    text, found = record.README.read_text(), json.loads(record.RESULTS.read_text())
    assert record.readme_with_tables(text, found) == text
    assert found
    assert all(groups and set(groups) <= set(command.GROUPS) for groups in found.values())


def test_a_profile_names_operators_and_imports(capsys, tmp_path):
    made = Table(profile="product")
    x = torch.ones(8, 8)
    assert made.pair("a product", "a sum", None, lambda: x @ x, lambda: x + x) is None
    assert made.pair("another row", "a root", None, lambda: x, lambda: x.sqrt()) is None
    printed = capsys.readouterr().out
    assert "aten::mm" in printed and "aten::add" in printed and "aten::sqrt" not in printed
    (tmp_path / "slow_to_import.py").write_text("import time\ntime.sleep(0.2)\n")
    found = profile(
        Start(("-c", f"import sys; sys.path.append({str(tmp_path)!r}); import slow_to_import"))
    )
    assert found.splitlines()[0].endswith(" ms  slow_to_import")


def test_of_a_pair_that_misses_its_limit_the_profiles_are_kept(tmp_path):
    made, x = Table(budget=0), torch.ones(256, 256)
    made.group = "large"
    made.pair("sums", "a product", 0.0, lambda: x + x, lambda: x @ x)
    made.pair("kept", "another", 1e9, lambda: x + x, lambda: x @ x)
    missed, kept = made.rows
    assert kept.spent is None
    assert missed.spent and next(iter(missed.spent[0])) == "aten::add"
    assert next(iter(missed.spent[1])) == "aten::mm"
    shown = record.tables(made.write(tmp_path / "rows.json")).splitlines()[-1]
    assert shown.startswith("| sums | aten::add ") and "| a product | aten::mm " in shown


def test_onnxruntime_says_what_its_time_goes_into(tmp_path):
    model = networks.network("qcnn6_006")
    path = exports.exported(model, str(tmp_path))
    waveform = networks.sound(1, model.sample_rate).numpy()
    found = table.shares(Session(exports.running(path), path, waveform))
    assert "Conv" in found and 0.5 < sum(found.values()) <= 1.001
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_published_form_assembles_its_matrices_at_each_call(monkeypatch):
    assembled = []
    real = networks.real_matrix
    monkeypatch.setattr(networks, "real_matrix", lambda w: (assembled.append(1), real(w))[1])
    model = networks.network("qcnn6_006")
    waveform = networks.sound(0.2, model.sample_rate)
    with torch.inference_mode():
        expected = model(waveform)
        published = networks.as_published(model)
        for calls in (1, 2):
            assert torch.equal(published(waveform), expected)
            assert len(assembled) == 5 * calls  # four convolutions and fc1


def test_every_fold_that_an_entry_keeps_is_scored_by_weights_that_never_saw_it():
    parent = dict(exports.weights_by_fold("qcnn10_050.esc10"))
    assert sorted(parent) == [1, 2, 3, 4, 5]
    first = [model.classifier.weight for model in parent.values()]
    assert not torch.equal(first[0], first[1])
    (fold,) = dict(exports.weights_by_fold("qcnn10_050.esc10_pruned50"))
    assert fold == exports.read_results(exports.locate("qcnn10_050.esc10_pruned50")).card_fold


def test_training_steps_are_measured_in_both_precisions(monkeypatch, threads):
    threads(1)
    made, dtypes = [], []

    def network(arch):
        made.append(networks.network("qcnn6_006", num_classes=processes.BATCH))
        embed = made[-1].embed_features
        made[-1].embed_features = lambda x: (dtypes.append(embed(x).dtype), embed(x))[1]
        return made[-1]

    monkeypatch.setattr(processes, "network", network)
    monkeypatch.setattr(processes, "FRAMES", 32)
    for precision, dtype in (("fp32", torch.float32), ("bf16-mixed", torch.bfloat16)):
        call = processes.step("qcnn6_006", precision)
        before = made[-1].classifier.weight.clone()
        call()
        assert dtypes.pop() == dtype
        after = made[-1].classifier.weight
        assert after.dtype == torch.float32 and not torch.equal(after, before)

    memory = {("qcnn10", "fp32"): 50.0, ("cnn10", "fp32"): 60.0}
    monkeypatch.setattr(processes, "in_fresh_process", lambda *which: memory.get(which, 40.0))
    found = Table(budget=0)
    processes.training(found)
    assert [row.unit for row in found.rows] == 2 * ["ms", "clips/s", "MB"]
    for step, clips in (found.rows[:2], found.rows[3:5]):
        assert clips.first * step.first == pytest.approx(1000 * processes.BATCH)
        assert clips.second * step.second == pytest.approx(1000 * processes.BATCH)
    assert [(row.first, row.second) for row in found.rows[2::3]] == [(50, 60), (40, 40)]
    assert ["bf16" in row.what for row in found.rows] == 3 * [False] + 3 * [True]
