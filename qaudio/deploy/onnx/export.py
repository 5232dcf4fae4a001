"""Networks as ONNX files, fp32 or int8, that are checked against PyTorch before they are kept.

The file holds the whole model, waveform to logits, and in its metadata all that
`qaudio.deploy.onnx.runtime.OnnxModel` needs to predict with neither torch nor the entry at hand.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import warnings
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from qaudio.compress.cost import ONE_AT_A_TIME
from qaudio.deploy.calibration import calibration_clips, split
from qaudio.deploy.export_checks import (
    TOLERANCE,
    Export,
    ExportError,
    checked,
    facts_of,
    prepared,
    quantised_figures,
    trial,
)
from qaudio.deploy.onnx.modules import Form, FrontendGraph, NetworkGraph
from qaudio.deploy.onnx.runtime import session
from qaudio.frontend import Frontend, FrontendConfig
from qaudio.models.base import AudioModel
from qaudio.paths import write_whole
from qaudio.progress import progress

if TYPE_CHECKING:
    import onnx

OPSET = 18  # what torch's exporter writes without conversion
QUANTISED = ["Conv", "Gemm", "MatMul", "Add", "Relu", "AveragePool", "MaxPool"]


def export_onnx(
    model: AudioModel,
    path: str | os.PathLike,
    *,
    features: bool = False,
    form: Form = "auto",
    calibrate: str | os.PathLike | None = None,
    entry: str | None = None,
    license: str | None = None,
) -> Export:
    """Write a model as an ONNX file of any batch size and clip length.

    Input "waveform" (batch, samples) at the model's rate, mono, at least `min_samples` long (the
    caller pads), or "features" (batch, channels, frames, n_mels); output "logits" (batch,
    classes). BatchNorms are folded into the convolutions before them. The metadata hold labels,
    task, rate, shortest length, front-end, licence, and the figures of the check.

    Args:
        model: exported in eval mode; left as it is.
        path: file to write, ending in .onnx; replaced when it exists.
        features: leave the front-end out.
        form: of quaternion convolutions: "matrix", one real convolution; "products", the
            8-product scheme; "auto", the one that is faster in onnxruntime for each layer.
        calibrate: folder of sounds like those to come. The network is quantised to int8 with the
            ranges it shows on three in four of them (per channel, QDQ); the others tell how far
            int8 is from fp32. Front-end and classifier stay fp32.
        entry: its name, for the metadata.
        license: of the weights, for the metadata.

    Raises:
        ExportError: for a network that does not export, or whose logits in onnxruntime differ
            from PyTorch's by more than 1e-4 of their range, or too few sounds that calibrate. No
            file is left then.
        ValueError: for weights that are NaN or infinite.
        TypeError: for something else than a model, or weights that are computed from others.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise ExportError(f"{path}: the file's name must end in .onnx")
    if calibrate is not None and form == "products":
        raise ExportError("int8 takes quaternion convolutions as real matrices, not as products")
    model = prepared(model)
    clips = [] if calibrate is None else calibration_clips(calibrate, model)
    with progress(total=4, unit="step") as bar:
        network = _network(model, "matrix" if clips else form)
        bar.update()
        front = None if features else _frontend(model.frontend.config)
        bar.update()
        made = _joined(front, network)
        metadata = {
            **facts_of(model, entry, license),
            "input": "features" if features else "waveform",
            "min_samples": model.min_samples,
            "min_frames": model.min_frames,
            "opset": OPSET,
            "check": _check(made, model),
        }
        bar.update()
        if clips:
            calibrating, checking = split(clips)
            made = _joined(front, _quantised(network, model, calibrating))
            metadata["int8"] = _compare(made, model, checking)
            metadata["int8"]["calibrated_on"] = len(calibrating)
        bar.update()
        _write(made, path, metadata)
    return Export(path, metadata)


# Graphs.


def _network(model: AudioModel, form: Form) -> onnx.ModelProto:
    module = NetworkGraph(model, form)
    example = model.features(
        torch.zeros(2, max(model.sample_rate, 2 * model.min_samples), dtype=torch.float32)
    )
    return _graph(module, example, "features", "logits", 2, "frames", model.min_frames)


def _graph(
    module: nn.Module, example: Tensor, source: str, result: str, axis: int, dim: str, least: int
) -> onnx.ModelProto:
    """A module's graph, free in its batch and in one more axis of its input."""
    free = {0: torch.export.Dim("batch"), axis: torch.export.Dim(dim, min=least)}
    try:
        with ONE_AT_A_TIME, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module.eval(), (example,), dynamo=True, verbose=False, opset_version=OPSET,
                input_names=[source], output_names=[result], dynamic_shapes=(free,),
            )  # fmt: skip
    except ModuleNotFoundError:
        raise
    except Exception as error:  # the exporter's own kinds, with pages of advice
        reason = str(error).strip().split("\n")[0]
        raise ExportError(f"no ONNX graph of any {dim} and batch: {reason}") from error
    assert program is not None
    made = program.model_proto
    for node in made.graph.node:
        del node.metadata_props[:]  # stack traces, with the paths of this machine
    return made


@lru_cache(maxsize=4)
def _frontend(config: FrontendConfig) -> onnx.ModelProto:
    module = FrontendGraph(Frontend(config))
    example = torch.zeros(2, 4 * config.n_fft, dtype=torch.float32)
    least = config.n_fft // 2 + 1  # reflect padding takes no less
    return _graph(module, example, "waveform", "features", 1, "samples", least)


def _joined(front: onnx.ModelProto | None, network: onnx.ModelProto) -> onnx.ModelProto:
    """The front-end's graph, where it is wanted, followed by the network's."""
    from onnx import compose

    if front is None:
        return network
    front = compose.add_prefix(front, "frontend/", rename_inputs=False, rename_outputs=False)
    front.ir_version = network.ir_version
    made = compose.merge_models(front, network, io_map=[("features", "features")])
    del made.opset_import[:]  # which merging leaves in twice
    made.opset_import.extend(network.opset_import)
    return made


# int8.


class _Reader:
    """Calibration clips as onnxruntime asks for them."""

    def __init__(self, model: AudioModel, clips: list[Tensor]):
        bar = progress(clips, unit="clip")
        self.inputs = ({"features": _numpy(model.features(clip))} for clip in bar)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.inputs, None)


def _quantised(network: onnx.ModelProto, model: AudioModel, clips: list[Tensor]) -> onnx.ModelProto:
    import onnx
    from onnxruntime.quantization import QuantType, quant_utils, quantize_static

    _pool_by_convolutions(network)
    # What its preparation would do, torch's exporter has done: shapes inferred, norms folded.
    quant_utils.add_pre_process_metadata(network)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "int8.onnx")
        quantize_static(
            network,
            path,
            _Reader(model, clips),
            op_types_to_quantize=QUANTISED,
            nodes_to_exclude=_kept_whole(network),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(path)


def _kept_whole(network: onnx.ModelProto) -> list[str]:
    """Names of the nodes that stay fp32: the norm before the first convolution, the classifier."""
    nodes = list(network.graph.node)
    first = next((n for n, node in enumerate(nodes) if node.op_type == "Conv"), 0)
    last = [node for node in nodes if "logits" in node.output]
    return [node.name for node in (*nodes[:first], *last)]


def _pool_by_convolutions(network: onnx.ModelProto) -> None:
    """Turn average pooling into depthwise convolutions by the same mean.

    In int8 onnxruntime takes a tenth of the time for them.
    """
    from onnx import helper, numpy_helper

    channels = {
        value.name: value.type.tensor_type.shape.dim[1].dim_value
        for value in network.graph.value_info
        if len(value.type.tensor_type.shape.dim) == 4
    }
    for node in network.graph.node:
        settings = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        plain = not (any(settings.get("pads", [])) or settings.get("ceil_mode"))
        if node.op_type != "AveragePool" or not plain or not channels.get(node.input[0]):
            continue
        groups, kernel = channels[node.input[0]], settings["kernel_shape"]
        strides = settings.get("strides", [1] * len(kernel))
        weight = np.full((groups, 1, *kernel), 1 / math.prod(kernel), np.float32)
        network.graph.initializer.append(numpy_helper.from_array(weight, f"{node.name}_weight"))
        node.CopyFrom(
            helper.make_node(
                "Conv", [node.input[0], f"{node.name}_weight"], node.output, node.name,
                group=groups, kernel_shape=kernel, strides=strides,
            )
        )  # fmt: skip


# Checks.


def _check(made: onnx.ModelProto, model: AudioModel) -> dict[str, Any]:
    """The largest difference to PyTorch's logits at lengths that the export did not see."""
    rate = model.sample_rate
    lengths = [model.min_samples, model.min_samples + rate + 7, 10 * rate + 1]
    expected, found = _logits(made, model, [trial(n) for n in lengths])
    share = checked("onnxruntime", expected, found)
    return {"samples": lengths, "largest_difference": share, "tolerance": TOLERANCE}


def _compare(made: onnx.ModelProto, model: AudioModel, clips: list[Tensor]) -> dict[str, Any]:
    """int8 against PyTorch's fp32 on clips that did not calibrate."""
    figures = quantised_figures(model.task, *_logits(made, model, clips))
    if not math.isfinite(figures["largest_difference"]):
        raise ExportError("the int8 network gives logits that are not numbers")
    return figures


def _logits(
    made: onnx.ModelProto, model: AudioModel, clips: list[Tensor]
) -> tuple[np.ndarray, np.ndarray]:
    """PyTorch's and onnxruntime's logits of batches of clips (B, T), each (clips, classes)."""
    running = session(made.SerializeToString())
    expected, found = [], []
    with torch.inference_mode():
        for clip in clips:
            expected.append(_numpy(model(clip)))
            source = running.get_inputs()[0].name
            given = clip if source == "waveform" else model.features(clip)
            found.append(running.run(["logits"], {source: _numpy(given)})[0])
    return np.concatenate(expected), np.concatenate(found)


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().numpy()


def _write(made: onnx.ModelProto, path: Path, metadata: dict[str, Any]) -> None:
    import onnx

    made.producer_name, made.producer_version = "qaudio", metadata["qaudio_version"]
    texts = {key: json.dumps(value, ensure_ascii=False) for key, value in metadata.items()}
    onnx.helper.set_model_props(made, texts)
    write_whole(path, made.SerializeToString())
