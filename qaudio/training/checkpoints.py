"""Checkpoints of unfinished runs: the last one, there whole or not at all."""

from __future__ import annotations

import io
import pickle
import re
import time
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import LambdaCallback, ModelCheckpoint

from qaudio.errors import EntryError
from qaudio.paths import replacing

LAST = "last.ckpt"
EVERY = 1200.0  # seconds, within an epoch


def last_checkpoint(folder: Path) -> ModelCheckpoint:
    """Keeps folder/last.ckpt, renewed after every epoch."""
    return ModelCheckpoint(
        folder,
        Path(LAST).stem,
        save_top_k=1,
        enable_version_counter=False,
        save_on_train_epoch_end=True,  # not after validations, of which there may be none
    )


class WithinEpoch(Callback):
    """Renews folder/last.ckpt in epochs that take longer than `EVERY`: little is lost of them.

    From there a run goes on with the clips that are left of the epoch, but with other draws of
    dropout than it would have had, and that epoch's train_loss is the mean over what was left: only
    from an epoch's end it is the run that was not interrupted.

    Args:
        folder: of `last_checkpoint`.
    """

    def __init__(self, folder: Path):
        self.path, self.since = folder / LAST, 0.0

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.since = time.monotonic()  # of a run that goes on within an epoch

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.since = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # gradients are in no checkpoint
        if trainer.is_last_batch:
            return  # what comes at an epoch's end would not come where a run goes on from here
        # One of several processes decides for all, or they would wait for one another.
        due = time.monotonic() - self.since >= EVERY
        if trainer.strategy.reduce_boolean_decision(due, all=False):
            trainer.save_checkpoint(self.path)
            self.since = time.monotonic()


class WholeCheckpoints(TorchCheckpointIO):
    """Replaces a checkpoint in one step, and tells what is none.

    Lightning's own copies it from the folder of temporary files, bit by bit where that is another
    disk, and takes a folder that cannot be written for one that was.

    Attributes:
        read: whether one was read.
    """

    read = False

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write a checkpoint; raises OSError, and then the earlier one stays."""
        content = io.BytesIO()  # torch.save hides what a disk says
        torch.save(checkpoint, content)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(content.getbuffer())

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read a checkpoint of tensors and plain data; raises EntryError where the file is none."""
        self.read = True
        kwargs["weights_only"] = True  # whoever asks: anything else would run what the file says
        try:
            found = super().load_checkpoint(local(path), *args, **kwargs)
        except (pickle.UnpicklingError, EOFError, LookupError, RuntimeError, ValueError) as error:
            named = re.search(r"GLOBAL (\S+) (?:was not|whose module)", str(error))
            said = f" ({str(error).splitlines()[0]})" if str(error) else ""
            if named:
                said = f": its pickle would run {named[1]}; nothing was run"
            raise EntryError(f"{path} is no checkpoint of Lightning's{said}") from None
        if not isinstance(found, dict) or not isinstance(found.get("state_dict"), dict):
            raise EntryError(f"{path} is no checkpoint of Lightning's: it holds no state_dict")
        return found


def start(
    trainer: Trainer,
    how: Literal["fit", "validate", "test"],
    module: LightningModule,
    data: LightningDataModule,
    checkpoint: str | Path | None = None,
) -> None:
    """Let a Trainer fit, validate or test, from a checkpoint where one is given.

    Nothing in the checkpoint is run. Those that the Trainer writes are whole, or are not there.

    Raises:
        EntryError: when the checkpoint is not a file here, is none, or of another network.
    """
    path = None if checkpoint is None else local(checkpoint)
    files, begun = WholeCheckpoints(), []

    def begin(*_: Any) -> None:  # whatever the checkpoint holds has been taken over
        begun.append(True)

    watch = LambdaCallback(
        on_sanity_check_start=begin, on_train_start=begin, on_validation_start=begin,
        on_test_start=begin,
    )  # fmt: skip
    trainer.strategy.checkpoint_io = files
    trainer.callbacks = [*trainer.callbacks, watch]  # type: ignore[attr-defined]
    try:
        getattr(trainer, how)(module, datamodule=data, ckpt_path=path, weights_only=True)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, LookupError, TypeError, AttributeError, ValueError) as error:
        if begun or not files.read:
            raise
        said = " ".join(str(error).split())
        raise EntryError(f"{path}: not of this network and these settings ({said})") from None
    finally:
        trainer.callbacks = [one for one in trainer.callbacks if one is not watch]  # type: ignore[attr-defined]


def local(path: str | Path) -> Path:
    """A checkpoint's path; raises EntryError for an address, and where there is no file."""
    if re.match(r"[a-zA-Z][\w+.-]+:", str(path)):  # of one letter, a drive
        raise EntryError(
            f"{path}: checkpoints are read from files here only: download it, if you trust its host"
        )
    if not Path(path).is_file():
        raise EntryError(f"{path}: no such file: --ckpt_path names a checkpoint")
    return Path(path)
