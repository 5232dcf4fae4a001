"""One run of a recipe: a fold and a seed, fitted, scored and recorded."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lightning import Callback
from lightning.pytorch.callbacks import EarlyStopping, LambdaCallback, ModelCheckpoint, Timer
from lightning.pytorch.loggers import CSVLogger

from qaudio.data.benchmarks.folder import AudioFolder
from qaudio.errors import EntryError
from qaudio.evaluation.predictions import Predictions
from qaudio.paths import write_whole
from qaudio.training.baselines import baselines, comparison, scored
from qaudio.training.bf16 import fast_bf16
from qaudio.training.checkpoints import (
    LAST,
    TrainedBy,
    WithinEpoch,
    last_checkpoint,
    local,
    start,
)
from qaudio.training.cli import TrainingCLI
from qaudio.training.pruning import take_averages
from qaudio.training.recipe import Recipe
from qaudio.training.results import ScoredRun, parent_of, sources_of
from qaudio.training.scoring import held_out_logits, validation_score
from qaudio.zoo.schema import Results


class TrainingRun:
    """A run of a recipe, resumed where it was interrupted.

    Attributes:
        trainer, module, data, writer: the objects that the recipe asks for.
        recipe: as it was resolved.
        folder: of its logs and its last checkpoint while it is not finished.
        last: that checkpoint.
        probe_kept: whether the probe that it starts from is scored, see `keep_probe`.
    """

    def __init__(self, cli: TrainingCLI, recipe: Recipe):
        self.trainer, self.module, self.data = cli.trainer, cli.model, cli.datamodule
        self.writer, self.recipe, self.config = cli.writer, recipe, cli.config
        self.seed, self.fold = int(cli.config.seed_everything), self.data.fold
        self.validates = self.data.holdout == "validation"
        name = f"seed{self.seed}_fold{self.fold}{'_validation' * self.validates}"
        self.folder = Path(cli.config.runs) / (self.writer.entry or "unnamed") / name
        self.last = self.folder / LAST
        self.probe_kept = False

    @property
    def writes(self) -> bool:
        """Whether it is this process that prints and writes; of several, one does."""
        return self.trainer.is_global_zero

    def keep_probe(self) -> None:
        """Train no epoch: the linear probe of `probe_first` is scored as it is."""
        self.probe_kept = True
        self.trainer.fit_loop.max_epochs = 0

    def fit(self, recorded: bool = True, more: Sequence[Callback] = ()) -> float:
        """Fit, from the last checkpoint where there is one; returns the seconds it took.

        Args:
            recorded: whether its score will be kept, as that of these settings.
            more: callbacks beside those of the recipe.

        Raises:
            EntryError: when that checkpoint was made by other settings, or training ended before
                its last pruning step, or before its first.
        """
        self._check_trainer()
        if self.config.ckpt_path:
            local(self.config.ckpt_path)  # before the data is read
        resumed = self.resumed()
        if self.writes:
            write_whole(self.folder / "recipe.yaml", self.recipe.text)
        trainer, timer = self.trainer, Timer()  # its count goes on when a run is resumed
        within = WithinEpoch(self.folder)
        trainer.callbacks = [  # type: ignore[attr-defined]
            *self._callbacks(), TrainedBy(self.recipe, recorded), *more,
            timer, last_checkpoint(self.folder), within,
        ]  # fmt: skip
        if not trainer.loggers:
            trainer.loggers = [CSVLogger(self.folder, name="log")]
        try:
            with fast_bf16(trainer):
                start(trainer, "fit", self.module, self.data, resumed)
            if within.ended:
                raise KeyboardInterrupt
        except (KeyboardInterrupt, SystemExit):  # Lightning makes the one into the other
            kept = "no epoch was ended"
            if self.last.is_file():
                kept = f"the same command goes on from {self.last}"
            raise KeyboardInterrupt(kept) from None
        if trainer.global_step == 0 and self.module.source is None:
            raise EntryError(
                "not one step was trained (max_epochs, max_steps, max_time, limit_train_batches): "
                "nothing is scored"
            )
        take_averages(trainer, self.module)
        if self.module.net.widths != self.module.final_widths:
            raise EntryError(
                "training ended before its last pruning step: nothing is scored. Give it more "
                "epochs or fewer --model.steps, and nothing that ends it early (max_steps, "
                f"max_time, EarlyStopping); delete {self.last} to start anew"
            )
        return timer.time_elapsed("train")

    def train(self) -> Results | None:
        """Fit, score and record; the entry's results, but of several processes in one only.

        Raises:
            EntryError: also for what the writer would refuse, as soon as it is known.
        """
        writer = self.writer
        writer.check(self.recipe)
        if (self.seed, self.fold) in writer.done(self.recipe) and not self.config.overwrite:
            raise EntryError(
                f"{writer.path}: holds seed {self.seed} fold {self.fold} already: "
                "--overwrite true trains it again and replaces it"
            )
        found: dict[str, Predictions] = {}

        def compare(*_: Any) -> None:
            """Once nothing more can be refused, and before what takes long."""
            if self.writes:
                found.update(self.baselines())

        checks = LambdaCallback(
            setup=lambda *_, **__: writer.check_split(self.data.split),
            on_fit_start=lambda *_: writer.check_net(self.module.net),
            on_train_epoch_start=lambda *_: writer.check_widths(self.module.final_widths),
        )
        seconds = self.fit(more=[checks, LambdaCallback(on_fit_start=compare)])
        logits = held_out_logits(self.trainer, self.module, self.data)
        if not self.writes:
            return None
        taught = self.module.distillation
        run = ScoredRun(
            net=self.module.net,
            split=self.data.split,
            seed=self.seed,
            predictions=Predictions.of_run(self.fold, self.seed, **logits),
            wall_seconds=seconds,
            precision=str(self.trainer.precision),
            device=self.trainer.strategy.root_device,
            parent=parent_of(self.module, self.probe_kept),
            sources=sources_of(self.module),
            teaching=taught.teaching(self.data) if taught else None,
            baselines=found,
        )
        results = writer.record(run, self.recipe)
        result = results.result
        score = result.runs[run.name]
        print(f"{writer.entry} {run.name}: {result.metric} {score:.4f} ({seconds:.0f} s)")
        self.last.unlink(missing_ok=True)
        return results

    def validate(self, keep: Callable[[int, int, float, float], None] | None = None) -> None:
        """Fit, then score the validation fold; the test fold is left alone.

        Args:
            keep: is given seed, fold, score and seconds of training.
        """
        seconds = self.fit()
        score = validation_score(self.trainer, self.module, self.data)
        if not self.writes:
            return
        print(
            f"seed {self.seed} fold {self.fold}: validation {score:.4f} ({seconds:.0f} s)",
            flush=True,
        )
        if keep is not None:
            keep(self.seed, self.fold, score, seconds)
        self.last.unlink(missing_ok=True)

    def try_out(self) -> None:
        """Lightning's fast_dev_run: a few batches, of which nothing is kept."""
        with fast_bf16(self.trainer):
            start(self.trainer, "fit", self.module, self.data)
        print("fast_dev_run: it trains; nothing is kept")

    def set_up(self) -> None:
        """Read the recordings at the model's rate."""
        self.data.sample_rate = self.data.sample_rate or self.module.sample_rate
        self.data.setup()

    def baselines(self) -> dict[str, Predictions]:
        """Compute and print what the source scores untrained on recordings of one's own."""
        if not isinstance(self.data, AudioFolder):
            return {}
        print(f"held out: {self.data.held_out}", flush=True)
        if self.module.source is None:
            return {}
        found = baselines(self.module.source, self.data)
        print("\n".join(comparison(scored(found, self.module.task))), flush=True)
        return found

    def checkpoint(self) -> str | None:
        """Checkpoint to evaluate; None scores a source entry as it is."""
        if self.config.ckpt_path or self.last.is_file():
            return str(self.config.ckpt_path or self.last)
        if self.module.source is None:
            raise EntryError(
                f"nothing is trained yet: no {self.last}; run `qaudio fit` with the same "
                "arguments, or give --ckpt_path or --model.source"
            )
        return None

    def _check_trainer(self) -> None:
        """Refuse what Lightning would end a training for, when it comes to it."""
        if self.trainer.overfit_batches:  # type: ignore[attr-defined]
            raise EntryError(
                "overfit_batches is not for these loaders, which order their clips themselves: "
                "give --trainer.limit_train_batches"
            )
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            stops = isinstance(callback, EarlyStopping) and callback.strict
            if stops and callback.monitor.startswith("val_") and not self.validates:
                raise EntryError(
                    f"{type(callback).__name__} looks at {callback.monitor}, but under "
                    "--data.holdout test nothing is validated: monitor train_loss, or give "
                    "--data.holdout validation"
                )

    def resumed(self) -> str | Path | None:
        """The checkpoint to go on from; raises EntryError for one of other settings.

        None where the probe is kept: what was trained, as by `qaudio fit`, is not wanted.
        """
        if self.config.ckpt_path or self.probe_kept or not self.last.is_file():
            return self.config.ckpt_path
        made_by = self.folder / "recipe.yaml"
        changed = made_by.is_file() and self.recipe.changed(made_by.read_text(encoding="utf-8"))
        if changed:
            raise EntryError(
                f"{self.last}: an unfinished run with other settings ({', '.join(changed)}); "
                f"delete it to start anew, or go on from it by qaudio fit --ckpt_path {self.last}"
            )
        return self.last

    def _callbacks(self) -> list[Callback]:
        """Those of the recipe and the Trainer, without the checkpoints that it makes by itself."""
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        if any("ModelCheckpoint" in str(one) for one in self.config.trainer.callbacks or []):
            return callbacks
        return [one for one in callbacks if type(one) is not ModelCheckpoint]
