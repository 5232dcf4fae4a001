"""`qaudio study`: run what is missing of a grid of recipes, and make its tables."""

from __future__ import annotations

import argparse
import traceback
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from qaudio.commands import training
from qaudio.commands.common import Commands, is_user_error, numbers, print_error, replacing, usage
from qaudio.errors import EntryError
from qaudio.zoo.resolve import load
from qaudio.zoo.store import recipe_path

if TYPE_CHECKING:
    from qaudio.study.grid import Cell, Study


def register(command: Commands) -> None:
    """Add the subcommand."""
    sub = command(
        "study", _study, "train what is missing of a grid of recipes, then make its tables",
        "qaudio study --benchmark esc10 --data.root data/ESC-50 --cells 'kd_*'",
    )  # fmt: skip
    sub.add_argument("--config", default="recipes/study.yaml", help="the grid (%(default)s)")
    sub.add_argument("--benchmark", help="one of the grid's; default: all")
    sub.add_argument("--cells", default="*", help="names, with * (%(default)s)")
    sub.add_argument("--data.root", dest="root", help="the benchmark's recordings")
    sub.add_argument("--folds", type=numbers, help="such as [1,2]; default: all")
    sub.add_argument("--seeds", type=numbers, help="such as [0,1,2]; default: the grid's")
    sub.add_argument(
        "--probe", action="append", default=[], metavar="BENCHMARK=FOLDER",
        help="recordings of a benchmark that the grid's cells are scored on besides",
    )  # fmt: skip
    sub.add_argument("--zoo", default="zoo", help="folder of entries (%(default)s)")
    sub.add_argument("--runs", default="runs", help="logs and unfinished runs (%(default)s)")
    sub.add_argument("--list", action="store_true", help="say what is there and train nothing")
    sub.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE",
        help="change a setting of every cell, such as trainer.max_epochs=1",
    )  # fmt: skip


def _study(options: argparse.Namespace) -> int:
    from qaudio.study.grid import Study

    study, zoo = Study(recipe_path(options.config)), Path(options.zoo)
    if options.benchmark not in (None, *study.benchmarks):
        return usage("study", f"--benchmark is one of {', '.join(study.benchmarks)}")
    if options.root and not options.benchmark:
        return usage("study", "--data.root needs --benchmark: each has recordings of its own")
    chosen = [cell for cell in study.cells.values() if fnmatchcase(cell.name, options.cells)]
    if not chosen:
        return usage("study", f"--cells {options.cells!r} is none of {', '.join(study.cells)}")
    roots = dict(one.partition("=")[::2] for one in options.probe)
    if roots.keys() - study.probes.keys():
        known = ", ".join(f"{name}=FOLDER" for name in study.probes) or "nothing in this grid"
        return usage("study", f"--probe takes {known}")
    failed = 0
    for benchmark in [options.benchmark] if options.benchmark else study.benchmarks:
        for cell in chosen:
            wanted = options.seeds or cell.seeds or study.seeds
            missing = _missing(study, cell, benchmark, zoo, options.folds, wanted)
            unprobed = study.unprobed(cell, benchmark, zoo)
            state = f"to train: {missing}" if missing else "complete"
            if unprobed and not missing:
                state = f"to probe: {', '.join(unprobed)}"
                if not study.has_weights(cell, benchmark, zoo):
                    folder = zoo / study.entry(cell, benchmark)
                    state += f", but its weights are gone: delete {folder} to train it again"
                    unprobed = []
            print(f"{benchmark} {cell.name}: {state}", flush=True)
            if options.list or not (missing or unprobed):
                continue
            if set(unprobed) - roots.keys():
                needed = " ".join(f"--probe {name}=FOLDER" for name in unprobed)
                return usage("study", f"{cell.name} is scored on other benchmarks: give {needed}")
            arguments = [
                *study.arguments(cell, benchmark),
                f"--seeds={list(wanted)}",
                f"--writer.folder={options.zoo}",
                f"--runs={options.runs}",
                *([f"--folds={options.folds}"] if options.folds else []),
                *([f"--data.root={options.root}"] if options.root else []),
                *(f"--{change}" for change in options.set),
            ]
            try:
                code = training.run("crossval", arguments) if missing else 0
                failed += code
                if unprobed and study.complete(cell, benchmark, zoo):
                    _probe(study, zoo / study.entry(cell, benchmark), roots)
            except Exception as error:  # the other cells go on
                failed += 1
                if not is_user_error(error):
                    traceback.print_exc()
                print_error(EntryError(f"{benchmark} {cell.name}: {error}"))
    if not options.list:
        _write_documents(study, zoo)
    return 1 if failed else 0


def _probe(study: Study, entry: Path, roots: dict[str, str]) -> None:
    """Score a trained cell on other benchmarks; then its weights are no longer needed."""
    from qaudio.cards.entries import add_transfer, drop_weights
    from qaudio.evaluation.probe import LINEAR, ZERO_SHOT
    from qaudio.training.cli import recipe_data
    from qaudio.training.leakage import refuse_heard
    from qaudio.training.transfer import transfers

    model = load(entry)
    ways = (LINEAR, ZERO_SHOT) if model.task == "multilabel" else (LINEAR,)
    for benchmark, recipe in study.probes.items():
        config = str(study.recipes / benchmark / recipe)
        data = recipe_data(config, [f"--data.root={roots[benchmark]}"])
        refuse_heard(entry, data)
        for found in transfers(model, data, ways):
            add_transfer(entry, **vars(found))
            print(f"{entry.name}: {found.protocol}: {found.result.mean:.4f}", flush=True)
    drop_weights(entry)


def _missing(
    study: Study,
    cell: Cell,
    benchmark: str,
    zoo: Path,
    folds: list[int] | None,
    seeds: Sequence[int],
) -> str:
    """What of a cell is still to be trained, in words; empty where nothing is."""
    found = study.results(cell, benchmark, zoo)
    if found is None:
        return "all of it"
    if folds is not None:
        wanted = [f"seed{seed}_fold{fold}" for seed in seeds for fold in folds]
        return ", ".join(run for run in wanted if run not in found.result.runs)
    absent = [str(seed) for seed in seeds if seed not in found.seeds]
    parts = [] if found.complete else ["some folds"]
    if absent:
        parts.append(f"seed{'s' * (len(absent) > 1)} {', '.join(absent)}")
    return " and ".join(parts)


def _write_documents(study: Study, zoo: Path) -> None:
    """The tables in the recipes' README.md, and the picture in the zoo."""
    from qaudio.study.documents import documents

    for path, made_of in documents(study, zoo).items():
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        made = made_of(text)
        if made != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as file:
                file.write(made.encode())
            print(f"{path}: written")
