"""CNN6, CNN10, CNN14 (PANNs) and their quaternion twins, one class.

Kong et al., *PANNs*, TASLP 28:2880 (2020); Chaudhary et al., Interspeech 2024 (QCNN14).
"""

from dataclasses import dataclass
from functools import partial

from torch import Tensor

from qaudio.models.base import ChannelGroup
from qaudio.models.config import ModelConfig
from qaudio.models.panns import ConvBlock, PannsModel, register_twins, scaled


@dataclass(frozen=True)
class CNNSpec:
    """Shape of one member of the family.

    Attributes:
        channels: output channels of each block at width 1.
        convs: convolutions in each block.
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

    widths = {
        f"conv_block{b}.conv{c}": scaled(channels, multiplier)
        for b, channels in enumerate(spec.channels, start=1)
        for c in range(1, spec.convs + 1)
    }
    return widths | {"fc1": scaled(spec.embedding, multiplier)}


@register_twins("cnn6", widths=partial(dense_widths, "cnn6"))
@register_twins("cnn10", widths=partial(dense_widths, "cnn10"))
@register_twins("cnn14", widths=partial(dense_widths, "cnn14"))
class CNN(PannsModel):
    """PANNs' CNN or its quaternion form: conv blocks, then `PannsModel`'s head.

    Args:
        config: widths are those of `dense_widths` or smaller.
    """

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        family, widths = config.architecture.partition("_")[0].removeprefix("q"), config.widths
        spec = SPECS[family]
        self.depth = len(spec.channels)
        self.min_frames = 2 ** (self.depth - (not spec.pool_last))
        self.published_blocks = PUBLISHED_BLOCKS[family]
        inputs = self.frontend.channels
        for b in range(1, self.depth + 1):
            outputs = [widths[f"conv_block{b}.conv{c}"] for c in range(1, spec.convs + 1)]
            pool = 2 if b < self.depth or spec.pool_last else 1
            block = ConvBlock(self.conv, [inputs, *outputs], spec.kernel, pool)
            self.add_module(f"conv_block{b}", block)
            inputs = outputs[-1]
        self.add_head(inputs)

    def trunk(self, x: Tensor) -> Tensor:
        for b in range(1, self.depth + 1):
            x = self.block_dropout(self.get_submodule(f"conv_block{b}")(x))
        return x

    def trunk_groups(self) -> list[ChannelGroup]:
        convs = [name for name in self.widths if name != "fc1"]
        return [
            ChannelGroup(
                name,
                producers=(name,),
                norms=(name.replace(".conv", ".bn"),),
                consumers=(following,),
                block=int(name.removeprefix("conv_block").split(".")[0]),
            )
            for name, following in zip(convs, [*convs[1:], "fc1"], strict=True)
        ]
