"""Cross-validation: every fold and seed of a recipe, and the entry that they give."""

from itertools import product
from pathlib import Path

import numpy as np

from qaudio.cards.tables import difference_text
from qaudio.errors import EntryError
from qaudio.paths import write_whole
from qaudio.training.baselines import beside_baselines
from qaudio.training.choice import prepared
from qaudio.training.cli import parse
from qaudio.training.recipe import Recipe
from qaudio.training.run import TrainingRun
from qaudio.zoo.schema import Results, Validation, ValidationScore
from qaudio.zoo.store import read_record, to_json


class CrossValidation:
    """`qaudio crossval`: trains the runs that are missing, then says what all of them give.

    Under `--data.holdout test` runs are recorded in the entry, under "validation" their scores in
    a file beside the logs.

    Args:
        arguments: of the command, without its name.

    Raises:
        EntryError: for settings that are not for crossval, and folds that do not exist.
    """

    def __init__(self, arguments: list[str]):
        self.arguments = arguments
        self.cli = parse(arguments, command="crossval")
        refuse_checkpoint(self.cli.config.ckpt_path)
        if self.cli.trainer.fast_dev_run:  # type: ignore[attr-defined]
            raise EntryError(
                "fast_dev_run is for train and fit: crossval writes what is to be kept"
            )
        if self.cli.config.overwrite:
            raise EntryError(
                "--overwrite is for train, which replaces one run: `qaudio train --data.fold FOLD "
                "--overwrite true`"
            )
        self.recipe, self.writer = self.cli.recipe(arguments, "crossval"), self.cli.writer
        every = range(1, self.cli.datamodule.folds + 1)
        self.folds = _listed(self.cli.config.folds) or list(every)
        self.seeds = _listed(self.cli.config.seeds)
        if not set(self.folds) <= set(every):
            protocol = self.cli.datamodule.protocol
            raise EntryError(f"--folds {self.folds}: {protocol} has {len(every)}")
        self.validates = self.cli.datamodule.holdout == "validation"
        path = Path(self.cli.config.runs) / f"{self.writer.entry}.validation.json"
        self.scores = ValidationScores(path, self.recipe)

    def run(self) -> None:
        """Train what is missing; then report."""
        done = self.done()
        for seed, fold in product(self.seeds, self.folds):
            if (seed, fold) not in done:
                self.train(seed, fold)
            elif self.cli.trainer.is_global_zero:
                print(f"seed {seed} fold {fold}: done before")
        if self.cli.trainer.is_global_zero:
            self.report()

    def done(self) -> set[tuple[int, int]]:
        """(seed, fold) of the runs that need not be trained again.

        Raises:
            EntryError: when those that are there are of another recipe, or of other recordings
                than lie under root now.
        """
        published = self.cli.datamodule.published  # others' recordings may have changed since
        if self.validates:
            rows = self.scores.rows() if published else []
            return {(row.seed, row.fold) for row in rows}
        done = self.writer.done(self.recipe)
        if done and not published:
            TrainingRun(self.cli, self.recipe).set_up()
            self.writer.check_split(self.cli.datamodule.split)
        return done

    def train(self, seed: int, fold: int) -> None:
        """Train, score and record a run."""
        own = [*self.arguments, f"--data.fold={fold}", f"--seed_everything={seed}"]
        run = prepared(own, self.recipe, "crossval")
        if self.validates:
            run.validate(keep=self.scores.add)
        else:
            run.train()

    def report(self) -> None:
        """Print what all runs give; bring the entry up to date and publish it where asked to."""
        if self.validates:
            scores = [row.score for row in self.scores.rows()]
            print(
                f"mean over {len(scores)} validation folds: {np.mean(scores):.4f} "
                f"({self.scores.path})"
            )
            return
        print("\n".join(summary(self.writer.refresh())))
        published = self.writer.publish()
        if published:
            print(published)


class ValidationScores:
    """The file of a recipe's scores, one for each seed and fold.

    Args:
        path: of the file; scores of other recipes in it are dropped when one is added.
    """

    def __init__(self, path: Path, recipe: Recipe):
        self.path, self.recipe = path, recipe.sha256[:12]

    def rows(self) -> list[ValidationScore]:
        """What the file says of each seed and fold; raises EntryError."""
        found = read_record(self.path, Validation)
        return [row for row in found.validation if row.recipe == self.recipe] if found else []

    def add(self, seed: int, fold: int, score: float, wall_seconds: float) -> None:
        """Write a score, in place of one of the same seed and fold."""
        row = ValidationScore(seed, fold, score, round(wall_seconds, 1), self.recipe)
        others = [one for one in self.rows() if (one.seed, one.fold) != (seed, fold)]
        rows = sorted([*others, row], key=lambda one: (one.seed, one.fold))
        write_whole(self.path, to_json(Validation(rows)))


def refuse_checkpoint(path: str | None) -> None:
    """Raise EntryError for a checkpoint where an entry would be written."""
    if path:
        raise EntryError(
            "--ckpt_path is for fit, validate and test: of a fold that is scored for an entry, it "
            "could hold weights that saw it. An interrupted run is resumed without it; to start "
            "from an entry, give --model.source"
        )


def summary(results: Results) -> list[str]:
    """Lines on an entry's results."""
    result, parent = results.result, results.parent
    low, high = result.interval95
    spread = "" if result.std is None else f" ± {result.std:.4f}"
    lines = [
        f"{results.entry}: {result.metric} {result.mean:.4f}{spread} over {len(result.folds)} "
        f"folds, 95 % interval {low:.4f}-{high:.4f}, {results.cost.params} parameters"
    ]
    if parent and parent.difference:
        lines.append(f"difference to {parent.name}: {difference_text(parent.difference)} points")
    return lines + beside_baselines(results)


def _listed(value: list[int] | int | None) -> list[int]:
    return [value] if isinstance(value, int) else value or []
