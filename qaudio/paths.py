"""Where qaudio keeps files of its own, and how files are written: whole, or not at all."""

import ctypes
import errno
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


def cache_folder() -> Path:
    """Where decoded audio and downloads are kept: $QAUDIO_CACHE, or the user's cache folder."""
    import pooch

    return Path(os.environ.get("QAUDIO_CACHE") or pooch.os_cache("qaudio"))


def expanded(path: str | os.PathLike) -> Path:
    """A path with the home folder for its ~; as it is where there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


@contextmanager
def replacing(path: str | os.PathLike, follow: bool = True) -> Iterator[IO[bytes]]:
    """A new file that takes the place of `path` when the block ends well, and else leaves nothing.

    Whoever reads `path` finds the old content or the new, also after a crash; what a killed
    process leaves is a hidden file beside it. A link stays a link, to the new file, unless `follow`
    is False: then it is replaced.

    Raises:
        OSError: at once where it could not be written, or at the end; it names `path`.
    """
    try:
        path = expanded(path).resolve() if follow else expanded(path).absolute()
    except RuntimeError:
        raise OSError(errno.ELOOP, "a link that leads to itself", str(path)) from None
    if not (path.is_symlink() or path.is_file()) and path.exists():
        raise FileExistsError(errno.EEXIST, "there is something else than a file", str(path))
    new = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.tmp")
    try:
        with naming(path, new):
            with open(new, "xb") as file:  # as readable as any new file of the user's
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, path)
    finally:
        with suppress(OSError):
            new.unlink()


def write_whole(path: Path, content: str | bytes | memoryview, follow: bool = True) -> None:
    """Write a file by `replacing`, in folders that are made where they lack; raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, follow) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def naming(path: Path, scratch: Path) -> Iterator[None]:
    """Let an OSError that names nothing, or what is below `scratch`, name `path`."""
    try:
        yield
    except OSError as error:
        named = error.filename is None or str(error.filename).startswith(str(scratch))
        if error.errno is None or not named:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None


def replace_folder(folder: Path, write: Callable[[Path], None], keep: Iterable[str] = ()) -> None:
    """Fill a new folder beside `folder`, then put it in its place, all at once where that is known.

    Linux and macOS swap two folders in one step; elsewhere a crash between two renames leaves the
    old folder as `.NAME.….old` beside it. What a process leaves that is killed is hidden.

    Args:
        folder: replaced when it exists; a link stays a link.
        write: fills the folder that it is given.
        keep: names of files and folders in the old folder that the new one has as well.

    Raises:
        OSError: when it cannot be written, or a file has its name; what was there stays.
    """
    folder = expanded(folder).resolve()
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "there is a file, not a folder", str(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = folder.with_name(f".{folder.name[:100]}.{secrets.token_hex(4)}.tmp")
    try:
        with naming(folder, new):
            new.mkdir()
            write(new)
            for name in keep:
                _copy(folder / name, new / name)
            for path in (*new.rglob("*"), new):
                _on_disk(path)
            _put(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)  # the old one, where they changed places


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep every other process and thread from writing the entries beside `folder`, and it.

    Whoever reads an entry to write it again does both in here, so that what another wrote in
    between is not lost. May be nested.

    Raises:
        OSError: when the folder above cannot be written.
    """
    from filelock import FileLock

    parent = expanded(folder).resolve().parent
    parent.mkdir(parents=True, exist_ok=True)
    with FileLock(parent / ".zoo.lock", is_singleton=True):
        yield


def _put(new: Path, folder: Path) -> None:
    if not folder.exists():
        try:
            os.replace(new, folder)
            return
        except OSError:
            if not folder.exists():  # else another process was faster
                raise
    if not _exchanged(new, folder):
        _exchange_in_steps(new, folder)


def _exchange_in_steps(new: Path, folder: Path) -> None:
    old = new.with_suffix(".old")
    os.replace(folder, old)
    try:
        os.replace(new, folder)
    except OSError:
        os.replace(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _copy(source: Path, copy: Path) -> None:
    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, copy, symlinks=True)
    elif os.path.lexists(source):
        shutil.copy2(source, copy, follow_symlinks=False)


def _on_disk(path: Path) -> None:
    """Wait until a file, or the list of a folder's files, is on the disk."""
    if path.is_symlink() or (os.name == "nt" and path.is_dir()):
        return  # Windows opens no folders
    try:
        # Only Windows asks for the right to write; git's own files are read-only there as well.
        descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    except PermissionError:
        if os.name == "nt":
            return
        raise
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exchanged(one: Path, other: Path) -> bool:
    """Let two names change places in one step; False where system or file system cannot."""
    here, swap = -100, 2  # AT_FDCWD; RENAME_EXCHANGE, on macOS RENAME_SWAP
    names = os.fsencode(one), os.fsencode(other)
    try:
        if sys.platform == "linux":
            return ctypes.CDLL(None).renameat2(here, names[0], here, names[1], swap) == 0
        if sys.platform == "darwin":
            return ctypes.CDLL(None).renamex_np(*names, swap) == 0
    except AttributeError:  # a C library older than the call
        pass
    return False
