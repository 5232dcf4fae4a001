"""The files of an entry that follow from its others: card, picture, the Hub's score files."""

import shutil
from itertools import zip_longest
from pathlib import Path
from typing import Any

import yaml

from qaudio.cards import confusion, model_card, reliability
from qaudio.cards.tables import figures, percent
from qaudio.errors import EntryError
from qaudio.evaluation.predictions import Predictions
from qaudio.zoo.schema import Config, Results
from qaudio.zoo.store import check_hash, entry_name, read_text


def write(
    folder: Path,
    config: Config,
    results: Results,
    predictions: Predictions | None,
    picture: Path | None = None,
) -> list[str]:
    """Write card and picture, and their format into `config`.

    Args:
        picture: an earlier one that still holds; None: it is drawn.
    """
    config.card_format = model_card.FORMAT
    made = model_card.documents(config, results, predictions)
    for name, text in made.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    pictures = [] if predictions is None else _pictures(config, results)
    for name in pictures:
        assert predictions is not None
        if name == reliability.FILE:
            reliability.draw(predictions, folder / name)
        elif picture is None:
            confusion.draw(predictions, config.labels or [], folder / name)
        else:
            shutil.copyfile(picture, folder / name)
    return [*made, *pictures]


def _pictures(config: Config, results: Results) -> list[str]:
    """Names of the pictures that an entry has."""
    found = [confusion.FILE] if confusion.pictured(config, results) else []
    return found + ([reliability.FILE] if results.calibration else [])


def names(config: Config) -> list[str]:
    """Which of an entry's files follow from the others."""
    own = ("README.md", confusion.FILE, reliability.FILE)
    return [n for n in config.files if n in own or n.startswith(".eval_results/")]


def check(folder: Path, config: Config, results: Results, predictions: Predictions) -> str:
    """Compare metadata and numbers of card and picture with what the results give.

    Raises:
        EntryError: names the file and the first thing that differs.
    """
    if config.card_format != model_card.FORMAT:
        return _check_other(folder, results)
    made, shown = _made(config, results, predictions)
    if sorted(names(config)) != sorted(shown):
        raise EntryError(
            f"{entry_name(folder)}: files of the card are {', '.join(names(config))}, not "
            f"{', '.join(shown)}"
        )
    for name, text in made.items():
        metadata, body = _parts(read_text(folder, name))
        expected, written = _parts(text)
        if metadata != expected:
            raise EntryError(f"{entry_name(folder)}: {name}: its metadata is not of its results")
        for ours, given in zip_longest(figures(body), figures(written), fillvalue="no number"):
            if ours != given:
                raise EntryError(
                    f"{entry_name(folder)}: {name} shows {ours} where its results give {given}"
                )
    _check_pictures(folder, config, predictions, shown)
    return f"{', '.join(shown)}: numbers and metadata are those of the results"


def is_current(folder: Path, config: Config, results: Results, predictions: Predictions) -> bool:
    """Whether card and picture are, word by word, those that would be written now."""
    made, shown = _made(config, results, predictions)
    try:
        for name in shown:
            check_hash(folder, config, name)
        _check_pictures(folder, config, predictions, shown)
        same = all(read_text(folder, name) == text for name, text in made.items())
    except EntryError:
        return False
    known = config.card_format == model_card.FORMAT
    return known and same and sorted(names(config)) == sorted(shown)


def _check_pictures(
    folder: Path, config: Config, predictions: Predictions, shown: list[str]
) -> None:
    """Raise EntryError for pictures that show other numbers than the predictions give."""
    if confusion.FILE in shown:
        confusion.check(folder / confusion.FILE, predictions, config.labels or [])
    if reliability.FILE in shown:
        reliability.check(folder / reliability.FILE, predictions)


def _made(
    config: Config, results: Results, predictions: Predictions
) -> tuple[dict[str, str], list[str]]:
    """The texts, and the names of them and of the pictures."""
    made = model_card.documents(config, results, predictions)
    return made, [*made, *_pictures(config, results)]


def sound_picture(folder: Path, config: Config, predictions: Predictions) -> Path | None:
    """The entry's picture, if it shows what these predictions give."""
    try:
        path = check_hash(folder, config, confusion.FILE)
        confusion.check(path, predictions, config.labels or [])
    except EntryError:
        return None
    return path


def _parts(text: str) -> tuple[Any, str]:
    """The front matter of a card and what follows it; of another file all of it is the former."""
    _, front, body = text.split("---\n", 2) if text.count("---\n") >= 2 else ("", text, "")
    try:
        return yaml.safe_load(front), body
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        return f"not readable: {error}", body


def _check_other(folder: Path, results: Results) -> str:
    """Of a card that another qaudio made, its score: it may show other numbers."""
    card = read_text(folder, "README.md")
    mean = results.result.mean
    if f"value: {mean}\n" not in card or f"**{percent(mean)}**" not in card:
        raise EntryError(f"{entry_name(folder)}: README.md is not the card of score {mean}")
    return "README.md is a card of another version, of this score"
