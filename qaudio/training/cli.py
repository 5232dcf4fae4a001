"""`qaudio train|crossval|fit|validate|test`: LightningCLI, runs that resume, entries at the end."""

from __future__ import annotations

import inspect
import logging
import os
import shlex
import signal
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace
from jsonargparse.typing import import_object
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, LambdaCallback, ModelCheckpoint, Timer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger

from qaudio.data.benchmarks.folder import AudioFolder
from qaudio.data.datamodule import AudioDataModule
from qaudio.errors import EntryError, InputError, QaudioError
from qaudio.evaluation.bootstrap import summarise
from qaudio.evaluation.predictions import Predictions
from qaudio.paths import replacing
from qaudio.training.baselines import baselines, beside_baselines, comparison, scored
from qaudio.training.bf16 import fast_bf16
from qaudio.training.callbacks import take_averages
from qaudio.training.checkpoints import (
    LAST,
    TrainedBy,
    WithinEpoch,
    last_checkpoint,
    local,
    start,
)
from qaudio.training.classifier import Classifier
from qaudio.training.recipe import Recipe, scored_data
from qaudio.training.recorder import EntryWriter, Run, read_validation, write_validation
from qaudio.zoo.resolve import locate
from qaudio.zoo.store import entry_name, read_config, read_results, recipes_folder

# Where and which run, not what is run: left out of the recipe that an entry keeps.
VOLATILE = (
    "seed_everything",
    "folds",
    "seeds",
    "runs",
    "ckpt_path",
    "overwrite",
    "config",
    "data.root",
    "data.table",
    "data.audio",
    "data.fold",
    "data.cache_dir",
    "data.packed",
    "data.download",
    "data.num_workers",
    "trainer.default_root_dir",
    "trainer.logger",
    "trainer.accelerator",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "writer.folder",
    "writer.push_to",
)


# What says which runs in crossval, and its like for one run.
RUNS_OF = (("--folds", "--data.fold"), ("--seeds", "--seed_everything"))


class TrainingCLI(LightningCLI):
    """LightningCLI with the entry writer and the folds and seeds of a cross-validation."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_class_arguments(EntryWriter, "writer")
        parser.add_argument("--folds", type=list[int] | int | None, help="[1,2] or 1; default: all")
        parser.add_argument("--seeds", type=list[int] | int, default=[0], help="crossval's seeds")
        parser.add_argument(
            "--runs", type=str, default="runs", help="folder of logs and unfinished runs"
        )
        parser.add_argument(
            "--overwrite", type=bool, default=False, help="train replaces a run that is there"
        )
        parser.add_argument(
            "--ckpt_path", type=str | None, default=None, help="checkpoint for fit, validate, test"
        )

    def before_instantiate_classes(self) -> None:
        """Refuse null where a setting takes none: jsonargparse lets it through."""
        for section in ("model", "data", "writer"):
            given = self.config[section]
            if given is None:
                continue
            kind: type = EntryWriter
            if section != "writer":
                kind, given = import_object(given.class_path), given.init_args
            _refuse_null(section, kind, given)


def _refuse_null(section: str, kind: type, given: Namespace) -> None:
    """Raise EntryError for settings of a class that are null, and must not be."""
    for name, value in vars(given).items():
        if value is None and not _takes_none(kind, name):
            raise EntryError(
                f"{section}.{name} is null, and takes a value: leave it out for its default"
            )


def _takes_none(kind: type, name: str) -> bool:
    """Whether a class' argument, its own or one that it hands on, may be None."""
    for one in kind.__mro__:
        known = inspect.signature(one.__init__).parameters.get(name)  # type: ignore[misc]
        if known is not None:
            return known.annotation is known.empty or "None" in str(known.annotation)
    return True


def main(subcommand: str, arguments: list[str]) -> int:
    """Run a training command; returns the exit code.

    Raises:
        EntryError: for what it refuses, such as `--ckpt_path` where an entry would be written:
            which clips those weights have seen is not known.
    """
    if subcommand == "test" and arguments and not arguments[0].startswith("-"):
        return test_entry(arguments[0], arguments[1:])
    if subcommand == "crossval":
        return crossval(arguments)
    for name, own in RUNS_OF:
        if _given(arguments, name):
            raise EntryError(f"{name} is for crossval; {subcommand} runs one: {own} N")
    cli = _parse(arguments, command=subcommand)
    if subcommand in ("train", "fit") and cli.trainer.fast_dev_run:  # type: ignore[attr-defined]
        cli.model.look_in(Path(cli.config.writer.folder))
        with fast_bf16(cli.trainer):
            start(cli.trainer, "fit", cli.model, cli.datamodule)
        print("fast_dev_run: it trains; nothing is kept")
    elif subcommand == "train":
        _refuse_checkpoint(cli)
        if cli.datamodule.holdout == "validation":
            _validated(cli)
        else:
            results = _train(cli, _recipe(cli, arguments, "train"))
            if results is not None:
                for line in beside_baselines(results):
                    print(line)
                _publish(_writer(cli))
    elif subcommand == "fit":
        seconds = _fit(cli, recorded=False)
        print(f"{seconds:.0f} s; checkpoint in {_run_folder(cli) / LAST}")
        if not cli.config.ckpt_path:  # train refuses one
            validating = cli.datamodule.holdout == "validation"
            does = "scores it" if validating else "scores it and writes the entry"
            print(f"`qaudio train` with the same arguments {does}")
    else:
        if subcommand == "test":
            cli.datamodule.refuse_unless_testing()
        else:
            cli.datamodule.refuse_unless_validating()
        cli.model.look_in(Path(cli.config.writer.folder))
        how: Any = subcommand
        with fast_bf16(cli.trainer):
            start(cli.trainer, how, cli.model, cli.datamodule, _checkpoint(cli))
    return 0


def crossval(arguments: list[str]) -> int:
    """Every fold × seed that the entry lacks; then its results."""
    for name, own in RUNS_OF:
        if _given(arguments, own):
            raise EntryError(f"{own} is for train; crossval takes {name} [1,2]")
    first = _parse(arguments, command="crossval")
    _refuse_checkpoint(first)
    if first.trainer.fast_dev_run:  # type: ignore[attr-defined]
        raise EntryError("fast_dev_run is for train and fit: crossval writes what is to be kept")
    recipe = _recipe(first, arguments, "crossval")
    every = range(1, first.datamodule.folds + 1)
    folds = _listed(first.config.folds) or list(every)
    if not set(folds) <= set(every):
        raise EntryError(f"--folds {folds}: {first.datamodule.protocol} has {len(every)}")
    validating = first.datamodule.holdout == "validation"
    writer = _writer(first)
    path = Path(first.config.runs) / f"{writer.entry}.validation.json"
    rows = []
    if validating and first.datamodule.published:  # others' recordings may have changed since
        rows = read_validation(path, recipe.sha256[:12])
    done = {(row["seed"], row["fold"]) for row in rows} if validating else writer.done(recipe)
    if done and not validating and not first.datamodule.published:
        _check_recordings(first, writer)
    for seed in _listed(first.config.seeds):
        for fold in folds:
            if (seed, fold) in done:
                if first.trainer.is_global_zero:
                    print(f"seed {seed} fold {fold}: done before")
                continue
            cli = _parse([*arguments, f"--data.fold={fold}", f"--seed_everything={seed}"])
            if validating:
                rows = _validated(cli, path)
            else:
                _train(cli, recipe)
    if not first.trainer.is_global_zero:
        return 0
    if validating:
        mean = np.mean([row["score"] for row in rows])
        print(f"mean over {len(rows)} validation folds: {mean:.4f} ({path})")
    else:
        _print_results(writer.refresh())
        _publish(writer)
    return 0


def test_entry(source: str, arguments: list[str]) -> int:
    """Score an entry's weights on their held-out fold, from the audio files."""
    folder = locate(source)
    results = read_results(folder)
    if results is None or not (folder / "recipe.yaml").is_file():
        raise EntryError(f"{entry_name(folder)}: has no recipe and results to test against")
    grouped = _given(arguments, "--data.group_pattern")
    data = scored_data(folder, results["card_fold"], grouped)
    cli = _parse(
        arguments,
        {
            "model": {
                "class_path": "qaudio.Classifier",
                "init_args": {"source": str(folder), "task": read_config(folder)["task"]},
            },
            "data": data,
            "seed_everything": results["card_seed"],
        },
    )
    fold, seed = cli.datamodule.fold, results["card_seed"]
    predictions = Predictions.of_run(fold, seed, **_score(cli))
    metric, name = results["result"]["metric"], f"seed{seed}_fold{fold}"
    score = summarise(predictions, metric)["runs"][name]
    recorded = results["result"]["runs"].get(name)
    print(f"{folder.name} {name}: {metric} {score}, recorded {recorded}")
    # Of two clips whose logits differ by rounding either may rank above the other.
    allowed = 1e-4 if metric == "mAP" else 0
    return 0 if recorded is not None and abs(score - recorded) <= allowed else 1


def recipe_data(recipe: str, arguments: list[str]) -> AudioDataModule:
    """The DataModule of a recipe's data section, with settings overridden.

    Raises:
        EntryError: for a recipe that cannot be read or has no data section.
    """
    path = _at_hand(recipe)
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))["data"]
    except (OSError, yaml.YAMLError, UnicodeError, KeyError, TypeError) as error:
        raise EntryError(f"{recipe}: no recipe with a data section ({error!r})") from None
    parser = ArgumentParser(prog="qaudio probe", exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_subclass_arguments(AudioDataModule, "data", required=True)
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "data.yaml"
        plain.write_text(yaml.safe_dump({"data": data}), encoding="utf-8")
        try:
            found = parser.parse_args([f"--config={plain}", *arguments])
        except ArgumentError as error:
            raise EntryError(f"{recipe}: {error}") from None
        _refuse_null("data", import_object(found.data.class_path), found.data.init_args)
        try:
            return parser.instantiate_classes(found).data
        except ValueError as error:
            raise _refused(error) from None


def _given(arguments: list[str], name: str) -> bool:
    return any(argument.split("=")[0] == name for argument in arguments)


def _listed(value: list[int] | int | None) -> list[int]:
    return [value] if isinstance(value, int) else value or []


def _parse(
    arguments: list[str], config: dict[str, Any] | None = None, command: str = "train"
) -> TrainingCLI:
    """Parse and instantiate; `config` takes the place of a --config file."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [_at_hand(argument) for argument in arguments]
        if config is not None:
            path = Path(folder) / "recipe.yaml"
            path.write_text(yaml.safe_dump(config), encoding="utf-8")
            arguments = [f"--config={path}", *arguments]
        try:
            return TrainingCLI(
                Classifier,
                AudioDataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                save_config_callback=None,
                seed_everything_default=0,
                trainer_defaults={"logger": False},
                run=False,
                args=arguments,
                parser_kwargs={
                    "prog": f"qaudio {command}",
                    "usage": f"qaudio {command} --config RECIPE [--SETTING VALUE ...]",
                },
            )
        except ValueError as error:
            raise _refused(error) from None


def _refused(error: ValueError) -> QaudioError:
    """What a constructor refuses, which jsonargparse buries in a list of all its settings."""
    said = (str(error).startswith("Does not validate") and error.__cause__) or error
    return said if isinstance(said, QaudioError) else InputError(str(said))


def _at_hand(argument: str) -> str:
    """An argument whose `recipes/…` is the package's, where there is no such file at hand."""
    option, equals, path = argument.rpartition("=")
    shipped = recipes_folder() / path.removeprefix("recipes/")
    if path.startswith("recipes/") and not Path(path).exists() and shipped.is_file():
        return f"{option}{equals}{shipped}"
    return argument


def _check_recordings(cli: TrainingCLI, writer: EntryWriter) -> None:
    """Refuse to go on from runs of other recordings than those that lie under root now."""
    _set_up(cli)
    writer.check_split(cli.datamodule.split)


def _set_up(cli: TrainingCLI) -> None:
    """Read the recordings as the model will hear them."""
    cli.model.look_in(Path(cli.config.writer.folder))
    cli.datamodule.sample_rate = cli.datamodule.sample_rate or cli.model.sample_rate
    cli.datamodule.setup()


def _check_trainer(cli: TrainingCLI) -> None:
    """Refuse what Lightning would end a training for, when it comes to it; raises EntryError."""
    if cli.trainer.overfit_batches:  # type: ignore[attr-defined]
        raise EntryError(
            "overfit_batches is not for these loaders, which order their clips themselves: "
            "give --trainer.limit_train_batches"
        )
    for callback in cli.trainer.callbacks:  # type: ignore[attr-defined]
        stops = isinstance(callback, EarlyStopping) and callback.strict
        if stops and callback.monitor.startswith("val_") and cli.datamodule.holdout == "test":
            raise EntryError(
                f"{type(callback).__name__} looks at {callback.monitor}, but under --data.holdout "
                "test nothing is validated: monitor train_loss, or give --data.holdout validation"
            )


def _refuse_checkpoint(cli: TrainingCLI) -> None:
    if cli.config.ckpt_path:
        raise EntryError(
            "--ckpt_path is for fit, validate and test: of a fold that is scored for an entry, it "
            "could hold weights that saw it. An interrupted run is resumed without it; to start "
            "from an entry, give --model.source"
        )


def _writer(cli: TrainingCLI) -> EntryWriter:
    return EntryWriter(**cli.config.writer.as_dict())


def _recipe(cli: TrainingCLI, arguments: list[str], subcommand: str) -> Recipe:
    def resolved(config: Namespace) -> str:
        text = cli.parser.dump(config, skip_none=True, skip_check=True)
        plain, whole = yaml.safe_load(text), _whole(cli, config)
        _keep_nulls(plain, whole, _whole(cli, cli.parser.parse_string(text)))
        for key in VOLATILE:
            section, _, name = key.rpartition(".")
            holder = plain.get(section, {}) if section else plain
            holder.get("init_args", holder).pop(name, None)
        return yaml.safe_dump(plain, sort_keys=False)

    paths = [str(path) for path in cli.config.config or []]
    command = f"qaudio {subcommand} {_shown(arguments)} --data.root PATH"
    if getattr(cli.datamodule, "table", None) is not None:
        command += " --data.table PATH"
    return Recipe(
        resolved(cli.config),
        Path(paths[0]) if paths else None,
        command,
        renew=lambda text: resolved(cli.parser.parse_string(text)),
    )


def _whole(cli: TrainingCLI, config: Namespace) -> dict[str, Any]:
    return yaml.safe_load(cli.parser.dump(config, skip_none=False, skip_check=True))


def _keep_nulls(plain: dict[str, Any], whole: dict[str, Any], read: dict[str, Any]) -> None:
    """Put those nulls into a recipe without which it would be read as another.

    Args:
        plain: the recipe without nulls.
        whole: the recipe.
        read: what `plain` is read as: where it lacks a setting, that has its default.
    """
    for name, value in whole.items():
        if isinstance(value, dict) and isinstance(read.get(name), dict):
            inner = plain.get(name, {})
            _keep_nulls(inner, value, read[name])
            if inner:
                plain[name] = inner
        elif value is None and read.get(name) is not None:
            plain[name] = None


def _shown(arguments: list[str]) -> str:
    """The arguments without those that say where and which run."""
    hidden = set(VOLATILE) - {"config"}
    kept, skip = [], False
    for argument in arguments:
        if argument.endswith((".yaml", ".yml")):
            argument = argument.replace(os.sep, "/")  # which every system reads
        if argument.startswith("--"):
            name, _, value = argument[2:].partition("=")
            skip = name in hidden
            if skip:
                skip = not value
                continue
            kept.append(argument)
        elif skip:
            skip = False
        else:
            kept.append(argument)
    return shlex.join(kept)


def _run_folder(cli: TrainingCLI) -> Path:
    name = f"seed{cli.config.seed_everything}_fold{cli.datamodule.fold}"
    if cli.datamodule.holdout == "validation":
        name += "_validation"
    return Path(cli.config.runs) / str(cli.config.writer.entry or "unnamed") / name


def _checkpoint(cli: TrainingCLI) -> str | None:
    """Checkpoint to evaluate; None scores a source entry as it is."""
    last = _run_folder(cli) / LAST
    if cli.config.ckpt_path or last.is_file():
        return str(cli.config.ckpt_path or last)
    if cli.model.source is None:
        raise EntryError(
            f"nothing is trained yet: no {last}; run `qaudio fit` with the same arguments, or give "
            "--ckpt_path or --model.source"
        )
    return None


def _fit(
    cli: TrainingCLI,
    writer: EntryWriter | None = None,
    recorded: bool = True,
    more: Sequence[Callback] = (),
) -> float:
    """Fit, from the last checkpoint where there is one; returns the seconds it took.

    Args:
        cli: what was asked for.
        writer: of the entry that will take the run: what it would refuse then is refused as
            soon as it is known.
        recorded: whether its score will be kept, as that of these settings.
        more: callbacks beside those of the recipe.

    Raises:
        EntryError: when that checkpoint was made by other settings, the writer refuses the run, or
            it ended before its last pruning step, or before its first.
    """
    _check_trainer(cli)
    if cli.config.ckpt_path:
        local(cli.config.ckpt_path)  # before the data is read
    cli.model.look_in(Path(cli.config.writer.folder))
    folder = _run_folder(cli)
    last, made_by, recipe = folder / LAST, folder / "recipe.yaml", _recipe(cli, [], "fit")
    resumed = cli.config.ckpt_path or (last if last.is_file() else None)
    if resumed == last and made_by.is_file():
        changed = recipe.changed(made_by.read_text(encoding="utf-8"))
        if changed:
            raise EntryError(
                f"{last}: an unfinished run with other settings ({', '.join(changed)}); delete it "
                f"to start anew, or go on from it by qaudio fit --ckpt_path {last}"
            )
    if cli.trainer.is_global_zero:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(made_by) as file:
            file.write(recipe.text.encode())
    others = [*cli.trainer.callbacks, TrainedBy(recipe, recorded)]  # type: ignore[attr-defined]
    if not any("ModelCheckpoint" in str(c) for c in cli.config.trainer.callbacks or []):
        others = [c for c in others if type(c) is not ModelCheckpoint]  # the Trainer's own
    timer = Timer()  # its count goes on when a run is resumed
    if writer is not None:
        others.append(
            LambdaCallback(
                setup=lambda *_, **__: writer.check_split(cli.datamodule.split),
                on_fit_start=lambda *_: writer.check_net(cli.model.net),
                on_train_epoch_start=lambda *_: writer.check_widths(cli.model.final_widths),
            )
        )
    within = WithinEpoch(folder)
    cli.trainer.callbacks = [*others, *more, timer, last_checkpoint(folder), within]  # type: ignore[attr-defined]
    if not cli.trainer.loggers:
        cli.trainer.loggers = [CSVLogger(folder, name="log")]
    try:
        with fast_bf16(cli.trainer):
            start(cli.trainer, "fit", cli.model, cli.datamodule, resumed)
        if within.ended:
            raise KeyboardInterrupt
    except (KeyboardInterrupt, SystemExit):  # Lightning makes the one into the other
        kept = f"the same command goes on from {last}" if last.is_file() else "no epoch was ended"
        raise KeyboardInterrupt(kept) from None
    if cli.trainer.global_step == 0 and cli.model.source is None:
        raise EntryError(
            "not one step was trained (max_epochs, max_steps, max_time, limit_train_batches): "
            "nothing is scored"
        )
    take_averages(cli.trainer, cli.model)
    if cli.model.net.widths != cli.model.final_widths:
        raise EntryError(
            "training ended before its last pruning step: nothing is scored. Give it more epochs "
            "or fewer --model.steps, and nothing that ends it early (max_steps, max_time, "
            f"EarlyStopping); delete {last} to start anew"
        )
    return timer.time_elapsed("train")


def _train(cli: TrainingCLI, recipe: Recipe) -> dict[str, Any] | None:
    """Fit, score and record a run; the entry's results, but of several processes in one only."""
    writer = _writer(cli)
    writer.check(recipe)
    run = (int(cli.config.seed_everything), cli.datamodule.fold)
    if run in writer.done(recipe) and not cli.config.overwrite:
        raise EntryError(
            f"{writer.path}: holds seed {run[0]} fold {run[1]} already: --overwrite true trains it "
            "again and replaces it"
        )
    found: dict[str, Predictions] = {}

    def compare(*_: Any) -> None:
        """Once nothing more can be refused, and before what takes long."""
        if isinstance(cli.datamodule, AudioFolder) and cli.trainer.is_global_zero:
            print(f"held out: {cli.datamodule.held_out}", flush=True)
            if cli.model.source is not None:
                found.update(_baselines(cli))

    seconds = _fit(cli, writer, more=[LambdaCallback(on_fit_start=compare)])
    scored = _score(cli)
    if not cli.trainer.is_global_zero:
        return None  # of several processes, which all score their share, one writes
    seed, split = int(cli.config.seed_everything), cli.datamodule.split
    scored_run = Run(
        net=cli.model.net,
        split=split,
        seed=seed,
        predictions=Predictions.of_run(split.fold, seed, **scored),
        wall_seconds=seconds,
        precision=str(cli.trainer.precision),
        device=cli.trainer.strategy.root_device,
        parent=cli.model.parent,
        sources=cli.model.sources,
        facts=cli.model.facts,
        baselines=found,
    )
    results = writer.record(scored_run, recipe)
    key = f"seed{seed}_fold{split.fold}"
    result = results["result"]
    print(f"{writer.entry} {key}: {result['metric']} {result['runs'][key]:.4f} ({seconds:.0f} s)")
    (_run_folder(cli) / LAST).unlink(missing_ok=True)
    return results


def resolved(arguments: list[str]) -> str:
    """The recipe that `train` would run, every default written out."""
    return _recipe(_parse(arguments), arguments, "train").text


def probe(arguments: list[str]) -> dict[str, Any]:
    """Results of the baselines of what `train` would fine-tune on a folder, without training it.

    Returns:
        By method, as in an entry's results.
    """
    cli = _parse(arguments)
    _set_up(cli)
    print(f"held out: {cli.datamodule.held_out}", flush=True)
    return scored(_baselines(cli), cli.model.task)


def _baselines(cli: TrainingCLI) -> dict[str, Predictions]:
    """Compute and print them."""
    found = baselines(cli.model.source, cli.datamodule)
    print("\n".join(comparison(scored(found, cli.model.task))), flush=True)
    return found


def _publish(writer: EntryWriter) -> None:
    pushed = writer.publish()
    if pushed is None and writer.push_to is not None:
        print(f"{writer.entry}: pushed once the other folds are there")
    if pushed is not None:
        print(pushed)


def _validated(cli: TrainingCLI, path: Path | None = None) -> list[dict[str, Any]]:
    """Fit, then score the validation fold; the test fold is left alone.

    Returns:
        All scores in the file at `path`, this one among them; none where another process writes.
    """
    seconds = _fit(cli)
    seed, fold = int(cli.config.seed_everything), cli.datamodule.fold
    trainer = _scoring_trainer(cli)
    metrics = trainer.validate(cli.model, datamodule=cli.datamodule, verbose=False)[0]
    if not cli.trainer.is_global_zero:
        return []
    score = next(value for name, value in metrics.items() if name != "val_loss")
    print(f"seed {seed} fold {fold}: validation {score:.4f} ({seconds:.0f} s)", flush=True)
    row = {
        "seed": seed, "fold": fold, "score": score, "wall_seconds": round(seconds, 1),
        "recipe": _recipe(cli, [], "fit").sha256[:12],
    }  # fmt: skip
    rows = [row] if path is None else write_validation(path, row)
    (_run_folder(cli) / LAST).unlink(missing_ok=True)
    return rows


def _scoring_trainer(cli: TrainingCLI) -> Trainer:
    """A silent Trainer in float32, which the network is cast to, on the devices of the training."""
    cli.model.float()
    trainer, device = cli.trainer, cli.trainer.strategy.root_device
    several = trainer.world_size > 1
    devices: list[int] | int = 1
    if device.type != "cpu" and device.index is not None:
        devices = trainer.device_ids if several else [device.index]
    elif several:
        devices = trainer.num_devices
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        return Trainer(
            precision="32-true",
            accelerator=cli.trainer.accelerator,
            devices=devices,
            num_nodes=trainer.num_nodes,
            strategy="ddp" if several else "auto",
            callbacks=[
                LambdaCallback(on_validation_start=_end_at_once, on_test_start=_end_at_once)
            ],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    finally:
        logger.setLevel(level)


def _end_at_once(*_: Any) -> None:
    """Let SIGTERM end scoring as Ctrl-C does: the run's checkpoint is there.

    Lightning's own handler waits for the other processes.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def _score(cli: TrainingCLI) -> dict[str, Any]:
    """Logits of the held-out fold, in float32 whatever the training precision was."""
    _scoring_trainer(cli).test(cli.model, datamodule=cli.datamodule, verbose=False)
    batches = cli.model.scored
    return {
        "clip": [clip for batch in batches for clip in batch["id"]],
        "label": torch.cat([batch["label"] for batch in batches]).numpy(),
        "logits": torch.cat([batch["logits"] for batch in batches]).numpy(),
    }


def _print_results(results: dict[str, Any]) -> None:
    result = results["result"]
    low, high = result["interval95"]
    spread = "" if result["std"] is None else f" ± {result['std']:.4f}"
    print(
        f"{results['entry']}: {result['metric']} {result['mean']:.4f}{spread} over "
        f"{len(result['folds'])} folds, 95 % interval {low:.4f}-{high:.4f}, "
        f"{results['cost']['params']} parameters"
    )
    if results["parent"] and results["parent"].get("difference"):
        print(f"difference to {results['parent']['name']}: {results['parent']['difference']}")
    for line in beside_baselines(results):
        print(line)
