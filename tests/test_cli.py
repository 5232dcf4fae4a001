import argparse
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import qaudio
from qaudio import cli
from qaudio.commands import list_
from qaudio.models import registry
from qaudio.models.registry import architectures
from qaudio.zoo import store

COMMANDS = next(
    action.choices
    for action in cli._parser()._actions
    if isinstance(action, argparse._SubParsersAction)
)


@pytest.fixture
def predict(run, tiny_entry):
    return lambda *arguments: run("predict", "--model", tiny_entry, *arguments)


def process(*arguments, **settings):
    """Run the command as users do."""
    root = str(Path(qaudio.__file__).parents[1])
    # Buffered as in a user's shell: what is left is written when the interpreter ends.
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    return subprocess.run(
        [sys.executable, "-m", "qaudio", *map(os.fspath, arguments)],
        env=inherited | {"PYTHONPATH": root},
        **{"capture_output": True, "timeout": 300} | settings,
    )


def lines_of(result):
    """The lines on stderr, each of which must be the command's own."""
    lines = result.err.splitlines()
    assert not [line[:200] for line in lines if not line.startswith("qaudio: ")][:3]
    return lines


# Modules of one's own.


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """A folder to work in, whose modules register nothing for other tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    return tmp_path


def test_modules_that_the_environment_names_are_imported(run, own_folder, monkeypatch):
    (own_folder / "own_net.py").write_text(
        "import qaudio\n\n@qaudio.register('ownnet')\nclass Own(qaudio.AudioModel):\n    pass\n"
    )
    assert run("list", "ownnet").code == 1
    monkeypatch.setenv("QAUDIO_IMPORT", "json,own_net")
    assert run("list", "ownnet").out.split()[0] == "ownnet"


@pytest.mark.parametrize("name", ["no_such_module", "no_such_package.net"])
def test_a_module_that_is_not_there_is_wrong_usage(run, own_folder, monkeypatch, name):
    monkeypatch.setenv("QAUDIO_IMPORT", name)
    result = run("list")
    assert (result.code, result.out) == (2, "")
    assert f"QAUDIO_IMPORT: no module '{name}' in this folder" in result.err


def test_what_a_module_of_ones_own_lacks_is_not_taken_for_it(run, own_folder, monkeypatch):
    (own_folder / "own_lacking.py").write_text("import no_such_module\n")
    monkeypatch.setenv("QAUDIO_IMPORT", "own_lacking")
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        run("list")


# Usage.


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(run, command):
    result = run(command, "--help")
    assert result.code == 0
    assert f"example: qaudio {command}" in result.out


def test_help_names_every_command(run):
    result = run("--help")
    assert result.code == 0
    assert "example: qaudio" in result.out
    named = re.findall(r"^    ([\w-]+)(?: |$)", result.out, re.MULTILINE)
    assert set(named) == set(COMMANDS)


def test_version(run):
    assert run("--version").out == f"qaudio {qaudio.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["no-such-command"],
        ["list", "--no-such-option"],
        ["info"],
        ["predict"],
        ["predict", "a.wav", "--top-k", "0"],
        ["predict", "a.wav", "--top-k", "some"],
        ["predict", "a.wav", "--window", "some"],
        ["predict", "a.wav", "--window", "0"],
        ["predict", "a.wav", "--hop", "20"],
        ["predict", "a.wav", "--threshold", "2"],
        ["predict", "a.wav", "--merge", "--low-threshold", "0.9"],
        ["predict", "a.wav", "--merge", "--min-duration", "-1"],
        ["predict", "a.wav", "--min-duration", "1"],
        ["predict", "a.wav", "--jobs", "0"],
        ["predict", "--csv", "a.wav"],
        ["predict", "a.wav", "--csv", "b.txt"],
        ["predict", "a.wav", "--csv", "--json"],
        ["predict", "a.wav", "--csv", "--resume"],
        ["predict", "a.wav", "--resume"],
        ["predict", "a.wav", "--format", "raven"],
        ["predict", "a.wav", "--format", "raven", "--out", "a.wav"],
        ["predict", "a.wav", "--format", "other", "--out", "b"],
        ["predict", "a.wav", "--out", "b"],
        ["embed", "--out", "b.npz"],
        ["embed", "a.wav"],
        ["embed", "a.wav", "--out", "b"],
        ["embed", "a.wav", "--out", "b.npy"],
        ["embed", "a.wav", "--out", "b.npz", "--window", "0"],
        ["embed", "a.wav", "--out", "b.npz", "--hop", "11"],
        ["embed", "a.wav", "--out", "b.npz", "--jobs", "some"],
        ["embed", "a.wav", "--out", "b.npz", "--model", "b.onnx"],
        ["verify"],
        ["verify", "a", "--all"],
        ["verify", "hf-hub:your-name/a", "--write"],
        ["compare", "a", "--plot", "a.pdf"],
        ["prune", "a"],
        ["prune", "a", "--out", "b"],
        ["prune", "a", "--out", "b", "--ratio", "0.5", "--target-macs", "0.5"],
        ["push", "a"],
        ["push", "a", "no-slash"],
        ["push", "a", "your-name/a", "--create-pr", "--revision", "b"],
        ["pull", "your-name/a"],
        ["import", "panns", "a.pth", "--arch", "cnn14"],
        ["import", "panns", "a.pth", "--arch", "qcnn14", "--out", "b"],
        ["import", "other", "a.pth", "--arch", "cnn14", "--out", "b"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_two(run, arguments, tiny_entry, write_sound, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    write_sound("a.wav")
    tiny_entry.rename("a")
    if arguments[:1] == ["predict"]:
        arguments = [*arguments, "--model", "a"]
    result = run(*arguments)
    assert result.code == 2
    assert result.out == ""
    assert "invalid positive" not in result.err  # a name of ours, not of the user's
    assert result.err.splitlines()[-1].startswith("qaudio")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["predcit", "a.wav"], "qaudio: no command 'predcit'; similar: predict"),
        (["--debug", "trian"], "qaudio: no command 'trian'; similar: train"),
        (["predict", "a.wav", "--treshold=1"],
         "qaudio predict: unrecognized arguments: --treshold=1; similar: --threshold"),
        (["list", "a", "b"], "qaudio list: unrecognized arguments: b; see qaudio list --help"),
        (["recipes", "esc10/qcnn10_05"], "no recipe matches 'esc10/qcnn10_05'; similar: esc10/"),
    ],
)  # fmt: skip
def test_what_is_misspelt_names_the_nearest(run, arguments, said):
    result = run(*arguments)
    assert result.code == (1 if arguments[0] == "recipes" else 2)
    assert result.err.count("\n") == 1 and said in result.err


def test_an_interrupt_is_no_traceback(run, monkeypatch):
    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(list_, "_list", interrupted)
    result = run("list")
    assert result.code == 130
    assert result.err == "qaudio: interrupted\n"


def test_too_little_memory_is_no_traceback(run, monkeypatch):
    def full(options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(list_, "_list", full)
    result = run("list")
    assert result.code == 1
    assert result.err == "qaudio: CUDA out of memory\n"


# list and info.


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


def test_info_names_results_that_are_missing(run, tmp_path):
    shutil.copytree(store.entries()["qcnn10_050.esc10"], tmp_path / "copy")
    (tmp_path / "copy" / "results.json").unlink()
    result = run("info", tmp_path / "copy")
    assert result.code == 1
    assert lines_of(result) == ["qaudio: copy: results.json is missing"]


@pytest.mark.parametrize("command", ["info", "verify", "predict"])
def test_an_unknown_entry_is_one_line(run, command, write_sound):
    arguments = ["sound.wav", "--model"] if command == "predict" else []
    result = run(command, *arguments, "no_such.entry")
    assert (result.code, result.out) == (1, "")
    (line,) = lines_of(result)
    assert "no_such.entry" in line


@pytest.mark.parametrize("command", ["info", "verify", "predict"])
@pytest.mark.parametrize("content", ["{}", "[]", "not json", '{"schema_version": 99}', "\xff"])
def test_a_broken_config_is_one_line(run, command, tiny_entry, write_sound, content):
    (tiny_entry / "config.json").write_bytes(content.encode("latin-1"))
    arguments = [write_sound("sound.wav"), "--model"] if command == "predict" else []
    result = run(command, *arguments, tiny_entry)
    assert (result.code, result.out) == (1, "")
    (line,) = lines_of(result)
    assert "config.json" in line


# predict.


def test_predict_names_file_entry_and_classes(predict, write_sound):
    path = write_sound("sound.wav")
    result = predict(path)
    assert (result.code, result.err) == (0, "")
    head, *rows = result.out.splitlines()
    assert head == f"{path}  (tiny.made)"
    assert {row.split("%")[1].strip() for row in rows} == {"dog", "rain", "clock_tick"}
    shares = [float(row.split("%")[0]) for row in rows]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100, abs=0.2)


def test_predict_json_is_what_the_library_says(predict, write_sound, tiny_model):
    one, two = write_sound("one.wav", seed=1), write_sound("two.wav", seconds=4, seed=2)
    result = predict(one, two, "--json", "--top-k", 2, "--times", "--window", 2)
    assert (result.code, result.err) == (0, "")
    documents = [json.loads(line) for line in result.out.splitlines()]
    assert [document["file"] for document in documents] == [str(one), str(two)]
    for path, document in zip((one, two), documents, strict=True):
        rows = qaudio.predict(tiny_model, path, top_k=2, window=2)
        assert document["times"] == [vars(row) for row in rows]
        assert len(document["predictions"]) == 2
    assert documents[0]["predictions"] == [
        vars(p) for p in qaudio.predict(tiny_model, one, top_k=2)
    ]
    assert [row["start"] for row in documents[1]["times"][::2]] == [0, 1, 2]


def test_predict_times(predict, write_sound):
    path = write_sound("sound.wav", seconds=4)
    result = predict(path, "--times", "--window", 2, "--hop", 2, "--top-k", 1)
    title, *rows = result.out.splitlines()[2:]
    assert title.split() == ["start", "end", "label"]
    assert [row.split()[:2] for row in rows] == [["0.00", "2.00"], ["2.00", "4.00"]]
    assert len(predict(path, "--top-k", 1).out.splitlines()) == 2


def test_each_unusable_file_has_a_line_and_the_others_an_answer(predict, write_sound, bad_sounds):
    good = [
        write_sound("eight.wav", channels=8),
        write_sound("slow.wav", rate=8000),
        write_sound("fast.wav", rate=192000, seconds=0.5),
        write_sound("short.wav", seconds=0.001),
    ]
    mixed = [good[0], *bad_sounds.values(), *good[1:]]
    result = predict(*mixed, "--json")
    assert result.code == 1
    assert [json.loads(line)["file"] for line in result.out.splitlines()] == list(map(str, good))
    *lines, count = lines_of(result)
    assert count == f"qaudio: {len(bad_sounds)} of {len(mixed)} files could not be used"
    for (fault, path), line in zip(bad_sounds.items(), lines, strict=True):
        assert line.startswith(f"qaudio: {path}: ")
        assert fault in line


def test_a_single_unusable_file(predict, bad_sounds):
    for fault, path in bad_sounds.items():
        result = predict(path)
        assert (result.code, result.out) == (1, "")
        (line,) = lines_of(result)
        assert fault in line


def test_a_file_of_nothing_but_infinities_is_one_line(predict, write_sound):
    samples = np.tile([[np.inf, -np.inf]], (100, 1))
    result = predict(write_sound("inf.wav", samples=samples, subtype="FLOAT"))
    assert result.code == 1
    (line,) = lines_of(result)
    assert "NaN or infinite" in line


def test_ten_minutes_of_sound(predict, write_sound):
    result = predict(write_sound("long.wav", seconds=600), "--json", "--times", "--top-k", 1)
    assert result.code == 0
    document = json.loads(result.out)
    assert [row["start"] for row in document["times"]] == [5.0 * n for n in range(119)]
    assert document["times"][-1]["end"] == document["predictions"][0]["end"] == 600


def test_a_folder_of_two_hundred_with_one_bad(predict, tmp_path):
    folder, rng = tmp_path / "sounds", np.random.default_rng(0)
    (folder / "deeper").mkdir(parents=True)
    for n in range(199):
        name = f"deeper/{n:03}.WAV" if n % 2 else f"{n:03}.flac"
        soundfile.write(folder / name, 0.1 * rng.standard_normal(800), 8000)
    (folder / "bad.wav").write_text("not a sound")
    (folder / "notes.txt").write_text("no sound, and none by its name")
    result = predict(folder, "--json")
    assert result.code == 1
    assert len({json.loads(line)["file"] for line in result.out.splitlines()}) == 199
    (line,) = lines_of(result)
    assert f"{folder / 'bad.wav'}: not a readable sound file" in line


def test_a_folder_without_sounds_is_one_line(predict, tmp_path):
    (tmp_path / "none").mkdir()
    result = predict(tmp_path / "none")
    assert result.code == 1
    (line,) = lines_of(result)
    assert "without sound files" in line


def test_predict_names_the_sounds_of_a_folder_that_it_does_not_read(predict, tmp_path, write_sound):
    write_sound("mix/a.wav")
    write_sound("mix/b.aifc", format="AIFF")
    (tmp_path / "mix" / "c.m4a").write_bytes(b"....ftypM4A ")
    done = predict(tmp_path / "mix")
    assert done.code == 1
    assert "a.wav" in done.out and "b.aifc" in done.out
    assert "c.m4a: not a format that is read; convert it" in done.err
    assert "3 files, 2 windows, 1 failed; " in done.out


@pytest.mark.parametrize("form", [[], ["--json"], ["--csv"], ["--csv", "a.csv"]])
def test_predict_counts_the_files_of_a_folder_that_it_could_not_read(
    predict, tmp_path, write_sound, monkeypatch, form
):
    monkeypatch.chdir(tmp_path)
    write_sound("mix/a.wav")
    (tmp_path / "mix" / "b.wav").write_text("no sound")
    for name in ("c.m4a", "d.aac", "e.webm"):
        (tmp_path / "mix" / name).write_bytes(b"....ftypM4A ")
    done = predict("mix", *form)
    told = lines_of(done)
    assert done.code == 1
    assert f"{Path('mix', 'c.m4a')} and 2 more files: not a format that is read" in told[0]
    if form in ([], ["--csv", "a.csv"]):
        assert "5 files, 1 windows, 4 failed; " in done.out and len(told) == 2
    else:
        assert told[2:] == ["qaudio: 4 of 5 files could not be used"]


def test_demo_makes_its_own_sound(predict, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = predict("--demo")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("qaudio-demo.wav  (tiny.made)")
    assert soundfile.info(tmp_path / "qaudio-demo.wav").duration == 5


# verify and prune.


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


def test_verify_says_what_it_checked(run, tiny_entry):
    result = run("verify", tiny_entry)
    assert (result.code, result.err) == (0, "")
    assert "files match their sha256" in result.out
    assert "probe logits" in result.out


def test_verify_names_the_changed_file_and_goes_on(run, tiny_entry, tmp_path, tiny_model):
    other = qaudio.save(tiny_model, tmp_path / "other.made")
    weights = bytearray((tiny_entry / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (tiny_entry / "model.safetensors").write_bytes(weights)
    result = run("verify", tiny_entry, other)
    assert result.code == 1
    (line,) = lines_of(result)
    assert "tiny.made: model.safetensors was changed" in line
    assert len(result.out.splitlines()) == 1
    assert "other.made" in result.out


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
        assert cli._parser().parse_known_args(command[1:])[1] == []
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


def test_a_name_that_is_an_entry_in_another_folder_is_pointed_to(
    run, tiny_entry, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_models").mkdir()
    shutil.copytree(tiny_entry, tmp_path / "my_models" / "mine.folder")
    result = run("info", "mine.folder")
    (line,) = lines_of(result)
    assert result.code == 1 and f"there is {Path('my_models', 'mine.folder')}: give" in line


def test_prune_does_not_replace_a_folder_that_is_no_entry(run, tiny_entry, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    options = ["--ratio", 0.5, "--min-channels", 4, "--out", tmp_path / "thesis"]
    result = run("prune", tiny_entry, *options)
    assert result.code == 1
    (line,) = lines_of(result)
    assert "no entry" in line
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"


# As a process of its own.


def test_list_as_a_process():
    result = process("list", "cnn14")
    assert result.returncode == 0
    assert result.stdout.split()[0] == b"cnn14"
    assert process("list", "--no-such-option").returncode == 2


def test_predict_as_a_process_with_names_that_are_not_text(tiny_entry, write_sound, bad_sounds):
    folder = os.fsencode(write_sound("a.wav").parent)
    strange = folder + b"/two\nlines\xff.wav"
    os.rename(folder + b"/a.wav", strange)
    missing = folder + b"/missing\n\xff.wav"
    bad = [os.fsencode(path) for path in bad_sounds.values()]
    arguments = ["predict", "--model", tiny_entry, strange, missing, *bad]
    result = process(*map(os.fsdecode, arguments))
    assert result.returncode == 1
    assert b"Traceback" not in result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == 1 + len(bad)
    assert all(line.startswith(b"qaudio: ") for line in lines)
    assert result.stdout.splitlines()[0].endswith(b".wav  (tiny.made)")


@pytest.mark.parametrize("command", ["list", "predict"])
def test_a_reader_that_goes_away_is_no_error(command, tiny_entry, write_sound):
    """`| head -1`, made certain: the pipe has no reader from the start."""
    arguments = ["--model", tiny_entry, write_sound("a.wav")] if command == "predict" else []
    read, write = os.pipe()
    os.close(read)
    try:
        result = process(command, *arguments, capture_output=False, stdout=write,
                         stderr=subprocess.PIPE)  # fmt: skip
    finally:
        os.close(write)
    assert result.stderr == b""
    assert result.returncode == 0


def test_names_that_the_terminal_cannot_write_stop_nothing(tiny_entry, write_sound, monkeypatch):
    for name in ("Łódź 日本.wav", "plain.wav"):
        write_sound(f"sounds/{name}", rate=16000)
    out = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", out)
    sounds = write_sound("sounds/third.wav", rate=16000).parent
    assert cli.main(["predict", "--model", str(tiny_entry), str(sounds)]) == 0
    out.seek(0)
    written = out.read()
    assert r"\u0141ód\u017a \u65e5\u672c.wav" in written
    assert "plain.wav" in written and "third.wav" in written


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "qaudio: the following arguments are required: COMMAND; see qaudio --help"),
        (["explain"], "qaudio explain: the following arguments are required: file, --out; see"),
        (["predict", "--jobs", "0", "x.wav"], "must be a positive whole number, not '0'; see"),
        (["finetune"], "qaudio finetune: the following arguments are required: FOLDER; see"),
        (["nonesuch"], "no command 'nonesuch'"),
    ],
    ids=" ".join,
)
def test_cli_wrong_usage_is_one_line(arguments, said, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert said in error and error.count("\n") == 1


@pytest.mark.parametrize("config", [["--config", "none.yaml"], ["--config=recipes/none.yaml"]])
def test_cli_a_recipe_that_is_missing_is_one_line(config, capsys):
    assert cli.main(["train", *config]) == 1
    error = capsys.readouterr().err
    assert "no such recipe; `qaudio recipes` lists" in error and error.count("\n") == 1
