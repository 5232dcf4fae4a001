"""The tables of a network and its front-end as a C header, for qaudio.c."""

from collections.abc import Iterable, Sequence
from textwrap import wrap
from typing import Any

import numpy as np

from qaudio.deploy.c.integers import IntegerLayer, IntegerNetwork
from qaudio.deploy.export_checks import ExportError
from qaudio.frontend import mel_bank
from qaudio.models.base import AudioModel

TYPES = {"int8": "int8_t", "int32": "int32_t", "uint16": "uint16_t", "float32": "float"}
UNCALIBRATED = 0.5  # threshold of every class of a model without its own
LAYER = """
typedef struct {
    const int8_t *weights;      /* [filter][y][x][part][input], parts of a quaternion: r, i, j, k */
    const int32_t *multipliers; /* of each output channel: from sums to steps of the output */
    const int32_t *biases;      /* in 1/4096 steps */
    int shift;                  /* of the multipliers */
    int parts;                  /* 4 for quaternions, 1 for real weights */
    int inputs, outputs, kernel;
    int width;                  /* columns of the input: mel bins */
    int pool;                   /* 2: means of 2 x 2 at the end; 1: none */
    int zero;                   /* what the input holds for zero */
    int ring, sums;             /* where its rows are in the state */
} qaudio_layer;
"""


class Tables:
    """C arrays, and how many bytes they take."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.bytes = 0

    def add(self, name: str, values: np.ndarray) -> None:
        """An array of a dtype of `TYPES`, flattened."""
        flat = values.reshape(-1)
        self.bytes += flat.nbytes
        self.lines.append(f"static const {TYPES[flat.dtype.name]} {name}[{len(flat)}] = {{")
        self.lines += wrap(", ".join(map(_literal, flat)), 96, break_on_hyphens=False)
        self.lines.append("};")


def header(
    model: AudioModel, network: IntegerNetwork, comment: Sequence[str]
) -> tuple[str, dict[str, int]]:
    """The text of model.h, and the bytes of its tables by what they are of.

    Raises:
        ExportError: for a front-end that qaudio.c does not compute.
    """
    front, weights = _frontend_tables(model), _network_tables(network)
    labels = model.labels or [f"class {n}" for n in range(model.num_classes)]
    thresholds = model.thresholds or [UNCALIBRATED] * model.num_classes
    made = [
        *(f"/* {line.replace('*/', '* /')} */" for line in comment),
        "#ifndef QAUDIO_MODEL_H",
        "#define QAUDIO_MODEL_H",
        "",
        "#include <stdint.h>",
        "",
        *(f"#define QAUDIO_{name} {value}" for name, value in _sizes(model, network).items()),
        "",
        "#ifdef QAUDIO_TABLES",
        LAYER,
        "static const char *const qaudio_labels[QAUDIO_CLASSES] = {",
        *(f"    {_text(label)}," for label in labels),
        "};",
        "static const float qaudio_thresholds[QAUDIO_CLASSES] = {",
        *(f"    {_literal(np.float32(value))}," for value in thresholds),
        "};",
        *front.lines,
        *weights.lines,
        *_structs(network),
        "#endif",
        "#endif",
        "",
    ]
    return "\n".join(made), {"frontend": front.bytes, "network": weights.bytes}


def _sizes(model: AudioModel, network: IntegerNetwork) -> dict[str, Any]:
    config, last = model.frontend.config, network.layers[-1]
    natural = config.log_offset is not None
    offset = _literal(np.float32(config.log_offset or 0))
    floored = "10.0f * log10f((power) > 1e-10f ? (power) : 1e-10f)"
    columns = last.width // last.pool
    return {
        "SAMPLE_RATE": config.sample_rate,
        "N_FFT": config.n_fft,
        "HOP": config.hop_length,
        "N_MELS": config.n_mels,
        "CHANNELS": model.frontend.channels,
        "PREEMPHASIS": int(bool(config.preemphasis)),
        "PREEMPHASIS_BY": _literal(np.float32(config.preemphasis)),
        "LOGARITHM(power)": f"logf((power) + {offset})" if natural else floored,
        "SHIFT": _literal(np.float32(config.shift)),
        "SCALE": _literal(np.float32(config.scale)),
        "MIN_SAMPLES": model.min_samples,
        "MIN_ROWS": model.min_frames,
        "CLASSES": model.num_classes,
        "MULTILABEL": int(model.task == "multilabel"),
        "CALIBRATED": int(model.thresholds is not None),
        "TEMPERATURE": _literal(np.float32(model.temperature)),
        "LAYERS": len(network.layers),
        "COLUMNS": columns,
        "FEATURES": last.outputs,
        "EMBEDDING": network.fc1.outputs,
        "HEAD_MULTIPLIER": network.head_multiplier,
        "HEAD_SHIFT": network.head_shift,
        "RING_BYTES": sum(map(_ring, network.layers)),
        "SUMS": max(1, sum(map(_sums, network.layers))),
        "ROW_BYTES": max(layer.width * layer.outputs for layer in network.layers),
    }


def _frontend_tables(model: AudioModel) -> Tables:
    """Window, twiddle factors, and the mel bins' weights on the FFT bins that they reach."""
    config = model.frontend.config
    if config.kind == "published":
        raise ExportError("C does not take the front-end 'published': deltas along frequency")
    size = config.n_fft
    if size < 8 or size & (size - 1):
        raise ExportError(f"C takes a front-end whose n_fft is a power of two, not {size}")
    tables, turns = Tables(), 2 * np.pi * np.arange(size // 2) / size
    bank = mel_bank(config).numpy()
    reached = [np.flatnonzero(column) for column in bank.T]
    spans = [(found[0], found[-1] + 1) if len(found) else (0, 0) for found in reached]
    starts, counts = ([s for s, _ in spans], [e - s for s, e in spans])
    parts = [bank[s:e, m] for m, (s, e) in enumerate(spans)]
    tables.add("qaudio_window", model.frontend.window.numpy())
    tables.add("qaudio_cosines", np.cos(turns).astype(np.float32))
    tables.add("qaudio_sines", np.sin(turns).astype(np.float32))
    tables.add("qaudio_mel_starts", np.array(starts, np.uint16))
    tables.add("qaudio_mel_counts", np.array(counts, np.uint16))
    tables.add("qaudio_mel_weights", np.concatenate(parts))
    return tables


def _network_tables(network: IntegerNetwork) -> Tables:
    tables = Tables()
    tables.add("qaudio_input_scales", network.scales)
    tables.add("qaudio_input_shifts", network.shifts)
    for n, layer in enumerate([*network.layers, network.fc1]):
        parts, kernel = layer.parts, layer.kernel
        weight = layer.weight.reshape(parts, -1, layer.inputs // parts, kernel, kernel)
        tables.add(f"qaudio_weights{n}", weight.transpose(1, 3, 4, 0, 2))
        tables.add(f"qaudio_multipliers{n}", layer.multipliers)
        tables.add(f"qaudio_biases{n}", layer.biases)
    tables.add("qaudio_classifier_weights", network.classifier)
    tables.add("qaudio_classifier_scales", network.classifier_scales)
    tables.add("qaudio_classifier_biases", network.classifier_biases)
    return tables


def _structs(network: IntegerNetwork) -> Iterable[str]:
    yield "static const qaudio_layer qaudio_layers[QAUDIO_LAYERS] = {"
    ring = sums = 0
    for n, layer in enumerate(network.layers):
        yield f"    {_struct(n, layer, ring, sums)},"
        ring, sums = ring + _ring(layer), sums + _sums(layer)
    yield "};"
    yield f"static const qaudio_layer qaudio_fc1 = {_struct(len(network.layers), network.fc1)};"


def _struct(n: int, layer: IntegerLayer, ring: int = 0, sums: int = 0) -> str:
    numbers = (
        layer.shift, layer.parts, layer.inputs, layer.outputs, layer.kernel, layer.width,
        layer.pool, layer.zero, ring, sums,
    )  # fmt: skip
    tables = f"qaudio_weights{n}, qaudio_multipliers{n}, qaudio_biases{n}"
    return f"{{{tables}, {', '.join(map(str, numbers))}}}"


def _ring(layer: IntegerLayer) -> int:
    """Bytes of the rows of its input that a layer keeps."""
    return layer.kernel * layer.width * layer.inputs


def _sums(layer: IntegerLayer) -> int:
    """Values of a row that is half pooled."""
    return layer.width // 2 * layer.outputs if layer.pool == 2 else 0


def _literal(value: Any) -> str:
    """A number in C."""
    if isinstance(value, np.floating):
        return f"{value:.9e}f"
    return str(int(value))


def _text(label: str) -> str:
    """A string in C; what is not plain ASCII in octal, of its UTF-8 bytes."""
    plain = (chr(b) if 32 <= b < 127 and chr(b) not in '"\\?' else f"\\{b:03o}" for b in
             label.encode())  # fmt: skip
    return f'"{"".join(plain)}"'
