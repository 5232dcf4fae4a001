"""The files of an entry that follow from its others: card, picture, the Hub's score files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qaudio.cards import confusion, model_card
from qaudio.cards.tables import percent
from qaudio.errors import EntryError
from qaudio.evaluation.predictions import Predictions
from qaudio.zoo.schema import Results
from qaudio.zoo.store import entry_name, read_text


def write(
    folder: Path, config: dict[str, Any], results: Results, predictions: Predictions | None
) -> list[str]:
    """Write card and picture, and their format into `config`; the names of the files."""
    config["card_format"] = model_card.FORMAT
    made = model_card.documents(config, results, predictions)
    for name, text in made.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    if predictions is None or not confusion.pictured(config, results):
        return list(made)
    confusion.draw(predictions, config["labels"], folder / confusion.FILE)
    return [*made, confusion.FILE]


def names(config: dict[str, Any]) -> list[str]:
    """Which of an entry's files follow from the others."""
    return [
        name for name in config["files"]
        if name in ("README.md", confusion.FILE) or name.startswith(".eval_results/")
    ]  # fmt: skip


def check(folder: Path, config: dict[str, Any], results: Results, predictions: Predictions) -> str:
    """Make card and picture anew and compare; what was checked. Raises EntryError."""
    if config.get("card_format") != model_card.FORMAT:
        return _check_other(folder, results)
    plain = {key: value for key, value in config.items() if key != "files"}
    made = model_card.documents(plain, results, predictions)
    picture = [confusion.FILE] if confusion.pictured(config, results) else []
    if sorted(names(config)) != sorted([*made, *picture]):
        raise EntryError(
            f"{entry_name(folder)}: files of the card are {', '.join(names(config))}, not "
            f"{', '.join([*made, *picture])}"
        )
    for name, text in made.items():
        if read_text(folder, name) != text:
            raise EntryError(f"{entry_name(folder)}: {name} is not the card that its results give")
    if picture:
        confusion.check(folder / confusion.FILE, predictions, config["labels"])
    return f"{', '.join([*made, *picture])}: the card of these results"


def _check_other(folder: Path, results: Results) -> str:
    """Of a card that another qaudio made, its score: this qaudio words cards otherwise."""
    card = read_text(folder, "README.md")
    mean = results.result.mean
    if f"value: {mean}\n" not in card or f"**{percent(mean)}**" not in card:
        raise EntryError(f"{entry_name(folder)}: README.md is not the card of score {mean}")
    return "README.md is a card as another version words it, of this score"
