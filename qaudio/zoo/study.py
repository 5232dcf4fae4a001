"""Studies: grids of recipes, and the tables that their results give.

A study is a YAML file beside the recipes. Each of its cells is one of them with some settings
changed, on each benchmark; its results are an entry without weights in zoo/study/BENCHMARK/CELL,
or, where nothing is changed, the entry that the recipe names.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from qaudio.zoo.benchmarks import DATASETS
from qaudio.zoo.catalog import EntryError, read_json, zoo_folder
from qaudio.zoo.results import Predictions, paired_difference
from qaudio.zoo.tables import difference_text, interval, points, score

FOLDER = "study"  # of the zoo, for results without weights
HEAD = (
    "| cell | score | 95 % interval | parameters | MACs (10 s) | difference in points (95 %) |\n"
    "|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class Cell:
    """One network of the grid.

    Attributes:
        name: of the cell.
        what: it is, in words.
        recipe: file name in the benchmark's folder of recipes.
        changes: settings of the recipe and their values, {benchmark} filled in; a mapping holds
            one value for each benchmark.
        against: cells that it is compared with.
        targets: for some of these, the least difference in points that was aimed at.
        seeds: None: the study's.
    """

    name: str
    what: str
    recipe: str
    changes: dict[str, Any]
    against: tuple[str, ...]
    targets: dict[str, float]
    seeds: tuple[int, ...] | None = None


class Study:
    """A grid of cells and the tables made of them.

    Args:
        path: the YAML file, in the folder of recipes.

    Raises:
        EntryError: for a file that is missing or names cells or settings that there are not.
    """

    def __init__(self, path: str | Path):
        self.recipes = Path(path).parent
        try:
            document = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
            self.benchmarks: list[str] = document["benchmarks"]
            self.seeds: tuple[int, ...] = tuple(document["seeds"])
            self.cells = {
                name: Cell(
                    name, one["what"], one["recipe"], one.get("set", {}),
                    tuple(one.get("against", ())), one.get("targets", {}), one.get("seeds"),
                )
                for name, one in document["cells"].items()
            }  # fmt: skip
            self.reference: str = document["reference"]  # the cell that the picture is drawn to
            self.tables: list[tuple[str, list[str]]] = [
                (one["title"], one["cells"]) for one in document["tables"]
            ]
        except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
            raise EntryError(f"{path}: not readable as a study ({error!r})") from None
        named = {name for cell in self.cells.values() for name in (*cell.against, *cell.targets)}
        named |= {name for _, names in self.tables for name in names} | {self.reference}
        if named - self.cells.keys():
            raise EntryError(
                f"{path}: no such cells: {', '.join(sorted(named - self.cells.keys()))}"
            )

    def entry(self, cell: Cell, benchmark: str) -> str:
        """Where the cell's results lie, below the zoo's folder."""
        if cell.changes:
            return f"{FOLDER}/{benchmark}/{cell.name}"
        recipe = yaml.safe_load((self.recipes / benchmark / cell.recipe).read_text("utf-8"))
        return recipe["writer"]["entry"]

    def arguments(self, cell: Cell, benchmark: str) -> list[str]:
        """The arguments of `qaudio crossval` that train the cell."""
        arguments = [f"--config={self.recipes / benchmark / cell.recipe}"]
        for name, value in cell.changes.items():
            if isinstance(value, dict):
                value = value[benchmark]
            if isinstance(value, str):
                value = value.format(benchmark=benchmark)
            arguments.append(f"--{name}={'null' if value is None else value}")
        if cell.changes:
            arguments.append(f"--writer.entry={self.entry(cell, benchmark)}")
            arguments += [f"--writer.{name}=false" for name in ("weights", "keep_folds", "latency")]
        return arguments

    def results(self, cell: Cell, benchmark: str, zoo: Path) -> dict[str, Any] | None:
        """The cell's results.json; None where it was not run."""
        path = zoo / self.entry(cell, benchmark) / "results.json"
        return read_json(path) if path.is_file() else None

    def render(self, zoo: Path) -> str:
        """All tables, benchmark by benchmark, in Markdown."""
        parts = []
        for benchmark in self.benchmarks:
            parts.append(f"### {DATASETS.get(benchmark, {'title': benchmark})['title']}")
            for title, names in self.tables:
                parts += self._table(title, [self.cells[name] for name in names], benchmark, zoo)
        return "\n\n".join(parts)

    def _table(self, title: str, cells: list[Cell], benchmark: str, zoo: Path) -> list[str]:
        rows, undecided, targets = [HEAD], [], []
        for cell in cells:
            found = self.results(cell, benchmark, zoo)
            name = f"`{cell.name}`: {cell.what}"
            if found is None:
                rows.append(f"| {name} | not run | | | | |")
                continue
            result, cost, differences = found["result"], found["cost"], []
            for other in cell.against:
                pair = self.difference(cell, self.cells[other], benchmark, zoo)
                if pair is None:
                    continue
                fewer = pair["runs"] < len(result["runs"])
                over = f" over {pair['runs']} of its runs" if fewer else ""
                differences.append(f"{difference_text(pair)} to `{other}`{over}")
                low, high = pair["interval95"]
                if low <= 0 <= high:
                    undecided.append(f"`{cell.name}` against `{other}`")
                if other in cell.targets:
                    targets.append(_aim(cell, other, pair))
            columns = [
                name,
                score(found, _seeds(result["runs"])),
                interval(result["interval95"]),
                f"{cost['params']:,}",
                f"{cost['macs'] / 1e9:.3f} G",
                "; ".join(differences),
            ]
            rows.append(f"| {' | '.join(columns)} |")
        parts = [f"**{title}**", "\n".join(rows)]
        if undecided:
            parts.append(f"Undecided at 95 %: {', '.join(undecided)}.")
        if targets:
            parts.append(f"Targets: {'; '.join(targets)}.")
        return parts

    def difference(
        self, cell: Cell, other: Cell, benchmark: str, zoo: Path
    ) -> dict[str, Any] | None:
        """Paired difference of two cells over the runs they share; None where there are none."""
        files = [zoo / self.entry(one, benchmark) / "predictions.npz" for one in (cell, other)]
        if not all(file.is_file() for file in files):
            return None
        ours, theirs = (Predictions.load(file) for file in files)
        if not set(ours.runs()) & set(theirs.runs()):
            return None
        return paired_difference(ours, theirs)


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


def _aim(cell: Cell, other: str, pair: dict[str, Any]) -> str:
    """Whether the difference that was aimed at was reached, and whether that is sure."""
    least, (low, high) = cell.targets[other] / 100, pair["interval95"]
    met = "met" if pair["mean"] >= least - 1e-9 else "missed"
    sure = "" if low >= least or high < least else ", undecided at 95 %"
    return f"`{cell.name}` at least {points(least)} points to `{other}`: {met}{sure}"


def study_entries(zoo: Path | None = None) -> list[Path]:
    """Folders of all results without weights."""
    folder = (zoo or zoo_folder()) / FOLDER
    found = (path.parent for path in sorted(folder.glob("*/*/config.json")))
    return [path for path in found if not path.name.startswith(".")]
