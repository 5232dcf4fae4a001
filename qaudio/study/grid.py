"""Studies: grids of recipes. What their results say is in `qaudio.study.answers`.

A study is a YAML file beside the recipes. Each of its cells is one of them with some settings
changed, on each benchmark; its results are an entry without weights in zoo/study/BENCHMARK/CELL,
or, where nothing is changed, the entry that the recipe names.
"""

from pathlib import Path
from typing import Any, TypeVar

import yaml
from msgspec import field

from qaudio.errors import EntryError, entry_errors
from qaudio.records import Name, Number, Record, Text, parse
from qaudio.zoo.schema import Results
from qaudio.zoo.store import read_results, zoo_folder

T = TypeVar("T", bound=Record)
FOLDER = "study"  # of the zoo, for results without weights


class Cell(Record, forbid_unknown_fields=True):
    """One network of the grid.

    Attributes:
        what: it is, in words.
        recipe: file name in the benchmark's folder of recipes.
        changes: settings of the recipe and their values, {benchmark} filled in; a mapping holds
            one value for each benchmark.
        against: cells that it is compared with.
        targets: for some of these, the least difference in points that was aimed at.
        seeds: None: the study's.
    """

    name: Text
    what: Text
    recipe: Text
    changes: dict[str, Any] = field(name="set", default_factory=dict)
    against: tuple[Text, ...] = ()
    targets: dict[Text, Number] = field(default_factory=dict)
    seeds: tuple[int, ...] | None = None


class Question(Record, forbid_unknown_fields=True):
    """Whether one cell scores above another."""

    ask: Text
    cell: Text
    than: Text


class Table(Record, forbid_unknown_fields=True):
    """Cells that are shown together."""

    title: Text
    cells: list[Text]


class StudyFile(Record, kw_only=True):
    """A study's YAML file; cells by name, each as `Cell` has them."""

    benchmarks: list[Name]
    seeds: tuple[int, ...]
    cells: dict[Text, dict[str, Any]]
    probes: dict[Name, Text] = field(default_factory=dict)
    questions: list[Question] = field(default_factory=list)
    reference: Text
    tables: list[Table]


class Study:
    """A grid of cells, what is asked of them, and which of them make a table.

    Attributes:
        name: of its file.
        benchmarks: that the cells are trained on.
        seeds: of every cell that has none of its own.
        probes: benchmarks that trained cells are scored on besides, each with the recipe, in its
            folder of recipes, whose data section is taken.
        reference: the cell that the picture is drawn to.
        tables: title and cells of each.

    Args:
        path: the YAML file, in the folder of recipes.

    Raises:
        EntryError: for a file that is missing, names cells or settings that there are not, or has
            targets that no comparison would show.
    """

    def __init__(self, path: str | Path):
        self.path, self.recipes, self.name = Path(path), Path(path).parent, Path(path).stem
        file = read_yaml(self.path, StudyFile, "a study")
        self.benchmarks, self.seeds, self.questions = file.benchmarks, file.seeds, file.questions
        self.probes, self.reference = file.probes, file.reference
        self.tables = [(table.title, table.cells) for table in file.tables]
        self.cells = {name: self._cell(name, given) for name, given in file.cells.items()}
        if self.probes and any(len(cell.seeds or self.seeds) > 1 for cell in self.cells.values()):
            raise EntryError(f"{path}: probes score one network of each cell: give one seed")
        named = {name for cell in self.cells.values() for name in (*cell.against, *cell.targets)}
        named |= {name for one in self.questions for name in (one.cell, one.than)}
        named |= {name for _, names in self.tables for name in names} | {self.reference}
        if named - self.cells.keys():
            raise EntryError(
                f"{path}: no such cells: {', '.join(sorted(named - self.cells.keys()))}"
            )

    def _cell(self, name: str, given: dict[str, Any]) -> Cell:
        """Raise EntryError for what a cell is given that would be overlooked."""
        with entry_errors(f"{self.path}: cell {name!r}"):
            cell = parse({"name": name, **given}, Cell)
        faults = [
            f"a target to {other!r}, which is not in its `against`"
            for other in cell.targets if other not in cell.against
        ]  # fmt: skip
        for setting, value in cell.changes.items():
            lacking = set(self.benchmarks) - value.keys() if isinstance(value, dict) else ()
            faults += [f"no {setting} for {benchmark}" for benchmark in sorted(lacking)]
        if faults:
            raise EntryError(f"{self.path}: cell {name!r}: {'; '.join(faults)}")
        return cell

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
            unwanted = [*([] if self.probes else ["weights"]), "keep_folds", "latency"]
            arguments += [f"--writer.{name}=false" for name in unwanted]
        return arguments

    def unprobed(self, cell: Cell, benchmark: str, zoo: Path) -> list[str]:
        """Names of `probes` that a cell has yet to be scored on: all, while it has weights."""
        found = self.results(cell, benchmark, zoo)
        scored = found.transfer if found and not self.has_weights(cell, benchmark, zoo) else []
        done = {one.benchmark for one in scored}
        return [name for name in self.probes if name not in done] if cell.changes else []

    def complete(self, cell: Cell, benchmark: str, zoo: Path) -> bool:
        """Whether every fold of a cell was run."""
        found = self.results(cell, benchmark, zoo)
        return found is not None and found.complete

    def has_weights(self, cell: Cell, benchmark: str, zoo: Path) -> bool:
        """Whether a cell can still be scored on other benchmarks."""
        return (zoo / self.entry(cell, benchmark) / "model.safetensors").is_file()

    def results(self, cell: Cell, benchmark: str, zoo: Path) -> Results | None:
        """The cell's results; None where it was not run."""
        return read_results(zoo / self.entry(cell, benchmark))


def read_yaml(path: Path, kind: type[T], what: str) -> T:
    """A YAML file as a record; raises EntryError for one that is not readable as what it is."""
    try:
        return parse(yaml.safe_load(path.read_text(encoding="utf-8")), kind)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise EntryError(f"{path}: not readable as {what} ({error})") from None


def study_entries(zoo: Path | None = None) -> list[Path]:
    """Folders of all results without weights."""
    folder = (zoo or zoo_folder()) / FOLDER
    found = (path.parent for path in sorted(folder.glob("*/*/config.json")))
    return [path for path in found if not path.name.startswith(".")]
