"""Where qaudio keeps files of its own."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where decoded audio and downloads are kept: $QAUDIO_CACHE, or the user's cache folder."""
    import pooch

    return Path(os.environ.get("QAUDIO_CACHE") or pooch.os_cache("qaudio"))
