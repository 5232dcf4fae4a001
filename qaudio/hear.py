"""Entries as HEAR's benchmark takes them: module `qaudio.hear`, an entry as the model's path.

`python -m heareval.embeddings.runner qaudio.hear --model ENTRY`; the interface is that of
Turian et al., *HEAR: Holistic Evaluation of Audio Representations*, PMLR 176 (2022).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qaudio.errors import InputError
from qaudio.models.base import AudioModel
from qaudio.zoo.resolve import DEFAULT_ENTRY, load

WINDOW_SECONDS = 1.0  # around each timestamp
HOP_SECONDS = 0.05  # HEAR asks for 50 ms or less
BATCH = 64  # windows run at once


class HearModel(nn.Module):
    """A network with the attributes that HEAR asks for.

    Attributes:
        network: in eval mode.
        sample_rate: Hz of the sounds that it takes.
        scene_embedding_size, timestamp_embedding_size: D.
    """

    def __init__(self, network: AudioModel):
        super().__init__()
        self.network = network
        self.sample_rate = network.sample_rate
        self.scene_embedding_size = self.timestamp_embedding_size = network.num_features

    def forward(self, audio: Tensor) -> Tensor:
        """Embeddings (B, D) of sounds (B, T)."""
        return self.network.embed(audio)


def load_model(model_file_path: str = "") -> HearModel:
    """An entry for the other functions.

    Args:
        model_file_path: entry name, folder or "hf-hub:org/name"; "": the package's default.

    Raises:
        EntryError: as `qaudio.load`.
    """
    return HearModel(load(model_file_path or DEFAULT_ENTRY)).eval()


@torch.no_grad()
def get_scene_embeddings(audio: Tensor, model: HearModel) -> Tensor:
    """One embedding of each sound: (N, D).

    Args:
        audio: (N, T) in −1…1 at `model.sample_rate`.
        model: of `load_model`.

    Raises:
        ValueError: for another shape.
    """
    _check(audio)
    return torch.cat([model(part).float() for part in audio.split(BATCH)])


@torch.no_grad()
def get_timestamp_embeddings(audio: Tensor, model: HearModel) -> tuple[Tensor, Tensor]:
    """Embeddings over time, of windows of `WINDOW_SECONDS` every `HOP_SECONDS`.

    Sounds are padded with silence by half a window on both sides.

    Returns:
        Embeddings (N, W, D), and the middles of their windows in milliseconds, (N, W).

    Raises:
        ValueError: for another shape.
    """
    _check(audio)
    size = round(WINDOW_SECONDS * model.sample_rate)
    hop = round(HOP_SECONDS * model.sample_rate)
    padded = F.pad(audio, (size // 2, size - size // 2))
    windows = padded.unfold(1, size, hop)  # (N, W, size), a view
    found = [
        torch.cat([model(part).float() for part in one.split(BATCH)]) for one in windows
    ]  # sound by sound, so that memory does not grow with their number
    times = torch.arange(windows.shape[1], device=audio.device) * (1000 * hop / model.sample_rate)
    return torch.stack(found), times.expand(len(audio), -1)


def _check(audio: Tensor) -> None:
    if audio.ndim != 2 or 0 in audio.shape:
        raise InputError(
            f"audio must be (sounds, samples), nothing empty, not {tuple(audio.shape)}"
        )
