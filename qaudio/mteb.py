"""Entries as MTEB's audio tasks take them; importing this does not need mteb.

    model = qaudio.mteb.Encoder("qcnn10_050.audioset_kd_long")
    mteb.evaluate(model, mteb.get_tasks(tasks=["ESC50"]))

The interface is that of MTEB 2, `mteb.models.EncoderProtocol`; the benchmark is Muennighoff et al.,
*MTEB: Massive Text Embedding Benchmark*, EACL 2023.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from qaudio.errors import InputError
from qaudio.prediction import embeddings
from qaudio.zoo.resolve import DEFAULT_ENTRY, load, locate, on_hub
from qaudio.zoo.store import entry_name, read_config


class Encoder:
    """An entry with the methods that MTEB asks for.

    Args:
        model_name: entry name, folder or "hf-hub:org/name"; "": the package's default.
        revision: of a Hub entry.
        device: as torch names it; None: the CPU.
        **settings: others that MTEB hands to every model; none has a meaning here.

    Raises:
        EntryError: as `qaudio.load`.
    """

    def __init__(
        self,
        model_name: str = "",
        revision: str | None = None,
        device: str | None = None,
        **settings: Any,
    ):
        source = model_name or DEFAULT_ENTRY
        if revision is not None and on_hub(source):
            source = f"{source.partition('@')[0]}@{revision}"
        folder = locate(source)
        self.name, self.config = entry_name(folder).rpartition("/")[2], read_config(folder)
        self.network = load(source).to(device or "cpu").eval()

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any = None,
        hf_split: str | None = None,
        hf_subset: str | None = None,
        prompt_type: Any = None,
        show_progress_bar: bool = False,
        **settings: Any,
    ) -> np.ndarray:
        """An embedding of each sound, (N, D) float32; of long ones the mean over windows.

        Args:
            inputs: batches, each with a list `audio` of mappings with `array`, (T,) or (C, T) in
                −1…1, and `sampling_rate` in Hz, which may differ from sound to sound.
            task_metadata: which task asks, and so do the next three: the answer is the same.
            hf_split: see above.
            hf_subset: see above.
            prompt_type: see above.
            show_progress_bar: show one.
            **settings: others of MTEB's; unused.

        Raises:
            InputError: for batches without sounds, or none at all.
            AudioError: for a sound that cannot be used.
        """
        rows: list[np.ndarray] = []
        for batch in tqdm(inputs, desc="embedding", disable=not show_progress_bar):
            if "audio" not in batch:
                held = ", ".join(map(str, batch)) or "nothing"
                raise InputError(f"an audio network embeds sounds: the batch holds {held}")
            for sound in batch["audio"]:
                samples = np.asarray(sound["array"], dtype=np.float32)
                rate = int(sound["sampling_rate"])
                rows.append(embeddings(self.network, samples, sample_rate=rate).clip().vectors[0])
        if not rows:
            raise InputError("no sound to embed")
        return np.stack(rows)

    def similarity(self, embeddings1: np.ndarray | Tensor, embeddings2: np.ndarray | Tensor) -> Any:
        """Cosines (N, M) of embeddings (N, D) with others (M, D)."""
        return _unit(embeddings1) @ _unit(embeddings2).T

    def similarity_pairwise(
        self, embeddings1: np.ndarray | Tensor, embeddings2: np.ndarray | Tensor
    ) -> Any:
        """Cosines (N,) of embeddings (N, D), each with its own of (N, D)."""
        return (_unit(embeddings1) * _unit(embeddings2)).sum(-1)

    @property
    def mteb_model_meta(self) -> Any:
        """What MTEB's results say of the model, its `ModelMeta`.

        Raises:
            ModuleNotFoundError: without mteb.
        """
        from mteb.models import ModelMeta

        weights = list(self.network.parameters())
        return ModelMeta(
            loader=type(self), name=f"qaudio/{self.name}",
            revision=self.config.files["model.safetensors"], release_date=None, languages=None,
            n_parameters=sum(one.numel() for one in weights),
            memory_usage_mb=sum(one.numel() * one.element_size() for one in weights) / 2**20,
            max_tokens=None, embed_dim=self.network.num_features, license=self.config.license,
            open_weights=True, public_training_code=None, public_training_data=None,
            framework=["PyTorch"], similarity_fn_name="cosine", use_instructions=False,
            training_datasets=None, modalities=["audio"],
        )  # fmt: skip


def _unit(rows: np.ndarray | Tensor) -> Tensor:
    """Rows of length 1, (N, D) float32 on the CPU; a row (D,) as one."""
    return F.normalize(torch.atleast_2d(torch.as_tensor(rows, dtype=torch.float32).cpu()), dim=-1)
