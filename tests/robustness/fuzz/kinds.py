"""Every kind of input, by name."""

from tests.robustness.fuzz import onnx_files, packs, tables
from tests.robustness.fuzz.sandbox import Kind

KINDS: dict[str, Kind] = {
    "onnx": onnx_files.KIND,
    "packs": packs.KIND,
    "tables": tables.KIND,
}
