"""Entries as folders: which ship, what their files hold and whether they are the right ones.

Imports no torch, so that `qaudio list` answers at once.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from qaudio.errors import EntryError, entry_errors
from qaudio.paths import expanded
from qaudio.records import Record, parse
from qaudio.zoo.schema import (
    HUB_PREFIX,
    Config,
    Hosted,
    HostedCheckpoint,
    HostedFile,
    Results,
    Source,
    parse_config,
)

T = TypeVar("T")

PACKAGE = Path(__file__).resolve().parents[1]
# What git, the Hub's client and file managers put into a folder: it stays, and is no part of an
# entry.
NOT_OURS = (".git", ".gitattributes", ".gitignore", ".cache", ".DS_Store", "Thumbs.db")
MOST_JSON = 1 << 23  # bytes: what is parsed takes many times as much


def zoo_folder() -> Path:
    """The folder of shipped entries: a clone's `zoo/`, or the wheel's `qaudio/zoo/entries`."""
    clone = PACKAGE.parent / "zoo"
    if clone.is_dir() and (PACKAGE.parent / "pyproject.toml").is_file():
        return clone
    return PACKAGE / "zoo" / "entries"


def recipes_folder() -> Path:
    """The folder of shipped recipes: a clone's `recipes/`, or the wheel's `qaudio/recipes`."""
    clone = zoo_folder() == PACKAGE.parent / "zoo"
    return (PACKAGE.parent if clone else PACKAGE) / "recipes"


def recipes() -> dict[str, Path]:
    """Shipped recipes by name, such as esc10/qcnn10_050."""
    folder = recipes_folder()
    found = sorted(folder.glob("*/*.yaml"))
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in found}


def recipe_path(path: str) -> str:
    """A path as it was given, or the shipped recipe's that is so called where no such file is."""
    shipped = recipes_folder() / path.removeprefix("recipes/")
    called = path.startswith("recipes/") and not Path(path).exists() and shipped.is_file()
    return str(shipped) if called else path


def entries(folder: Path | None = None) -> dict[str, Path]:
    """Name and folder of every entry in a folder, or of those that are shipped, by name."""
    folder = folder or zoo_folder()
    found = folder.glob("*/config.json") if folder.is_dir() else []
    # Hidden ones are what a killed process left.
    return {p.parent.name: p.parent for p in sorted(found) if not p.parent.name.startswith(".")}


def hosted() -> dict[str, HostedCheckpoint]:
    """Checkpoints that others host, by the name of the entry that is made of them."""
    return _catalogue().entries


def hosted_labels() -> dict[str, HostedFile]:
    """Files of class names that others host, by benchmark."""
    return _catalogue().labels


def _catalogue() -> Hosted:
    return read_record(zoo_folder() / "hosted.json", Hosted) or Hosted()


def entry_name(folder: Path) -> str:
    """What to call an entry by its folder: in the Hub's cache, its address and not its commit."""
    if folder.parent.name == "snapshots":
        organisation, _, name = folder.parents[1].name.removeprefix("models--").partition("--")
        return f"{HUB_PREFIX}{organisation}/{name}@{folder.name}"
    return folder.name


def found_in(folder: Path, source: str) -> str:
    """A source as it was given, or its path where this folder of entries holds it."""
    inside = (folder / source).absolute()  # by no name that another entry may have
    return str(inside) if (inside / "config.json").is_file() else source


def file_of(folder: Path, name: str) -> Path:
    """Path of an entry's file; raises EntryError when it is missing, or lies outside the entry.

    No link may lead out of it, but those of the Hub's cache to what that keeps beside its folders,
    and those of the package's own entries, by which some installers save space.
    """
    path = folder / name
    if not path.is_file():  # neither is a pipe, which could be waited for without end
        raise EntryError(f"{entry_name(folder)}: {name} is missing")
    top = folder.parents[1] if folder.parent.name == "snapshots" else folder
    inside = path.resolve().is_relative_to(top.resolve())
    if not inside and not folder.is_relative_to(zoo_folder()):
        raise EntryError(f"{entry_name(folder)}: {name} is a link that leads out of the entry")
    return path


def read_text(folder: Path, name: str) -> str:
    """Text of an entry's file; raises EntryError when it is missing or no text."""
    try:
        file = file_of(folder, name)
        if file.stat().st_size > MOST_JSON:
            raise ValueError(f"over {MOST_JSON} bytes")
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise EntryError(f"{entry_name(folder)}: {name} is not readable ({error})") from None


def read_json(path: Path) -> Any:
    """A JSON file; raises EntryError when it is missing or malformed."""
    text = read_text(path.parent, path.name)
    try:
        document = json.loads(text)
        json.dumps(document, ensure_ascii=False).encode()  # no halves of characters
        return document
    except (ValueError, RecursionError) as error:
        raise EntryError(
            f"{entry_name(path.parent)}: {path.name} is not readable ({error})"
        ) from None


def read_config(folder: Path) -> Config:
    """An entry's config.json, checked key by key; raises EntryError."""
    document = read_json(folder / "config.json")
    with entry_errors(f"{entry_name(folder)}: config.json"):
        return parse_config(document)


def read_results(folder: Path) -> Results | None:
    """An entry's results.json; None where it has none. Raises EntryError."""
    return read_record(folder / "results.json", Results)


def read_source(folder: Path) -> Source | None:
    """An imported entry's source.json, or None where it has none; raises EntryError."""
    return read_record(folder / "source.json", Source)


def read_record(path: Path, kind: type[T]) -> T | None:
    """A JSON file as a record or list of records; None where there is no file.

    Raises:
        EntryError: names the file, the place, what was expected and what was found.
    """
    if not os.path.lexists(path):
        return None
    with entry_errors(f"{entry_name(path.parent)}: {path.name}"):
        return parse(read_json(path), kind)


def trained_on(folder: Path) -> list[str] | None:
    """Datasets that an entry's weights saw, by its results, or its source where it was imported.

    None where it does not say; raises EntryError.
    """
    known = read_results(folder) or read_source(folder)
    return None if known is None else known.trained_on


def check_hash(folder: Path, config: Config, name: str) -> Path:
    """A file's path, once it was found to be the one that config.json lists; raises EntryError."""
    expected = config.files.get(name)
    if expected is None:
        raise EntryError(f"{entry_name(folder)}: {name} is not listed in config.json")
    path = file_of(folder, name)
    found = file_hash(path)
    if found != expected:
        with open(path, "rb") as file:
            if file.read(64).startswith(b"version https://git-lfs"):
                raise EntryError(
                    f"{entry_name(folder)}: {name} is a pointer of Git LFS: `git lfs pull` there "
                    "fetches the file"
                )
        raise EntryError(
            f"{entry_name(folder)}: {name} was changed: sha256 {found[:12]}…, "
            f"expected {expected[:12]}…"
        )
    return path


def copy_files(folder: Path, names: Iterable[str], new: Path) -> None:
    """Copy those of an entry's files that are there, for folds may be left out."""
    for name in names:
        if (folder / name).is_file():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file_of(folder, name), new / name)


def file_hash(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def to_json(document: Record | dict[str, Any]) -> str:
    """The one way entries write JSON."""
    plain = document.to_dict() if isinstance(document, Record) else document
    return json.dumps(plain, indent=2, ensure_ascii=False) + "\n"


def refuse_other(folder: Path) -> None:
    """Raise EntryError where there is something that an entry must not take the place of.

    That is a file, a folder that is no entry, or an entry with files that are not its own.
    """
    folder = expanded(folder)
    if folder.exists() and not folder.is_dir():
        raise EntryError(f"{folder}: is a file, not a folder; choose another name")
    files = files_of(folder)
    if not files:
        return
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        listed = {"config.json", *config["files"]} if "schema_version" in config else set()
    except (OSError, ValueError, TypeError, KeyError):
        listed = set()
    if not listed:
        raise EntryError(f"{folder}: holds files but is no entry; choose another folder")
    if others := sorted(files - listed):
        raise EntryError(
            f"{folder}: holds files that are not the entry's ({', '.join(others[:5])}): move them, "
            "or choose another folder"
        )


def files_of(folder: Path) -> set[str]:
    """Files below a folder, but for those that git and its like put there."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {
        path.as_posix() for path in paths if not {path.parts[0], path.name}.intersection(NOT_OURS)
    }
