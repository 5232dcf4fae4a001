"""No leak between folds: which weights of a parent may be used for which split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qaudio.errors import EntryError
from qaudio.zoo.io import load_weights
from qaudio.zoo.resolve import locate
from qaudio.zoo.store import entry_name, read_results, read_source, trained_on

if TYPE_CHECKING:
    from qaudio.data.datamodule import AudioDataModule
    from qaudio.data.split import Split
    from qaudio.models.base import AudioModel


_RENAME = ". Are these other recordings? Then name them: --data.name NAME"


class LeakError(EntryError):
    """A parent whose weights saw, or may have seen, clips that are now held out."""


def fold_file(fold: int, seed: int) -> str:
    """Where an entry keeps the weights of one run."""
    return f"folds/{fold}.safetensors" if seed == 0 else f"folds/{fold}_seed{seed}.safetensors"


def load_for_split(source: str | Path, split: Split, seed: int) -> AudioModel:
    """An entry's network with weights that never saw the split's held-out fold.

    Args:
        source: entry name, folder, or address on the Hub.
        split: what is about to be trained.
        seed: of the run; a parent's weights of the same seed are taken, or of seed 0 where it was
            not trained with that one: which weights never saw a fold does not depend on seeds.

    Raises:
        LeakError: when the parent was trained on the same recordings and keeps no weights that
            were trained without this fold, made its folds by another protocol, or does not say
            what it was trained on. A checkpoint that others published is taken where its
            benchmark's own test list is scored.
    """
    folder = locate(source, folds=True)
    name = entry_name(folder)
    seen = trained_on(folder)
    if seen is None:
        raise LeakError(
            f"{name}: no results.json says what it was trained on, so fold {split.fold} of "
            f"{split.benchmark} may have been seen"
        )
    if split.dataset not in seen:
        return load_weights(folder)
    results = read_results(folder)
    if results is None:
        # Published checkpoints never saw the list that their benchmark is tested on.
        imported = read_source(folder)
        kept = imported.held_out if imported else None
        if kept and split.protocol.startswith(f"{kept},") and split.scored == split.fold:
            return load_weights(folder)
        raise LeakError(
            f"{name}: was trained on {split.dataset}, on all of it but {kept or 'nothing'} as far "
            "as it says: what is to be scored was seen"
        )
    if results.dataset != split.dataset or results.protocol != split.protocol:
        other = _RENAME if results.is_custom_dataset else ""
        raise LeakError(
            f"{name}: trained on {split.dataset}, but its folds are those of "
            f"{results.protocol!r}, not of {split.protocol!r}: held-out clips were seen{other}"
        )
    # A fixed split's validation part never trained, so there a parent's weights may be scored.
    if split.scored != split.fold and split.folds > 1:
        raise LeakError(
            f"{name}: its weights without fold {split.fold} were trained on fold "
            f"{split.scored}, which is to be scored: a derived entry cannot be validated that way"
        )
    for one in dict.fromkeys((seed, 0)):
        weights = fold_file(split.fold, one)
        if (folder / weights).is_file():
            return load_weights(folder, weights)
        if (results.card_fold, results.card_seed) == (split.fold, one):
            return load_weights(folder)
    raise LeakError(
        f"{name}: {weights} is missing, and its other weights saw fold {split.fold}: train "
        "that fold of the parent first (`qaudio crossval`, writer.keep_folds true)"
    )


def refuse_heard(source: str | Path, data: AudioDataModule) -> None:
    """Refuse to score an entry's network as it is on recordings that it was trained on.

    What says nothing of its training is taken, and so is a benchmark of one fixed split, whose test
    part is nobody's to train on.

    Raises:
        LeakError: for a benchmark of several folds that the weights saw.
    """
    folder = locate(source)
    if data.folds > 1 and data.dataset in (trained_on(folder) or []):
        results = read_results(folder)
        raise LeakError(
            f"{entry_name(folder)}: was trained on {data.dataset}, and would be scored on clips "
            f"that it has heard{_RENAME if results and results.is_custom_dataset else ''}"
        )
