"""What is shown of many entries: MODEL_CARDS.md, the README's table, a terminal's lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qaudio.zoo.benchmarks import about
from qaudio.zoo.catalog import EntryError, entries, read_json

TABLE_START, TABLE_END = "<!-- zoo table: generated -->", "<!-- end of zoo table -->"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def points(difference: float) -> str:
    return f"{100 * difference:+.1f}"


def interval(bounds: list[float]) -> str:
    return f"{100 * bounds[0]:.1f}–{100 * bounds[1]:.1f} %"


def spread(result: dict[str, Any]) -> str:
    """The standard deviation over folds, as it follows a mean."""
    return "" if result["std"] is None else f" ± {100 * result['std']:.1f} (over folds)"


def _missing(results: dict[str, Any]) -> str:
    """A remark on runs that are still to come."""
    return "" if results["complete"] else f" ({len(results['result']['runs'])} runs so far)"


def facts(results: dict[str, Any]) -> list[tuple[str, str]]:
    """What a terminal shows of an entry's results: name and value."""
    result, cost, parent = results["result"], results["cost"], results["parent"]
    rows = [
        (result["metric"], percent(result["mean"]) + spread(result) + _missing(results)),
        ("95 % interval", f"{interval(result['interval95'])}, over {result['clips']} clips"),
        ("protocol", f"{results['protocol']}, seeds {', '.join(map(str, results['seeds']))}"),
        ("parameters", f"{cost['params']:,} ({cost['bytes'] / 1e6:.2f} MB)"),
        ("MACs", f"{cost['macs'] / 1e9:.3f} G for {cost['seconds']:g} s"),
    ]
    if cost["latency"]:
        latency = cost["latency"]
        rows.append(("latency", f"{latency['milliseconds']:.1f} ms ({latency['device']})"))
    if parent:
        rows.append(("parent", f"{parent['how']} {parent['name']}"))
        if parent.get("difference"):
            paired = parent["difference"]
            low, high = (points(bound) for bound in paired["interval95"])
            rows.append(("difference", f"{points(paired['mean'])} points ({low} to {high})"))
    return rows


def table(results: list[dict[str, Any]], link: str, licences: list[str] | None = None) -> str:
    """Markdown table of entries.

    Args:
        results: of each.
        link: put before each name.
        licences: of each; with them the table has columns of bytes and licence too.
    """
    head = "entry | score | 95 % interval | parameters | MACs (10 s) | latency (10 s) | parent"
    head = f"| {head}{' | bytes | licence' if licences else ''} |"
    rows = [head, "|---" * head.count(" |") + "|"]
    for n, one in enumerate(results):
        result, cost, parent = one["result"], one["cost"], one["parent"]
        latency = f"{cost['latency']['milliseconds']:.1f} ms" if cost["latency"] else ""
        difference = ""
        if parent:
            difference = parent["name"]
            if parent.get("difference"):
                paired = parent["difference"]
                low, high = (points(bound) for bound in paired["interval95"])
                difference += f" ({points(paired['mean'])}; {low} to {high})"
        deviation = spread(result).removesuffix(" (over folds)") + _missing(one)
        cells = [
            f"[{one['entry']}]({link}{one['entry']}/README.md)",
            percent(result["mean"]) + deviation,
            interval(result["interval95"]),
            f"{cost['params']:,}",
            f"{cost['macs'] / 1e9:.3f} G",
            latency,
            difference,
        ]
        if licences:
            cells += [f"{cost['bytes']:,}", licences[n]]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def index(folder: Path | None = None) -> str:
    """MODEL_CARDS.md: every entry with results, benchmark by benchmark and protocol by protocol."""
    found: dict[tuple[str, str], list[tuple[dict[str, Any], str]]] = {}
    for path in _entry_folders(folder):
        if (path / "results.json").is_file():
            one = read_json(path / "results.json")
            licence = read_json(path / "config.json")["license"] or "not stated"
            found.setdefault((one["benchmark"], one["protocol"]), []).append((one, licence))
    parts = [
        "# Model cards",
        "Generated from each entry's `results.json` by `qaudio verify --all --write`. Scores are "
        "means over folds ± their standard deviation; intervals are 95 % over clips; beside a "
        "parent's name stands the paired difference to it in points with its interval.",
    ]
    for (benchmark, protocol), members in sorted(found.items()):
        members.sort(key=lambda one: -one[0]["result"]["mean"])
        results, licences = [one for one, _ in members], [licence for _, licence in members]
        devices = {m["cost"]["latency"]["device"] for m in results if m["cost"]["latency"]}
        parts.append(f"## {about(benchmark)['title']}: {protocol}")
        parts.append(table(results, "zoo/", licences))
        if devices:
            parts.append(f"Latency, batch 1, front-end included: {'; '.join(sorted(devices))}.")
    return "\n\n".join(parts) + "\n"


def readme_with_table(text: str, folder: Path | None = None) -> str:
    """A README with the table between its two markers made anew; raises EntryError without them."""
    if TABLE_START not in text or TABLE_END not in text:
        raise EntryError("README.md: the markers of the zoo's table are missing")
    members = [
        read_json(path / "results.json")
        for path in _entry_folders(folder)
        if (path / "results.json").is_file()
    ]
    members.sort(key=lambda one: (one["benchmark"], -one["result"]["mean"]))
    before, rest = text.split(TABLE_START, 1)
    after = rest.split(TABLE_END, 1)[1]
    return f"{before}{TABLE_START}\n{table(members, 'zoo/')}\n{TABLE_END}{after}"


def _entry_folders(folder: Path | None) -> list[Path]:
    if folder is None:
        return list(entries().values())
    return [path.parent for path in sorted(folder.glob("*/config.json"))]
