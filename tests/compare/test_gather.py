import json
import shutil

import numpy as np
import pytest

from qaudio.compare.gather import MEASURES, gather
from qaudio.evaluation.bootstrap import paired_difference
from qaudio.evaluation.predictions import Predictions
from tests.support.comparison import LABELS, made


def names(group):
    return [member.name for member in group.members]


def test_groups_are_of_one_benchmark_and_protocol_and_the_best_comes_first(comparison):
    assert [(g.benchmark, g.protocol) for g in comparison.groups] == [
        ("made", "another split"), ("made", "two folds"),
    ]  # fmt: skip
    other, first = comparison.groups
    assert names(other) == ["other.made"]
    assert set(names(first)) == {"big.made", "small.made", "tiny.made", "plain.made"}
    means = [member.mean for member in first.members]
    assert means == sorted(means, reverse=True)
    assert len(set(means)) == 4
    assert [name.rpartition("/")[2] for name in comparison.unscored] == ["bare.made"]
    assert comparison.faults == []


def test_another_metric_is_another_group(write_entry):
    one = write_entry("one.made", made(1))
    two = write_entry("two.made", made(2), keep_predictions=False,
                      changes={"result.metric": "mAP"})  # fmt: skip
    assert [(g.metric, names(g)) for g in gather([one, two]).groups] == [
        ("accuracy", ["one.made"]), ("mAP", ["two.made"]),
    ]  # fmt: skip


def test_paired_differences_are_those_of_the_zoo(comparison):
    group = comparison.groups[1]
    for one in group.members:
        for other in group.members:
            if one is not other:
                expected = paired_difference(one.predictions, other.predictions)
                assert group.difference(one, other) == expected


def test_no_paired_difference_without_the_same_clips(write_entry):
    folders = [
        write_entry("a.made", made(1)),
        write_entry("b.made", made(2, prefix="elsewhere")),
        write_entry("c.made", made(3), keep_predictions=False),
    ]
    (group,) = gather(folders).groups
    for one in group.members:
        for other in group.members:
            assert one is other or group.difference(one, other) is None


def test_scores_by_class_are_the_share_of_each_classs_clips_that_was_found(comparison):
    member = comparison.groups[0].members[0]
    right = member.predictions.logits.argmax(1) == member.predictions.label
    for n in range(len(LABELS)):
        assert member.by_class[n] == pytest.approx(right[member.predictions.label == n].mean())
    assert np.mean(member.by_class) == pytest.approx(right.mean())


def test_the_front_holds_those_that_no_other_beats(comparison):
    group = comparison.groups[1]
    for key in ("params", "macs", "latency", "optimized"):
        measure = MEASURES[key]
        (front,) = group.fronts(measure)
        having = [member for member in group.members if measure.of(member) is not None]
        expected = {
            member
            for member in having
            if not any(
                other.mean > member.mean and measure.of(other) <= measure.of(member)
                for other in having
            )
        }
        assert {member for _, member in front} == expected
        assert [value for value, _ in front] == sorted(value for value, _ in front)


def test_values_of_another_device_or_length_have_a_front_of_their_own(write_entry):
    folders = [
        write_entry("a.made", made(1, 3.0), latency=10.0, device="phone"),
        write_entry("b.made", made(2, 1.0), latency=1.0, device="server"),
        write_entry("c.made", made(3, 2.0), macs=10, seconds=1.0, latency=None),
    ]
    (group,) = gather(folders).groups
    assert group.conditions(MEASURES["latency"]) == [
        "10 s of sound, phone", "10 s of sound, server",
    ]  # fmt: skip
    assert [[m.name for _, m in front] for front in group.fronts(MEASURES["latency"])] == [
        ["a.made"], ["b.made"],
    ]  # fmt: skip
    assert [len(front) for front in group.fronts(MEASURES["macs"])] == [1, 1]
    assert group.conditions(MEASURES["params"]) == []


def test_entries_of_one_name_are_told_apart_and_one_folder_counts_once(write_entry, tmp_path):
    one = write_entry("same.made", made(1))
    two = tmp_path / "copy"
    shutil.copytree(one, two)
    (group,) = gather([one, two, str(one) + "/"]).groups
    assert sorted(names(group)) == sorted([f"same.made ({one})", f"same.made ({two})"])


def test_what_cannot_be_read_is_told_and_the_rest_is_compared(zoo, write_entry):
    broken = write_entry("broken.made", made(7))
    (broken / "results.json").write_text("{")
    found = gather([*zoo, broken, "no_such.entry"])
    assert sum(len(group.members) for group in found.groups) == 5
    (one, first), (two, second) = found.faults
    assert one == str(broken)
    assert "results.json" in first
    assert two == "no_such.entry"
    assert "no_such.entry" in second


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("result.mean", "0.9"),
        ("result.mean", None),
        ("result.mean", 91.0),
        ("result.mean", float("nan")),
        ("result.mean", True),
        ("result.std", -1),
        ("result.interval95", [0.1]),
        ("result.interval95", None),
        ("result.metric", "beauty"),
        ("result.metric", ["accuracy"]),
        ("result.runs", 3),
        ("cost.params", 0),
        ("cost.params", float("inf")),
        ("cost.latency", 3),
        ("cost.latency", {}),
        ("cost", None),
        ("protocol", 1),
        ("benchmark", ["made"]),
        ("entry", None),
        ("complete", "yes"),
        ("parent", "big.made"),
        ("parent", {"how": "pruned from"}),
    ],
)
def test_results_that_are_none_are_refused_by_field(write_entry, place, value):
    folder = write_entry("odd.made", made(1), changes={place: value})
    found = gather([folder])
    assert found.groups == []
    ((_, fault),) = found.faults
    assert f"results.json: {place}" in fault
    assert "\n" not in fault


@pytest.mark.parametrize("results", ["[]", "3", "null", '"text"'])
def test_results_of_another_shape_are_refused(write_entry, results):
    folder = write_entry("odd.made", made(1))
    (folder / "results.json").write_text(results)
    found = gather([folder])
    assert found.groups == []
    ((_, fault),) = found.faults
    assert "results.json: expected an object" in fault


def test_unreadable_predictions_leave_the_results(write_entry):
    good = made(1)
    label = good.label.copy()
    label[0] = 17
    columns = {**vars(good)}
    for n, predictions in enumerate([
        Predictions(**columns | {"label": label}),
        Predictions(**columns | {"logits": good.logits[:, :2]}),
        Predictions(**columns | {"logits": good.logits[:, 0]}),
        Predictions(**columns | {"label": np.array(["a"] * len(label))}),
        Predictions(**columns | {"fold": np.array(["a"] * len(label))}),
        None,
    ]):  # fmt: skip
        folder = write_entry(f"odd{n}.made", good)
        if predictions is None:
            (folder / "predictions.npz").write_bytes(b"PK")
        else:
            predictions.save(folder / "predictions.npz")
        found = gather([folder])
        ((member,),) = [group.members for group in found.groups]
        assert member.predictions is None
        assert member.by_class is None
        ((_, fault),) = found.faults
        assert "predictions.npz" in fault


def test_control_characters_of_others_do_not_reach_the_terminal(write_entry):
    for place, value in (("entry", "a\x1b[31m\nb"), ("protocol", "p\u2028q")):
        folder = write_entry(f"odd_{place}", made(1), changes={place: value})
        ((_, fault),) = gather([folder]).faults
        assert f"results.json: {place}: expected" in fault and fault.isprintable()
    licensed = write_entry("licensed.made", made(1), license="x\ty")
    ((_, fault),) = gather([licensed]).faults
    assert "config.json: license: expected text of one line" in fault


def test_the_shipped_entries_can_be_compared():
    from qaudio.zoo.store import entries

    found = gather(entries())
    assert found.faults == []
    shown = {member.name: member for group in found.groups for member in group.members}
    for name, folder in entries().items():
        results = json.loads((folder / "results.json").read_text())
        assert shown[name].mean == results["result"]["mean"]
