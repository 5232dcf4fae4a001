"""Recipes on the command line: LightningCLI with an entry's writer, and recipes as resolved."""

import tempfile
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace
from jsonargparse.typing import import_object
from lightning import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from qaudio.data.datamodule import AudioDataModule
from qaudio.errors import EntryError, InputError, QaudioError, UsageError
from qaudio.text import is_text, one_line
from qaudio.training.classifier import Classifier
from qaudio.training.recipe import (
    LONGEST,
    Recipe,
    command_of,
    keep_nulls,
    recipes_of,
    settings_in,
    without_volatile,
)
from qaudio.training.recorder import EntryWriter
from qaudio.training.usage import settings_of, told
from qaudio.zoo.store import recipe_path


class TrainingCLI(LightningCLI):
    """LightningCLI with the entry writer and the folds and seeds of a cross-validation."""

    trainer: Trainer
    model: Classifier
    datamodule: AudioDataModule

    @property
    def writer(self) -> EntryWriter:
        """Of the entry that the recipe makes."""
        return self.config_init.writer

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_class_arguments(EntryWriter, "writer")
        parser.link_arguments(
            "writer.folder", "model.init_args.entries", compute_fn=str, apply_on="instantiate"
        )
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

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the arguments; raises UsageError."""
        try:
            super().parse_arguments(parser, args)
        except ArgumentError as error:
            raise UsageError(f"{told(error, parser)}; see {parser.prog} --help") from None

    def before_instantiate_classes(self) -> None:
        """Refuse null where a setting takes none, and what no recipe or file system can hold.

        jsonargparse lets them through. A single callback, which Lightning takes, becomes a list.
        """
        for name, value in self.config.items():  # of every depth, by their whole names
            if isinstance(value, str) and not is_text(value):
                raise UsageError(f"{name}: {value!r} is no text: it holds NUL or is not in UTF-8")
        for section in ("trainer", "model", "data", "writer"):
            given = self.config[section]
            if given is None:
                continue
            if not isinstance(given, Namespace):
                raise UsageError(f"{section}: expected settings by name, not {given!r}")
            if section == "trainer":  # null is its own way to ask for a default
                if isinstance(given.callbacks, Namespace):
                    given.callbacks = [given.callbacks]
                continue
            kind: type = EntryWriter
            if section != "writer":
                kind, given = import_object(given.class_path), given.init_args
            _refuse_null(section, kind, given)

    def recipe(self, arguments: list[str], subcommand: str) -> Recipe:
        """The recipe with every default written out, as an entry keeps it."""
        paths = [str(path) for path in self.config.config or []]
        return Recipe(
            self._resolved(self.config),
            Path(paths[0]) if paths else None,
            command_of(subcommand, arguments, getattr(self.datamodule, "table", None) is not None),
            renew=self._renewed,
        )

    def _renewed(self, text: str) -> str:
        """A stored recipe, resolved by the present defaults; raises InputError for what is none."""
        try:
            if len(text) > LONGEST:
                raise ValueError(f"over {LONGEST} characters")
            settings_in(text)
            return self._resolved(self.parser.parse_string(text))
        except ArgumentError as error:
            fault = told(error, self.parser)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            fault = str(error)
        raise InputError(f"recipe.yaml is no recipe ({one_line(fault, 200)})")

    def _resolved(self, config: Namespace) -> str:
        text = self.parser.dump(config, skip_none=True, skip_check=True)
        plain = yaml.safe_load(text)
        keep_nulls(plain, self._whole(config), self._whole(self.parser.parse_string(text)))
        return yaml.safe_dump(without_volatile(plain), sort_keys=False)

    def _whole(self, config: Namespace) -> dict[str, Any]:
        return yaml.safe_load(self.parser.dump(config, skip_none=False, skip_check=True))


def parse(
    arguments: list[str], config: dict[str, Any] | None = None, command: str = "train"
) -> TrainingCLI:
    """Parse a training command's arguments and make what they ask for.

    Args:
        arguments: of the command, without its name.
        config: takes the place of a --config file.
        command: its name, for what is said of wrong usage.

    Raises:
        QaudioError: for settings that are refused.
    """
    with tempfile.TemporaryDirectory() as folder:
        arguments = [_shipped_recipe(argument) for argument in arguments]
        if config is not None:
            path = Path(folder) / "recipe.yaml"
            path.write_text(yaml.safe_dump(config), encoding="utf-8")
            arguments = [f"--config={path}", *arguments]
        for recipe in recipes_of(arguments):
            _read(recipe)
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
                    "exit_on_error": False,
                    "prog": f"qaudio {command}",
                    "usage": f"qaudio {command} --config RECIPE [--SETTING VALUE ...]",
                },
            )
        except ValueError as error:
            raise _refused(error) from None


def recipe_data(recipe: str, arguments: list[str]) -> AudioDataModule:
    """The DataModule of a recipe's data section, with settings overridden.

    Raises:
        QaudioError: for a recipe that cannot be read or has no data section.
    """
    settings = _read(recipe_path(recipe))
    if "data" not in settings:
        raise EntryError(f"{recipe}: no recipe with a data section")
    data = settings["data"]
    parser = ArgumentParser(prog="qaudio probe", exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_subclass_arguments(AudioDataModule, "data", required=True)
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "data.yaml"
        plain.write_text(yaml.safe_dump({"data": data}), encoding="utf-8")
        try:
            found = parser.parse_args([f"--config={plain}", *arguments])
        except ArgumentError as error:
            raise EntryError(f"{recipe}: {told(error, parser)}") from None
        _refuse_null("data", import_object(found.data.class_path), found.data.init_args)
        try:
            return parser.instantiate_classes(found).data
        except ValueError as error:
            raise _refused(error) from None


def _read(path: str) -> dict[str, Any]:
    """The settings in a recipe's file; raises InputError."""
    try:
        return settings_in(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{one_line(str(error), 200)}, in {path}") from None


def _refuse_null(section: str, kind: type, given: Namespace) -> None:
    """Raise EntryError for settings of a class that are null, and must not be."""
    for name, value in vars(given).items():
        if value is None and not _takes_none(kind, name):
            raise EntryError(
                f"{section}.{name} is null, and takes a value: leave it out for its default"
            )


def _takes_none(kind: type, name: str) -> bool:
    """Whether a class' argument, its own or one that it hands on, may be None."""
    known = settings_of(kind).get(name)
    return known is None or known.annotation is known.empty or "None" in str(known.annotation)


def _refused(error: ValueError) -> QaudioError:
    """What a constructor refuses, which jsonargparse buries in a list of all its settings."""
    said = (str(error).startswith("Does not validate") and error.__cause__) or error
    return said if isinstance(said, QaudioError) else InputError(str(said))


def _shipped_recipe(argument: str) -> str:
    """An argument with the path of a recipe as `recipe_path` has it."""
    option, equals, path = argument.rpartition("=")
    return f"{option}{equals}{recipe_path(path)}"
