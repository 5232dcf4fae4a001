import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(module: str) -> str:
    """What a module of tests prints, in a process from which others can be forked."""
    done = subprocess.run([sys.executable, "-m", module], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_work_that_is_killed_at_any_moment_can_be_done_again():
    assert "30 kills, 30 finished as undisturbed" in run("tests.robustness.crashes")


@pytest.mark.slow
def test_a_bad_disk_is_told_in_one_line_and_leaves_what_was_there():
    assert "0 tracebacks, 0 changes to what was there" in run("tests.robustness.bad_disks")
