"""The figures that the clone holds, and the tables that README.md beside them shows."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from qaudio.zoo.tables import with_generated
from tests.benchmarks.speed.table import HEAD, RULE, Row

RESULTS = Path(__file__).with_name("results.json")
README = Path(__file__).with_name("README.md")


def tables(found: dict[str, dict]) -> str:
    """A Markdown table for each machine, and how many limits are kept."""
    names = {field.name for field in fields(Row)}
    made: dict[str, list[Row]] = {}
    for group in found.values():
        rows = [{k: v for k, v in row.items() if k in names} for row in group["rows"]]
        made.setdefault(group["machine"], []).extend(Row(**row) for row in rows)
    judged = [row.holds for rows in made.values() for row in rows if row.holds is not None]
    parts = [f"{sum(judged)} of {len(judged)} limits are kept."]
    for machine, rows in made.items():
        parts.append(f"{machine}:\n\n" + "\n".join([HEAD, RULE, *(row.to_line() for row in rows)]))
    return "\n\n".join(parts)


def readme_with_tables(text: str, found: dict[str, dict]) -> str:
    """README.md with the tables of these figures."""
    return with_generated(text, "tables", tables(found))
