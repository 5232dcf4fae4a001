"""What PANNs' networks share: the norm over mel bins, the conv block, pooling and head.

Kong et al., *PANNs*, TASLP 28:2880 (2020).
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from qaudio.errors import InputError
from qaudio.models.base import AudioModel, ChannelGroup, MelNorm
from qaudio.models.config import ModelConfig
from qaudio.models.registry import Builder, register
from qaudio.quaternion import QConv2d, QLinear

PANNS = """@article{kong2020panns,
  title   = {{PANNs}: Large-Scale Pretrained Audio Neural Networks for Audio Pattern Recognition},
  author  = {Kong, Q. and others},
  journal = {IEEE/ACM Transactions on Audio, Speech, and Language Processing},
  volume  = {28},
  year    = {2020}
}"""
COMPRESSING = """@article{singh2026compressing,
  title   = {Compressing Quaternion Convolutional Neural Networks for Audio Classification},
  author  = {Singh, A. and Abrol, V. and Plumbley, M. D.},
  journal = {IEEE Transactions on Audio, Speech and Language Processing},
  volume  = {34},
  pages   = {1866--1875},
  year    = {2026},
  eprint  = {2510.21388},
  archivePrefix = {arXiv}
}"""
QPANN = """@inproceedings{chaudhary2024efficient,
  title     = {Efficient {CNNs} with Quaternion Transformations and Pruning for Audio Tagging},
  author    = {Chaudhary, A. and Singh, A. and Abrol, V. and Plumbley, M. D.},
  booktitle = {Interspeech},
  year      = {2024}
}"""


def register_twins(
    name: str, *, widths: Callable[[float], dict[str, int]]
) -> Callable[[Builder], Builder]:
    """Decorator: register a network of PANNs and its quaternion form, at every width.

    Args:
        name: of the real one, without a width; the quaternion one has a "q" before it.
        widths: output channels by layer name, of a width multiplier.
    """

    def decorate(build: Builder) -> Builder:
        for q, papers, importer in (
            ("", (PANNS,), "panns"), ("q", (COMPRESSING, QPANN, PANNS), "qpann")
        ):  # fmt: skip
            register(
                q + name, build, pattern=rf"{q}{name}(_(?!000)\d{{3}})?",
                widths=lambda name: widths(multiplier(name)), quaternion=bool(q), papers=papers,
                importer=importer, blocks=True,
            )  # fmt: skip
        return build

    return decorate


def multiplier(architecture: str) -> float:
    """Width multiplier of a name such as "qcnn10_050", which has it in percent; 1 without."""
    return int(architecture.partition("_")[2] or 100) / 100


def scaled(channels: int, multiplier: float) -> int:
    """A channel count at a width multiplier, in quaternions' multiples of 4."""
    return max(4, round(channels * multiplier / 4) * 4)


class ConvBlock(nn.Module):
    """One or two convolutions, each with BatchNorm and ReLU, then average pooling.

    Shape:
        (B, in, frames, mels) -> (B, out, frames/pool, mels/pool).
    """

    def __init__(self, conv: type, channels: list[int], kernel: int, pool: int):
        super().__init__()
        self.pool = pool
        self.depth = len(channels) - 1
        for n in range(1, self.depth + 1):
            inputs, outputs = channels[n - 1], channels[n]
            layer = conv(inputs, outputs, kernel, padding=kernel // 2, bias=False)
            self.add_module(f"conv{n}", layer)
            self.add_module(f"bn{n}", nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        for n in range(1, self.depth + 1):
            x = F.relu(self.get_submodule(f"bn{n}")(self.get_submodule(f"conv{n}")(x)))
        return F.avg_pool2d(x, self.pool) if self.pool > 1 else x


class PannsModel(AudioModel):
    """Front-end → BatchNorm → `trunk` → pooling → dropout → fc1 → ReLU → dropout → linear.

    Pooling is the mean over frequency, then max + mean over time. Subclasses build their layers
    from `self.conv`, call `add_head`, and implement `trunk` and `trunk_groups`.

    Args:
        config: with quaternion, every conv and fc1 are quaternion layers; the classifier is real.

    Raises:
        ValueError: for a front-end with the wrong number of channels.
    """

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        quaternion = config.quaternion
        if quaternion and self.frontend.channels != 4:
            raise InputError(
                f"{config.architecture} takes a four-channel front-end ('delta' or 'published'), "
                f"not {config.frontend.kind!r}"
            )
        self.conv: type = QConv2d if quaternion else nn.Conv2d
        self.bn0 = MelNorm(self.frontend)
        self.block_dropout = nn.Dropout(0.2)
        self.head_dropout = nn.Dropout(0.5)

    def add_head(self, channels: int) -> None:
        """Put fc1 and the classifier on a trunk that ends in so many channels.

        Raises:
            ValueError: for a front-end with fewer mel bins than the trunk pools.
        """
        self.check_mels(self.min_frames)
        linear: type = QLinear if self.quaternion else nn.Linear
        self.fc1 = linear(channels, self.widths["fc1"])
        self.classifier = nn.Linear(self.widths["fc1"], self.num_classes)

    def trunk(self, x: Tensor) -> Tensor:
        """Feature maps (B, C, frames', mels') of normalised input (B, channels, frames, mels)."""
        raise NotImplementedError

    def trunk_groups(self) -> list[ChannelGroup]:
        """The trunk's groups of channels, in network order."""
        raise NotImplementedError

    def embed_features(self, features: Tensor) -> Tensor:
        x = self.trunk(self.bn0(features)).mean(dim=3)  # (B, C, frames')
        x = x.amax(dim=2) + x.mean(dim=2)
        return self.head_dropout(F.relu(self.fc1(self.head_dropout(x))))

    def channel_groups(self) -> list[ChannelGroup]:
        embedding = ChannelGroup("fc1", ("fc1",), (), ("classifier",), prunable=False)
        return [*self.trunk_groups(), embedding]
