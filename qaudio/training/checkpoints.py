"""Checkpoints of unfinished runs: the last one, there whole or not at all."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint

from qaudio.paths import replacing

LAST = "last.ckpt"


def last_checkpoint(folder: Path) -> ModelCheckpoint:
    """Keeps folder/last.ckpt, renewed after every epoch."""
    return ModelCheckpoint(
        folder,
        Path(LAST).stem,
        save_top_k=1,
        enable_version_counter=False,
        save_on_train_epoch_end=True,  # not after validations, of which there may be none
    )


class WholeCheckpoints(TorchCheckpointIO):
    """Replaces a checkpoint in one step.

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
