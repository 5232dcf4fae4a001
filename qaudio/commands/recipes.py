"""`qaudio recipes`: the recipes that ship with the package, listed and copied."""

import argparse
import fnmatch
import json
import sys
from pathlib import Path

from qaudio.commands.common import Commands, usage
from qaudio.errors import InputError
from qaudio.paths import replacing
from qaudio.text import similar
from qaudio.zoo.store import recipes


def register(command: Commands) -> None:
    """Add the subcommand."""
    sub = command(
        "recipes", _recipes, "list the recipes that ship with the package, or copy one",
        "qaudio recipes 'esc10/*'\n"
        "         qaudio recipes esc10/qcnn10_050 --out my_recipe.yaml",
    )  # fmt: skip
    sub.add_argument("pattern", nargs="?", default="*", help="name, or shell-style pattern")
    sub.add_argument("--out", metavar="FILE", help="copy the recipe there, to change it")
    sub.add_argument("--json", action="store_true", help="print a JSON document")


def _recipes(options: argparse.Namespace) -> int:
    known = recipes()
    found = fnmatch.filter(known, options.pattern)
    if options.out is None:
        if options.json:
            print(json.dumps([{"name": one, "about": _about(known[one])} for one in found]))
        for name in found if not options.json else ():
            print(f"{name:42} {_about(known[name])}")
        if not found:
            close = similar(options.pattern, known)
            print(f"qaudio: no recipe matches {options.pattern!r}{close}", file=sys.stderr)
        return 0 if found else 1
    if options.json:
        return usage("recipes", "--json is for the list, without --out")
    if options.pattern not in known:
        close = similar(options.pattern, known) or "; `qaudio recipes` lists those that ship"
        raise InputError(f"no recipe {options.pattern!r}{close}")
    out = Path(options.out)
    if out.exists():
        raise InputError(f"{out} is there already: choose another name, or delete it")
    with replacing(out) as file:
        file.write(known[options.pattern].read_bytes())
    print(f"{out}: train it with `qaudio train --config {out}`")
    return 0


def _about(path: Path) -> str:
    """The comment that a recipe begins with, on one line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    end = next((n for n, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return " ".join(line.lstrip("# ") for line in lines[:end])
