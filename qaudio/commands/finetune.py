"""`qaudio finetune`: from a folder of recordings to an entry of one's own, in one command."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from qaudio.commands import training
from qaudio.commands.common import Commands, amount, positive, usage
from qaudio.data.benchmarks.registry import benchmarks
from qaudio.errors import EntryError, InputError
from qaudio.evaluation.result import Result
from qaudio.paths import expanded
from qaudio.text import shown
from qaudio.zoo.resolve import PRETRAINED_ENTRY, locate
from qaudio.zoo.store import entry_name, read_results

if TYPE_CHECKING:
    from qaudio.data.benchmarks.folder import AudioFolder
    from qaudio.data.survey import Survey

RECIPE = "recipes/folder/finetune.yaml"
RECIPE_MULTILABEL = "recipes/folder/finetune_multilabel.yaml"
SECTIONS = ("--data.", "--model.", "--trainer.", "--writer.")
# Settings of the recipe that the command has options of its own for.
OWN = {
    "--data.root": "FOLDER", "--data.table": "--table", "--data.seconds": "--seconds",
    "--data.name": "--name", "--model.source": "--from", "--trainer.max_epochs": "--epochs",
    "--writer.folder": "--out", "--writer.entry": "--name",
}  # fmt: skip
NOISY = ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed")
SHOWN = 5  # unreadable files that are named
SMALL = 100  # recordings up to which every fold is held out once: one alone would say little


def register(command: Commands) -> None:
    """Add the subcommand."""
    sub = command(
        "finetune", _finetune, "an entry of your own from a folder of recordings",
        "qaudio finetune my_sounds\n"
        "my_sounds holds a folder of recordings for each class; any setting of the recipe can be "
        "overridden\nafter it: qaudio finetune my_sounds --model.lr 0.0003 "
        "--data.group_pattern '(speaker[0-9]+)'",
    )  # fmt: skip
    sub.add_argument("folder", metavar="FOLDER", help="recordings, a folder for each class")
    sub.add_argument("--table", help="CSV of the files' classes, in place of folders")
    sub.add_argument(
        "--from", dest="source", metavar="ENTRY", default=PRETRAINED_ENTRY,
        help="entry to start from: name, folder or hf-hub:org/name (%(default)s)",
    )  # fmt: skip
    sub.add_argument("--out", default="my_models", help="folder of new entries (%(default)s)")
    sub.add_argument("--name", help="of the recordings, part of the entry's name (FOLDER's)")
    sub.add_argument(
        "--probe-only",
        action="store_true",
        help="only say what a probe of the entry scores, in seconds; nothing is written",
    )
    sub.add_argument(
        "--show-recipe", action="store_true", help="print the recipe that would be run, and stop"
    )
    sub.add_argument(
        "--seconds", type=amount,
        help="of clips (the 95th percentile of their lengths, from 0.5 to 10)",
    )  # fmt: skip
    sub.add_argument("--epochs", type=positive, help="of training (the recipe's)")
    sub.add_argument(
        "--score", choices=("fold", "all"),
        help="hold out one fold (--data.fold), or each in turn with a training of its own (all "
        f"for at most {SMALL} recordings)",
    )  # fmt: skip
    sub.add_argument("--seed", type=int, default=0, help="of training (%(default)s)")
    sub.add_argument("--json", action="store_true", help="print the scores as JSON")
    sub.set_defaults(overrides=[])


def _finetune(options: argparse.Namespace) -> int:
    for one in options.overrides:
        name = one.partition("=")[0]
        if name in OWN:
            return usage("finetune", f"give {OWN[name]} in place of {name}")
        if name.startswith("--") and not name.startswith(SECTIONS):
            return usage("finetune", f"unknown option {name}")
        if name == "--data.holdout":
            return usage(
                "finetune", "validation folds are scored by crossval: give it what --show-recipe "
                "prints"
            )  # fmt: skip
        if name == "--data.fold":
            if options.score == "all":
                return usage("finetune", "--data.fold goes with --score fold")
            options.score = "fold"
    if options.seed < 0:
        return usage("finetune", f"--seed must be at least 0, not {options.seed}")
    # What is no answer goes to stderr where a script reads the answer.
    aside = options.json or options.show_recipe
    with contextlib.redirect_stdout(sys.stderr) if aside else contextlib.nullcontext():
        code, answer = _run(options)
    if answer is not None:
        print(answer)
    return code


def _run(options: argparse.Namespace) -> tuple[int, str | None]:
    """Do it; the exit code, and what `--json` or `--show-recipe` print."""
    from qaudio.data.survey import survey

    parent = locate(options.source)
    architecture = entry_name(parent).rpartition("/")[2].partition(".")[0]
    name = options.name or _name(Path(options.folder))
    entry = f"{architecture}.{name}_ft"
    written = Path(options.out) / entry
    recipe, data = _recordings(options, name)
    found = survey(data)
    every = data.folds > 1 and (
        options.score == "all" or (not options.score and len(found.seconds) <= SMALL)
    )
    if not (options.probe_only or options.show_recipe):
        _refuse_finished(written, None if every else f"seed{options.seed}_fold{data.fold}")
    seconds = options.seconds or found.clip_seconds
    arguments = [
        f"--config={recipe}", f"--data.root={options.folder}", f"--data.name={name}",
        f"--data.seconds={seconds:g}", f"--data.segment_hop={seconds:g}",
        f"--data.folds={found.folds}",
        f"--model.source={options.source}",
        f"--writer.entry={entry}", f"--writer.folder={options.out}",
        f"--runs={Path(options.out) / 'runs'}", "--trainer.enable_model_summary=false",
        f"--trainer.enable_progress_bar={str(sys.stderr.isatty()).lower()}",
    ]  # fmt: skip
    arguments += [f"--data.table={options.table}"] if options.table else []
    arguments += [f"--trainer.max_epochs={options.epochs}"] if options.epochs else []
    arguments += options.overrides
    _describe(options, found, seconds)
    one_fold = [*arguments, f"--seed_everything={options.seed}"]
    with _quiet():
        if options.show_recipe:
            return 0, _shown_recipe(one_fold, options)
        if options.probe_only:
            from qaudio.training.subcommands import probe

            scores = probe(one_fold)
        else:
            print(f"fine-tuning {options.source}; stop it at any time, the same command goes on")
            if every:
                code = training.run("crossval", [*arguments, f"--seeds=[{options.seed}]"])
            else:
                code = training.run("train", one_fold)
            if code:
                return code, None
            results = read_results(written)
            assert results is not None
            assert results.parent is not None
            scores = {results.parent.how.partition(" ")[0]: results.result}
            scores |= {row.method: row.result for row in results.baselines}
    if not options.probe_only:
        _print_next(written)
    return 0, _as_json(options, found, seconds, written, scores) if options.json else None


def _refuse_finished(written: Path, run: str | None) -> None:
    """Raise EntryError for what is there, unless it is an entry that lacks what is asked for.

    Args:
        written: where the entry is to be.
        run: that is asked for; None: of every fold.
    """
    found = read_results(written)
    unfinished = found is not None and not found.complete and run not in found.result.runs
    if written.exists() and not unfinished:
        raise EntryError(f"{written} is there already: give another --name or --out, or delete it")


def _name(folder: Path) -> str:
    """A name for recordings, by their folder: one that is part of an entry's."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", expanded(folder).resolve().name).strip("_")
    return f"my_{name}" if not name or name in benchmarks() else name


def _recordings(options: argparse.Namespace, name: str) -> tuple[str, AudioFolder]:
    """The shipped recipe that fits, and its DataModule for these recordings."""
    from qaudio.data.benchmarks.folder import AudioFolder
    from qaudio.training.cli import recipe_data

    arguments = [f"--data.root={options.folder}", f"--data.name={name}"]
    arguments += [f"--data.table={options.table}"] if options.table else []
    given, taking = [], False
    for one in options.overrides:
        if one.startswith("--"):
            taking = one.startswith("--data.") or one.startswith("--data=")
        given += [one] if taking else []
    # Two folds serve to look at recordings, however few there are.
    data = recipe_data(RECIPE, [*arguments, *given, "--data.folds=2"])
    if not isinstance(data, AudioFolder) or data.packed is not None:
        raise InputError("finetune looks at sound files: for other data there is `qaudio train`")
    return RECIPE if data.task == "multiclass" else RECIPE_MULTILABEL, data


def _describe(options: argparse.Namespace, found: Survey, seconds: float) -> None:
    lengths = sorted(found.seconds)
    middle = lengths[len(lengths) // 2]
    classes = ", ".join(f"{shown(label)} {count}" for label, count in found.counts.items())
    groups = (
        f"{found.groups} groups, none of which is on two sides of the split"
        if found.groups
        else "no groups: recordings of one source (speaker, place, take) may be on two sides of "
        "the split; --data.group_pattern or a table's column group keeps them together"
    )
    print(f"{options.folder}: {len(lengths)} recordings of {len(found.counts)} classes: {classes}")
    print(f"lengths: {lengths[0]:.3g} to {lengths[-1]:.3g} s, median {middle:.3g} s; {groups}")
    if found.unreadable:
        print(f"{len(found.unreadable)} left out: " + "; ".join(found.unreadable[:SHOWN])
              + ("; …" if len(found.unreadable) > SHOWN else ""))  # fmt: skip
    why = (
        "as given" if options.seconds else "the 95th percentile of their lengths, from 0.5 to 10 s"
    )
    print(f"clips are {seconds:g} s, {why}; longer recordings are cut, shorter ones padded")


def _shown_recipe(arguments: list[str], options: argparse.Namespace) -> str:
    from qaudio.training.subcommands import resolved

    table = f" --data.table {shlex.quote(options.table)}" if options.table else ""
    command = (
        f"qaudio train --config RECIPE.yaml --data.root {shlex.quote(options.folder)}{table} "
        f"--writer.folder {shlex.quote(options.out)} --seed_everything {options.seed}"
    )
    return f"# Run it: {command}\n{resolved(arguments)}".rstrip()


def _print_next(written: Path) -> None:
    entry = shlex.quote(str(written))
    print(f"written: {written}, whose README.md says how each class fares. Next:")
    print(f"  qaudio predict --model {entry} your_file.wav")
    print(f"  qaudio prune {entry} --ratio 0.5 --out {shlex.quote(f'{written}_pruned50')}")
    print(f"  qaudio export {entry} --out {shlex.quote(f'{written.name}.onnx')}")


def _as_json(
    options: argparse.Namespace, found: Survey, seconds: float, written: Path,
    scores: dict[str, Result],
) -> str:  # fmt: skip
    document = {
        "entry": None if options.probe_only else str(written), "from": options.source,
        "classes": found.counts, "groups": found.groups, "left_out": found.unreadable,
        "seconds": seconds,
    }  # fmt: skip
    return json.dumps(
        document | {"scores": {method: one.to_dict() for method, one in scores.items()}}
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what Lightning says of itself and of the machine."""
    training.quieten()
    loggers = [logging.getLogger(name) for name in NOISY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
