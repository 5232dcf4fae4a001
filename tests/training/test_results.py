from pathlib import Path

from qaudio.training.recipe import Recipe
from qaudio.training.results import ScoredSets


def recipe(text: str) -> Recipe:
    return Recipe(text, path=None, command="", renew=str)


def test_scored_sets_of_others_are_kept(tmp_path: Path) -> None:
    """Cells of a study and entries are written under locks of their own, to one log."""
    first, second = ScoredSets(tmp_path), ScoredSets(tmp_path)
    first.add("esc10", "a.esc10", recipe("a"), [0, 1])
    second.add("esc10", "study/esc10/b", recipe("b"), [0])
    assert ScoredSets(tmp_path).count("esc10") == second.count("esc10") == 3
    second.add("esc10", "study/esc10/b", recipe("b"), [0])
    assert ScoredSets(tmp_path).count("esc10") == 3
