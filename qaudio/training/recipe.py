"""Recipes as they were run: what of them an entry keeps, and how two differ."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from qaudio.errors import EntryError
from qaudio.zoo.store import entry_name, file_of

LONGEST = 1 << 20  # bytes of a recipe
# The package's DataModules, and the settings that say which clips an entry was scored on. `test`
# takes nothing else from an entry, whose recipe may be a stranger's: no place, no resource, no
# code.
SCORED_ON = ("seconds", "crop", "segment_hop")
DATA_MODULES = {
    "qaudio.ESC50": ("esc10",),
    "qaudio.GTZAN": ("protocol",),
    "qaudio.RAVDESS": ("protocol",),
    "qaudio.AudioSet": ("train",),
    "qaudio.AudioFolder": ("name", "folds", "split_seed"),
}


@dataclass(frozen=True)
class Recipe:
    """A recipe as it was run.

    Attributes:
        text: resolved, every default written out, without what says where and which run.
        path: the file it came from.
        command: that runs it again.
        renew: resolves another recipe's text by the present defaults, so that an entry made
            before a setting existed can be continued.
    """

    text: str
    path: Path | None
    command: str
    renew: Callable[[str], str]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    def changed(self, stored: str) -> list[str]:
        """Settings whose values differ from those of another recipe's text; [] for the same."""
        if stored == self.text:
            return []
        ours, theirs = (_flat(yaml.safe_load(text)) for text in (self.text, self.renew(stored)))
        return [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]


def read_recipe(folder: Path) -> dict[str, Any]:
    """An entry's recipe.yaml, as plain data; raises EntryError."""
    path = file_of(folder, "recipe.yaml")
    try:
        if path.stat().st_size > LONGEST:
            raise ValueError(f"over {LONGEST} bytes")
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(recipe, dict):
            raise ValueError("no settings by name")
        return recipe
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise EntryError(f"{entry_name(folder)}: recipe.yaml is not readable ({error})") from None


def scored_data(folder: Path, fold: int, grouped: bool = False) -> dict[str, Any]:
    """The `data` section of a recipe that scores an entry on a fold.

    Args:
        folder: of the entry.
        fold: held out.
        grouped: whether the user gives a `group_pattern`.

    Raises:
        EntryError: for a recipe that is not readable, a DataModule that is not this package's,
            settings that are not plain, and a `group_pattern` that the user does not repeat:
            matching a stranger's may take for ever.
    """
    data = read_recipe(folder).get("data")
    given = data.get("init_args") or {} if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(given, dict):
        raise EntryError(f"{entry_name(folder)}: recipe.yaml names no data")
    name = data.get("class_path")
    if not isinstance(name, str) or name not in DATA_MODULES:
        raise EntryError(
            f"{entry_name(folder)}: its recipe's DataModule is {str(name)!r}, none of "
            f"{', '.join(DATA_MODULES)}: score it by a recipe of your own and --model.source"
        )
    taken = {key: given[key] for key in SCORED_ON + DATA_MODULES[name] if key in given}
    for key, value in taken.items():
        if not isinstance(value, str | int | float | None):
            raise EntryError(f"{entry_name(folder)}: recipe.yaml: data.{key} is no plain value")
    pattern = given.get("group_pattern")
    if pattern is not None and not grouped:
        raise EntryError(
            f"{entry_name(folder)}: its folds were made with a regular expression: give "
            f"--data.group_pattern={shlex.quote(str(pattern))}, if that looks harmless"
        )
    return {"class_path": name, "init_args": taken | {"fold": fold}}


def epoch_choice(recipe: str) -> str:
    """Which weights are scored, in words, by a recipe's text."""
    trainer = yaml.safe_load(recipe)["trainer"]
    names = [callback["class_path"] for callback in trainer.get("callbacks") or []]
    how = "fixed in advance by the recipe"
    if any(name.endswith("EarlyStopping") for name in names):
        how = "where EarlyStopping ended training"
    elif trainer.get("max_time"):
        how = "where the recipe's time was up"
    averaged = any(name.endswith("WeightAveraging") for name in names)
    scored = "weights averaged up to the last epoch" if averaged else "the last epoch's weights"
    return f"{how}; {scored} are scored"


def _flat(settings: Any, name: str = "") -> dict[str, Any]:
    """Nested settings by their dotted names, as the command line has them."""
    if not isinstance(settings, dict):
        return {name: settings}
    found: dict[str, Any] = {}
    for key, value in settings.items():
        inner = name if key == "init_args" else f"{name}.{key}".lstrip(".")
        found |= _flat(value, inner)
    return found
