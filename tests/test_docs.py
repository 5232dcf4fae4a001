"""What the documents say is what the code does."""

import importlib
import os
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import qaudio
from qaudio.cli import main, make_parser
from qaudio.commands.training import TRAINING

ROOT = Path(__file__).resolve().parents[1]
CONTRIBUTING = ".github/CONTRIBUTING.md"
DOCUMENTS = ("README.md", "recipes/README.md", CONTRIBUTING)
MOST_WORDS = 900


def blocks(document: str, language: str) -> list[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line for name in DOCUMENTS for block in blocks(name, "bash") for line in
             block.splitlines()]  # fmt: skip
    parts = [shlex.split(part, comments=True) for line in lines for part in line.split("&&")]
    return [part for part in parts if part and part[0] == "qaudio"]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_shown_is_accepted_by_the_parser(command):
    if command[1] in TRAINING:
        for argument, value in pairwise(command):
            if argument == "--config":
                assert (ROOT / value).is_file()
    else:
        _, others = make_parser().parse_known_args(command[1:])
        assert all(one.startswith("--data.") for one in others[::2])


def test_the_readme_begins_with_one_line_that_installs_and_predicts():
    first = blocks("README.md", "bash")[0].splitlines()
    assert first == [
        "pip install -e . && qaudio predict --demo",
        "qaudio predict your_file.wav --times",
    ]


def test_readme_is_short_and_says_first_what_an_entry_is():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    prose = re.sub(r"```.*?```|<!--.*?-->|\]\([^)]*\)", "", text, flags=re.DOTALL)
    assert len(re.findall(r"\w+", prose)) <= MOST_WORDS
    assert "An **entry** is" in text.partition("\n## ")[0]
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert (ROOT / link).exists(), link


def test_python_shown_compiles_and_uses_public_names():
    for block in blocks("README.md", "python"):
        compile(block, "README.md", "exec")
        for name in re.findall(r"qaudio\.(\w+)", block):
            assert name in qaudio.__all__


def test_every_recipe_is_described():
    text = (ROOT / "recipes/README.md").read_text(encoding="utf-8")
    for path in ROOT.glob("recipes/*/*.yaml"):
        family = path.stem.split("_pruned")[0]
        assert f"{path.parent.name}/{family}" in text


# Contributing.


def contributing(name: str) -> list[str]:
    """The lines of the block that shows how one thing is added."""
    text = (ROOT / CONTRIBUTING).read_text(encoding="utf-8")
    (found,) = re.findall(rf"<!-- contributing: {name} -->\n```\w+\n(.*?)```", text, re.DOTALL)
    return [line for line in found.splitlines() if line]


@pytest.mark.parametrize("name", ["set-up", "test", "architecture", "benchmark", "entry"])
def test_each_way_to_contribute_takes_less_than_ten_lines(name):
    assert 1 <= len(contributing(name)) < 10


@pytest.fixture
def mine(tmp_path, monkeypatch, registries):
    """The architecture and the benchmark that CONTRIBUTING shows, as a module of one's own."""
    lines = [*contributing("architecture"), *contributing("benchmark")]
    (tmp_path / "mine.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("mine")
    del sys.modules["mine"]


def test_an_architecture_and_a_benchmark_of_ones_own_train_an_entry(mine, tmp_path, write_sound):
    for label, hertz in (("low", 300), ("high", 2500)):
        for fold in "12":
            for take in "ab":
                wave = 0.3 * np.sin(2 * np.pi * hertz * np.arange(4000) / 8000)
                write_sound(f"tones/{label}-{fold}-{take}.wav", samples=wave)
    assert "tiny" in qaudio.list_models()
    settings = [
        "--model=qaudio.Classifier", "--model.arch=tiny", "--data=mine.Tones",
        f"--data.root={tmp_path / 'tones'}", "--data.seconds=0.5", "--trainer.max_epochs=1",
        "--trainer.accelerator=cpu", "--writer.entry=tiny.tones", "--writer.latency=false",
        f"--writer.folder={tmp_path / 'zoo'}", f"--runs={tmp_path / 'runs'}",
    ]  # fmt: skip
    before = qaudio.create_model("tiny", num_classes=2).state_dict()
    assert main(["train", *settings]) == 0
    assert main(["verify", str(tmp_path / "zoo" / "tiny.tones")]) == 0
    model = qaudio.load(tmp_path / "zoo" / "tiny.tones")
    assert model.labels == ["high", "low"]
    assert {name: t.shape for name, t in model.state_dict().items()} == {
        name: tensor.shape for name, tensor in before.items()
    }


def test_contract_tests_run_on_a_made_architecture_and_benchmark(tmp_path):
    """Each in a file of its own, as shown; nothing else is changed."""
    for name, what in (("tiny", "architecture"), ("tones", "benchmark")):
        (tmp_path / f"{name}.py").write_text("\n".join(["import qaudio", *contributing(what)]))
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-p", "tiny", "-p", "tones", "-p", "no:cacheprovider",
            "-k", "(tiny and not ast_tiny) or tones", "tests/models/test_architectures.py",
            "tests/data/benchmarks/test_contract.py",
        ],
        cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
    )  # fmt: skip
    passed = re.search(r"(\d+) passed", done.stdout)
    assert done.returncode == 0, done.stdout[-2000:]
    assert passed and int(passed[1]) >= 15 and "skipped" not in done.stdout


@pytest.mark.slow
def test_an_entry_is_made_by_the_commands_shown(tmp_path, esc50_tree):
    made = tmp_path / "zoo"
    small = [
        "--model.arch=qcnn6_006", "--trainer.max_epochs=1", "--trainer.precision=32-true",
        "--folds=[1]", f"--data.root={esc50_tree}", f"--writer.folder={made}",
        f"--runs={tmp_path / 'runs'}",
    ]  # fmt: skip
    for line in contributing("entry"):
        program, name, *rest = shlex.split(line)
        assert program == "qaudio"
        rest = [str(made / part[4:]) if part.startswith("zoo/") else part for part in rest]
        rest = [str(ROOT / part) if part.startswith("recipes/") else part for part in rest]
        assert main([name, *rest, *(small if name == "crossval" else [])]) == 0
    assert (made / "qcnn10_050.esc10" / "README.md").is_file()


@pytest.mark.slow
def test_set_up_and_tests_are_run_as_shown():
    install, checks = contributing("set-up")
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert install.partition(" && ")[0].replace("install", "install --quiet") in script
    for check in checks.replace("ruff format", "ruff format --check").split(" && "):
        subprocess.run([sys.executable, "-m", *shlex.split(check)], cwd=ROOT, check=True)
    for line in contributing("test"):
        *options, path = shlex.split(line)[1:]
        assert (ROOT / path).is_file()
        if not options:
            subprocess.run([sys.executable, "-m", "pytest", path], cwd=ROOT, check=True)
