"""AudioModel: what every network of the zoo is, waveform in, logits out."""

from __future__ import annotations

import copy
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from qaudio.errors import InputError
from qaudio.frontend import Frontend, pad_to, resample
from qaudio.models import storage
from qaudio.models.config import ModelConfig, Task


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that pruning keeps or removes together.

    Attributes:
        name: key in `widths`, the name of the layer that makes the channels.
        producers: layers whose outputs they are.
        norms: BatchNorm layers over them.
        consumers: layers whose inputs they are.
        block: number of the block it belongs to, for `layers="blocks4-6"`; None outside blocks.
        prunable: part of `layers="all"`; False for the embedding.
    """

    name: str
    producers: tuple[str, ...]
    norms: tuple[str, ...]
    consumers: tuple[str, ...]
    block: int | None = None
    prunable: bool = True


def _setting(name: str, *, fixed: bool = False) -> Any:
    """A field of a model's config as an attribute of the model; `fixed`: the layers follow it."""

    def put(model: AudioModel, value: Any) -> None:
        model.config = replace(model.config, **{name: value})

    return property(lambda model: getattr(model.config, name), None if fixed else put)


class AudioModel(nn.Module):
    """Base class: front-end, backbone, classifier.

    Subclasses implement `embed_features`, which applies `self.head_dropout` to the embedding, set
    `self.classifier` (an `nn.Linear` on the embedding), `self.min_frames`, and `self.block_dropout`
    where their blocks have one, and implement `channel_groups` where they can be pruned. Where
    layers come between embedding and classifier they are `self.hidden`, and `self.num_features`
    says how wide the embedding is.

    Attributes:
        config: what the model is rebuilt from (`qaudio.models.registry.from_config`); its fields
            are attributes of the model too, to read, and those that no layer follows, such as
            `labels`, to set.
        temperature: that logits are divided by before they become probabilities.
        thresholds: per class, the least probability at which it is given; None: not known.
        published_blocks: numbers of the blocks that the papers prune.
    """

    classifier: nn.Linear
    min_frames: int = 1
    published_blocks: tuple[int, ...] = ()

    architecture: str = _setting("architecture")
    num_classes: int = _setting("num_classes", fixed=True)
    widths: dict[str, int] = _setting("widths", fixed=True)
    quaternion: bool = _setting("quaternion", fixed=True)
    labels: list[str] | None = _setting("labels")
    task: Task = _setting("task")
    eval_seconds: float | None = _setting("eval_seconds")
    padded: bool = _setting("padded")

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.frontend = Frontend(config.frontend)
        self.head_dropout = nn.Dropout(0.0)
        self.hidden: nn.Module = nn.Identity()
        self._num_features: int | None = None
        self.temperature = 1.0
        self.thresholds: list[float] | None = None

    def save_pretrained(self, folder: str | Path, **parts: Any) -> Path:
        """Write the model as an entry; arguments and errors as `qaudio.save`."""
        return storage.save(self, folder, **parts)

    @classmethod
    def from_pretrained(cls, source: str | Path, **settings: Any) -> Self:
        """A pretrained network; arguments and errors as `qaudio.load`.

        Args:
            source: what `load` takes, or a repository on the Hub without "hf-hub:" before it.
            **settings: as `load` takes them.

        Raises:
            TypeError: for an entry of another class than this one.
        """
        if re.fullmatch(r"[\w.-]+/[\w.-]+(@\S+)?", str(source)) and not Path(source).exists():
            source = f"hf-hub:{source}"
        model = storage.load(source, **settings)
        if not isinstance(model, cls):
            raise TypeError(f"{source} holds a {type(model).__name__}, not a {cls.__name__}")
        return model

    def push_to_hub(self, repo_id: str, *, license: str, **how: Any) -> Any:
        """Publish the model as a repository on the Hub, without scores.

        `qaudio.push` publishes an entry that was scored, with its card.

        Args:
            repo_id: "your-name/name"; made where it does not exist.
            license: of the weights, Hub identifier, such as "cc-by-4.0".
            **how: `private`, `create_pr` and `revision` as `qaudio.push` takes them.

        Returns:
            What `qaudio.push` returns. Raises as that does.
        """
        with tempfile.TemporaryDirectory() as folder:
            entry = self.save_pretrained(Path(folder) / repo_id.rpartition("/")[2], license=license)
            return storage.push(entry, repo_id, scored=False, **how)

    @property
    def num_features(self) -> int:
        """Size of the embedding."""
        return self._num_features or self.classifier.in_features

    @num_features.setter
    def num_features(self, size: int) -> None:
        self._num_features = size

    @property
    def components(self) -> int:
        """Real channels of each prunable filter: 4 of a quaternion network, else 1."""
        return 4 if self.quaternion else 1

    @property
    def sample_rate(self) -> int:
        """Rate in Hz that the front-end works at."""
        return self.frontend.config.sample_rate

    @property
    def min_samples(self) -> int:
        """Shortest input in samples at `sample_rate`; shorter ones are padded with zeros."""
        settings = self.frontend.config
        return max(self.min_frames * settings.hop_length, settings.n_fft)

    def forward(self, waveform: Tensor, sample_rate: int | None = None) -> Tensor:
        """Logits (B, num_classes) of waveforms (T,), (B, T) or (B, C, T).

        Args:
            waveform: samples in −1…1; channels are averaged.
            sample_rate: Hz; None means `self.sample_rate`, anything else is resampled.

        Raises:
            ValueError: for another number of dimensions, no samples, or fewer samples than clips
                or channels, as in soundfile's (T, C).
            TypeError: for something else than a tensor.
        """
        return self.classify(self.embed(waveform, sample_rate))

    def classify(self, embedding: Tensor) -> Tensor:
        """Logits (B, num_classes) of embeddings (B, num_features)."""
        return self.classifier(self.hidden(embedding))

    def embed(self, waveform: Tensor, sample_rate: int | None = None) -> Tensor:
        """Embeddings (B, D) of waveforms; arguments as `forward`."""
        return self.embed_features(self.features(waveform, sample_rate))

    def features(self, waveform: Tensor, sample_rate: int | None = None) -> Tensor:
        """Front-end output (B, channels, frames, n_mels); arguments as `forward`."""
        if not isinstance(waveform, Tensor):
            raise TypeError(
                f"waveform must be a tensor, not {type(waveform).__name__}: "
                "torch.from_numpy(samples) of an array (T,), torch.from_numpy(samples.T)[None] of "
                "soundfile's (T, C)"
            )
        if waveform.ndim == 1:
            waveform = waveform.unsqueeze(0)
        if waveform.ndim not in (2, 3) or 0 in waveform.shape:
            raise InputError(
                "waveform must be (T,), (B, T) or (B, C, T), nothing empty, not "
                f"{tuple(waveform.shape)}"
            )
        if waveform.ndim > 1 and waveform.shape[-2] > waveform.shape[-1]:
            raise InputError(
                f"waveform {tuple(waveform.shape)} holds fewer samples than clips or channels: "
                "samples come last, so transpose what soundfile reads, (T, C)"
            )
        if not waveform.is_floating_point():
            raise InputError(f"waveform must be floating point in -1…1, not {waveform.dtype}")
        if waveform.dtype in (torch.float16, torch.bfloat16):
            waveform = waveform.float()  # as the front-end works
        if waveform.ndim == 3:
            waveform = waveform.mean(dim=1)
        if sample_rate is not None:
            waveform = resample(waveform, sample_rate, self.sample_rate)
        features = self.frontend(pad_to(waveform, self.min_samples))
        return features.to(self.classifier.weight.dtype)

    def check_mels(self, least: int) -> None:
        """Raise ValueError for a front-end with fewer mel bins than the network takes."""
        mels = self.config.frontend.n_mels
        if mels < least:
            raise InputError(f"{self.architecture} needs n_mels of at least {least}, not {mels}")

    def embed_features(self, features: Tensor) -> Tensor:
        """Embeddings (B, D) of front-end output (B, channels, frames, n_mels)."""
        raise NotImplementedError

    def channel_groups(self) -> list[ChannelGroup]:
        """Groups of channels that can be pruned, in network order.

        Raises:
            ValueError: where nothing can be pruned.
        """
        raise InputError(f"{self.architecture} cannot be pruned: it names no channel groups")

    def reset_classifier(self, num_classes: int, labels: list[str] | None = None) -> None:
        """Put a new, freshly initialised classifier on the embedding.

        Args:
            num_classes: outputs.
            labels: their names; None: "class 0", "class 1" and so on.

        Raises:
            ValueError: for no classes, or another number of labels.
        """
        self.config = replace(self.config, num_classes=num_classes, labels=labels)
        old = self.classifier
        self.classifier = nn.Linear(old.in_features, num_classes).to(old.weight)
        self.temperature, self.thresholds = 1.0, None

    @property
    def calibration(self) -> dict[str, Any]:
        """What exports say of it: `temperature` and `thresholds`; {} where none was fitted."""
        if self.thresholds is None:
            return {}
        return {"temperature": self.temperature, "thresholds": self.thresholds}

    @torch.no_grad()
    def probabilities(self, logits: Tensor) -> Tensor:
        """Softmax or sigmoid of logits / `temperature`, by `task`."""
        logits = logits / self.temperature
        return logits.softmax(-1) if self.task == "multiclass" else logits.sigmoid()


class MelNorm(nn.BatchNorm1d):
    """BatchNorm over mel bins, or over (channel, mel bin) for front-ends that want it.

    Shape:
        (B, channels, frames, mels) -> the same, channels last in memory.
    """

    def __init__(self, frontend: Frontend):
        super().__init__(frontend.norm_features)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, frames, mels = x.shape
        if self.num_features == mels:
            flat = x.permute(0, 3, 1, 2).reshape(batch, mels, channels * frames)
            x = super().forward(flat).reshape(batch, mels, channels, frames).permute(0, 2, 3, 1)
        else:
            flat = x.permute(0, 1, 3, 2).reshape(batch, channels * mels, frames)
            x = super().forward(flat).reshape(batch, channels, mels, frames).permute(0, 1, 3, 2)
        # The faster layout of convolutions on CPUs and tensor cores alike.
        return x.contiguous(memory_format=torch.channels_last)

    def scale_and_shift(self, mels: int) -> tuple[Tensor, Tensor]:
        """What it does in eval mode to each value, (channels or 1, mels) each."""
        assert self.running_mean is not None and self.running_var is not None
        scale = self.weight.detach() * (self.running_var + self.eps).rsqrt()
        shift = self.bias.detach() - self.running_mean * scale
        return scale.view(-1, mels), shift.view(-1, mels)


def check_model(model: Any, *, changed: bool = False) -> None:
    """Raise TypeError for something else than a model, such as an entry's name.

    Args:
        model: what was given.
        changed: refuse weights that are computed from others as well: they cannot be sliced or
            stored as they are.
    """
    if not isinstance(model, AudioModel):
        kind = type(model).__name__
        inner = [name for name in ("module", "net", "_orig_mod") if hasattr(model, name)]
        hint = f": give its .{inner[0]}" if inner and isinstance(model, nn.Module) else ""
        raise TypeError(f"expected is a model, as qaudio.load('ENTRY') gives, not a {kind}{hint}")
    for name, layer in model.named_modules() if changed else ():
        if parametrize.is_parametrized(layer):
            how = "torch.nn.utils.parametrize.remove_parametrizations"
        elif any(key.endswith("_orig") for key in layer._parameters):
            how = "torch.nn.utils.prune.remove"
        elif hasattr(layer, "_orig_mod"):
            raise TypeError(f"{name} is compiled: give the model as it was before torch.compile")
        else:
            continue
        raise TypeError(f"the weights of {name} are computed from others: call {how} first")


def check_weights(state: Mapping[str, Tensor]) -> None:
    """Raise ValueError naming the first tensor of a state dict that holds no usable numbers.

    That is NaN or infinite weights, and negative variances.
    """
    for name, tensor in state.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise InputError(f"tensor {name} holds NaN or infinite values")
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise InputError(f"tensor {name} holds negative variances")


@contextmanager
def evaluating(model: AudioModel) -> Iterator[AudioModel]:
    """A model in eval mode that shares its tensors; the model itself is left alone.

    Other threads may use it meanwhile, in whatever mode it is in.
    """
    training = any(module.training for module in model.modules())
    yield sharing_copy(model).eval() if training else model


def sharing_copy(model: AudioModel) -> AudioModel:
    """A copy of a model's modules, with modes and hooks of their own, around the same tensors."""
    shared = [
        tensor
        for module in model.modules()
        for held in (vars(module), module._parameters, module._buffers)
        for tensor in held.values()
        if isinstance(tensor, Tensor)
    ]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in shared})
