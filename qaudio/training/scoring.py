"""Scoring a trained network, in float32 whatever the precision of training was."""

import logging
import signal
import threading
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import LambdaCallback

from qaudio.data.datamodule import AudioDataModule
from qaudio.training.classifier import Classifier


def validation_score(trainer: Trainer, module: Classifier, data: AudioDataModule) -> float:
    """Accuracy or mAP of the validation fold; the test fold is left alone."""
    metrics = _scoring_trainer(trainer, module).validate(module, datamodule=data, verbose=False)
    return next(value for name, value in metrics[0].items() if name != "val_loss")


def held_out_logits(trainer: Trainer, module: Classifier, data: AudioDataModule) -> dict[str, Any]:
    """Clip ids (N), labels (N,) or (N, C) and logits (N, C) of the held-out fold."""
    _scoring_trainer(trainer, module).test(module, datamodule=data, verbose=False)
    return {
        "clip": [clip for batch in module.scored for clip in batch["id"]],
        "label": torch.cat([batch["label"] for batch in module.scored]).numpy(),
        "logits": torch.cat([batch["logits"] for batch in module.scored]).numpy(),
    }


def _scoring_trainer(trainer: Trainer, module: Classifier) -> Trainer:
    """A silent Trainer in float32, which the network is cast to, on the devices of the training."""
    module.float()
    device, several = trainer.strategy.root_device, trainer.world_size > 1
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
            accelerator=trainer.accelerator,
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
