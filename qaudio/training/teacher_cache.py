"""A teacher's answers, each computed once."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialised
from torch import Tensor

from qaudio.errors import InputError
from qaudio.models.base import AudioModel
from qaudio.paths import write_whole


class StoredAnswers:
    """Answers of a network to waveforms, kept in a file for later epochs, runs and students.

    A waveform is known by its samples, so an answer can never be given to another one.

    Args:
        folder: where the file lies; made when it is needed.
        model: the file's name comes from its weights and front-end.
        kind: what is answered ("logits"), part of the name.

    Raises:
        ValueError: for a file that is there but cannot be read.
    """

    def __init__(self, folder: str | Path, model: AudioModel, kind: str):
        settings = json.dumps(model.config.frontend.to_dict(), sort_keys=True)
        digest = hashlib.sha256(settings.encode())
        for name, tensor in sorted(model.state_dict().items()):
            values = tensor.cpu().contiguous().flatten().view(torch.uint8)  # numpy has no bfloat16
            digest.update(name.encode() + values.numpy().tobytes())
        architecture = model.architecture.replace(":", "-")  # in no file's name under Windows
        self.path = Path(folder) / f"{architecture}-{digest.hexdigest()[:16]}-{kind}"
        self.path = self.path.with_name(self.path.name + ".safetensors")
        self.rows: dict[bytes, Tensor] = {}
        self.fresh = 0
        if self.path.is_file() and not self.path.is_symlink():
            try:
                stored = load_file(self.path)
                keys = [bytes(row) for row in stored["waveform"].numpy()]
                # A copy: Windows replaces no file that is mapped, and `save` will.
                self.rows = dict(zip(keys, stored["answer"].clone(), strict=True))
            except (SafetensorError, KeyError, ValueError, TypeError) as error:
                raise InputError(
                    f"{self.path}: not readable as a teacher's answers ({error}); delete it and "
                    "they are computed anew"
                ) from None

    def __call__(self, waveform: Tensor, answer: Callable[[Tensor], Tensor]) -> Tensor:
        """Answers (B, …) to waveforms (B, T); `answer` computes those that are not known."""
        keys = [
            hashlib.blake2b(row.tobytes(), digest_size=16).digest()
            for row in waveform.detach().cpu().contiguous().numpy()
        ]
        new = [n for n, key in enumerate(keys) if key not in self.rows]
        if new:
            for n, row in zip(new, answer(waveform[new]).float().cpu(), strict=True):
                self.rows[keys[n]] = row
            self.fresh += len(new)
        return torch.stack([self.rows[key] for key in keys]).to(waveform.device)

    def save(self) -> None:
        """Write the file, whole or not at all, when there is something new."""
        if not self.fresh:
            return
        keys = torch.tensor([list(key) for key in self.rows], dtype=torch.uint8)
        answers = torch.stack(list(self.rows.values()))
        content = serialised({"waveform": keys, "answer": answers})
        write_whole(self.path, content, follow=False)
        self.fresh = 0
