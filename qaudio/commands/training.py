"""`qaudio train`, `crossval`, `fit`, `validate` and `test`: LightningCLI's commands."""

import logging
import warnings
from pathlib import Path

from qaudio.commands.common import Commands, usage
from qaudio.errors import InputError
from qaudio.text import similar
from qaudio.zoo.store import recipe_path, recipes

TRAINING = {
    "train": "fit one split, test it, write or extend the entry",
    "crossval": "train and test every fold that the entry lacks, then aggregate",
    "fit": "fit only (LightningCLI)",
    "validate": "score the validation split after `fit` (LightningCLI)",
    "test": "score the test split after `fit`; `qaudio test ENTRY --data.root PATH` checks a score",
}
# Lightning's advice on loaders and checkpoints, which does not fit small cached sets.
UNFITTING = (
    "does not have many workers", "Checkpoint directory.*exists",
    "dirpath has changed",  # by `validate`, `test`
    "across ranks is zero", "smaller than the logging interval", "LeafSpec",
    r"module\(s\) in eval mode",  # as `--model.freeze` wants it
    "LightningCLI's args parameter",
)  # fmt: skip


def register(command: Commands) -> None:
    """Add the subcommands of this module."""
    for name, text in TRAINING.items():
        # Only listed here: main() hands these to LightningCLI.
        data = "data/ESC-50" + " --data.holdout validation" * (name == "validate")
        sub = command(
            name, lambda options: 0, text,
            f"qaudio {name} --config recipes/esc10/qcnn10_050.yaml --data.root {data}\n"
            f"every option: qaudio {name} --config RECIPE --help",
        )  # fmt: skip
        sub.add_argument("--config", help="recipe; any of its settings can be overridden")
        if name == "crossval":
            sub.add_argument("--folds", help="such as [1,2]; default: all")
            sub.add_argument("--seeds", help="such as [0,1,2]; default: [0]")


def run(name: str, arguments: list[str]) -> int:
    """Hand a command to LightningCLI; returns the exit code."""
    from qaudio.training.recipe import recipes_of

    entry = name == "test" and arguments[:1] and not arguments[0].startswith("-")
    if not entry and not any(one.startswith(("--config", "--model")) for one in arguments):
        return usage(name, "give a recipe: --config recipes/BENCHMARK/ENTRY.yaml")
    for recipe in recipes_of(arguments):
        if not Path(recipe_path(recipe)).is_file():
            name = "/".join(Path(recipe.removesuffix(".yaml")).parts[-2:])
            close = similar(name, recipes(), "recipes/{}.yaml")
            close = close or "; `qaudio recipes` lists those that are here"
            raise InputError(f"{recipe}: no such recipe{close}")
    quieten()
    from lightning.pytorch.utilities.exceptions import MisconfigurationException
    from torch import OutOfMemoryError

    from qaudio.training.subcommands import main

    try:
        return main(name, arguments)
    except OutOfMemoryError as error:
        raise OutOfMemoryError(f"{error}: give a smaller --data.batch_size") from None
    except MisconfigurationException as error:  # Lightning's word for settings that do not go
        raise InputError(f"{error}{_without_device(str(error))}") from error
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise InputError(
            "a process that reads sounds was killed, as where memory is short: give a smaller "
            "--data.num_workers, such as 0, or a smaller --data.batch_size"
        ) from error
    except ModuleNotFoundError as error:
        if error.name is not None:
            raise
        raise InputError(f"{error}{_without_device(str(error))}") from error


def _without_device(fault: str) -> str:
    """What to do about a device that Lightning does not find here; "" for other faults."""
    words = ("accelerator", "backend found", "your machine only has", "torch_xla", "requested gpu")
    named = any(word in fault.lower() for word in words)
    return ": give --trainer.accelerator cpu" if named else ""


def quieten() -> None:
    """Leave out what Lightning says that does not fit here."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_no_advert)
    for said in UNFITTING:
        warnings.filterwarnings("ignore", message=f".*{said}.*")


def _is_no_advert(record: logging.LogRecord) -> bool:
    """Keeps Lightning from praising other products at every run."""
    return not any(name in record.getMessage() for name in ("litlogger", "litmodels"))
