"""CNN6, CNN10, CNN14 (PANNs) and their quaternion twins, one class.

Kong et al., *PANNs*, TASLP 28:2880 (2020); Chaudhary et al., Interspeech 2024 (QCNN14).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qaudio.frontend import FrontendConfig
from qaudio.models.base import AudioModel, ChannelGroup
from qaudio.quaternion import QConv2d, QLinear


@dataclass(frozen=True)
class CNNSpec:
    """Shape of one member of the family.

    Attributes:
        channels: output channels of each block at width 1.
        convs: convolutions in each block.
        kernel: their kernel size.
        embedding: outputs of fc1 at width 1.
        pool_last: whether the last block pools 2×2 as the others do.
    """

    channels: tuple[int, ...]
    convs: int
    kernel: int
    embedding: int
    pool_last: bool


SPECS = {
    "cnn6": CNNSpec((64, 128, 256, 512), 1, 5, 512, True),
    "cnn10": CNNSpec((64, 128, 256, 512), 2, 3, 512, True),
    "cnn14": CNNSpec((64, 128, 256, 512, 1024, 2048), 2, 3, 2048, False),
}
# QCNN14's blocks 4-6 as in the papers; blocks 3-4 of the smaller nets by analogy.
PUBLISHED_BLOCKS = {"cnn6": (3, 4), "cnn10": (3, 4), "cnn14": (4, 5, 6)}


def dense_widths(family: str, multiplier: float) -> dict[str, int]:
    """Output channels of every layer of an unpruned net, by layer name."""
    spec = SPECS[family]

    def scale(channels: int) -> int:
        return max(4, round(channels * multiplier / 4) * 4)

    widths = {
        f"conv_block{b}.conv{c}": scale(channels)
        for b, channels in enumerate(spec.channels, start=1)
        for c in range(1, spec.convs + 1)
    }
    return widths | {"fc1": scale(spec.embedding)}


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


class CNN(AudioModel):
    """PANNs' CNN or its quaternion form.

    Front-end → BatchNorm over mel bins → conv blocks → mean over frequency → max + mean over
    time → dropout → fc1 → ReLU → dropout → linear.

    Args:
        architecture: name as `qaudio.create_model` takes it.
        family: key of `SPECS`.
        num_classes: outputs.
        frontend: its settings; four channels for quaternion nets.
        widths: output channels of every layer, see `dense_widths`.
        quaternion: build every conv and fc1 as quaternion layers; the classifier stays real.

    Raises:
        ValueError: for a front-end with the wrong number of channels.
    """

    def __init__(
        self,
        architecture: str,
        family: str,
        num_classes: int,
        frontend: FrontendConfig,
        widths: dict[str, int],
        quaternion: bool,
    ):
        super().__init__(architecture, num_classes, frontend, widths, quaternion)
        spec = SPECS[family]
        if quaternion and self.frontend.channels != 4:
            raise ValueError(
                f"{architecture} takes a four-channel front-end ('delta' or 'published'), "
                f"not {frontend.kind!r}"
            )
        conv: type = QConv2d if quaternion else nn.Conv2d
        linear: type = QLinear if quaternion else nn.Linear
        self.depth = len(spec.channels)
        self.min_frames = 2 ** (self.depth - (not spec.pool_last))
        self.published_blocks = PUBLISHED_BLOCKS[family]
        self.bn0 = nn.BatchNorm1d(self.frontend.norm_features)
        inputs = self.frontend.channels
        for b in range(1, self.depth + 1):
            outputs = [widths[f"conv_block{b}.conv{c}"] for c in range(1, spec.convs + 1)]
            pool = 2 if b < self.depth or spec.pool_last else 1
            block = ConvBlock(conv, [inputs, *outputs], spec.kernel, pool)
            self.add_module(f"conv_block{b}", block)
            inputs = outputs[-1]
        self.block_dropout = nn.Dropout(0.2)
        self.head_dropout = nn.Dropout(0.5)
        self.fc1 = linear(inputs, widths["fc1"])
        self.classifier = nn.Linear(widths["fc1"], num_classes)

    def embed_features(self, features: Tensor) -> Tensor:
        x = self._normalise(features)
        for b in range(1, self.depth + 1):
            x = self.block_dropout(self.get_submodule(f"conv_block{b}")(x))
        x = x.mean(dim=3)  # (B, C, frames)
        x = x.amax(dim=2) + x.mean(dim=2)
        return self.head_dropout(F.relu(self.fc1(self.head_dropout(x))))

    def _normalise(self, x: Tensor) -> Tensor:
        """bn0 over mel bins, or over (channel, mel bin) for front-ends that want it."""
        batch, channels, frames, mels = x.shape
        if self.frontend.norm_features == mels:
            flat = x.permute(0, 3, 1, 2).reshape(batch, mels, channels * frames)
            x = self.bn0(flat).reshape(batch, mels, channels, frames).permute(0, 2, 3, 1)
        else:
            flat = x.permute(0, 1, 3, 2).reshape(batch, channels * mels, frames)
            x = self.bn0(flat).reshape(batch, channels, mels, frames).permute(0, 1, 3, 2)
        # The faster layout of convolutions on CPUs and tensor cores alike.
        return x.contiguous(memory_format=torch.channels_last)

    def channel_groups(self) -> list[ChannelGroup]:
        convs = [name for name in self.widths if name != "fc1"]
        groups = [
            ChannelGroup(
                name,
                producers=(name,),
                norms=(name.replace(".conv", ".bn"),),
                consumers=(following,),
                block=int(name.removeprefix("conv_block").split(".")[0]),
            )
            for name, following in zip(convs, [*convs[1:], "fc1"], strict=True)
        ]
        embedding = ChannelGroup("fc1", ("fc1",), (), ("classifier",), prunable=False)
        return [*groups, embedding]
