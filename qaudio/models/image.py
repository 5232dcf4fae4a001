"""timm's image networks, fed with the front-end's output as an image."""

from __future__ import annotations

import difflib

import timm
import torch
from torch import Tensor, nn

from qaudio.errors import InputError
from qaudio.frontend import FrontendConfig
from qaudio.models.base import AudioModel, ChannelGroup, MelNorm

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


class ImageBackbone(AudioModel):
    """BatchNorm over mel bins → a timm network without its classifier → linear.

    It starts from random weights, never from timm's. It can be trained, measured and saved as
    any `AudioModel`, but not pruned: which of its channels belong together is not known here.

    Args:
        architecture: "timm:NAME".
        num_classes: outputs.
        frontend: its settings.

    Raises:
        ValueError: for a network that timm lacks, that wants images of one size only, or that
            needs more mel bins.
    """

    def __init__(self, architecture: str, num_classes: int, frontend: FrontendConfig):
        super().__init__(architecture, num_classes, frontend, widths={}, quaternion=False)
        self.bn0 = MelNorm(self.frontend)
        self.backbone = timm.create_model(
            timm_name(architecture),
            pretrained=False,
            in_chans=self.frontend.channels,
            num_classes=0,
        )
        stages = getattr(self.backbone, "feature_info", [])
        self.min_frames = max((stage["reduction"] for stage in stages), default=32)
        if frontend.n_mels < self.min_frames:
            raise InputError(
                f"{architecture} halves its input down to 1/{self.min_frames} and needs n_mels of "
                f"at least {self.min_frames}, not {frontend.n_mels}"
            )
        self.classifier = nn.Linear(self._embedding(), num_classes)

    def embed_features(self, features: Tensor) -> Tensor:
        return self.head_dropout(self.backbone(self.bn0(features)))

    def channel_groups(self) -> list[ChannelGroup]:
        """Raises ValueError: nothing can be pruned."""
        raise InputError(
            f"{self.architecture} cannot be pruned: qaudio prunes its own networks (cnn*, qcnn*, "
            "resnet38, qresnet38, ast_*), not timm's"
        )

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
