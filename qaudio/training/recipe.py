"""Recipes as they were run: what of them an entry keeps, and how two differ."""

import hashlib
import os
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from qaudio.data.benchmarks.registry import data_modules
from qaudio.errors import EntryError
from qaudio.zoo.store import PACKAGE, entry_name, file_of

LONGEST = 1 << 20  # bytes of a recipe
MOST_SETTINGS = 10_000  # of a recipe
SECTIONS = {"trainer", "model", "data", "writer"}
# Where and which run, not what is run: left out of the recipe that an entry keeps.
VOLATILE = (
    "seed_everything", "folds", "seeds", "runs", "ckpt_path", "overwrite", "config",
    "data.root", "data.table", "data.audio", "data.fold", "data.cache_dir", "data.packed",
    "data.download", "data.num_workers",
    "trainer.default_root_dir", "trainer.logger", "trainer.accelerator",
    "trainer.enable_progress_bar", "trainer.enable_model_summary",
    "writer.folder", "writer.push_to",
)  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """A recipe as it was run.

    Attributes:
        text: resolved, every default written out, without what says where and which run.
        renew: resolves another recipe's text by the present defaults, so that an entry made
            before a setting existed can be continued.
    """

    text: str
    path: Path | None
    command: str
    renew: Callable[[str], str]

    @property
    def sha256(self) -> str:
        """Of its text, in hexadecimal digits, as results name the recipe."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def changed(self, stored: str) -> list[str]:
        """Settings whose values differ from those of another recipe's text; [] for the same."""
        if stored == self.text:
            return []
        ours, theirs = (_flat(yaml.safe_load(text)) for text in (self.text, self.renew(stored)))
        return [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]


def without_volatile(settings: dict[str, Any]) -> dict[str, Any]:
    """A recipe's settings without those that say where and which run; changes them in place."""
    for key in VOLATILE:
        section, _, name = key.rpartition(".")
        holder = settings.get(section, {}) if section else settings
        holder.get("init_args", holder).pop(name, None)
    return settings


def command_of(subcommand: str, arguments: list[str], table: bool) -> str:
    """The command that runs a recipe again, without what says where and which run.

    Args:
        table: whether the recordings need a table.
    """
    hidden = set(VOLATILE) - {"config"}
    kept, skip = [], False
    for argument in arguments:
        if argument.endswith((".yaml", ".yml")):
            argument = _recipe_file(argument)
        if argument.startswith("--"):
            name, _, value = argument[2:].partition("=")
            skip = name in hidden
            if skip:
                skip = not value
                continue
            kept.append(argument)
        elif skip:
            skip = False
        else:
            kept.append(argument)
    command = f"qaudio {subcommand} {shlex.join(kept)} --data.root PATH"
    return f"{command} --data.table PATH" if table else command


def _recipe_file(argument: str) -> str:
    """A recipe's path, or an option with one: as every system reads it, no folder of this one's."""
    option, equals, path = argument.rpartition("=")
    path = os.path.basename(path) if os.path.isabs(path) else path.replace(os.sep, "/")
    return f"{option}{equals}{path}"


def keep_nulls(plain: dict[str, Any], whole: dict[str, Any], read: dict[str, Any]) -> None:
    """Put those nulls into a recipe without which it would be read as another.

    Args:
        plain: the recipe without nulls.
        whole: the recipe.
        read: what `plain` is read as: where it lacks a setting, that has its default.
    """
    for name, value in whole.items():
        if isinstance(value, dict) and isinstance(read.get(name), dict):
            inner = plain.get(name, {})
            keep_nulls(inner, value, read[name])
            if inner:
                plain[name] = inner
        elif value is None and read.get(name) is not None:
            plain[name] = None


def read_recipe(folder: Path) -> dict[str, Any]:
    """An entry's recipe.yaml, as plain data; raises EntryError."""
    path = file_of(folder, "recipe.yaml")
    try:
        if path.stat().st_size > LONGEST:
            raise ValueError(f"over {LONGEST} bytes")
        return settings_in(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EntryError(f"{entry_name(folder)}: recipe.yaml is not readable ({error})") from None


def settings_in(text: str) -> dict[str, Any]:
    """A recipe's settings as plain data.

    Refused is also what jsonargparse would follow: a part that holds itself, for ever, and the name
    of a file in place of a section, as which it reads any file.

    Raises:
        ValueError: for a text that is no such recipe.
    """
    try:
        recipe = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if not isinstance(recipe, dict):
        raise ValueError("no settings by name")
    for name in SECTIONS & recipe.keys():
        if not isinstance(recipe[name], dict | None):
            raise ValueError(f"{name}: expected settings by name, not {str(recipe[name])[:80]!r}")
    parts, seen = [recipe], 0
    while parts:  # an alias may stand for what it stands in
        part, seen = parts.pop(), seen + 1
        if seen > MOST_SETTINGS:
            raise ValueError(f"over {MOST_SETTINGS} settings, or one that holds itself")
        if isinstance(part, dict | list):
            parts += part.values() if isinstance(part, dict) else part
    return recipe


def recipes_of(arguments: list[str]) -> list[str]:
    """Paths that a training command is given as recipes."""
    given = [one.partition("=")[2] for one in arguments if one.startswith("--config=")]
    return given + [path for name, path in pairwise(arguments) if name == "--config"]


def scored_data(folder: Path, fold: int, grouped: bool = False) -> dict[str, Any]:
    """The `data` section of a recipe that scores an entry on a fold.

    Args:
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
    # Compared as text with the package's own, before anything is imported. Of a recipe, which may
    # be a stranger's, `test` takes what says which clips are scored: no place, resource or code.
    known = {f"qaudio.{one.name}": one for one in data_modules() if one.is_own}
    if not isinstance(name, str) or name not in known:
        raise EntryError(
            f"{entry_name(folder)}: its recipe's DataModule is {str(name)!r}, none of "
            f"{', '.join(known)}: score it by a recipe of your own and --model.source"
        )
    taken = {key: given[key] for key in known[name].load().scored_on if key in given}
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
    settings = yaml.safe_load(recipe)
    trainer = settings["trainer"]
    model = (settings.get("model") or {}).get("init_args") or {}
    names = [callback["class_path"] for callback in trainer.get("callbacks") or []]
    how = "fixed in advance by the recipe"
    if any(name.endswith("EarlyStopping") for name in names):
        how = "where EarlyStopping ended training"
    elif trainer.get("max_time"):
        how = "where the recipe's time was up"
    averaged = any(name.endswith("WeightAveraging") for name in names)
    scored = "weights averaged up to the last epoch" if averaged else "the last epoch's weights"
    if model.get("keep_probe"):
        scored += ", or the linear probe where training gained nothing clear on a validation fold,"
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


def commit_of(path: Path) -> str | None:
    """The commit that gave a file or folder its content.

    None outside the package's own clone, where it is not tracked, and where it was changed since.
    Of other folders nothing is asked: a repository's settings can name programs that git runs.
    """
    if not path.resolve().is_relative_to(PACKAGE.parent) or not (PACKAGE.parent / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments, "--", path.name], cwd=path.resolve().parent, check=True,
            capture_output=True, text=True,
        )  # fmt: skip
        return done.stdout.strip()

    try:
        return None if git("status", "--porcelain") else git("log", "-1", "--format=%H") or None
    except (OSError, subprocess.CalledProcessError):
        return None
