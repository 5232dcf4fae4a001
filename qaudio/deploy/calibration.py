"""Sounds that int8 exports are calibrated on, and others that tell how far int8 is from fp32."""

import os
import warnings

import torch
from torch import Tensor

from qaudio.data import audio
from qaudio.deploy.export_checks import ExportError
from qaudio.errors import AudioError
from qaudio.frontend import pad_to
from qaudio.models.base import AudioModel
from qaudio.progress import progress

MOST_CLIPS, MOST_SECONDS = 200, 10.0
CHECKED_EVERY = 4  # of the clips given, one in so many checks and does not calibrate


def calibration_clips(folder: str | os.PathLike, model: AudioModel) -> list[Tensor]:
    """Sounds of a folder, (1, T) at the model's rate, of at most 10 s.

    Raises:
        ExportError: for too few that can be used.
    """
    paths = audio.sound_files(folder)
    paths = paths[:: max(1, -(-len(paths) // MOST_CLIPS))]
    seconds = min(model.eval_seconds or MOST_SECONDS, MOST_SECONDS)
    clips = []
    for path in progress(paths, unit="clip"):
        try:
            samples = audio.load(path, model.sample_rate)[: round(seconds * model.sample_rate)]
        except AudioError as error:
            warnings.warn(f"left out: {error}", stacklevel=3)
            continue
        clips.append(pad_to(torch.from_numpy(samples), model.min_samples).unsqueeze(0))
    if len(clips) < CHECKED_EVERY:
        raise ExportError(
            f"{folder}: {len(clips)} usable sound files; int8 needs some that it is calibrated on "
            f"and others to check it, {CHECKED_EVERY} at least and a hundred to be good"
        )
    return clips


def split(clips: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Those that calibrate and those that check."""
    calibrating = [clip for n, clip in enumerate(clips) if n % CHECKED_EVERY]
    return calibrating, clips[::CHECKED_EVERY]
