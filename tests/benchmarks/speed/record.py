"""The figures that the clone holds, and the tables that README.md beside them shows."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from qaudio.cards.tables import markdown_table, with_generated
from tests.benchmarks.speed.table import HEAD, RULE, Row

RESULTS = Path(__file__).with_name("results.json")
README = Path(__file__).with_name("README.md")
PROFILES = """What the time of pairs that miss their limit goes into: the operators with the largest
shares, by the profilers of torch and onnxruntime. "qaudio::tiled" is the kernel for quaternion
convolutions with all that follows them, "Torch-Compiled Region" compiled additions, ReLU and
pooling."""


def tables(found: dict[str, dict[str, list[dict]]]) -> str:
    """A Markdown table for each machine, how many limits are kept, and where time goes if not."""
    names = {field.name for field in fields(Row)}
    made = {
        machine: [
            Row(**{name: value for name, value in row.items() if name in names})
            for rows in groups.values()
            for row in rows
        ]
        for machine, groups in found.items()
    }
    judged = [row.holds for rows in made.values() for row in rows if row.holds is not None]
    parts = [f"{sum(judged)} of {len(judged)} limits are kept."]
    for machine, rows in made.items():
        parts.append(f"{machine}:\n\n" + "\n".join([HEAD, RULE, *(row.to_line() for row in rows)]))
    profiled = [row for rows in made.values() for row in rows if row.spent]
    if profiled:
        head = ["what", "its time", "against", "its time"]
        parts.append(f"{PROFILES}\n\n{markdown_table(head, map(_profile_cells, profiled))}")
    return "\n\n".join(parts)


def _profile_cells(row: Row) -> list[str]:
    ours, theirs = ("; ".join(f"{name} {share:.0%}" for name, share in shares.items())
                    for shares in row.spent or ({}, {}))  # fmt: skip
    return [row.what, ours, row.against, theirs]


def readme_with_tables(text: str, found: dict[str, dict[str, list[dict]]]) -> str:
    """README.md with the tables of these figures."""
    return with_generated(text, "tables", tables(found))
