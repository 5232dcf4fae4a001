"""What the documents say is what the code does."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from qaudio.cli import _parser
from qaudio.commands.training import TRAINING

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ("README.md", "recipes/README.md")


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
        _parser().parse_args(command[1:])


def test_the_readme_begins_with_one_line_that_installs_and_predicts():
    first = blocks("README.md", "bash")[0].splitlines()
    assert first == [
        "pip install . && qaudio predict --demo",
        "qaudio predict your_file.wav --times",
    ]


def test_python_shown_compiles_and_uses_public_names():
    import qaudio

    for block in blocks("README.md", "python"):
        compile(block, "README.md", "exec")
        for name in re.findall(r"qaudio\.(\w+)", block):
            assert name in qaudio.__all__


def test_every_recipe_is_described():
    text = (ROOT / "recipes/README.md").read_text(encoding="utf-8")
    for path in ROOT.glob("recipes/*/*.yaml"):
        family = path.stem.split("_pruned")[0]
        assert f"{path.parent.name}/{family}" in text
