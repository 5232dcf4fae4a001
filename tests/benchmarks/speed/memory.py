"""Memory of processes, as Linux counts it."""

import re
from pathlib import Path


def resident(process: int | str, which: str) -> float:
    """MB of a process, now (VmRSS) or at their peak (VmHWM).

    getrusage's peak is no less than that of the process which started this one.
    """
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    found = re.search(rf"^{which}:\s+(\d+) kB", status, re.MULTILINE)
    return 1024 * int(found[1]) / 1e6 if found else 0.0
