"""What the results of a study say: its answers, its tables, and what its picture shows."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from qaudio.cards.tables import (
    difference_text,
    giga,
    interval,
    markdown_table,
    percent,
    points,
    score,
)
from qaudio.data.benchmarks.registry import about
from qaudio.evaluation.bootstrap import paired_difference
from qaudio.evaluation.predictions import Predictions
from qaudio.evaluation.result import Difference
from qaudio.study.carried_over import Scored, comparisons, title
from qaudio.study.grid import Cell, Study
from qaudio.zoo.schema import Results

HEAD = ["cell", "score", "95 % interval", "parameters", "MACs (10 s)"]
LEGEND = (
    "Differences in points with their 95 % intervals; yes or no is said where an interval leaves "
    "0 out."
)


class Findings:
    """Results of a study's cells and their differences, each as it is when first asked for."""

    def __init__(self, study: Study, zoo: Path):
        self.study, self.zoo = study, zoo
        self.difference = cache(self._difference)

    def _difference(
        self, cell: str, other: str, benchmark: str, shared: str | None = None
    ) -> Difference | None:
        """`paired_difference` of two cells; None where no fold was scored for both.

        Args:
            shared: a regular expression, of what the interval is over in place of clips.
        """
        cells = self.study.cells
        folders = [self.zoo / self.study.entry(cells[name], benchmark) for name in (cell, other)]
        files = [folder / "predictions.npz" for folder in folders]
        if not all(file.is_file() for file in files):
            return None
        ours, theirs = (Predictions.load(file) for file in files)
        if not set(ours.fold.tolist()) & set(theirs.fold.tolist()):
            return None
        return paired_difference(ours, theirs, shared)

    def render(self) -> str:
        """Answers to the study's questions, then all tables by benchmark, in Markdown.

        Below answers the tables are folded.
        """
        parts = self._answers() if self.study.questions else []
        folded = bool(parts)
        for benchmark in self.study.benchmarks:
            name = about(benchmark).title
            parts.append(
                f"<details><summary>{name}: every cell</summary>" if folded else f"### {name}"
            )
            for heading, names in self.study.tables:
                parts += self._table(heading, names, benchmark)
            parts += ["</details>"] if folded else []
        return "\n\n".join(parts)

    def _answers(self) -> list[str]:
        """A table: a row for every question, a column for every benchmark."""
        if self.study.probes:
            return ["### Answers", *(self._carried_over(name) for name in self.study.benchmarks)]
        titles = [about(benchmark).title for benchmark in self.study.benchmarks]
        rows = []
        for one in self.study.questions:
            found = [self.difference(one.cell, one.than, name) for name in self.study.benchmarks]
            rows.append([one.ask, *map(_answer, found)])
        checks = [self._by_groups(name) for name in self.study.benchmarks]
        table = markdown_table(["", *titles], rows)
        return ["### Answers", LEGEND, table, *filter(None, checks)]

    def _carried_over(self, benchmark: str) -> str:
        """Answers by what cells that were trained on a benchmark are worth on others."""

        def folder(name: str) -> Path:
            return self.zoo / self.study.entry(self.study.cells[name], benchmark)

        asked = self.study.questions
        return comparisons([(one.ask, folder(one.cell), folder(one.than)) for one in asked])

    def _by_groups(self, benchmark: str) -> str:
        """Which answers change where clips that have something in common are drawn together.

        Empty where a benchmark's clips are not known to have any such thing.
        """
        facts, changed, groups = about(benchmark), [], 0
        if not facts.shared:
            return ""
        for one in self.study.questions:
            pair = self.difference(one.cell, one.than, benchmark)
            grouped = self.difference(one.cell, one.than, benchmark, facts.shared)
            if pair is None or grouped is None:  # as one is, so is the other
                continue
            groups = max(groups, grouped.groups or 0)
            if _said(grouped) != _said(pair):
                changed.append(f"`{one.cell}` against `{one.than}` is {_answer(grouped)}")
        if not groups:
            return ""
        what = "; ".join(changed) or "all answers stay"
        return f"{facts.title}, its {groups} {facts.sharing} drawn in place of clips: {what}."

    def _carried(self, names: Sequence[str], benchmark: str) -> list[Scored]:
        """What the cells were scored on besides, of the study's probes."""
        found = (self.study.results(self.study.cells[name], benchmark, self.zoo) for name in names)
        scored = {
            (one.benchmark, one.protocol)
            for results in found if results
            for one in results.transfer if one.benchmark in self.study.probes
        }  # fmt: skip
        return sorted(scored)

    def _table(self, heading: str, names: list[str], benchmark: str) -> list[str]:
        rows, undecided, targets = [], [], []
        carried = self._carried(names, benchmark)
        head = [*HEAD, *map(title, carried)]
        head += ["difference in points (95 %)", *(["minutes"] if self.study.probes else [])]
        for cell in (self.study.cells[name] for name in names):
            found = self.study.results(cell, benchmark, self.zoo)
            name = f"`{cell.name}`: {cell.what}"
            if found is None:
                rows.append([name, "not run", *[""] * (len(head) - 2)])
                continue
            result, cost, differences = found.result, found.cost, []
            for other in cell.against:
                pair = self.difference(cell.name, other, benchmark)
                if pair is None:
                    continue
                fewer = pair.runs < len(result.runs)
                over = f" over {pair.runs} of its runs" if fewer else ""
                differences.append(f"{difference_text(pair)} to `{other}`{over}")
                if not pair.decided:
                    undecided.append(f"`{cell.name}` against `{other}`")
                if other in cell.targets:
                    targets.append(_aim(cell, other, pair))
            rows.append([
                name, score(found, _seeds(result.runs)), interval(result.interval95),
                f"{cost.params:,}", giga(cost.macs), *_scores(found, carried),
                "; ".join(differences),
                *([f"{found.training.wall_seconds / 60:.1f}"] if self.study.probes else []),
            ])  # fmt: skip
        parts = [f"**{heading}**", markdown_table(head, rows)]
        if undecided:
            parts.append(f"Undecided at 95 %: {', '.join(undecided)}.")
        if targets:
            parts.append(f"Targets: {'; '.join(targets)}.")
        return parts


def _answer(difference: Difference | None) -> str:
    """Whether the difference is above zero, as far as its interval tells."""
    if difference is None:
        return "not run"
    return f"{_said(difference)}: {difference_text(difference)}"


def _said(difference: Difference) -> str:
    if not difference.decided:
        return "undecided"
    return "**yes**" if difference.mean > 0 else "**no**, it is worse"


def _scores(results: Results, carried: list[Scored]) -> list[str]:
    """Scores on other benchmarks, each with its interval."""
    found = {(one.benchmark, one.protocol): one.result for one in results.transfer}
    return [
        f"{percent(found[one].mean)} ({interval(found[one].interval95)})" if one in found else ""
        for one in carried
    ]


def _seeds(runs: dict[str, float]) -> str:
    """How many seeds there are, and how far their means over folds lie apart; of one nothing."""
    means: dict[str, list[float]] = {}
    for run, value in runs.items():
        means.setdefault(run.split("_")[0], []).append(value)
    if len(means) == 1:
        return ""
    if len({len(values) for values in means.values()}) > 1:  # means over other folds
        return f", {len(means)} seeds"
    found = sorted(sum(values) / len(values) for values in means.values())
    return f", {len(means)} seeds from {100 * found[0]:.1f} to {100 * found[-1]:.1f}"


def _aim(cell: Cell, other: str, pair: Difference) -> str:
    """Whether the difference that was aimed at was reached, and whether that is sure."""
    least, (low, high) = cell.targets[other] / 100, pair.interval95
    met = "met" if pair.mean >= least - 1e-9 else "missed"
    sure = "" if low >= least or high < least else ", undecided at 95 %"
    return f"`{cell.name}` at least {points(least)} points to `{other}`: {met}{sure}"
