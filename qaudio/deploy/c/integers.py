"""A convolutional network in integers: int8 weights, 8-bit activations, as `qaudio.c` computes it.

Weights are symmetric with a scale for each filter; a quaternion filter's four parts share one, so
that quaternions are stored once, a quarter of the real matrix's bytes. BatchNorm goes into what
rescales each output channel. Activations are unsigned after ReLU, with one scale for a layer; the
network's input has a zero point beside it (Jacob et al., *Quantization and Training of Neural
Networks for Efficient Integer-Arithmetic-Only Inference*, CVPR 2018).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qaudio.deploy.export_checks import ExportError
from qaudio.deploy.fused_layers import scale_and_shift
from qaudio.deploy.optimize import known_units
from qaudio.models.base import AudioModel
from qaudio.models.cnn import CNN
from qaudio.quaternion.algebra import real_matrix
from qaudio.quaternion.layers import QConv2d, QLinear

LARGEST = 255
WEIGHT = 127
BIAS_BITS, MEAN_BITS = 12, 8  # as in qaudio.c
MOST_SHIFT = 40  # so that bias and sum stay within 64 bits
QUANTILE = 0.9999  # of the activations of a clip: what lies above is clipped


@dataclass(frozen=True)
class IntegerLayer:
    """A convolution, ReLU and pooling in integers; fc1 is one of 1×1 on a map of one value.

    Attributes:
        weight: int8, (out, in/parts, kernel, kernel); of quaternion layers rows laid out r|i|j|k.
        parts: 4 for quaternions, 1 for real weights.
        multipliers, biases: int32, (out,). A sum s becomes (s·multiplier + bias·2^(shift − 12))
            / 2^shift steps of the output.
        zero: what the input holds for zero.
        width: columns (mel bins) of the input.
        pool: 2 for means of 2×2 at the end, or 1.
    """

    weight: np.ndarray
    parts: int
    multipliers: np.ndarray
    biases: np.ndarray
    shift: int
    zero: int
    width: int
    pool: int

    @property
    def kernel(self) -> int:
        return self.weight.shape[-1]

    @property
    def inputs(self) -> int:
        return self.weight.shape[1] * self.parts

    @property
    def outputs(self) -> int:
        return self.weight.shape[0]

    def __call__(self, x: Tensor) -> Tensor:
        """Steps of the output, int64, of steps of the input (B, in, rows, columns)."""
        weight = torch.from_numpy(self.weight).double()
        matrix = real_matrix(weight) if self.parts == 4 else weight
        sums = F.conv2d((x - self.zero).double(), matrix, padding=self.kernel // 2).long()
        found = rescaled(sums, self.multipliers, self.biases, self.shift)
        if self.pool == 1:
            return found
        return (F.avg_pool2d(found.double(), 2, divisor_override=1).long() + 2) >> 2


def rescaled(sums: Tensor, multipliers: np.ndarray, biases: np.ndarray, shift: int) -> Tensor:
    """Sums (B, C, …) in steps of 8 bits, as `rescaled` of qaudio.c."""
    shape = (1, -1, *[1] * (sums.ndim - 2))
    multiplier, bias = (torch.from_numpy(a).long().view(shape) for a in (multipliers, biases))
    value = sums * multiplier + bias * (1 << (shift - BIAS_BITS))
    return ((value.clamp(min=0) + (1 << (shift - 1))) >> shift).clamp(max=LARGEST)


@dataclass(frozen=True)
class IntegerNetwork:
    """The network from features to logits.

    Attributes:
        scales, shifts: float32, (channels, mels): a feature times scale plus shift, rounded and
            held within 0…255, is the input. The norm over mel bins is part of them.
        layers: its convolutions in order.
        head_multiplier, head_shift: from means of the last map to fc1's input.
        fc1: the embedding.
        classifier: int8, (classes, embedding); its sums times `classifier_scales` plus
            `classifier_biases` (float32) are the logits.
    """

    scales: np.ndarray
    shifts: np.ndarray
    layers: list[IntegerLayer]
    head_multiplier: int
    head_shift: int
    fc1: IntegerLayer
    classifier: np.ndarray
    classifier_scales: np.ndarray
    classifier_biases: np.ndarray

    def quantised(self, features: Tensor) -> Tensor:
        """Input (B, channels, frames, mels), int64, of features of that shape."""
        scales, shifts = (torch.from_numpy(a).unsqueeze(1) for a in (self.scales, self.shifts))
        return (features * scales + shifts).round().clamp(0, LARGEST).long()

    def logits(self, x: Tensor) -> Tensor:
        """Logits (B, classes) of `quantised` features."""
        for layer in self.layers:
            x = layer(x)
        sums = x.sum(dim=3)  # (B, C, frames')
        frames = sums.shape[2]
        count = frames * x.shape[3]
        total = sums.amax(dim=2) * frames + sums.sum(dim=2)
        means = ((total << MEAN_BITS) + count // 2) // count
        multiplier, none = np.array([self.head_multiplier]), np.zeros(1, np.int32)
        pooled = rescaled(means, multiplier, none, self.head_shift)
        embedding = self.fc1(pooled[:, :, None, None]).flatten(1)
        found = embedding.double() @ torch.from_numpy(self.classifier).double().T
        scales, biases = map(torch.from_numpy, (self.classifier_scales, self.classifier_biases))
        return found.float() * scales + biases


def quantise(model: AudioModel, clips: list[Tensor]) -> IntegerNetwork:
    """A CNN or QCNN in integers.

    Args:
        model: in eval mode, float32, on the CPU.
        clips: waveforms (1, T) whose activations set the scales.

    Raises:
        ExportError: for another architecture.
    """
    if type(model) is not CNN or not isinstance(model.hidden, nn.Identity):
        raise ExportError(
            f"C takes the networks cnn6, cnn10, cnn14 and their quaternion forms, without hidden "
            f"layers before the classifier, not {model.architecture}"
        )
    low, high = _ranges(model, clips)
    mels = model.frontend.config.n_mels
    step = (high["bn0"] - low) / LARGEST or 1.0
    offset = round(-low / step)
    scales, shifts = (part.expand(model.frontend.channels, mels) for part in
                      model.bn0.scale_and_shift(mels))  # fmt: skip
    layers: list[IntegerLayer] = []
    given, zero, width = step, offset, mels
    for unit in known_units(model):
        made, pool = high[unit.name] / LARGEST or 1.0, unit.ends["pool"]
        after = scale_and_shift(unit.layer, unit.norm)
        layers.append(_layer(unit.layer, *after, given, made, zero, width, pool))
        given, zero, width = made, 0, width // pool
    head, embedding = high["head"] / LARGEST or 1.0, high["fc1"] / LARGEST or 1.0
    multipliers, head_shift = _fixed(torch.tensor([given / head / 2**MEAN_BITS]))
    bias = model.fc1.bias
    fc1 = _layer(model.fc1, torch.ones_like(bias), bias, head, embedding, 0, 1, 1)
    classifier, classifier_scales = _weights(model.classifier.weight, 1)
    return IntegerNetwork(
        scales=_float32(scales / step),
        shifts=_float32(shifts / step + offset),
        layers=layers,
        head_multiplier=int(multipliers[0]),
        head_shift=head_shift,
        fc1=fc1,
        classifier=classifier,
        classifier_scales=_float32(classifier_scales * embedding),
        classifier_biases=_float32(model.classifier.bias),
    )


def _ranges(model: CNN, clips: list[Tensor]) -> tuple[float, dict[str, float]]:
    """The input's smallest value; the largest of the input and of every layer's output."""
    low, high = 0.0, dict[str, float]()

    def watch(name: str) -> Callable:
        def hook(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            nonlocal low
            if name == "bn0":
                low = min(low, _quantile(output, 1 - QUANTILE))
            if name == "fc1":
                high["head"] = max(high.get("head", 0.0), float(inputs[0].max()))
            high[name] = max(high.get(name, 0.0), _quantile(output, QUANTILE))

        return hook

    norms = {unit.name: unit.norm for unit in known_units(model) if unit.norm}
    watched: dict[str, nn.Module] = {"bn0": model.bn0, **norms, "fc1": model.fc1}
    handles = [layer.register_forward_hook(watch(name)) for name, layer in watched.items()]
    with torch.inference_mode():
        for clip in clips:
            model(clip)
    for handle in handles:
        handle.remove()
    return low, high


def _quantile(values: Tensor, share: float) -> float:
    return float(np.quantile(values.numpy(), share))


def _layer(
    layer: nn.Module,
    scale: Tensor,
    shift: Tensor,
    given: float,
    made: float,
    zero: int,
    width: int,
    pool: int,
) -> IntegerLayer:
    """A convolution or linear layer with a scale and a shift after it.

    Args:
        layer: without a bias of its own that counts.
        scale, shift: of each output channel, (out,).
        given, made: size of a step of input and output.
        zero, width, pool: as in `IntegerLayer`.
    """
    parts = 4 if isinstance(layer, (QConv2d, QLinear)) else 1
    assert isinstance(layer.weight, Tensor)
    weight = layer.weight if layer.weight.ndim == 4 else layer.weight[:, :, None, None]
    integers, steps = _weights(weight, parts)
    multipliers, bits = _fixed(steps * scale.double() * given / made)
    biases = (shift.double() / made * 2**BIAS_BITS).round().clamp(-(2**31), 2**31 - 1)
    return IntegerLayer(
        integers, parts, multipliers, biases.detach().numpy().astype(np.int32), bits, zero, width,
        pool,
    )  # fmt: skip


def _weights(weight: Tensor, parts: int) -> tuple[np.ndarray, Tensor]:
    """int8 weights, and the size of their steps for every output channel, float64 (out,)."""
    weight = weight.detach().double()
    rows = weight.unflatten(0, (parts, -1)).transpose(0, 1).flatten(1)  # of one filter each
    steps = (rows.abs().amax(dim=1) / WEIGHT).clamp(min=1e-30).repeat(parts)
    integers = (weight / steps.view(-1, *[1] * (weight.ndim - 1))).round()
    return integers.numpy().astype(np.int8), steps


def _fixed(factors: Tensor) -> tuple[np.ndarray, int]:
    """Factors as int32 over 2^shift."""
    largest = max(float(factors.detach().abs().max()), 2.0**-30)
    shift = min(MOST_SHIFT, max(BIAS_BITS, 30 - int(np.floor(np.log2(largest)))))
    fixed = (factors.detach().double() * 2.0**shift).round().clamp(-(2**31) + 1, 2**31 - 1)
    return fixed.numpy().astype(np.int32), shift


def _float32(values: Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.detach().numpy(), np.float32)
