"""Whether a linear probe is kept as it is or trained on, chosen on a validation fold."""

from typing import Any

import numpy as np
import torch
from lightning.pytorch.callbacks import LambdaCallback

from qaudio.cards.tables import percent
from qaudio.data.datamodule import AudioDataModule
from qaudio.data.split import VALIDATION
from qaudio.models.base import evaluating
from qaudio.paths import write_whole
from qaudio.training.cli import parse
from qaudio.training.metrics import clip_means
from qaudio.training.recipe import Recipe
from qaudio.training.run import TrainingRun
from qaudio.zoo.store import read_json, to_json

CHOICE = "choice.json"  # in the validating run's folder: what was found there


def prepared(
    arguments: list[str], recipe: Recipe | None = None, command: str = "train"
) -> TrainingRun:
    """A run of a recipe; one that trains no epoch where `keep_probe` asks for that.

    Args:
        arguments: of the command.
        recipe: as it was resolved; None: by the arguments.
        command: its name.
    """
    cli = parse(arguments, command=command)
    run = TrainingRun(cli, recipe or cli.recipe(arguments, command))
    dry = cli.trainer.fast_dev_run  # type: ignore[attr-defined]
    trains = command in ("train", "crossval") and not dry
    if cli.model.keep_probe and not run.validates and trains:
        run.writer.check(run.recipe)
        if run.config.overwrite or (run.seed, run.fold) not in run.writer.done(run.recipe):
            run.resumed()  # refuses what is of other settings before a rehearsal, not after it
            _choose(run, arguments)
    return run


def _choose(run: TrainingRun, arguments: list[str]) -> None:
    run.set_up()
    run.writer.check_split(run.data.split)
    if _can_validate(run.data):
        twin = TrainingRun(parse([*arguments, "--data.holdout=validation"]), run.recipe)
        kept, said = _rehearsed(twin)
    else:
        kept, said = True, "no recordings to validate on: the linear probe is kept as it is"
    if run.writes:
        print(said, flush=True)
    if kept:
        run.keep_probe()


def _can_validate(data: AudioDataModule) -> bool:
    if data.folds == 1:
        return any(data.part_of(clip) == VALIDATION for clip in data.clips)
    return data.folds > 2


def _rehearsed(twin: TrainingRun) -> tuple[bool, str]:
    """Whether the probe is kept, and why, in words."""
    twin.set_up()
    path = twin.folder / CHOICE
    of = {"recipe": twin.recipe.sha256, "split": twin.data.split.protocol}
    found = read_json(path) if path.is_file() else {}
    if found.get("of") != of:
        found = {"of": of}
        twin.last.unlink(missing_ok=True)

    def keep(**more: list[bool]) -> None:
        found.update(more)
        if twin.writes:
            write_whole(path, to_json(found))

    def score_probe(*_: Any) -> None:
        if "before" not in found:  # else the network is that of an interrupted training
            keep(before=_right(twin))

    if "after" not in found:
        twin.fit(more=[LambdaCallback(on_fit_start=score_probe)])
        keep(after=_right(twin))
        if twin.writes:
            twin.last.unlink(missing_ok=True)
    rows = np.array([found["before"], found["after"]], float)
    gain = rows[1] - rows[0]
    # What a training is worth has to show above the chance of which clips these are.
    kept = bool(gain.mean() <= gain.std() / np.sqrt(len(gain)))
    probe, tuned = (percent(float(row.mean())) for row in rows)
    return kept, (
        f"validated on {len(gain)} other clips: linear probe {probe}, fine-tuned {tuned}: "
        + ("no clear gain, so the probe is kept as it is" if kept else "fine-tuned is kept")
    )


@torch.no_grad()
def _right(run: TrainingRun) -> list[bool]:
    """Of each clip that validates, whether the network is right."""
    net, found = run.module.net, []
    with evaluating(net) as view:
        for batch in run.data.whole_clips("scored"):
            logits = view(batch["waveform"].to(net.classifier.weight.device)).float().cpu()
            logits = clip_means(logits, batch)
            found += (logits.argmax(-1) == batch["label"]).tolist()
    return found
