"""Kill work at random moments, and look at what is left: `python -m tests.robustness.crashes`.

The moments are spread over the work, half of them by the time that it takes, half by what it does
to files: there the process dies at one of its openings, renamings and removals, or up to 3 ms
later. Two fall into the start of a real process. After each the same work is done again; it must
end as it does undisturbed, and in between nothing may look whole that is not.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support import jobs
from tests.support.jobs import Job, done, ended, file_events, forked, prepared

KILLS = {
    "train": 4, "crossval": 4, "pack": 3, "pull": 4, "cache": 3, "entry": 3,
    "verify": 5, "kernel": 4,
}  # fmt: skip
AT_START = ("train", "pull")  # of these, one kill of a process that is still importing


def undisturbed(name: str, job: Job, top: Path) -> tuple[dict, dict, float, int]:
    """Facts before and after the work, the seconds it takes, and its file events."""
    folder = prepared(name, job, top)
    old = job.facts(folder)
    note = folder.with_suffix(".events")
    note.touch()
    start = time.monotonic()
    code, printed = done(
        job, folder, lambda: file_events(folder, lambda count: note.write_text(str(count)))
    )
    seconds = time.monotonic() - start
    assert code == 0, printed
    new = job.facts(folder)
    assert new and new != old
    return old, new, seconds, int(note.read_text())


def killed(
    name: str,
    job: Job,
    top: Path,
    seconds: float,
    events: int,
    part: tuple[float, float],
    by_files: bool,
    rng: random.Random,
) -> Path:
    """A folder whose work was killed in a part of it; another moment is drawn where one is late."""
    while True:
        folder = prepared(name, job, top)
        moment, delay = rng.uniform(*part), rng.choice([0.0, rng.uniform(0, 0.003)])
        number = 1 + int(moment * events)

        def begin(folder: Path = folder, number: int = number, delay: float = delay) -> None:
            jobs.at_home(folder)
            if by_files:
                jobs.die_at(folder, number, delay)

        pid = forked(lambda folder=folder: job.work(folder), folder.with_suffix(".log"), begin)
        if not by_files:
            time.sleep(moment * seconds)
            os.kill(pid, signal.SIGKILL)
        if ended(pid) == -signal.SIGKILL:
            return folder
        seconds *= 0.9  # the work may take less by now than when it was timed


def killed_at_start(name: str, job: Job, top: Path, rng: random.Random) -> Path:
    assert job.arguments is not None
    for longest in (3.0, 1.5, 0.8, 0.4):  # on a quick machine it has ended before
        folder = prepared(name, job, top)
        process = subprocess.Popen(
            [sys.executable, "-m", "qaudio.cli", *job.arguments(folder)],
            env=os.environ | {"QAUDIO_CACHE": str(folder), "HF_HUB_CACHE": str(folder / "hub")},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(rng.uniform(0.2, longest))
        process.kill()
        if process.wait() == -signal.SIGKILL:
            return folder
    raise AssertionError(f"{name}: ends before it can be killed")


def run(top: Path, seed: int, names: list[str]) -> None:
    """All kills; raises AssertionError at the first that leaves something wrong."""
    rng, total, kept = random.Random(seed), 0, 0
    work = jobs.jobs(top)
    with jobs.Served(top):
        for name in names:
            job, count = work[name], KILLS[name]
            old, new, seconds, events = undisturbed(name, job, top)
            untouched = 0
            for n in range(count):
                if n == 0 and name in AT_START:
                    folder = killed_at_start(name, job, top, rng)
                else:
                    part = n / count, (n + 1) / count
                    folder = killed(name, job, top, seconds, events, part, n % 2 == 1, rng)
                check(name, job.facts(folder), old, new)
                untouched += job.facts(folder) == old
                code, printed = done(job, folder)
                assert code == 0, f"{name}: does not finish after a kill:\n{printed}"
                assert job.facts(folder) == new, f"{name}: ends otherwise after a kill"
            total, kept = total + count, kept + untouched
            print(
                f"{name}: {count} kills within {seconds:.1f} s and {events} file events, "
                f"{untouched} before anything new was there; all finished as undisturbed",
                flush=True,
            )
    print(f"{total} kills, {total} finished as undisturbed, 0 files that look whole and are not")


def check(name: str, found: dict, old: dict, new: dict) -> None:
    """What a kill left is the old state or the new, or of the new a whole part."""
    if name == "crossval":  # fold by fold, each a whole entry
        whole = all(verified in ("toy.esc10",) for verified in found)
    elif name == "cache":
        whole = found.items() <= new.items()
    else:
        whole = found in (old, new)
    assert whole, f"{name}: a kill left {found}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=KILLS, help="this kind of work alone")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder), options.seed, [options.only] if options.only else list(KILLS))


if __name__ == "__main__":
    main()
