"""The one kind of progress bar."""

from collections.abc import Iterable
from typing import Any


def progress(items: Iterable[Any] | None = None, what: str | None = None, **settings: Any) -> Any:
    """tqdm's bar of what takes over two seconds, on a terminal alone, and gone at the end."""
    from tqdm import tqdm  # here: most commands show none

    return tqdm(items, what, delay=2, leave=False, disable=None, **settings)
