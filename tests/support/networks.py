"""What the tests of networks share."""

import torch
from torch import Tensor, nn

from qaudio.models.base import AudioModel
from qaudio.models.registry import create_model, find, registered

# The smallest member of every registration, with two more of timm's networks, which differ much.
EVERY = (*(one.name for one in registered()), "timm:test_efficientnet", "timm:test_convnext")
PRUNABLE = tuple(name for name in EVERY if find(name).dense_widths(name))
SMALL = tuple(one.name for one in registered() if one.blocks)  # PANNs' and their quaternion twins
# Small enough to train in a second, at the rate of the made ESC-50 tree.
FRONTEND = {"sample_rate": 8000, "n_fft": 256, "hop_length": 160, "n_mels": 32, "f_max": 4000.0}


def quaternion(arch: str) -> bool:
    """Whether a registered network is made of quaternion layers."""
    return find(arch).quaternion


def small_model(arch: str, num_classes: int = 7, seed: int = 0, **settings) -> AudioModel:
    """A network in eval mode with BatchNorms as after training, different in every channel.

    Those of `PRUNABLE` have an eighth of their channels unless `widths` says otherwise.

    With their initial statistics a channel that takes another's place would go unseen, and real
    nets would hardly answer to their input.
    """
    torch.manual_seed(seed)
    if arch in PRUNABLE:
        dense = find(arch).dense_widths(arch)
        settings.setdefault("widths", {name: max(4, n // 32 * 4) for name, n in dense.items()})
    model = create_model(arch, num_classes=num_classes, **settings).eval()
    norms = [m for m in model.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.3)
        norm.momentum = 1.0
        norm.train()
    if hasattr(model, "fc1"):
        nn.init.normal_(model.fc1.bias, std=0.1)
    with torch.no_grad():
        model(sounds(4, 16000))
    for norm in norms:
        norm.eval().momentum = 0.1
        spread = norm.running_var.sqrt()
        norm.running_mean += 0.3 * spread * torch.randn_like(spread)
        norm.running_var *= torch.empty_like(spread).uniform_(0.5, 1.5)
    return model


def noise(*shape: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def sounds(count: int, samples: int) -> Tensor:
    """Clips (count, samples) that differ: tones from 100 Hz to 10 kHz, loud and soft, in noise."""
    time = torch.arange(samples) / 32000
    pitch = torch.logspace(2, 4, count)[:, None]
    loudness = torch.tensor([0.5, 0.05, 0.2]).repeat(count)[:count, None]
    return loudness * torch.sin(2 * torch.pi * pitch * time) + 0.1 * noise(count, samples)


def same_state(first: nn.Module, second: nn.Module) -> bool:
    """Whether two networks hold the same tensors, bit for bit."""
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
