import json
import shutil

import pytest

import qaudio
from qaudio import cli
from tests.support.command import lines_of


@pytest.mark.parametrize("options", [["--ratio", 0.5], ["--target-macs", 0.7]], ids=str)
def test_prune_writes_an_entry_that_verifies(run, tiny_entry, tmp_path, tiny_model, options):
    out = tmp_path / "pruned"
    result = run("prune", tiny_entry, *options, "--out", out, "--min-channels", 4)
    assert (result.code, result.err) == (0, "")
    assert "not fine-tuned: until it is, its accuracy may be at chance" in result.out
    commands = [line.split() for line in result.out.splitlines() if line.startswith("  qaudio ")]
    assert [command[1] for command in commands] == ["finetune", "predict", "export"]
    for command in commands:
        assert str(out) in command
        assert cli.make_parser().parse_known_args(command[1:])[1] == []
    small = qaudio.load(out)
    assert sum(small.widths.values()) < sum(tiny_model.widths.values())
    assert qaudio.cost(small).macs < qaudio.cost(tiny_model).macs
    assert run("verify", out).code == 0
    assert json.loads((out / "config.json").read_text())["license"] == "cc0-1.0"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--ratio", 1.5], "ratio"),
        (["--ratio", 0.5, "--criterion", "zzz"], "criterion"),
        (["--ratio", 0.5, "--layers", "zzz"], "zzz"),
        (["--ratio", 0.5, "--multiple-of", 3], "multiple_of"),
        (["--target-params", 3], "target_params 3 cannot be met"),
        (["--target-params", "1M"], "target_params 1e+06 cannot be met"),
    ],
    ids=str,
)
def test_prune_refuses_in_one_line(run, tiny_entry, tmp_path, options, named):
    result = run("prune", tiny_entry, "--out", tmp_path / "pruned", *options)
    assert (result.code, result.out) == (1, "")
    (line,) = lines_of(result)
    assert named in line
    assert not (tmp_path / "pruned").exists()


def test_prune_ranks_by_data_nowhere_and_by_chance_as_the_seed_says(run, tiny_entry, tmp_path):
    options = ["prune", tiny_entry, "--ratio", 0.5, "--criterion"]
    refused = run(*options, "taylor", "--out", tmp_path / "taylor")
    assert refused.code == 2 and "needs clips" in refused.err
    plans = set()
    for seed in (0, 1, 1):
        out = tmp_path / f"seed{seed}-{len(plans)}"
        assert run(*options, "random", "--seed", seed, "--out", out).code == 0
        plans.add(json.dumps(json.loads((out / "plan.json").read_text())["kept"]))
    assert len(plans) == 2


def test_an_entry_is_replaced_only_when_that_is_asked_for(run, tiny_entry, tmp_path):
    out = tmp_path / "pruned"
    shutil.copytree(tiny_entry, out)
    before = (out / "config.json").read_text()
    for command in (
        ["prune", tiny_entry, "--ratio", 0.5, "--min-channels", 4],
        ["import", "panns", tmp_path / "none.pth", "--arch", "cnn6"],
    ):
        result = run(*command, "--out", out)
        assert result.code == 1 and "--overwrite" in lines_of(result)[0]
        assert (out / "config.json").read_text() == before
    assert run("prune", tiny_entry, "--ratio", 0.5, "--min-channels", 4, "--out", out,
               "--overwrite").code == 0  # fmt: skip
    assert run("verify", out).code == 0


def test_prune_does_not_replace_a_folder_that_is_no_entry(run, tiny_entry, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    options = ["--ratio", 0.5, "--min-channels", 4, "--out", tmp_path / "thesis"]
    result = run("prune", tiny_entry, *options)
    assert result.code == 1
    (line,) = lines_of(result)
    assert "no entry" in line
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"
