"""Checkpoints that others host: downloaded, imported once, kept in the user's cache."""

from pathlib import Path

from qaudio.download import Download, fetch, log
from qaudio.errors import DownloadError, EntryError
from qaudio.paths import cache_folder, locked, write_whole
from qaudio.zoo.schema import SCHEMA_VERSION, HostedFile
from qaudio.zoo.store import hosted, hosted_labels, read_config, to_json


def imported(name: str) -> Path:
    """The folder of a hosted checkpoint's entry, made at the first call.

    Raises:
        EntryError: when the checkpoint cannot be had, or is not what the catalog says.
    """
    folder = cache_folder() / "entries" / f"schema{SCHEMA_VERSION}" / name
    made = folder / "config.json"
    if made.is_file() and read_config(folder).labels is not None:
        return folder
    with locked(folder):
        if not made.is_file():
            _import(name, folder)
        elif read_config(folder).labels is None and _labels_file(name).path.is_file():
            config = read_config(folder)  # of one that was imported without class names
            config.labels = _labels(name)
            write_whole(made, to_json(config))
    return folder


def _import(name: str, folder: Path) -> None:
    facts = hosted()[name]
    item = _download(facts)
    path = _fetched(item, name)
    from qaudio.zoo.convert import import_published  # loads torch: only once the file is there

    try:
        import_published(
            path, facts.importer, facts.arch, folder, labels=_labels(name), license=facts.license,
            url=item.url, citation=facts.citation,
        )  # fmt: skip
    except EntryError as error:
        raise EntryError(
            f"{error}; if the download went wrong, delete it and {item.record.name} beside it"
        ) from None


def _fetched(item: Download, name: str) -> Path:
    try:
        return fetch(item, f"qaudio info {name}")
    except DownloadError as error:
        raise EntryError(str(error)) from None


def _download(facts: HostedFile) -> Download:
    return Download(facts.file, facts.url, facts.size, facts.sha256)


def _labels_file(name: str) -> Download:
    return _download(hosted_labels()[name.partition(".")[2]])


def _labels(name: str) -> list[str] | None:
    """Class names by the benchmark's official list; None, and a warning, where it is not to be had.

    The weights are of use without them.
    """
    from qaudio.zoo.convert import read_labels

    try:
        return read_labels(_fetched(_labels_file(name), name))
    except EntryError as error:
        log.warning("%s has no class names: %s", name, error)
        return None
