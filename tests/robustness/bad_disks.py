"""Do work on a full and on a read-only disk: `python -m tests.robustness.bad_disks`.

It must fail with one clear line and leave what was there; with a good disk it then ends as ever.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.support import jobs
from tests.support.jobs import Job, done, prepared

# Bytes that a file may hold: enough for what the work reads and notes, too few for what it makes.
FULL_AT = {
    "train": 20_000, "crossval": 20_000, "pack": 20_000, "pull": 2_000, "cache": 8_000,
    "entry": 20_000,
}  # fmt: skip


def fails(name: str, job: Job, folder: Path, before: Callable[[], object], told: str) -> None:
    """Work that must fail with one line and change nothing."""
    kept, facts = jobs.files(folder), job.facts(folder)
    code, printed = done(job, folder, before)
    lines = [line for line in printed.splitlines() if line.startswith("qaudio: ")]
    assert code == 1, f"{name}: exit code {code}\n{printed}"
    assert "Traceback" not in printed, f"{name}:\n{printed}"
    assert lines and told in lines[-1], f"{name}:\n{printed}"
    print(f"{name}: {lines[-1].replace(str(folder), '…')}", flush=True)
    jobs.writable(folder)
    now = jobs.files(folder)
    assert job.facts(folder) == facts, f"{name}: left other facts"
    lost = {path for path in kept if now.get(path) != kept[path] and "metrics" not in path}
    assert not lost, f"{name}: changed {lost}"


def run(top: Path) -> None:
    """All kinds of work; raises AssertionError at the first that fails otherwise."""
    work = jobs.jobs(top)
    with jobs.Served(top):
        for name, limit in FULL_AT.items():
            job = work[name]
            whole = prepared(name, job, top)
            code, printed = done(job, whole)
            assert code == 0, printed
            full, closed = prepared(name, job, top), prepared(name, job, top)
            fails(name, job, full, lambda limit=limit: jobs.small_disk(limit), "File too large")
            fails(
                name, job, closed, lambda folder=closed: jobs.read_only(folder),
                "Permission denied",
            )  # fmt: skip
            for folder in (full, closed):
                code, printed = done(job, folder)
                assert code == 0, printed
                assert job.facts(folder) == job.facts(whole), name
    print(f"{2 * len(FULL_AT)} failures, 0 tracebacks, 0 changes to what was there")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder))
