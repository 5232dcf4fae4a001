"""timm's image networks, fed with the front-end's output as an image."""

import difflib

import timm
import torch
from torch import Tensor, nn

from qaudio.errors import InputError
from qaudio.models.base import AudioModel, MelNorm
from qaudio.models.config import ModelConfig
from qaudio.models.registry import register

PAPER = """@misc{wightman2019timm,
  title        = {PyTorch Image Models},
  author       = {Wightman, R.},
  year         = {2019},
  howpublished = {https://github.com/huggingface/pytorch-image-models}
}"""
PREFIX = "timm:"


def timm_name(architecture: str) -> str:
    """timm's name of "timm:NAME".

    Raises:
        ValueError: when timm has no such network; offers those with similar names.
    """
    name = architecture.removeprefix(PREFIX)
    if timm.is_model(name) and "." not in name:
        return name
    plain = name.partition(".")[0]
    if timm.is_model(plain):
        raise InputError(f"{architecture!r} names pretrained weights; give {PREFIX}{plain}")
    known = timm.list_models()
    close = difflib.get_close_matches(name, known, n=5) or [n for n in known if name in n][:5]
    similar = f"; similar: {', '.join(PREFIX + n for n in close)}" if close and name else ""
    raise InputError(
        f"timm {timm.__version__} has no network {name!r}{similar}; timm.list_models() names all"
    )


@register(
    f"{PREFIX}mobilenetv3_small_100",
    pattern=f"{PREFIX}.*",
    title="image network of timm's",
    scratch="It was trained from scratch on this benchmark alone, not from timm's ImageNet "
    "weights.",
    papers=(PAPER,),
)
class ImageBackbone(AudioModel):
    """BatchNorm over mel bins → a timm network without its classifier → linear.

    It starts from random weights, never from timm's. It can be trained, measured and saved as
    any `AudioModel`, but not pruned: which of its channels belong together is not known here.

    Raises:
        ValueError: for a network that timm lacks, that wants images of one size only, or that
            needs more mel bins.
    """

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.bn0 = MelNorm(self.frontend)
        self.backbone = timm.create_model(
            timm_name(config.architecture),
            pretrained=False,
            in_chans=self.frontend.channels,
            num_classes=0,
        )
        stages = getattr(self.backbone, "feature_info", [])
        self.min_frames = max((stage["reduction"] for stage in stages), default=32)
        self.check_mels(self.min_frames)
        self.classifier = nn.Linear(self._embedding(), config.num_classes)

    def embed_features(self, features: Tensor) -> Tensor:
        return self.head_dropout(self.backbone(self.bn0(features)))

    @torch.inference_mode()
    def _embedding(self) -> int:
        """Size of the embedding, found by running on two lengths that differ by no round number."""
        self.backbone.eval()
        try:
            for frames in (self.min_frames, 2 * self.min_frames + 5):
                image = torch.zeros(1, self.frontend.channels, frames, self.frontend.config.n_mels)
                size = self.backbone(image).shape
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"{self.architecture} does not take clips of any length ({reason}); choose a "
                "convolutional network, or ast_tiny for a transformer"
            ) from None
        self.backbone.train()
        return int(size[1])
