"""Logits of sounds of none of a network's classes."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from qaudio.data.audio import display_name, load, sound_files
from qaudio.errors import AudioError, InputError
from qaudio.models.base import AudioModel, evaluating


def outside_logits(
    model: AudioModel,
    folders: Iterable[str | os.PathLike],
    *,
    most: int = 200,
    progress: Callable[[int], None] | None = None,
) -> tuple[list[str], np.ndarray]:
    """Logits of the sounds of some folders, each cropped or padded to what clips are scored at.

    Args:
        folders: each a source of its own, called as its last part is.
        most: files of each folder, evenly spaced among all of them.
        progress: called with the number of files done.

    Returns:
        Ids "FOLDER/FILE" of the N sounds that can be used, and logits (N, C).

    Raises:
        ValueError: for two folders of one name, or one without sounds that can be used.
    """
    names: list[str] = []
    rows: list[np.ndarray] = []
    seen: set[str] = set()
    device, done = model.classifier.weight.device, 0
    with evaluating(model) as net, torch.inference_mode():
        for folder in map(Path, folders):
            source = folder.resolve().name
            if source in seen:
                raise InputError(f"two folders are called {source}")
            seen.add(source)
            paths = sound_files(folder)
            chosen = [
                paths[n] for n in np.linspace(0, len(paths) - 1, min(most, len(paths)), dtype=int)
            ]
            before = len(names)
            for path in chosen:
                done += 1
                if progress is not None:
                    progress(done)
                try:
                    samples = load(path, net.sample_rate)
                except AudioError:
                    continue  # one of many
                if net.eval_seconds is not None:
                    size = round(net.eval_seconds * net.sample_rate)
                    samples = np.pad(samples[:size], (0, max(0, size - len(samples))))
                sound = torch.from_numpy(np.ascontiguousarray(samples)).to(device)
                names.append(f"{source}/{display_name(path.relative_to(folder).as_posix())}")
                rows.append(net(sound).float().cpu().numpy()[0])
            if len(names) == before:
                raise InputError(
                    f"{display_name(folder)}: a folder without sounds that can be used"
                )
    return names, np.stack(rows)
