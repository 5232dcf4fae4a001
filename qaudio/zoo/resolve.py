"""Entries by name, folder or address on the Hub: where they are, which there are, their networks.

Imports no torch before a network is loaded, so that `qaudio list` answers at once.
"""

from __future__ import annotations

import contextlib
import difflib
import fnmatch
import glob
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from qaudio.data.benchmarks.registry import benchmarks
from qaudio.errors import EntryError
from qaudio.models.registry import architectures, lookup
from qaudio.paths import expanded
from qaudio.zoo.hosted_checkpoints import imported
from qaudio.zoo.hub_cache import snapshot
from qaudio.zoo.schema import HUB_PREFIX
from qaudio.zoo.store import entries, found_in, hosted, read_results, recipes

if TYPE_CHECKING:
    from qaudio.models.base import AudioModel

T = TypeVar("T")
DEFAULT_ENTRY = "qcnn10_050.audioset_kd_pruned50_long"  # what `qaudio predict FILE` uses
PRETRAINED_ENTRY = "qcnn10_050.audioset_kd_long"  # what `qaudio finetune FOLDER` starts from


def load(
    source: str | Path,
    *,
    num_classes: int | None = None,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
) -> AudioModel:
    """A pretrained network, in eval mode.

    Args:
        source: entry name ("qcnn10_050.esc10_pruned50"), folder, or address on the Hugging Face Hub
            ("hf-hub:your-name/entry", "hf-hub:your-name/entry@revision"). Checkpoints that others
            host ("cnn14.audioset") are downloaded at first use, entries on the Hub when they are
            new or have changed.
        num_classes: put a fresh classifier of this size on it, to fine-tune.
        revision: branch, tag or commit on the Hub, where the source names none.
        cache_dir: for what comes from the Hub, in place of huggingface_hub's own cache.

    Raises:
        EntryError: names the file, what was expected and what was found.
    """
    from qaudio.zoo.io import load_weights  # loads torch

    model = of_one_version(locate(source, revision=revision, cache_dir=cache_dir), load_weights)
    if num_classes is not None:
        model.reset_classifier(num_classes)
    return model


def of_one_version(folder: Path, read: Callable[[Path], T]) -> T:
    """What is read of an entry's files; again where another process replaced it in between.

    Args:
        folder: of the entry.
        read: gives what is wanted of the folder; what it raises is raised.
    """
    while True:
        version = _version(folder)
        try:
            found = read(folder)
        except (EntryError, OSError):
            if version == _version(folder):
                raise
        else:
            if version == _version(folder):
                return found


def _version(folder: Path) -> tuple[int, int] | None:
    """What distinguishes an entry from the one that takes its place, even from an equal one."""
    try:
        stat = (folder / "config.json").stat()
    except OSError:  # whoever reads it says so
        return None
    return stat.st_ino, stat.st_mtime_ns


def locate(source: str | Path, **hub: Any) -> Path:
    """The folder of an entry given by name, by path or by its address on the Hub.

    A checkpoint that others host is downloaded and imported at the first call; an entry on the Hub
    is fetched into huggingface_hub's cache.

    Args:
        source: name, folder, or "hf-hub:org/name[@revision]".
        hub: how to fetch from the Hub: see `qaudio.zoo.hub_cache.snapshot`.

    Raises:
        EntryError: when there is none; says what was tried and what exists. When one that others
            host, or that is on the Hub, cannot be had; says what to do.
    """
    if on_hub(source):
        return snapshot(str(source), **hub)
    if hub.get("revision") is not None:
        raise EntryError(f"{source}: only an entry on the Hub ({HUB_PREFIX}org/name) has revisions")
    folder = _here(source)
    if folder is not None:
        return folder
    path = expanded(source)
    if path.is_dir():
        raise EntryError(f"{source}: not an entry, it holds no config.json")
    if path.is_file():
        opens = ": qaudio.OnnxModel opens it" if path.suffix == ".onnx" else ", give that"
        raise EntryError(f"{source}: is a file, an entry is a folder{opens}")
    others = hosted()
    if str(source) in others:
        return imported(str(source))
    nearby = [folder.parent for folder in Path().glob(f"*/{glob.escape(str(source))}/config.json")]
    known = [*entries(), *others]
    close = [name for name in known if str(source) in name]
    close = close or difflib.get_close_matches(str(source), known)
    hint = "`qaudio list` names the entries there are"
    if nearby:
        hint = f"there is {', '.join(map(str, nearby))}: give that path"
    elif made_by := _recipe_of(str(source)):
        hint = f"recipes/{made_by}.yaml trains it: give the folder of what that wrote"
    elif close:
        hint = f"similar: {', '.join(close)}"
    if lookup(str(source)):
        hint = f"it is an architecture, which qaudio.create_model builds without weights; {hint}"
    raise EntryError(f"no entry or folder named {str(source)!r}; {hint}")


def _recipe_of(entry: str) -> str | None:
    """Name of the shipped recipe that writes an entry."""
    line = re.compile(rf"^  entry: {re.escape(entry)}$", re.MULTILINE)
    texts = ((name, path.read_text(encoding="utf-8")) for name, path in recipes().items())
    return next((name for name, text in texts if line.search(text)), None)


def find_local(source: str | Path, beside: Path | None = None) -> Path | None:
    """As `locate`, of what needs no download; None where there is nothing.

    Args:
        source: name, folder, or "hf-hub:org/name[@revision]".
        beside: a folder of entries to look for the name in first.
    """
    if on_hub(source):
        try:
            return locate(source, offline=True)
        except EntryError:
            return None
    return _here(source, beside)


def on_hub(source: str | Path) -> bool:
    """Whether a source is an address on the Hub."""
    return str(source).startswith(HUB_PREFIX)


def _here(source: str | Path, beside: Path | None = None) -> Path | None:
    """An entry beside others, one that is shipped, or any folder."""
    known = entries()
    source = source if beside is None else found_in(beside, str(source))
    if str(source) in known:
        return known[str(source)]
    folder = expanded(source)
    return folder if (folder / "config.json").is_file() else None


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
        with contextlib.suppress(EntryError):  # `verify` reports it
            results = read_results(folder)
            if results:
                return results.benchmark
    rest = name.partition(".")[2]
    known = [one for one in benchmarks() if f"{rest}_".startswith(f"{one}_")]
    return max(known, key=len) if known else rest.partition("_")[0]
