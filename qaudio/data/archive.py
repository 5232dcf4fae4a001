"""Benchmarks that may be downloaded: the archive of one, fetched and unpacked once."""

import os
import shutil
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from filelock import FileLock

from qaudio.download import Download, fetch, log
from qaudio.errors import DataError
from qaudio.progress import progress


@dataclass(frozen=True)
class Archive:
    """A zip file that a benchmark's authors publish.

    Attributes:
        top: folder within it that becomes the benchmark's root; "" for all of it.
    """

    item: Download
    top: str
    license: str


def install(archive: Archive, root: Path) -> None:
    """Download an archive and unpack it as `root`, unless that holds files.

    A broken download is taken up where it broke. `root` gets its name once all is unpacked; then
    the archive is deleted.

    Raises:
        DownloadError: when it cannot be downloaded; says what to fetch by hand.
        DataError: when `root` is a mount point, which cannot be replaced; when the archive is no
            zip file, one without the folder `top`, or one that names paths outside itself.
    """
    root = root.resolve()  # a link to another disk stays, and what it leads to is filled
    root.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(root.with_name(f".{root.name}.lock")):
        if root.is_dir() and any(root.iterdir()):
            return
        if os.path.ismount(root):
            raise DataError(
                f"{root} is a mount point: name a folder in it, such as {root / 'data'}"
            )
        log.warning("downloading %s (%s)", archive.item.url, archive.license)
        path = fetch(archive.item, "the same command")
        scratch = root.with_name(f".{root.name}.unpacking")
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            _unpack(path, archive.top, scratch)
            if root.is_dir():
                root.rmdir()
            os.replace(scratch, root)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        path.unlink()
        archive.item.record.unlink(missing_ok=True)


def _unpack(path: Path, top: str, out: Path) -> None:
    out.mkdir()
    try:
        with zipfile.ZipFile(path) as file:
            members = [member for member in file.infolist() if not member.is_dir()]
            for member in members:
                _below(member.filename, path)  # all of them, before the first is written
            size, free = sum(member.file_size for member in members), shutil.disk_usage(out).free
            if size > free:
                raise DataError(f"{path} unpacks to {size} bytes, of which {free} are free here")
            for member in progress(members, f"unpacking {path.name}", unit="file"):
                name = _below(member.filename, path)
                if top and not name.is_relative_to(top):
                    continue
                target = out / (name.relative_to(top) if top else name)
                target.parent.mkdir(parents=True, exist_ok=True)
                with file.open(member) as source, open(target, "wb") as copy:
                    shutil.copyfileobj(source, copy)  # checks the file's CRC at its end
                    copy.flush()
                    os.fsync(copy.fileno())  # before the folder has its name, and the archive goes
        if not any(out.iterdir()):
            raise DataError(
                f"{path} holds no files in a folder {top}: delete it and its .json, and it is "
                "downloaded anew"
            )
    # RuntimeError: members that are encrypted, or packed as zipfile does not know.
    except (zipfile.BadZipFile, EOFError, zlib.error, RuntimeError) as error:
        raise DataError(f"{path} is no whole zip file ({error}): delete it and its .json") from None


def _below(name: str, path: Path) -> PurePosixPath:
    """A member's path; raises DataError for one that would leave the folder."""
    member = PurePosixPath(name.replace("\\", "/"))
    if member.is_absolute() or ".." in member.parts or ":" in name or "\0" in name:
        raise DataError(f"{path} names {name!r}, outside of itself: not unpacked")
    return member
