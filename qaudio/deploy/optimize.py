"""optimize(): the same outputs in the form that is fastest on this machine."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from qaudio.deploy.autotune import Layer, Unit, fastest_forms, fastest_linear
from qaudio.deploy.fused_layers import Stage, can_compile, forms, worth_measuring
from qaudio.deploy.timing import KnownTimes
from qaudio.errors import InputError
from qaudio.models.base import AudioModel, MelNorm, check_model, check_weights, evaluating
from qaudio.models.panns import ConvBlock
from qaudio.models.registry import lookup
from qaudio.models.resnet import BasicBlock
from qaudio.progress import progress
from qaudio.quaternion.layers import QConv2d, QLinear

TOLERANCE = 1e-4  # of the logits' range, in float32


class OptimizedModel(AudioModel):
    """What `optimize` returns: for inference only, where it was made.

    Attributes:
        original: the model that it was made from, to train, prune, save or move.
        difference: largest difference between the two models' logits on made sounds, as a share
            of the logits' range.
        choices: form of each layer, by name.
    """

    def __init__(self, original: AudioModel, network: AudioModel, choices: dict[str, str]):
        super().__init__(original.config)
        self.frontend = copy.deepcopy(original.frontend)
        self.classifier = copy.deepcopy(original.classifier).requires_grad_(False)
        self.hidden = copy.deepcopy(original.hidden).requires_grad_(False)
        self.num_features = original.num_features
        self.network = network
        # Layers that stayed as they were may be bfloat16; the norm and the stages cast inside.
        casts = any(isinstance(layer, _Scaled) for layer in network.modules())
        stored = next((p.dtype for p in network.parameters()), torch.float32)
        self.input_dtype = torch.float32 if casts else stored
        self.temperature, self.thresholds = original.temperature, original.thresholds
        self.min_frames = original.min_frames
        self.choices = choices
        self.difference = float("nan")
        self._original = (original,)  # in a tuple: no part of this model
        super().train(False)

    @property
    def original(self) -> AudioModel:
        """The model that this one was made from, as it was."""
        return self._original[0]

    def embed_features(self, features: Tensor) -> Tensor:
        # Always in the same mode, for which the compiled pieces were made.
        with torch.inference_mode():
            found = self.network.embed_features(features.to(self.input_dtype)).float()
        # Outside that mode a copy: something may be trained on the embeddings.
        return found if torch.is_inference_mode_enabled() else found.clone()

    def channel_groups(self) -> NoReturn:
        raise self._refusal("pruned")

    def state_dict(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise self._refusal("saved")

    def train(self, mode: bool = True) -> OptimizedModel:
        """Only eval mode."""
        if mode:
            raise self._refusal("trained")
        return super().train(False)

    def reset_classifier(self, num_classes: int, labels: list[str] | None = None) -> NoReturn:
        raise self._refusal("given a new classifier")

    def _apply(self, fn: Callable, recurse: bool = True) -> NoReturn:
        raise self._refusal("moved or cast")

    def _refusal(self, what: str) -> TypeError:
        return TypeError(
            f"an optimized model cannot be {what}: take its `.original`, and optimize the result"
        )


def optimize(
    model: AudioModel,
    *,
    seconds: float = 10.0,
    batch: int = 1,
    dtype: torch.dtype = torch.float32,
    compile: bool = True,
) -> OptimizedModel:
    """A model with the same outputs, in the form that is fastest on this machine.

    BatchNorm is folded into convolutions, ReLU and pooling are fused with them where the network
    is one of this package's, and each layer takes the fastest of its forms (see
    `qaudio.deploy.fused_layers`), found by a short measurement that is remembered for this machine
    in qaudio's cache folder. Networks of unknown structure get folding, channels_last and the
    fastest form of each convolution.

    Args:
        model: left as it is; the result keeps it as `.original`.
        seconds: length of the clips that it should be fastest for; it takes any length.
        batch: their number. The first call with another number above 1 may compile once more.
        dtype: float32, or bfloat16 for machines that multiply it faster: `.difference` then says
            what it costs.
        compile: use a C++ compiler: a kernel of our own for quaternion layers of 3×3 (see
            `qaudio.deploy.cpp_kernel`), and `torch.compile` for the additions of the others. Where
            there is none, the eager forms do, after one warning.

    Returns:
        A model for inference: it cannot be trained, saved, pruned or moved.

    Warns where the logits differ by more than rounding does (float32).

    Raises:
        ValueError: for clips of no length, another dtype, or a model that is not float32 or holds
            NaN or infinite weights.
        TypeError: for something else than a model, or weights that are computed from others.
    """
    if not seconds > 0 or batch < 1:
        raise InputError(f"seconds and batch must be positive, not {seconds} and {batch}")
    if dtype not in (torch.float32, torch.bfloat16):
        raise InputError(f"dtype must be torch.float32 or torch.bfloat16, not {dtype}")
    check_model(model, changed=True)
    original = model.original if isinstance(model, OptimizedModel) else model
    if original.classifier.weight.dtype != torch.float32:
        raise InputError("optimize takes a float32 model; its `dtype` sets that of the result")
    check_weights(original.state_dict())
    with torch.no_grad(), evaluating(original) as net:
        sounds = _sounds(net, batch, seconds)
        expected = [net(sound) for sound in sounds]
        for fold in (True, False):
            optimized = _optimized(original, net, sounds[0], dtype, compile, fold)
            optimized.difference = _difference(expected, [optimized(sound) for sound in sounds])
            # Beyond it in float32: the network uses a convolution's output beside its norm's.
            if dtype != torch.float32 or optimized.difference <= TOLERANCE:
                return optimized
    warnings.warn(
        f"the optimized model's logits are off by {optimized.difference:.1g} of their range: the "
        "model does what `optimize` does not know; use it as it is",
        stacklevel=2,
    )
    return optimized


def _optimized(
    original: AudioModel,
    net: AudioModel,
    sound: Tensor,
    dtype: torch.dtype,
    compile: bool,
    fold: bool,
) -> OptimizedModel:
    network = copy.deepcopy(net).requires_grad_(False)
    shapes, norms = observe(network, network.features(sound))
    known = _is_known(network)
    units = list(
        known_units(network) if known else _unknown_units(network, shapes, norms if fold else {})
    )
    names = {
        unit.name: worth_measuring(unit.layer, forms(unit.layer, dtype, compile)) for unit in units
    }
    split = any("grouped" in found for found in names.values())
    fused = compile and split and can_compile()
    known_times = KnownTimes(original.classifier.weight.device)
    layers = [
        Layer(unit, names[unit.name], shapes[unit.name], dtype, fused, known_times)
        for unit in units
    ]
    for layer in progress(layers, "optimize", unit="layer"):
        layer.seconds()  # measured here, where it is seen to go on; looked up below
    if known:
        chain = [layer for layer in layers if not layer.unit.beside]  # each takes the one's before
        paths = [chain, *([layer] for layer in layers if layer.unit.beside)]
        layout = torch.contiguous_format  # as the front-end gives it
    else:
        paths, layout = [[layer] for layer in layers], torch.channels_last  # as most forms give it
    choices: dict[str, str] = {}
    for path in paths:
        choices |= fastest_forms(path, layout)
    stages = {layer.unit.name: layer.stage(choices[layer.unit.name]) for layer in layers}
    for name, layer in list(network.named_modules()):
        if isinstance(layer, MelNorm):
            given = torch.float32 if known else dtype
            network.set_submodule(name, _Scaled(layer, original.frontend.config.n_mels, given))
    if known:
        _rebuild_blocks(network, stages)
    else:
        _replace_convolutions(network, units, stages)
        network.to(dtype=dtype)
    for name, layer in list(network.named_modules()):
        if isinstance(layer, QLinear):
            choices[name], linear = fastest_linear(layer, shapes[name], known_times)
            network.set_submodule(name, linear)
    known_times.write()
    return OptimizedModel(original, network, choices)


def observe(
    network: AudioModel, features: Tensor
) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Input shape of every layer in use; BatchNorms by the convolution whose output they take."""
    shapes: dict[str, tuple[int, ...]] = {}
    norms: dict[str, str] = {}
    made: dict[int, tuple[str, Tensor]] = {}  # the tensors too: ids of live ones do not repeat

    def watch(name: str, layer: nn.Module) -> Callable:
        def hook(_: nn.Module, inputs: tuple, output: Any) -> None:
            if isinstance(layer, (nn.Conv2d, QConv2d)):
                made[id(output)] = (name, output)
            if isinstance(layer, nn.BatchNorm2d) and id(inputs[0]) in made:
                norms[made[id(inputs[0])][0]] = name
            shapes[name] = tuple(inputs[0].shape)

        return hook

    kinds = (nn.Conv2d, QConv2d, QLinear, nn.BatchNorm2d)
    layers = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, kinds)]
    handles = [layer.register_forward_hook(watch(name, layer)) for name, layer in layers]
    network.embed_features(features)
    for handle in handles:
        handle.remove()
    return shapes, norms


def _is_known(network: AudioModel) -> bool:
    """Whether it is registered to have these blocks; subclasses of them may do otherwise."""
    known = lookup(network.architecture)
    if known is None or not known.blocks or type(network) is not known.build:
        return False
    blocks = [block for block in network.modules() if isinstance(block, (ConvBlock, BasicBlock))]
    return all(type(block) in (ConvBlock, BasicBlock) for block in blocks)


def known_units(network: AudioModel) -> Iterator[Unit]:
    """The convolutions of this package's blocks."""
    for name, block in network.named_modules():
        if isinstance(block, ConvBlock):
            for n in range(1, block.depth + 1):
                pool = block.pool if n == block.depth else 1
                yield _unit(network, f"{name}.conv{n}", f"{name}.bn{n}", relu=True, pool=pool)
        elif isinstance(block, BasicBlock):
            yield _unit(network, f"{name}.conv1", f"{name}.bn1", relu=True)
            yield _unit(network, f"{name}.conv2", f"{name}.bn2", relu=True, shortcut=True)
            if block.halve:
                yield _unit(network, f"{name}.downsample.1", f"{name}.downsample.2", beside=True)


def _unknown_units(
    network: AudioModel, shapes: dict[str, tuple[int, ...]], norms: dict[str, str]
) -> Iterator[Unit]:
    """Convolutions of a network of any structure; subclasses may compute something else."""
    for name, layer in network.named_modules():
        plain = type(layer) is nn.Conv2d and layer.padding_mode == "zeros"
        plain = plain and not isinstance(layer.padding, str)
        if name in shapes and (type(layer) is QConv2d or plain):
            yield _unit(network, name, norms.get(name))


def _unit(
    network: AudioModel, name: str, norm_name: str | None, beside: bool = False, **ends: Any
) -> Unit:
    norm = network.get_submodule(norm_name) if norm_name else None
    layer = network.get_submodule(name)
    return Unit(name, layer, norm_name, norm, ends, beside)  # type: ignore[arg-type]


class _Residual(nn.Module):
    """`BasicBlock` of stages; a block that halves the map pools once for both its branches."""

    def __init__(self, block: BasicBlock, conv1: Stage, conv2: Stage, downsample: Stage | None):
        super().__init__()
        self.halve, self.conv1, self.conv2 = block.halve, conv1, conv2
        self.downsample = downsample or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.avg_pool2d(x, 2) if self.halve else x
        return self.conv2(self.conv1(x), self.downsample(x))


class _Scaled(nn.Module):
    """`MelNorm` in eval mode, in one pass over (B, channels, frames, mels); gives a dtype."""

    def __init__(self, norm: MelNorm, mels: int, dtype: torch.dtype):
        super().__init__()
        self.dtype = dtype
        self.scale, self.shift = (part.unsqueeze(1) for part in norm.scale_and_shift(mels))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.shift, x, self.scale).to(self.dtype)


class _Float(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.float()


def _rebuild_blocks(network: AudioModel, stages: dict[str, Stage]) -> None:
    """Put stages in the place of this package's blocks."""
    last = ""
    for name, block in list(network.named_modules()):
        if isinstance(block, ConvBlock):
            convs = [stages[f"{name}.conv{n}"] for n in range(1, block.depth + 1)]
            network.set_submodule(name, nn.Sequential(*convs))
            last = name
        elif isinstance(block, BasicBlock):
            conv1, conv2 = (stages[f"{name}.conv{n}"] for n in (1, 2))
            downsample = stages.get(f"{name}.downsample.1")
            network.set_submodule(name, _Residual(block, conv1, conv2, downsample))
    # They end with a conv block; the head after it is float32.
    network.set_submodule(last, nn.Sequential(network.get_submodule(last), _Float()))


def _replace_convolutions(network: AudioModel, units: list[Unit], stages: dict[str, Stage]) -> None:
    """Put stages in the place of convolutions, and of the norms that they hold."""
    for unit in units:
        network.set_submodule(unit.name, stages[unit.name])
        if unit.norm_name:
            # timm's norms carry the activation after them.
            network.set_submodule(unit.norm_name, getattr(unit.norm, "act", nn.Identity()))


def _sounds(model: AudioModel, batch: int, seconds: float) -> list[Tensor]:
    """Noise of a length, and a fading tone of another."""
    device, generator = model.classifier.weight.device, torch.Generator().manual_seed(0)
    samples = max(2, round(seconds * model.sample_rate))
    noise = 0.1 * torch.randn(batch, samples, generator=generator, dtype=torch.float32)
    time = torch.arange(samples * 2 // 3, dtype=torch.float32) / model.sample_rate
    tone = (torch.sin(2 * torch.pi * 440 * time) * (-time).exp()).expand(batch, -1)
    return [noise.to(device), tone.to(device)]


def _difference(expected: list[Tensor], found: list[Tensor]) -> float:
    """Largest difference of logits as a share of their range, over several sounds."""
    a, b = torch.cat(expected), torch.cat(found)
    scale = a.max() - a.min()
    scale = scale if scale > 0 else a.abs().max().clamp(min=torch.finfo(a.dtype).tiny)
    return float((a - b).abs().max() / scale)
