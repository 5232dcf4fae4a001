"""Recipes as they were run: what of them an entry keeps, and how two differ."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


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
