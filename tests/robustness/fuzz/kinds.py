"""Every kind of input, by name."""

from tests.robustness.fuzz import (
    caches,
    checkpoints,
    foreign,
    kernels,
    labels,
    onnx_files,
    packs,
    plans,
    recipes,
    tables,
)
from tests.robustness.fuzz.sandbox import Kind

KINDS: dict[str, Kind] = {
    "foreign": foreign.KIND,
    "onnx": onnx_files.KIND,
    "checkpoints": checkpoints.KIND,
    "packs": packs.KIND,
    "tables": tables.KIND,
    "plans": plans.KIND,
    "caches": caches.KIND,
    "kernels": kernels.KIND,
    "recipes": recipes.KIND,
    "labels": labels.KIND,
}
