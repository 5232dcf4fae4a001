"""ResNet38 (PANNs) and QResNet38, one class.

Kong et al., *PANNs*, TASLP 28:2880 (2020); Singh et al., TASLP 34:1866 (2026).
"""

import torch.nn.functional as F
from torch import Tensor, nn

from qaudio.models.base import ChannelGroup
from qaudio.models.config import ModelConfig
from qaudio.models.panns import ConvBlock, PannsModel, register_twins, scaled

CHANNELS, DEPTHS = (64, 128, 256, 512), (3, 4, 6, 3)  # of the four residual stages
LAST = 2048  # channels of the conv block after them, and of the embedding
STAGES = range(1, len(CHANNELS) + 1)


def dense_widths(multiplier: float) -> dict[str, int]:
    """Output channels of an unpruned net, by name.

    The channels that a stage's residual sums share have one entry, `resnet.layerN`; the first
    stage shares its with `conv_block1.conv2`, whose output it adds to.
    """
    widths = {"conv_block1.conv1": scaled(CHANNELS[0], multiplier)}
    for stage, channels, depth in zip(STAGES, CHANNELS, DEPTHS, strict=True):
        widths[f"resnet.layer{stage}"] = scaled(channels, multiplier)
        for n in range(depth):
            widths[f"resnet.layer{stage}.{n}.conv1"] = scaled(channels, multiplier)
    after = {f"conv_block_after1.conv{n}": scaled(LAST, multiplier) for n in (1, 2)}
    return widths | after | {"fc1": scaled(LAST, multiplier)}


class BasicBlock(nn.Module):
    """Two 3×3 convs and a shortcut; a block that halves the map pools 2×2 where others stride.

    Shape:
        (B, inputs, frames, mels) -> (B, outputs, frames', mels').
    """

    def __init__(self, conv: type, inputs: int, inner: int, outputs: int, halve: bool):
        super().__init__()
        self.halve = halve
        self.conv1 = conv(inputs, inner, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.dropout = nn.Dropout(0.1)
        self.conv2 = conv(inner, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        # Indices 1 and 2 are the names in the published checkpoint.
        self.downsample = (
            nn.Sequential(
                nn.AvgPool2d(2), conv(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
            )
            if halve
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        out = F.avg_pool2d(x, 2) if self.halve else x
        out = self.dropout(F.relu(self.bn1(self.conv1(out))))
        return F.relu(self.bn2(self.conv2(out)) + self.downsample(x))


@register_twins("resnet38", widths=dense_widths)
class ResNet(PannsModel):
    """PANNs' ResNet38 or its quaternion form.

    Conv block → residual stages of 3, 4, 6 and 3 blocks → 2×2 pooling → conv block →
    `PannsModel`'s head.

    Args:
        config: widths are those of `dense_widths` or smaller.
    """

    min_frames = 2 ** (len(CHANNELS) + 1)
    published_blocks = (6,)  # the papers prune the last conv block only

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        widths = config.widths
        first = [self.frontend.channels, widths["conv_block1.conv1"], widths["resnet.layer1"]]
        self.conv_block1 = ConvBlock(self.conv, first, 3, pool=2)
        self.resnet = nn.Module()
        inputs = widths["resnet.layer1"]
        for stage, depth in zip(STAGES, DEPTHS, strict=True):
            outputs, blocks = widths[f"resnet.layer{stage}"], []
            for n in range(depth):
                inner, halve = widths[f"resnet.layer{stage}.{n}.conv1"], stage > 1 and n == 0
                blocks.append(BasicBlock(self.conv, inputs, inner, outputs, halve))
                inputs = outputs
            self.resnet.add_module(f"layer{stage}", nn.Sequential(*blocks))
        last = [widths[f"conv_block_after1.conv{n}"] for n in (1, 2)]
        self.conv_block_after1 = ConvBlock(self.conv, [inputs, *last], 3, pool=1)
        self.add_head(last[-1])

    def trunk(self, x: Tensor) -> Tensor:
        x = self.block_dropout(self.conv_block1(x))
        for stage in STAGES:
            x = self.resnet.get_submodule(f"layer{stage}")(x)
        x = self.block_dropout(F.avg_pool2d(x, 2))
        return self.block_dropout(self.conv_block_after1(x))

    def trunk_groups(self) -> list[ChannelGroup]:
        """Blocks are numbered 1 (first conv block), 2-5 (stages), 6 (last conv block)."""
        groups = [_plain("conv_block1.conv1", "conv_block1.conv2", 1)]
        for stage, depth in zip(STAGES, DEPTHS, strict=True):
            layer = f"resnet.layer{stage}"
            blocks = [f"{layer}.{n}" for n in range(depth)]
            # What is added together goes together: every block's output and what it adds to.
            source, norm = f"{layer}.0.downsample.1", f"{layer}.0.downsample.2"
            if stage == 1:
                source, norm = "conv_block1.conv2", "conv_block1.bn2"
            consumers = [f"{block}.conv1" for block in (blocks if stage == 1 else blocks[1:])]
            if stage < len(STAGES):
                following = f"resnet.layer{stage + 1}.0"
                consumers += [f"{following}.conv1", f"{following}.downsample.1"]
            else:
                consumers.append("conv_block_after1.conv1")
            groups.append(
                ChannelGroup(
                    layer,
                    producers=(source, *(f"{block}.conv2" for block in blocks)),
                    norms=(norm, *(f"{block}.bn2" for block in blocks)),
                    consumers=tuple(consumers),
                    block=stage + 1,
                )
            )
            groups += [_plain(f"{b}.conv1", f"{b}.conv2", stage + 1) for b in blocks]
        last = len(STAGES) + 2
        groups.append(_plain("conv_block_after1.conv1", "conv_block_after1.conv2", last))
        groups.append(_plain("conv_block_after1.conv2", "fc1", last))
        return groups


def _plain(conv: str, following: str, block: int) -> ChannelGroup:
    """The channels between two layers that nothing else shares."""
    return ChannelGroup(conv, (conv,), (conv.replace(".conv", ".bn"),), (following,), block)
