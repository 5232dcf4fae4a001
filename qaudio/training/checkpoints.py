"""Checkpoints of unfinished runs: the last one, there whole or not at all."""

from __future__ import annotations

import io
import pickle
import time
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint

from qaudio.errors import EntryError
from qaudio.paths import replacing

LAST = "last.ckpt"
EVERY = 300.0  # seconds, within an epoch


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

    From there a run goes on with the clips that are left of the epoch, as the run that was not
    interrupted; only that epoch's train_loss is the mean over what was left.

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
    """

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
        """Read a checkpoint; raises EntryError where the file is none."""
        try:
            found = super().load_checkpoint(path, *args, **kwargs)
        except (pickle.UnpicklingError, EOFError, KeyError, RuntimeError) as error:
            said = f" ({str(error).splitlines()[0]})" if str(error) else ""
            raise EntryError(f"{path} is no checkpoint of Lightning's{said}") from None
        if "state_dict" not in found:
            raise EntryError(f"{path} is no checkpoint of Lightning's: it holds no state_dict")
        return found
