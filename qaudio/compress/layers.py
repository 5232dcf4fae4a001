"""A table of a network's modules, counted by fvcore: a second count beside `cost`."""

import math
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis, flop_count_table
from torch import Tensor, nn

from qaudio.compress.cost import silence
from qaudio.models.base import AudioModel, sharing_copy

# What `Cost.macs` leaves out as well: norms, pooling and resizing.
NOT_COUNTED = (
    "aten::batch_norm", "aten::layer_norm", "aten::group_norm", "aten::instance_norm",
    "aten::adaptive_avg_pool1d", "aten::adaptive_avg_pool2d", "aten::upsample_nearest2d",
    "aten::upsample_bilinear2d", "aten::upsample_bicubic2d",
)  # fmt: skip
DEPTH = 4  # of nested modules that are shown


class _Network(nn.Module):
    """A model without its front-end."""

    def __init__(self, model: AudioModel):
        super().__init__()
        self.model = model

    def forward(self, features: Tensor) -> Tensor:
        return self.model.classify(self.model.embed_features(features))


def _attention(inputs: list[Any], outputs: list[Any]) -> int:
    """Products of queries with keys, and of what comes of it with values."""
    query, key, value = (one.type().sizes() for one in inputs[:3])
    return math.prod(query) * key[-2] + math.prod(query[:-1]) * key[-2] * value[-1]


def analysis(model: AudioModel, seconds: float = 10.0) -> FlopCountAnalysis:
    """fvcore's count of a network's MACs on one clip, from the front-end's output on."""
    net = sharing_copy(model).eval()
    with torch.no_grad():
        features = net.features(silence(net, seconds))
    found = FlopCountAnalysis(_Network(net), features)
    found.set_op_handle("aten::scaled_dot_product_attention", _attention)
    for operator in NOT_COUNTED:
        found.set_op_handle(operator, lambda inputs, outputs: 0)
    return found.unsupported_ops_warnings(False).uncalled_modules_warnings(False)


def layer_table(model: AudioModel, seconds: float = 10.0) -> str:
    """Parameters and MACs of every module of a network, on one clip, as text."""
    with torch.no_grad():
        table = flop_count_table(analysis(model, seconds), max_depth=DEPTH, show_param_shapes=False)
    return table.replace("#flops", "#MACs ").replace("| model ", "| whole ")
