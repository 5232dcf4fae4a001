"""EfficientAT's MobileNetV3 (mn01 … mn40), made of torchvision's blocks.

Schmid, Koutini & Widmer, *Efficient Large-Scale Audio Tagging via Transformer-to-CNN Knowledge
Distillation*, ICASSP 2023; Howard et al., *Searching for MobileNetV3*, ICCV 2019.
"""

from functools import partial

from torch import Tensor, nn
from torchvision.models.mobilenetv3 import InvertedResidual, InvertedResidualConfig
from torchvision.ops import Conv2dNormActivation, SqueezeExcitation

from qaudio.models.base import AudioModel
from qaudio.models.config import ModelConfig
from qaudio.models.registry import register

PAPER = """@inproceedings{schmid2023efficientat,
  title     = {Efficient Large-Scale Audio Tagging via Transformer-to-{CNN} Knowledge Distillation},
  author    = {Schmid, F. and Koutini, K. and Widmer, G.},
  booktitle = {ICASSP},
  year      = {2023}
}"""

# MobileNetV3-Large (Howard et al., table 1): input, kernel, expanded, output channels, squeeze
# and excitation, non-linearity, stride.
PLAN = (
    (16, 3, 16, 16, False, "RE", 1),
    (16, 3, 64, 24, False, "RE", 2),
    (24, 3, 72, 24, False, "RE", 1),
    (24, 5, 72, 40, True, "RE", 2),
    (40, 5, 120, 40, True, "RE", 1),
    (40, 5, 120, 40, True, "RE", 1),
    (40, 3, 240, 80, False, "HS", 2),
    (80, 3, 200, 80, False, "HS", 1),
    (80, 3, 184, 80, False, "HS", 1),
    (80, 3, 184, 80, False, "HS", 1),
    (80, 3, 480, 112, True, "HS", 1),
    (112, 3, 672, 112, True, "HS", 1),
    (112, 5, 672, 160, True, "HS", 2),
    (160, 5, 960, 160, True, "HS", 1),
    (160, 5, 960, 160, True, "HS", 1),
)
HIDDEN = 1280  # channels of the linear layer before the classifier
REDUCTION = 32  # of frames and mel bins, by five strides of 2


@register(
    "mn01",
    pattern="mn(01|02|04|05|06|08|10|20|30|40)",
    frontend="efficientat",
    title="MobileNetV3 as EfficientAT has it",
    scratch="It was trained from scratch on this benchmark alone, not from EfficientAT's weights.",
    papers=(PAPER,),
    importer="efficientat",
)
class MobileNet(AudioModel):
    """MobileNetV3-Large on spectrograms, with EfficientAT's head.

    Its embedding is the mean of the last convolution's maps; a linear layer, Hardswish and dropout
    come between that and the classifier. Squeeze and excitation ends in a sigmoid.

    Args:
        config: the number in the architecture's name is the width multiplier times ten; the
            front-end has one channel.

    Raises:
        ValueError: for a front-end with fewer mel bins than the network halves away.
    """

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        multiplier = int(config.architecture[2:]) / 10
        self.min_frames = REDUCTION
        self.check_mels(REDUCTION)
        norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)
        squeeze = partial(SqueezeExcitation, scale_activation=nn.Sigmoid)
        plan = [InvertedResidualConfig(*row, 1, multiplier) for row in PLAN]
        conv = partial(Conv2dNormActivation, norm_layer=norm, activation_layer=nn.Hardswish)
        last = 6 * plan[-1].out_channels
        self.backbone = nn.Sequential(
            conv(self.frontend.channels, plan[0].input_channels, kernel_size=3, stride=2),
            *(InvertedResidual(row, norm, squeeze) for row in plan),
            conv(plan[-1].out_channels, last, kernel_size=1),
        )
        width = InvertedResidualConfig.adjust_channels(HIDDEN, multiplier)
        self.head_dropout = nn.Dropout(0.2)
        self.hidden = nn.Sequential(nn.Linear(last, width), nn.Hardswish(), self.head_dropout)
        self.classifier = nn.Linear(width, config.num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01)
                nn.init.zeros_(module.bias)
        self.num_features = last

    def embed_features(self, features: Tensor) -> Tensor:
        # EfficientAT's images are (mels, frames).
        return self.backbone(features.transpose(2, 3)).mean((2, 3))
