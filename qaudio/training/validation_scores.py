"""Scores on validation folds: for choosing recipes, and never part of an entry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qaudio.paths import replacing
from qaudio.training.recipe import Recipe
from qaudio.zoo.store import read_json, to_json


class ValidationScores:
    """The file of a recipe's scores, one for each seed and fold.

    Args:
        path: of the file; scores of other recipes in it are dropped when one is added.
        recipe: that was scored.
    """

    def __init__(self, path: Path, recipe: Recipe):
        self.path, self.recipe = path, recipe.sha256[:12]

    def rows(self) -> list[dict[str, Any]]:
        """What the file says of each seed and fold."""
        rows = read_json(self.path)["validation"] if self.path.is_file() else []
        return [row for row in rows if row.get("recipe") == self.recipe]

    def add(self, seed: int, fold: int, score: float, wall_seconds: float) -> None:
        """Write a score, in place of one of the same seed and fold."""
        row = {
            "seed": seed, "fold": fold, "score": score, "wall_seconds": round(wall_seconds, 1),
            "recipe": self.recipe,
        }  # fmt: skip
        others = [one for one in self.rows() if (one["seed"], one["fold"]) != (seed, fold)]
        rows = sorted([*others, row], key=lambda one: (one["seed"], one["fold"]))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.path) as file:
            file.write(to_json({"validation": rows}).encode())
