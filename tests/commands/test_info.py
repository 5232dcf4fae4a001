import json
import shutil

import pytest

import qaudio
from qaudio.zoo import store
from tests.support.command import lines_of
from tests.support.networks import FRONTEND, small_model


def test_info(run, tiny_entry):
    result = run("info", tiny_entry)
    assert result.code == 0
    for fact in ("tiny.made", "qcnn6_006", "3 classes", "cc0-1.0", "dog, rain, clock_tick"):
        assert fact in result.out
    document = json.loads(run("info", tiny_entry, "--json").out)
    assert document["config"]["architecture"] == "qcnn6_006"
    assert document["results"] is None


def test_info_of_an_entry_that_was_not_tested_says_what_it_is(run, tiny_entry, tmp_path):
    out = tmp_path / "small.made"
    run("prune", tiny_entry, "--ratio", 0.5, "--min-channels", 4, "--out", out)
    result, cost = run("info", out), qaudio.cost(qaudio.load(out))
    assert result.code == 0
    assert "none: it was not tested" in result.out
    assert "by l1, ratio 0.5, layers all" in result.out and "not fine-tuned" in result.out
    assert f"{cost.params:,} (" in result.out and f"{cost.macs / 1e9:.3f} G" in result.out


def test_info_of_many_classes_names_some(run, tmp_path):
    net = small_model("qcnn6_006", 60, frontend=FRONTEND)
    net.labels = [f"sound{n:02}" for n in range(60)]
    qaudio.save(net, tmp_path / "qcnn6_006.many")
    out = run("info", tmp_path / "qcnn6_006.many").out
    assert "sound49, and 10 more (--json)" in out and "sound50" not in out


def test_info_names_results_that_are_missing(run, tmp_path):
    shutil.copytree(store.entries()["qcnn10_050.esc10"], tmp_path / "copy")
    (tmp_path / "copy" / "results.json").unlink()
    result = run("info", tmp_path / "copy")
    assert result.code == 1
    assert lines_of(result) == ["qaudio: copy: results.json is missing"]


@pytest.mark.parametrize(
    ("text", "said"),
    [("{}", "expected the keys"), ("[" * 100_000, "maximum recursion"), ("x" * (1 << 24), "over")],
    ids=["keys", "nested", "large"],
)
def test_info_of_a_plan_that_somebody_edited_is_one_line(run, tiny_entry, text, said):
    (tiny_entry / "plan.json").write_text(text)
    result = run("info", tiny_entry)
    assert result.code == 1
    (line,) = lines_of(result)
    assert line.startswith("qaudio: tiny.made: plan.json") and said in line
