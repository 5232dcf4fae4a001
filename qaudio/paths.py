"""Where qaudio keeps files of its own, and how files are written: whole, or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


def cache_folder() -> Path:
    """Where decoded audio and downloads are kept: $QAUDIO_CACHE, or the user's cache folder."""
    import pooch

    return Path(os.environ.get("QAUDIO_CACHE") or pooch.os_cache("qaudio"))


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[IO[bytes]]:
    """A new file that takes the place of `path` when the block ends well, and else leaves nothing.

    Whoever reads `path` finds the old content or the new, also after a crash; what a killed
    process leaves is a hidden file beside it. A link stays a link, to the new file.

    Raises:
        OSError: at once where it could not be written, or at the end; it names `path`.
    """
    path = Path(path).expanduser().resolve()
    if path.exists() and not path.is_file():
        raise FileExistsError(errno.EEXIST, "there is something else than a file", str(path))
    new = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.tmp")
    try:
        with open(new, "xb") as file:  # as readable as any new file of the user's
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(new)):
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise
    finally:
        with suppress(OSError):
            new.unlink()
