"""An audio spectrogram transformer: timm's ViT blocks on patches of the front-end's output.

After Gong et al., *AST: Audio Spectrogram Transformer*, Interspeech 2021.
"""

from dataclasses import dataclass

import torch
from timm.layers import Mlp, resample_abs_pos_embed
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.init import trunc_normal_

from qaudio.models.base import AudioModel, ChannelGroup, MelNorm
from qaudio.models.config import ModelConfig
from qaudio.models.registry import register

PAPER = """@inproceedings{gong2021ast,
  title     = {{AST}: Audio Spectrogram Transformer},
  author    = {Gong, Y. and Chung, Y.-A. and Glass, J.},
  booktitle = {Interspeech},
  year      = {2021}
}"""
PATCH = 16  # frames and mel bins
REFERENCE_SECONDS = 10.0  # clip length that the table of positions is laid out for


@dataclass(frozen=True)
class Size:
    """One of timm's (DeiT's) sizes of ViT."""

    width: int
    heads: int
    depth: int = 12


SIZES = {"tiny": Size(192, 3), "small": Size(384, 6), "base": Size(768, 12)}


def dense_widths(architecture: str) -> dict[str, int]:
    """Hidden units of every block's MLP in an unpruned net, by the layer that makes them."""
    size = SIZES[architecture.split("_")[1]]
    return {f"blocks.{n}.mlp.fc1": 4 * size.width for n in range(size.depth)}


@register(
    "ast_tiny",
    pattern=rf"ast_({'|'.join(SIZES)})(_s([1-9]|1[0-6]))?",
    widths=dense_widths,
    title="audio spectrogram transformer",
    scratch="It was trained from scratch on this benchmark alone, not transferred from ImageNet or "
    "AudioSet as the published AST was: its score says nothing of those that are.",
    papers=(PAPER,),
)
class AST(AudioModel):
    """BatchNorm over mel bins → patches → ViT blocks → mean over patches → norm → linear.

    It differs from the published AST where that serves training from scratch: the patches' mean
    in place of class tokens (Beyer et al., arXiv 2205.01580), and a BatchNorm in place of a data
    set's mean and deviation. Clips of other lengths than ten seconds stretch or shrink the table
    of positions (timm's `resample_abs_pos_embed`); the last patch is filled up with zeros.

    Args:
        config: the architecture's name says the size, and the stride of the patches in frames and
            mel bins (`ast_tiny_s10`); below `PATCH` they overlap. Widths are the hidden units of
            the MLPs, see `dense_widths`.

    Raises:
        ValueError: for a front-end with fewer mel bins than a patch.
    """

    min_frames = PATCH

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        frontend, widths = config.frontend, config.widths
        self.check_mels(PATCH)
        _, size, *strides = config.architecture.split("_")  # such as ast_tiny_s10
        shape, self.stride = SIZES[size], int(strides[0][1:]) if strides else PATCH
        frames = int(REFERENCE_SECONDS * frontend.sample_rate) // frontend.hop_length + 1
        self.grid = (self._patches(max(frames, PATCH)), self._patches(frontend.n_mels))
        self.bn0 = MelNorm(self.frontend)
        self.patches = nn.Conv2d(self.frontend.channels, shape.width, PATCH, self.stride)
        self.positions = nn.Parameter(torch.empty(1, self.grid[0] * self.grid[1], shape.width))
        self.block_dropout = nn.Dropout(0.0)
        self.blocks = nn.ModuleList()
        for n in range(shape.depth):
            block = Block(shape.width, shape.heads, qkv_bias=True)
            block.mlp = Mlp(shape.width, widths[f"blocks.{n}.mlp.fc1"])
            # On the output of attention and MLP, before it is added (Vaswani et al., 2017).
            block.drop_path1 = block.drop_path2 = self.block_dropout  # type: ignore[assignment]
            self.blocks.append(block)
        self.norm = nn.LayerNorm(shape.width, eps=1e-6)
        trunc_normal_(self.positions, std=0.02)
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        self.classifier = nn.Linear(shape.width, config.num_classes)

    def embed_features(self, features: Tensor) -> Tensor:
        frames, mels = features.shape[2:]
        rows, columns = self._patches(frames), self._patches(mels)
        missing = [(n - 1) * self.stride + PATCH for n in (rows, columns)]
        x = F.pad(self.bn0(features), (0, missing[1] - mels, 0, missing[0] - frames))
        x = self.patches(x).flatten(2).transpose(1, 2)  # (B, rows × columns, width)
        x = x + resample_abs_pos_embed(
            self.positions, [rows, columns], list(self.grid), num_prefix_tokens=0
        )
        for block in self.blocks:
            x = block(x)
        return self.head_dropout(self.norm(x.mean(dim=1)))

    def channel_groups(self) -> list[ChannelGroup]:
        """Hidden units of each block's MLP; blocks are numbered from 1."""
        return [
            ChannelGroup(
                f"blocks.{n}.mlp.fc1",
                producers=(f"blocks.{n}.mlp.fc1",),
                norms=(),
                consumers=(f"blocks.{n}.mlp.fc2",),
                block=n + 1,
            )
            for n in range(len(self.blocks))
        ]

    def _patches(self, length: int) -> int:
        """Patches that cover a length of at least one patch."""
        # Of positive numbers alone: ONNX rounds quotients towards zero, Python downwards.
        return (length - PATCH + self.stride - 1) // self.stride + 1
