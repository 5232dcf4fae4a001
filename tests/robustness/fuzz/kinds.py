"""Every kind of input, by name."""

from tests.robustness.fuzz import tables
from tests.robustness.fuzz.sandbox import Kind

KINDS: dict[str, Kind] = {
    "tables": tables.KIND,
}
