"""What is shown of many entries: MODEL_CARDS.md, the README's table, a terminal's lines."""

import re
from collections.abc import Iterable
from pathlib import Path

from qaudio.compress.measured import Cost, Latency
from qaudio.data.benchmarks.registry import about
from qaudio.errors import EntryError
from qaudio.evaluation.result import Difference
from qaudio.text import markdown
from qaudio.zoo.schema import Results, Transfer
from qaudio.zoo.store import entries, read_config, read_results

# Entries of the README's table, and what each is for.
PICKS = {
    "qcnn10_050.audioset_kd_pruned50_long": "any sound, in 527 classes",
    "qcnn10_050.audioset_kd_128kb": "the same in 128 kB (int8, `--to c`)",
    "qcnn10_050.audioset_kd_long": "the same, unpruned; a start for your own sounds",
    "qcnn10_050.esc10_pruned50": "ten everyday sounds, from scratch, small",
    "qcnn10_050.esc10_pruned75": "the same, smallest",
    "qcnn10_050.ravdess_ft": "emotions in acted speech",
}


def figures(text: str) -> list[str]:
    """Every number that a text shows, in order, with its sign and percent."""
    return re.findall(r"[+−-]?\d+(?:[.,]\d+)*(?: ?%)?", text)


def percent(share: float) -> str:
    """A share from 0 to 1 in percent: "93.4 %"."""
    return f"{100 * share:.1f} %"


def points(difference: float) -> str:
    """A difference of two shares in percentage points, with its sign: "+1.2"."""
    return f"{100 * difference:+.1f}"


def difference_text(difference: Difference) -> str:
    """A paired difference in points, with its interval."""
    low, high = difference.interval95
    return f"{points(difference.mean)} ({points(low)} to {points(high)})"


def giga(macs: float) -> str:
    """A number of operations in thousands of millions: "1.234 G"."""
    return f"{macs / 1e9:.3f} G"


def interval(bounds: tuple[float, float]) -> str:
    """An interval's two shares, lower first, in percent: "91.0–95.2 %"."""
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


def size_facts(cost: Cost) -> list[tuple[str, str]]:
    """What a terminal shows of a network's size: name and value."""
    return [
        ("parameters", f"{cost.params:,} ({cost.bytes / 1e6:.2f} MB)"),
        ("MACs", f"{giga(cost.macs)} for {cost.seconds:g} s"),
    ]


def facts(results: Results) -> list[tuple[str, str]]:
    """What a terminal shows of an entry's results: name and value."""
    result, cost, parent = results.result, results.cost, results.parent
    rows = [
        (result.metric, score(results, " (over folds)")),
        ("95 % interval", f"{interval(result.interval95)}, over {result.clips} clips"),
        ("protocol", f"{results.protocol}, seeds {', '.join(map(str, results.seeds))}"),
        *size_facts(cost),
    ]
    if cost.latency:
        rows.append(("latency", f"{_milliseconds(cost.latency)} ({cost.latency.device})"))
    if parent:
        licence = f" ({parent.license})" if parent.license else ""
        rows.append(("parent", f"{parent.how} {parent.name}{licence}"))
        if parent.difference:
            rows.append(("difference", f"{difference_text(parent.difference)} points"))
    return rows


def markdown_table(head: list[str], rows: Iterable[list[str]]) -> str:
    """A table in Markdown; cells are Markdown themselves, as many in each row as in `head`."""
    lines = ["|" + "".join(f" {cell} |" if cell else " |" for cell in row) for row in (head, *rows)]
    return "\n".join([lines[0], f"|{'---|' * len(head)}", *lines[1:]])


def table(members: list[tuple[Results, str]]) -> str:
    """Markdown table of entries, by their results and licence."""
    rows = []
    for one, licence in members:
        cost, parent, difference = one.cost, one.parent, ""
        if parent:
            difference = markdown(parent.name)
            if parent.difference:
                low, high = (points(bound) for bound in parent.difference.interval95)
                difference += f" ({points(parent.difference.mean)}; {low} to {high})"
        rows.append([
            _link(one.entry), score(one), interval(one.result.interval95), f"{cost.params:,}",
            giga(cost.macs), _milliseconds(cost.latency) if cost.latency else "", difference,
            f"{cost.bytes:,}", markdown(licence),
        ])  # fmt: skip
    return markdown_table(
        ["entry", "score", "95 % interval", "parameters", "MACs (10 s)", "latency (10 s)",
         "parent", "bytes", "licence"],
        rows,
    )  # fmt: skip


def index(folder: Path | None = None) -> str:
    """MODEL_CARDS.md: every entry with results, benchmark by benchmark and protocol by protocol."""
    parts = [
        "# Model cards",
        "Generated from each entry's `results.json` by `qaudio verify --all --write`. Scores are "
        "means over folds ± their standard deviation; intervals are 95 % over clips; beside a "
        "parent's name stands the paired difference to it in points with its interval: of what was "
        "pruned and of the epochs after it, or to the teacher.",
    ]
    groups = _by_protocol(folder)
    for title, members in groups.items():
        latencies = [one.cost.latency for one, _ in members]
        parts += [f"## {title}", table(members), dependence(members[0][0].benchmark)]
        if devices := sorted({latency.device for latency in latencies if latency}):
            parts.append(
                "Latency, batch 1, front-end included, and after `qaudio.optimize`: "
                f"{'; '.join(devices)}."
            )
    parts += _carried_over([one for members in groups.values() for one, _ in members])
    return "\n\n".join(filter(None, parts)) + "\n"


def titled(score: Transfer) -> str:
    """A benchmark and its protocol, which others may have too."""
    return f"{about(score.benchmark).title}: {score.protocol}"


def _carried_over(every: list[Results]) -> list[str]:
    """Scores of entries on benchmarks that they were not trained on, each protocol apart."""
    scores = [(probed, one) for one in every for probed in one.transfer]
    if not scores:
        return []
    parts = [
        "## Carried over",
        "What embeddings and tags are worth on benchmarks that a network was not trained on: a "
        "linear probe is fitted for each fold on the others; parameters are those of the whole "
        "network, its own classifier included.",
    ]
    for protocol in sorted({titled(probed) for probed, _ in scores}):
        own = [(probed.result, one) for probed, one in scores if titled(probed) == protocol]
        rows = [
            [_link(one.entry), percent(result.mean) + spread(result.std),
             interval(result.interval95), f"{one.cost.params:,}"]
            for result, one in sorted(own, key=lambda scored: (-scored[0].mean, scored[1].entry))
        ]  # fmt: skip
        made = markdown_table(["entry", "accuracy", "95 % interval", "parameters"], rows)
        parts.append(f"{protocol}:\n\n{made}")
    return parts


def picks(folder: Path | None = None) -> str:
    """The README's table: a few entries, each with what it is for."""
    known, rows = entries(folder), []
    for name in filter(known.__contains__, PICKS):
        if one := read_results(known[name]):
            metric = one.result.metric + " of its teacher's tags" * bool(one.teaching)
            rows.append([PICKS[name], _link(name), f"{score(one)} {metric}",
                         f"{one.cost.params:,}", giga(one.cost.macs)])  # fmt: skip
    return markdown_table(["for", "entry", "score", "parameters", "MACs (10 s)"], rows)


def _link(entry: str) -> str:
    return f"[{entry}](zoo/{entry}/README.md)"


def markers(what: str) -> tuple[str, str]:
    """Lines of a document that something generated stands between."""
    return f"<!-- {what}: generated -->", f"<!-- end of {what} -->"


def with_generated(text: str, what: str, made: str) -> str:
    """A document with what stands between `what`'s two markers replaced.

    Raises:
        EntryError: the document lacks them.
    """
    start, end = markers(what)
    before, found, rest = text.partition(start)
    _, also_found, after = rest.partition(end)
    if not (found and also_found):
        raise EntryError(f"the document lacks the markers {start} and {end}")
    return f"{before}{start}\n{made}\n{end}{after}"


def _by_protocol(folder: Path | None) -> dict[str, list[tuple[Results, str]]]:
    """Results and licences of the entries that have some, by benchmark and protocol, best first."""
    found: dict[tuple[str, str], list[tuple[Results, str]]] = {}
    for path in entries(folder).values():
        if one := read_results(path):
            licence = read_config(path).license or "not stated"
            found.setdefault((one.benchmark, one.protocol), []).append((one, licence))
    groups = {}
    for (benchmark, protocol), members in sorted(found.items()):
        title = about(benchmark).title
        name = protocol if protocol.startswith(title) else f"{title}: {protocol}"
        groups[name] = sorted(members, key=lambda member: -member[0].result.mean)
    return groups
