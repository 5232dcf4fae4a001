"""Speed, memory and exactness against what is promised: `python -m tests.benchmarks.speed`.

Pairs are run in turns, batch 1, 10 s of sound, waveform to logits; medians, of processor time with
`--threads 1`, which other programs hardly disturb. Ratios are what carries over to other machines.
`--record` keeps the groups that it measured in results.json and README.md beside this file.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch

from tests.benchmarks.speed import exports, networks, processes
from tests.benchmarks.speed.record import README, RESULTS, readme_with_tables
from tests.benchmarks.speed.table import HEAD, RULE, Table, machine

GROUPS: dict[str, Callable[[Table], None]] = {
    "large": networks.large,
    "mobile": networks.mobile,
    "tagger": exports.tagger,
    "entries": networks.pruned_entries,
    "budgets": networks.budgets,
    "frontend": networks.frontends,
    "onnx": exports.latency,
    "int8": exports.accuracy,
    "training": processes.training,
    "building": processes.building,
    "starts": processes.starts,
    "memory": processes.memory,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.speed", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=list(GROUPS), metavar="GROUP",
                        help=f"of {', '.join(GROUPS)}; all by default")  # fmt: skip
    parser.add_argument("--threads", type=int, default=2, help="of torch and onnxruntime (2)")
    parser.add_argument("--budget", type=float, default=4.0, help="seconds for each pair (4)")
    parser.add_argument("--data", help="folder of ESC-50, for the accuracy of int8")
    parser.add_argument("--json", metavar="FILE",
                        help="write the rows there, beside those of other groups")  # fmt: skip
    parser.add_argument("--record", action="store_true", help="the same, in what the clone holds")
    parser.add_argument("--profile", metavar="ROW", help="where the time of these rows goes")
    parser.add_argument("--prepare", action="store_true", help="only measure and compile forms")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    table = Table(options.budget, options.profile, options.prepare, options.data)
    print(machine())
    if table.measures:
        print(f"{HEAD}\n{RULE}", flush=True)
    for table.group in options.only:
        GROUPS[table.group](table)
        if options.json:
            table.write(Path(options.json))
        if options.record and table.measures:
            found = table.write(RESULTS)
            text = README.read_text(encoding="utf-8")
            README.write_text(readme_with_tables(text, found), encoding="utf-8")
    missed = [row.what for row in table.rows if row.holds is False]
    if table.measures:
        print(f"\n{len(missed)} of {len(table.rows)} rows miss their limit"
              + "".join(f"\n- {what}" for what in missed))  # fmt: skip


if __name__ == "__main__":
    main()
