"""What is shown of many entries: MODEL_CARDS.md, the README's table, a terminal's lines."""

from __future__ import annotations

import re
from pathlib import Path

from qaudio.compress.measured import Latency
from qaudio.data.benchmarks.registry import about
from qaudio.errors import EntryError
from qaudio.evaluation.result import Difference
from qaudio.text import markdown
from qaudio.zoo.schema import Results
from qaudio.zoo.store import entries, read_config, read_results

# Entries of the README's table, and what each is for.
PICKS = {
    "qcnn10_050.audioset_kd": "any sound, in 527 classes; a start for your own",
    "qcnn10_050.esc10_pruned50": "ten everyday sounds, from scratch, small",
    "qcnn10_050.esc10_pruned75": "the same, smallest",
    "qcnn10_050.ravdess_pruned25": "emotions in acted speech",
}


def figures(text: str) -> list[str]:
    """Every number that a text shows, in order, with its sign and percent."""
    return re.findall(r"[+−-]?\d+(?:[.,]\d+)*(?: ?%)?", text)


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def points(difference: float) -> str:
    return f"{100 * difference:+.1f}"


def difference_text(difference: Difference) -> str:
    """A paired difference in points, with its interval."""
    low, high = difference.interval95
    return f"{points(difference.mean)} ({points(low)} to {points(high)})"


def giga(macs: float) -> str:
    return f"{macs / 1e9:.3f} G"


def interval(bounds: tuple[float, float]) -> str:
    return f"{100 * bounds[0]:.1f}–{100 * bounds[1]:.1f} %"


def spread(std: float | None) -> str:
    """The standard deviation over folds, in percent, as it follows a mean."""
    return "" if std is None else f" ± {100 * std:.1f}"


def dependence(benchmark: str) -> str:
    """What intervals over clips leave out, where a benchmark's clips have something in common."""
    facts = about(benchmark)
    if not facts.sharing:
        return ""
    return (
        f"Intervals take clips for independent; clips that share {facts.sharing} are not, so "
        "intervals are too narrow, if anything."
    )


def missing(complete: bool, runs: int) -> str:
    """A remark on runs that are still to come."""
    return "" if complete else f" ({runs} runs so far)"


def score(results: Results, over: str = "") -> str:
    """Mean and spread over folds, in percent; `over` follows the spread."""
    result = results.result
    deviation = spread(result.std)
    remark = missing(results.complete, len(result.runs))
    return percent(result.mean) + (deviation and deviation + over) + remark


def _milliseconds(latency: Latency) -> str:
    fast = latency.optimized_milliseconds
    return f"{latency.milliseconds:.1f} ms" + (f", optimized {fast:.1f}" if fast else "")


def facts(results: Results) -> list[tuple[str, str]]:
    """What a terminal shows of an entry's results: name and value."""
    result, cost, parent = results.result, results.cost, results.parent
    rows = [
        (result.metric, score(results, " (over folds)")),
        ("95 % interval", f"{interval(result.interval95)}, over {result.clips} clips"),
        ("protocol", f"{results.protocol}, seeds {', '.join(map(str, results.seeds))}"),
        ("parameters", f"{cost.params:,} ({cost.bytes / 1e6:.2f} MB)"),
        ("MACs", f"{giga(cost.macs)} for {cost.seconds:g} s"),
    ]
    if cost.latency:
        rows.append(("latency", f"{_milliseconds(cost.latency)} ({cost.latency.device})"))
    if parent:
        licence = f" ({parent.license})" if parent.license else ""
        rows.append(("parent", f"{parent.how} {parent.name}{licence}"))
        if parent.difference:
            rows.append(("difference", f"{difference_text(parent.difference)} points"))
    return rows


def table(results: list[Results], link: str, licences: list[str] | None = None) -> str:
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
        cost, parent, difference = one.cost, one.parent, ""
        if parent:
            difference = markdown(parent.name)
            if parent.difference:
                low, high = (points(bound) for bound in parent.difference.interval95)
                difference += f" ({points(parent.difference.mean)}; {low} to {high})"
        cells = [
            f"[{one.entry}]({link}{one.entry}/README.md)",
            score(one),
            interval(one.result.interval95),
            f"{cost.params:,}",
            giga(cost.macs),
            _milliseconds(cost.latency) if cost.latency else "",
            difference,
        ]
        if licences:
            cells += [f"{cost.bytes:,}", markdown(licences[n])]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def index(folder: Path | None = None) -> str:
    """MODEL_CARDS.md: every entry with results, benchmark by benchmark and protocol by protocol."""
    parts = [
        "# Model cards",
        "Generated from each entry's `results.json` by `qaudio verify --all --write`. Scores are "
        "means over folds ± their standard deviation; intervals are 95 % over clips; beside a "
        "parent's name stands the paired difference to it in points with its interval: of what was "
        "pruned and of the epochs after it, or to the teacher.",
    ]
    for title, members in _by_protocol(folder).items():
        licences = [read_config(path)["license"] or "not stated" for path in members]
        latencies = [one.cost.latency for one in members.values()]
        devices = {latency.device for latency in latencies if latency}
        parts.append(f"## {title}")
        parts.append(table(list(members.values()), "zoo/", licences))
        parts.append(_dependence(members))
        if devices:
            parts.append(
                "Latency, batch 1, front-end included, and after `qaudio.optimize`: "
                f"{'; '.join(sorted(devices))}."
            )
    parts += _carried_over(folder)
    return "\n\n".join(filter(None, parts)) + "\n"


def _carried_over(folder: Path | None) -> list[str]:
    """Scores of entries on benchmarks that they were not trained on, each protocol apart."""
    found: dict[str, list[tuple[float, str]]] = {}
    for members in _by_protocol(folder).values():
        for one in members.values():
            for probed in one.transfer:
                result = probed.result
                row = (
                    f"| [{one.entry}](zoo/{one.entry}/README.md) | {percent(result.mean)}"
                    f"{spread(result.std)} | {interval(result.interval95)} | {one.cost.params:,} |"
                )
                found.setdefault(probed.protocol, []).append((-result.mean, row))
    if not found:
        return []
    parts = [
        "## Carried over",
        "What embeddings and tags are worth on benchmarks that a network was not trained on: a "
        "linear probe is fitted for each fold on the others; parameters are those of the whole "
        "network, its own classifier included.",
    ]
    head = "| entry | accuracy | 95 % interval | parameters |\n|---|---|---|---|"
    for protocol in sorted(found):
        rows = "\n".join(row for _, row in sorted(found[protocol]))
        parts.append(f"{protocol}:\n\n{head}\n{rows}")
    return parts


def picks(folder: Path | None = None) -> str:
    """The README's table: a few entries, each with what it is for."""
    rows = ["| for | entry | score | parameters | MACs (10 s) |", "|---|---|---|---|---|"]
    for name, use in PICKS.items():
        path = entries(folder).get(name)
        one = path and read_results(path)
        if not one:
            continue
        metric = f"{one.result.metric} of its teacher's tags" if one.teaching else one.result.metric
        rows.append(
            f"| {use} | [{name}](zoo/{name}/README.md) | {score(one)} {metric} | "
            f"{one.cost.params:,} | {giga(one.cost.macs)} |"
        )
    return "\n".join(rows)


def with_generated(text: str, what: str, made: str) -> str:
    """A document with what stands between `what`'s two markers made anew.

    The markers are `<!-- WHAT: generated -->` and `<!-- end of WHAT -->`.

    Raises:
        EntryError: the document lacks them.
    """
    start, end = f"<!-- {what}: generated -->", f"<!-- end of {what} -->"
    before, found, rest = text.partition(start)
    _, also_found, after = rest.partition(end)
    if not (found and also_found):
        raise EntryError(f"the document lacks the markers {start} and {end}")
    return f"{before}{start}\n{made}\n{end}{after}"


def _dependence(members: dict[Path, Results]) -> str:
    """`dependence` of entries of one protocol."""
    return dependence(next(iter(members.values())).benchmark)


def _by_protocol(folder: Path | None) -> dict[str, dict[Path, Results]]:
    """Results of the entries that have some, best first, by benchmark and protocol."""
    found: dict[tuple[str, str], list[tuple[Path, Results]]] = {}
    for path in entries(folder).values():
        if one := read_results(path):
            found.setdefault((one.benchmark, one.protocol), []).append((path, one))
    groups = {}
    for (benchmark, protocol), members in sorted(found.items()):
        title = about(benchmark).title
        members.sort(key=lambda member: -member[1].result.mean)
        groups[protocol if protocol.startswith(title) else f"{title}: {protocol}"] = dict(members)
    return groups
