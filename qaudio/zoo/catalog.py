"""Which entries exist, found in wheel, clone and editable install by one function.

Imports no torch, so that `qaudio list` answers at once.
"""

from __future__ import annotations

import contextlib
import difflib
import fnmatch
import glob
import json
import os
from pathlib import Path
from typing import Any

from qaudio.data.benchmarks.descriptions import DATASETS
from qaudio.errors import EntryError
from qaudio.models.registry import FAMILIES, architectures
from qaudio.zoo.schema import CONFIG, RESULTS, SOURCE, check

PACKAGE = Path(__file__).resolve().parents[1]
SCHEMA_VERSION = 1
MOST_JSON = 1 << 23  # bytes: what is parsed takes many times as much
HUB_PREFIX = "hf-hub:"  # of an address on the Hugging Face Hub: hf-hub:org/name[@revision]
DEFAULT_ENTRY = "qcnn10_050.esc10_pruned50"  # what `qaudio predict FILE` uses
# Whose code wrote a checkpoint, and the architectures it has: for `qaudio import`.
IMPORTERS = {"panns": FAMILIES, "qpann": tuple(f"q{family}" for family in FAMILIES)}


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


def entries() -> dict[str, Path]:
    """Name and folder of every shipped entry, by name."""
    folder = zoo_folder()
    found = folder.glob("*/config.json") if folder.is_dir() else []
    # Hidden ones are what a killed process left.
    return {p.parent.name: p.parent for p in sorted(found) if not p.parent.name.startswith(".")}


def hosted(section: str = "entries") -> dict[str, dict[str, Any]]:
    """What zoo/hosted.json says of the files that others host.

    Args:
        section: "entries", checkpoints by entry name; "labels", class names by benchmark.
    """
    path = zoo_folder() / "hosted.json"
    return read_json(path)[section] if path.is_file() else {}


def locate(source: str | Path, beside: Path | None = None, **hub: Any) -> Path:
    """The folder of an entry given by name, by path or by its address on the Hub.

    A checkpoint that others host is downloaded and imported at the first call; an entry on the Hub
    is fetched into huggingface_hub's cache.

    Args:
        source: name, folder, or "hf-hub:org/name[@revision]".
        beside: a folder of entries to look for the name in first.
        hub: how to fetch from the Hub: see `qaudio.zoo.hub.snapshot`.

    Raises:
        EntryError: when there is none; says what was tried and what exists. When one that others
            host, or that is on the Hub, cannot be had; says what to do.
    """
    if on_hub(source):
        from qaudio.zoo.hub import snapshot

        return snapshot(str(source), **hub)
    if hub.get("revision") is not None:
        raise EntryError(f"{source}: only an entry on the Hub ({HUB_PREFIX}org/name) has revisions")
    folder = _here(source, beside)
    if folder is not None:
        return folder
    if Path(source).expanduser().is_dir():
        raise EntryError(f"{source}: not an entry, it holds no config.json")
    others = hosted()
    if str(source) in others:
        from qaudio.zoo.hosted_checkpoints import imported

        return imported(str(source))
    nearby = [folder.parent for folder in Path().glob(f"*/{glob.escape(str(source))}/config.json")]
    known = [*entries(), *others]
    close = [name for name in known if str(source) in name]
    close = close or difflib.get_close_matches(str(source), known)
    hint = "`qaudio list` names the entries there are"
    if nearby:
        hint = f"there is {', '.join(map(str, nearby))}: give that path"
    elif close:
        hint = f"similar: {', '.join(close)}"
    raise EntryError(f"no entry or folder named {str(source)!r}; {hint}")


def at_hand(source: str | Path, beside: Path | None = None) -> Path | None:
    """As `locate`, of what needs no download; None where there is nothing."""
    if on_hub(source):
        try:
            return locate(source, offline=True)
        except EntryError:
            return None
    return _here(source, beside)


def on_hub(source: str | Path) -> bool:
    """Whether a source is an address on the Hub."""
    return str(source).startswith(HUB_PREFIX)


def entry_name(folder: Path) -> str:
    """What to call an entry by its folder: in the Hub's cache, its address and not its commit."""
    if folder.parent.name == "snapshots":
        organisation, _, name = folder.parents[1].name.removeprefix("models--").partition("--")
        return f"{HUB_PREFIX}{organisation}/{name}@{folder.name}"
    return folder.name


def _here(source: str | Path, beside: Path | None) -> Path | None:
    """An entry beside others, one that is shipped, or any folder."""
    known = entries()
    source = source if beside is None else found_in(beside, str(source))
    if str(source) in known:
        return known[str(source)]
    folder = Path(source).expanduser()
    return folder if (folder / "config.json").is_file() else None


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


def read_json(path: Path) -> Any:
    """A JSON file; raises EntryError when it is missing or malformed."""
    file = file_of(path.parent, path.name)
    try:
        if file.stat().st_size > MOST_JSON:
            raise ValueError(f"over {MOST_JSON} bytes")
        document = json.loads(file.read_text(encoding="utf-8"))
        json.dumps(document, ensure_ascii=False).encode()  # no halves of characters
        return document
    except (OSError, ValueError, RecursionError) as error:
        raise EntryError(
            f"{entry_name(path.parent)}: {path.name} is not readable ({error})"
        ) from None


def read_config(source: str | Path) -> dict[str, Any]:
    """An entry's config.json, checked key by key; raises EntryError."""
    folder = locate(source)
    config = read_json(folder / "config.json")
    try:
        check_config(config)
    except ValueError as error:
        raise EntryError(f"{entry_name(folder)}: config.json: {error}") from None
    return config


def check_config(config: Any) -> None:
    """Raise ValueError for what no config.json of an entry holds."""
    if not isinstance(config, dict):
        raise ValueError("expected an object")
    version = config.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"schema_version is {version!r}, this qaudio reads {SCHEMA_VERSION}; a newer qaudio "
            "may read it"
        )
    check(config, CONFIG)
    labels = config["labels"]
    if labels is not None and len(labels) != config["num_classes"]:
        raise ValueError(f"{config['num_classes']} classes, {len(labels)} labels")
    if config["task"] not in ("multiclass", "multilabel"):
        raise ValueError(f"unknown task {config['task']!r}")


def read_results(source: str | Path, *, whole: bool = False) -> dict[str, Any] | None:
    """An entry's results.json, checked key by key; None where it has none. Raises EntryError.

    Args:
        source: as in `locate`.
        whole: refuse results that lack a key, for what shows or writes all of them.
    """
    return _described(locate(source), "results.json", RESULTS, whole)


def read_source(source: str | Path) -> dict[str, Any] | None:
    """An imported entry's source.json, or None where it has none; raises EntryError."""
    return _described(locate(source), "source.json", SOURCE)


def _described(
    folder: Path, name: str, shape: dict[str, Any], whole: bool = True
) -> dict[str, Any] | None:
    if not os.path.lexists(folder / name):
        return None
    document = read_json(folder / name)
    try:
        check(document, shape, whole)
    except ValueError as error:
        raise EntryError(f"{entry_name(folder)}: {name}: {error}") from None
    return document


def trained_on(source: str | Path) -> list[str] | None:
    """Datasets that an entry's weights saw, by its results, or its source where it was imported.

    None where it does not say; raises EntryError.
    """
    known = read_results(source) or read_source(source)
    return None if known is None else known["trained_on"]


def held_out(source: str | Path) -> str | None:
    """What the trainers of an imported checkpoint kept for testing, where its source says so."""
    known = read_source(source)
    return None if known is None else known.get("held_out")


def list_models(
    pattern: str = "*", *, pretrained: bool = False, benchmark: str | None = None
) -> list[str]:
    """Names of architectures and entries.

    Args:
        pattern: shell-style, such as "qcnn10*".
        pretrained: only entries, which have weights; those of others are downloaded at first use.
        benchmark: only entries of this benchmark ("esc10").
    """
    shipped = entries()
    names = [*shipped, *(name for name in hosted() if name not in shipped)]
    if benchmark is not None:
        names = [name for name in names if _benchmark(name, shipped.get(name)) == benchmark]
    elif not pretrained:
        names = [*architectures(), *names]
    return [name for name in names if fnmatch.fnmatchcase(name, pattern)]


def _benchmark(name: str, folder: Path | None) -> str:
    """An entry's benchmark as its results say, or else as its name does."""
    if folder is not None:
        with contextlib.suppress(EntryError):  # `verify` tells of it
            results = read_results(folder)
            if results and "benchmark" in results:
                return str(results["benchmark"])
    rest = name.partition(".")[2]
    known = [one for one in DATASETS if f"{rest}_".startswith(f"{one}_")]
    return max(known, key=len) if known else rest.partition("_")[0]
