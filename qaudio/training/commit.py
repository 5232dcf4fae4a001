"""Which commit gave a recipe or the package its content."""

from __future__ import annotations

import subprocess
from pathlib import Path

from qaudio.zoo.store import PACKAGE


def commit_of(path: Path) -> str | None:
    """The commit that gave a file or folder its content.

    None outside the package's own clone, where it is not tracked, and where it was changed since.
    Of other folders nothing is asked: a repository's settings can name programs that git runs.
    """
    if not path.resolve().is_relative_to(PACKAGE.parent) or not (PACKAGE.parent / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments, "--", path.name], cwd=path.resolve().parent, check=True,
            capture_output=True, text=True,
        )  # fmt: skip
        return done.stdout.strip()

    try:
        return None if git("status", "--porcelain") else git("log", "-1", "--format=%H") or None
    except (OSError, subprocess.CalledProcessError):
        return None
