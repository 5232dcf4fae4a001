"""Exported models that are spoilt or made by others, through `qaudio predict --model`."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.robustness.fuzz.sandbox import Kind, Trial, flipped, make_sounds, misplaced
from tests.robustness.fuzz.spoil import VALUES

METADATA: dict[str, Any] = {
    "qaudio_version": "0.1.0", "entry": "tiny.made", "input": "waveform", "min_samples": 1000,
    "min_frames": 1, "sample_rate": 8000, "architecture": "made", "num_classes": 3,
    "widths": {}, "frontend": {"sample_rate": 8000}, "labels": ["a", "b", "c"],
    "task": "multiclass", "eval_seconds": 1.0, "quaternion": False, "padded": True,
    "license": None, "opset": 18, "check": {"largest_difference": 0.0},
}  # fmt: skip
HUGE = (2**31, 2**40, 10**11)


def made() -> onnx.ModelProto:
    """Logits from the mean loudness, with what `OnnxModel` asks for."""
    weight = np.array([[1.0, -2.0, 0.5]], np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Abs", ["waveform"], ["loud"]),
            helper.make_node("ReduceMean", ["loud", "axis"], ["mean"], keepdims=1),
            helper.make_node("MatMul", ["mean", "weight"], ["logits"]),
        ],
        "made",
        [helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["batch", "samples"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(np.array([1], np.int64), "axis"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return with_metadata(model, METADATA)


def with_metadata(model: onnx.ModelProto, metadata: dict[str, Any]) -> onnx.ModelProto:
    del model.metadata_props[:]
    helper.set_model_props(model, {key: json.dumps(value) for key, value in metadata.items()})
    return model


def prepare(folder: Path) -> None:
    make_sounds(folder / "sounds", ("a",), 2)
    onnx.save(made(), folder / "model.onnx")


def metadata(model: onnx.ModelProto, rng: random.Random) -> str:
    """What the file says of itself is gone, another, or no JSON."""
    found = dict(METADATA)
    for _ in range(rng.choice((1, 1, 2))):
        key = rng.choice(
            ("sample_rate", "num_classes", "labels", "task", "min_samples", "eval_seconds",
             "padded", "input", "frontend", "qaudio_version", *sorted(found))
        )  # fmt: skip
        odd = (*VALUES, 1e29, 10**9, ["a"] * 3, ["\x1b[31m", "b", "c"], [1, 2, 3], {"a": "b"})
        found[key] = rng.choice(odd)
        if rng.random() < 0.15:
            del found[key]
    try:
        with_metadata(model, found)
    except UnicodeEncodeError:
        with_metadata(model, {})
    if rng.random() < 0.2:
        model.metadata_props[rng.randrange(len(model.metadata_props) or 1)].value = rng.choice(
            ("", "{", "[" * 100_000, "1" * 10_000, "NaN", "\x00", "x" * 1_000_000)
        )
    return "metadata"


def graph(model: onnx.ModelProto, rng: random.Random) -> str:
    """Other nodes, shapes and names; results of another size or kind; memory without end."""
    way = rng.choice((
        "input name", "output name", "output size", "rank", "integers", "NaN", "huge", "operator",
        "domain", "no nodes", "second input", "loop", "function", "half",
    ))  # fmt: skip
    nodes = model.graph.node
    if way == "input name":
        model.graph.input[0].name = nodes[0].input[0] = rng.choice(("features", "x", "\x1b[1m"))
    elif way == "output name":
        model.graph.output[0].name = nodes[2].output[0] = rng.choice(("scores", "x", ""))
    elif way == "output size":
        count = rng.choice((0, 1, 2, 4, 100_000))
        weight = numpy_helper.from_array(np.ones((1, count), np.float32), "weight")
        model.graph.initializer[0].CopyFrom(weight)
        model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = count
    elif way == "rank":
        weight = numpy_helper.from_array(np.ones((2, 1, 3), np.float32), "weight")
        model.graph.initializer[0].CopyFrom(weight)
        model.graph.output[0].type.tensor_type.ClearField("shape")
    elif way == "integers":
        nodes[2].output[0] = "float"
        nodes.append(helper.make_node("Cast", ["float"], ["logits"], to=TensorProto.INT64))
        model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    elif way == "half":
        nodes[2].output[0] = "float"
        nodes.append(helper.make_node("Cast", ["float"], ["logits"], to=TensorProto.FLOAT16))
        model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    elif way == "NaN":
        weight = np.full((1, 3), rng.choice((np.nan, np.inf, -np.inf, 1e38)), np.float32)
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "weight"))
    elif way == "huge":
        shape = numpy_helper.from_array(np.array([rng.choice(HUGE)], np.int64), "shape")
        model.graph.initializer.append(shape)
        nodes[2].output[0] = "part"
        nodes.insert(0, helper.make_node("ConstantOfShape", ["shape"], ["zeros"]))
        nodes.append(helper.make_node("ReduceSum", ["zeros"], ["sum"], keepdims=0))
        nodes.append(helper.make_node("Add", ["part", "sum"], ["logits"]))
    elif way == "operator":
        nodes[0].op_type = rng.choice(("Nope", "Softmax", "Split", "PyOp", "\x1b[31m", ""))
    elif way == "domain":
        nodes[0].domain = rng.choice(("evil", "com.microsoft", "ai.onnx.ml", "\n"))
    elif way == "no nodes":
        del nodes[rng.randrange(3) :]
    elif way == "second input":
        model.graph.input.append(
            helper.make_tensor_value_info("more", TensorProto.FLOAT, rng.choice(([1], [], ["n"])))
        )
    elif way == "loop":
        body = helper.make_graph(
            [
                helper.make_node("Identity", ["go"], ["goes"]),
                helper.make_node("Identity", ["state"], ["next"]),
            ],
            "body",
            [
                helper.make_tensor_value_info("n", TensorProto.INT64, []),
                helper.make_tensor_value_info("go", TensorProto.BOOL, []),
                helper.make_tensor_value_info("state", TensorProto.FLOAT, None),
            ],
            [
                helper.make_tensor_value_info("goes", TensorProto.BOOL, []),
                helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
            ],
        )
        count = numpy_helper.from_array(np.array(2**62, np.int64), "count")
        true = numpy_helper.from_array(np.array(True), "true")
        model.graph.initializer.extend([count, true])
        nodes[2].output[0] = "first"
        nodes.append(helper.make_node("Loop", ["count", "true", "first"], ["logits"], body=body))
    else:
        inner = helper.make_node("Own", ["x"], ["y"], domain="own")
        model.functions.append(
            helper.make_function(
                "own", "Own", ["x"], ["y"], [inner], [helper.make_opsetid("own", 1)]
            )
        )
        model.opset_import.append(helper.make_opsetid("own", 1))
        nodes[0].op_type, nodes[0].domain = "Own", "own"
    return f"graph: {way}"


def weights(model: onnx.ModelProto, rng: random.Random) -> str:
    """Weights that lie elsewhere, or claim another size."""
    tensor = model.graph.initializer[0]
    if rng.random() < 0.7:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        where = rng.choice(
            ("../outside/secret.txt", "/etc/passwd", "weights.bin", "/dev/zero", "../../x", "", ".")
        )
        for key, value in {
            "location": where, "offset": rng.choice(("0", "-1", "9" * 30)),
            "length": rng.choice(("12", "0", "9" * 30, "x")),
        }.items():  # fmt: skip
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value
        return "weights elsewhere"
    del tensor.dims[:]
    tensor.dims.extend(rng.choice(([1, -3], [2**31, 2**31], [1, 3, 0], [2**62], [10**6, 10**5])))
    return "weights' size"


def trial(rng: random.Random, whole: Path, sandbox: Path, keep: bool) -> Trial:
    work = sandbox / "work"
    shutil.copytree(whole, work, dirs_exist_ok=True)
    path, ways = work / "model.onnx", ["whole"]
    if not keep:
        model = made()
        chosen = rng.sample((metadata, metadata, graph, weights), rng.choice((0, 1, 1, 1, 2)))
        ways = [way(model, rng) for way in chosen]
        data = model.SerializeToString()
        if not ways or rng.random() < 0.1:
            data = flipped(data, rng)
            ways.append("bytes")
        path.write_bytes(data)
        if rng.random() < 0.03:
            ways.append(misplaced(path, sandbox, rng, named=True))
    predict = ["predict", "--model", "model.onnx", "--json", "--jobs", "1", "sounds"]
    return Trial(" + ".join(ways), [predict, [*predict, "--times", "--window", "0.1"]])


KIND = Kind(prepare, trial)
