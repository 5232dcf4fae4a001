"""Questions about pretrained networks, answered by what they are worth on other benchmarks.

`recipes/carried_over.yaml` asks them. The answers follow from the predictions that `qaudio probe`
left in the entries: linear probes and, for taggers, zero-shot scores.
"""

from collections.abc import Sequence
from pathlib import Path

from qaudio.cards.tables import difference_text, markdown_table
from qaudio.data.benchmarks.registry import about
from qaudio.errors import EntryError
from qaudio.evaluation.bootstrap import paired_difference
from qaudio.evaluation.predictions import Predictions
from qaudio.evaluation.result import Difference
from qaudio.evaluation.significance import holm, mcnemar
from qaudio.records import EntryName, Record, Text
from qaudio.study.grid import read_yaml
from qaudio.zoo.store import file_of, read_results

LEVEL = 0.05
Scored = tuple[str, str]  # a benchmark and a protocol


class Question(Record, forbid_unknown_fields=True):
    """Whether one entry carries over better than another."""

    ask: Text
    entry: EntryName
    than: EntryName


class Questions(Record, forbid_unknown_fields=True):
    """The YAML file."""

    questions: list[Question]


def answers(path: str | Path, zoo: Path) -> str:
    """A Markdown table: a row for every question, a column for every benchmark and protocol.

    Args:
        path: the questions.
        zoo: folder of entries; those that lack a score leave its cell empty.

    Raises:
        EntryError: for a file that asks no such questions, or of entries that there are not.
    """
    asked = read_yaml(Path(path), Questions, "questions").questions
    names = {name for one in asked for name in (one.entry, one.than)}
    if absent := sorted(name for name in names if not (zoo / name).is_dir()):
        raise EntryError(f"{path}: no such entries: {', '.join(absent)}")
    return comparisons([(one.ask, zoo / one.entry, zoo / one.than) for one in asked])


def comparisons(asked: Sequence[tuple[str, Path, Path]]) -> str:
    """The table of questions, each of two entries: whether the first is better."""
    found = {path: _scores(path) for _, *pair in asked for path in pair}
    differences: dict[tuple[int, Scored], Difference] = {}
    chances = []
    for row, (_, entry, other) in enumerate(asked):
        ours, theirs = found[entry], found[other]
        for scored in sorted(ours.keys() & theirs.keys()):
            differences[row, scored] = paired_difference(ours[scored], theirs[scored])
            chances.append(mcnemar(ours[scored], theirs[scored]))
    sure = dict(zip(differences, (p < LEVEL for p in holm(chances)), strict=True))
    columns = sorted({scored for _, scored in differences})
    rows = [
        [ask, *(_answer(differences.get((row, column)), sure.get((row, column), False))
                    for column in columns)]
        for row, (ask, *_) in enumerate(asked)
    ]  # fmt: skip
    decided = [
        f"{sum(sure.get((row, column), False) for row in range(len(asked)))} on {title(column)}"
        for column in columns
    ]
    return "\n\n".join([
        "Differences in points with their 95 % intervals; yes or no is said where McNemar's exact "
        f"test over clips decides it at {100 * LEVEL:.0f} % after Holm's correction for all "
        f"{len(sure)} comparisons of this table. Decided: {'; '.join(decided) or 'none'}.",
        markdown_table(["", *map(title, columns)], rows),
    ])  # fmt: skip


def _scores(entry: Path) -> dict[Scored, Predictions]:
    """Predictions of an entry on benchmarks that it was not trained on."""
    results = read_results(entry)
    return {
        (one.benchmark, one.protocol): Predictions.load(file_of(entry, one.predictions))
        for one in (results.transfer if results else ())
        if one.result.metric == "accuracy"
    }


def title(scored: Scored) -> str:
    """A benchmark and protocol as columns are headed."""
    benchmark, protocol = scored
    return f"{about(benchmark).title}: {protocol.rpartition('; ')[2]}"


def _answer(difference: Difference | None, sure: bool) -> str:
    if difference is None:
        return ""
    said = ("**yes**" if difference.mean > 0 else "**no**, worse") if sure else "undecided"
    return f"{said}: {difference_text(difference)}"
