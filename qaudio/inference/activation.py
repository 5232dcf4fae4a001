"""Class activation maps: which part of a spectrogram speaks for a class.

Selvaraju et al., *Grad-CAM*, ICCV 2017.
"""

import threading
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qaudio.errors import InputError
from qaudio.models.base import AudioModel
from qaudio.quaternion import QConv2d

CONVOLUTIONS = (nn.Conv2d, QConv2d)


class ClassActivation:
    """Grad-CAM on the last convolution of a network in eval mode.

    The layer is found by running the network once: the last layer after the last convolution whose
    maps have that convolution's size, so its norm and activation are in. Other threads may use the
    network meanwhile.

    Args:
        model: real or quaternion; in eval mode.

    Raises:
        ValueError: for a network that has no convolution over time and frequency, or goes on with
            attention over patches, which a map of a convolution says nothing of.
    """

    def __init__(self, model: AudioModel):
        self.model = model
        # Eight times as long as it is high, so that maps show which of their axes is time.
        settings = model.frontend.config
        frames = max(8 * settings.n_mels, model.min_frames)
        like = model.classifier.weight
        sound = like.new_zeros(1, model.frontend.channels, frames, settings.n_mels)
        ran: list[tuple[str, nn.Module, tuple[int, ...]]] = []

        def note(name: str, module: nn.Module, output: Any) -> None:
            if isinstance(output, Tensor):
                ran.append((name, module, tuple(output.shape)))

        with torch.inference_mode():
            self._run(sound, note)
        maps = [
            n for n, (_, module, shape) in enumerate(ran)
            if isinstance(module, CONVOLUTIONS) and len(shape) == 4 and shape[2] * shape[3] > 1
        ]  # fmt: skip
        if not maps:
            raise _impossible(model, "it has no convolution over time and frequency")
        size = ran[maps[-1]][2]
        if any(len(shape) == 3 and shape[1] > 1 for _, _, shape in ran[maps[-1] :]):
            raise _impossible(model, "attention over patches follows its last convolution")
        self.layer = [name for name, _, shape in ran[maps[-1] :] if shape == size][-1]
        self.transposed = size[3] > size[2]  # maps (mels, frames), as EfficientAT's

    def __call__(self, features: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """Heat of a class over the front-end's output of one sound.

        Args:
            features: (1, channels, frames, mels).

        Returns:
            Heat (frames, mels), 0 where nothing speaks for the class, in units of the logit's
            gradient; and the logits (C,).
        """
        found: list[Tensor] = []

        def hold(name: str, module: nn.Module, output: Any) -> None:
            if name == self.layer:
                found.append(output)

        with torch.enable_grad():
            logits = self._run(features.detach().clone().requires_grad_(), hold)
            maps = found[-1]
            (gradient,) = torch.autograd.grad(logits[0, index], maps)
        weights = gradient.mean(dim=(2, 3), keepdim=True)
        # Rectified: where the layer is a norm, its activation is a function and no layer.
        heat = F.relu((weights * maps.detach().relu()).sum(dim=1, keepdim=True))
        if self.transposed:
            heat = heat.transpose(2, 3)
        heat = F.interpolate(heat, features.shape[2:], mode="bilinear", align_corners=False)
        return heat[0, 0], logits[0].detach()

    def _run(self, features: Tensor, note: Any) -> Tensor:
        """Logits; `note(name, module, output)` is called after each layer without children."""
        mine = threading.get_ident()

        def hook(name: str) -> Any:
            def run(module: nn.Module, inputs: Any, output: Any) -> None:
                if threading.get_ident() == mine:
                    note(name, module, output)

            return run

        layers = [(n, m) for n, m in self.model.named_modules() if not list(m.children())]
        handles = [module.register_forward_hook(hook(name)) for name, module in layers]
        try:
            return self.model.classify(self.model.embed_features(features))
        finally:
            for handle in handles:
                handle.remove()


def _impossible(model: AudioModel, reason: str) -> InputError:
    return InputError(f"{model.architecture} has no class activation to show: {reason}")
