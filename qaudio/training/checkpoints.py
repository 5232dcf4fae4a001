"""Checkpoints of unfinished runs: the last one, there whole or not at all."""

import io
import pickle
import re
import signal
import threading
import time
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import LambdaCallback, ModelCheckpoint

from qaudio.download import log
from qaudio.errors import EntryError, refused_global
from qaudio.paths import write_whole
from qaudio.training.recipe import Recipe

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
    """Renews folder/last.ckpt in epochs that take longer than `EVERY`, and when a run is ended.

    From there a run goes on with the clips that are left of the epoch, as the run that was not
    interrupted; only that epoch's train_loss is the mean over what was left.

    SIGTERM (and SIGINT, where there are several processes) is only noted when it comes: after the
    batch all processes together write the checkpoint and stop, whichever of them it was sent to.
    Lightning's own handler would talk to the others from wherever it interrupts, and hang.

    Attributes:
        ended: whether a signal ended the run.
    """

    def __init__(self, folder: Path):
        self.path = folder / LAST
        self.since = time.monotonic()
        self.asked = self.ended = False

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for signum in (signal.SIGTERM, *([signal.SIGINT] if trainer.world_size > 1 else [])):
            signal.signal(signum, self._note)  # Lightning puts back what was there before a fit

    def _note(self, signum: int, frame: Any) -> None:
        if self.asked and signum == signal.SIGINT:
            raise KeyboardInterrupt  # at the second time at once
        self.asked = True

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.since = time.monotonic()
        self._stop_if(self._one_of(trainer, self.asked))  # as the epoch before it left it

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # gradients are in no checkpoint
        if trainer.is_last_batch:
            return  # what comes at an epoch's end would not come where a run goes on from here
        # One of several processes decides for all, or they would wait for one another.
        due = time.monotonic() - self.since >= EVERY
        if self._one_of(trainer, due or self.asked):
            ends = self._one_of(trainer, self.asked)
            trainer.save_checkpoint(self.path)
            self.since = time.monotonic()
            self._stop_if(ends)

    def on_validation_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        if not trainer.sanity_checking:
            self._stop_if(self._one_of(trainer, self.asked))

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.ended = self.ended or self._one_of(trainer, self.asked)

    @staticmethod
    def _one_of(trainer: Trainer, here: bool) -> bool:
        """Whether it holds in one of the processes; all of them ask together."""
        return trainer.strategy.reduce_boolean_decision(here, all=False)

    def _stop_if(self, ends: bool) -> None:
        if ends:
            self.ended = True
            raise KeyboardInterrupt


class TrainedBy(Callback):
    """Keeps in checkpoints by which recipes their network was trained, first to last.

    Optimizer and schedule go on as a checkpoint holds them, whatever the settings say then.

    Args:
        recipe: the present one, resolved.
        recorded: an entry or a score will name that recipe alone: refuse others.
    """

    def __init__(self, recipe: Recipe, recorded: bool):
        self.recipe, self.recorded = recipe, recorded
        self.texts = [recipe.text]

    def state_dict(self) -> dict[str, Any]:
        return {"recipes": list(self.texts)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        earlier = [text for text in state_dict["recipes"] if text != self.recipe.text]
        self.texts = [*earlier, self.recipe.text]
        changed = sorted({name for text in earlier for name in self.recipe.changed(text)})
        if changed and self.recorded:
            raise EntryError(
                f"the checkpoint was trained by other settings before ({', '.join(changed)}), and "
                "no entry would say so: delete it to start anew, or go on by qaudio fit"
            )
        if changed:
            log.warning(
                "the checkpoint was trained by other settings (%s): its optimizer, learning rate "
                "and schedule go on, and no entry is written of it", ", ".join(changed),
            )  # fmt: skip


class WholeCheckpoints(TorchCheckpointIO):
    """Replaces a checkpoint in one step, and refuses files that are none.

    Lightning's own copies it from the folder of temporary files, bit by bit where that is another
    disk, and takes a folder that cannot be written for one that was.
    """

    read = False

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write a checkpoint; raises OSError, and then the earlier one stays."""
        content = io.BytesIO()  # torch.save hides what a disk says
        torch.save(checkpoint, content)
        write_whole(Path(path), content.getbuffer())

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read a checkpoint of tensors and plain data; raises EntryError where the file is none."""
        self.read = True
        kwargs["weights_only"] = True  # whoever asks: anything else would run what the file says
        try:
            found = super().load_checkpoint(local(path), *args, **kwargs)
        except (pickle.UnpicklingError, EOFError, LookupError, RuntimeError, ValueError) as error:
            said = f" ({str(error).splitlines()[0]})" if str(error) else ""
            if named := refused_global(error):
                said = f": its pickle would run {named}; nothing was run"
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
