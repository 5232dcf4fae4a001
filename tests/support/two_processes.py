"""Scores and trains on 81 clips with as many processes as asked; each writes what it saw.

usage: two_processes.py TABLE PROCESSES OUT
"""

import json
import sys
from pathlib import Path

from lightning import Callback, Trainer, seed_everything

import qaudio
from qaudio.evaluation.metrics import METRICS, metric_of
from qaudio.evaluation.predictions import Predictions

FRONTEND = {"sample_rate": 8000, "n_fft": 256, "hop_length": 160, "n_mels": 32, "f_max": 4000.0}


class Ids(Callback):
    """Notes the ids of every training batch."""

    def __init__(self):
        self.epochs = []

    def on_train_epoch_start(self, trainer, module):
        self.epochs.append([])

    def on_train_batch_start(self, trainer, module, batch, index):
        self.epochs[-1] += batch["id"]


def trainer(processes, *callbacks):
    return Trainer(
        accelerator="cpu", devices=processes, strategy="ddp" if processes > 1 else "auto",
        callbacks=list(callbacks), max_epochs=2, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip


def run(table, processes, task):
    def data(holdout):
        return qaudio.AudioFolder(
            table.parent, table=str(table.with_suffix(f".{task}.csv")), seconds=0.1, batch_size=8,
            holdout=holdout,
        )  # fmt: skip

    def classifier():
        seed_everything(0, verbose=False)
        return qaudio.Classifier("qcnn6_006", frontend=FRONTEND, task=task)

    module = classifier()
    tester = trainer(processes)
    tester.test(module, data("test"), verbose=False)
    scored = {
        "clip": [clip for batch in module.scored for clip in batch["id"]],
        "label": [row for batch in module.scored for row in batch["label"].tolist()],
        "logits": [row for batch in module.scored for row in batch["logits"].tolist()],
    }
    found = {name: value.item() for name, value in tester.callback_metrics.items()}
    found["entry"] = METRICS[metric_of(task)](Predictions.of_run(1, 0, **scored))
    validator = trainer(processes)
    validator.validate(module, data("validation"), verbose=False)
    found |= {name: value.item() for name, value in validator.callback_metrics.items()}
    ids, module = Ids(), classifier()  # that one was made for the other split
    fitter = trainer(processes, ids)
    fitter.fit(module, data("validation"))  # hangs where processes take unequal numbers of batches
    weights = sum(weight.detach().sum().item() for weight in module.net.parameters())
    return {
        "rank": fitter.global_rank, "ids": scored["clip"], "metrics": found, "trained": ids.epochs,
        "weights": weights,
    }  # fmt: skip


def main():
    table, processes, out = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    found = {task: run(table, processes, task) for task in ("multiclass", "multilabel")}
    rank = found["multiclass"]["rank"]
    (out / f"{processes}_{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
