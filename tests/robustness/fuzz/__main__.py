"""Files that lie, and what became of them: `python -m tests.robustness.fuzz audio --count 2000`."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from functools import partial

from tqdm import tqdm

from tests.robustness.fuzz import audio, entries
from tests.robustness.fuzz.kinds import KINDS
from tests.robustness.fuzz.sandbox import run

RUN = {"audio": audio.run, "entries": entries.run} | {
    name: partial(run, name, kind) for name, kind in KINDS.items()
}


def main() -> int:
    """Run a fuzz and print its counts; 1 where it found a fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.robustness.fuzz", description=__doc__)
    parser.add_argument("what", choices=RUN)
    parser.add_argument("--count", type=int, default=2000, help="cases (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="only this one, with what was said of it")
    options = parser.parse_args()
    cases = range(options.count) if options.case is None else [options.case]
    counts: Counter[str] = Counter()
    faults, start = 0, time.monotonic()
    bar = tqdm(RUN[options.what](options.seed, cases), total=len(cases), unit="case", disable=None)
    for case, outcome in bar:
        counts[outcome.ended] += 1
        faults += outcome.fault
        if outcome.fault or options.case is not None:
            bar.write(f"seed {options.seed}, case {case}: {outcome.ended}: {outcome.detail}")
    for ended, count in counts.most_common():
        print(f"{count:6}  {ended}")
    print(f"{len(cases)} cases, {faults} faults, {time.monotonic() - start:.0f} s")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
