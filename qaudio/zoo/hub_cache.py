"""Entries of the Hugging Face Hub in its client's cache: fetched, compared with their checksums."""

import re
from collections.abc import Callable
from pathlib import Path

from qaudio.download import log
from qaudio.errors import EntryError
from qaudio.zoo.hub_errors import MAIN, Fault, one_line_errors, reason, with_retries
from qaudio.zoo.schema import HUB_PREFIX
from qaudio.zoo.store import file_hash, read_config

REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
COMMIT = re.compile(r"[0-9a-f]{40}")

TIMEOUT = 15.0  # seconds to wait for the answer to a question


def snapshot(
    source: str,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    folds: bool = False,
    offline: bool = False,
) -> Path:
    """The folder of an entry of the Hub in huggingface_hub's cache, fetched where need be.

    Where the Hub cannot be reached, the revision that was fetched last is taken, with a line that
    says so.

    Args:
        source: "hf-hub:org/name[@revision]".
        revision: branch, tag or commit, where the source names none.
        cache_dir: in place of huggingface_hub's own cache.
        folds: fetch the weights of the single folds too, where the entry has some.
        offline: take what the cache holds, ask nobody.

    Raises:
        EntryError: when it cannot be had, is no entry, or differs from its own checksums.
    """
    import huggingface_hub as hub

    repo, revision = split_source(source, revision)
    wanted = revision or MAIN

    def cached_commit() -> str | None:
        found = hub.try_to_load_from_cache(repo, "config.json", cache_dir, wanted)
        return Path(found).parent.name if isinstance(found, str) else None

    with one_line_errors(repo, revision):
        commit, known = wanted, cached_commit()
        if not COMMIT.fullmatch(wanted):
            commit, offline = _resolve(repo, wanted, known, offline)

        def fetch(name: str, again: bool = False) -> Path:
            return Path(
                hub.hf_hub_download(
                    repo, name, revision=commit, cache_dir=cache_dir, force_download=again,
                    local_files_only=offline, library_name="qaudio",
                )
            )  # fmt: skip

        config = with_retries(lambda: fetch("config.json"))
        folder = config.parent
        for name, sha256 in listed_files(config, source).items():
            if folds or not name.startswith("folds/"):
                _fetch_whole(fetch, name, sha256, repo, offline)
        if not offline and commit not in (wanted, known):
            # Only now, with every file here, does the cache take this revision for the newest.
            hub.hf_hub_download(repo, "config.json", revision=wanted, cache_dir=cache_dir)
    return folder


def split_source(source: str, revision: str | None = None) -> tuple[str, str | None]:
    """Repository and revision of "hf-hub:org/name[@revision]"; raises EntryError."""
    repo, at, named = str(source).removeprefix(HUB_PREFIX).partition("@")
    if not str(source).startswith(HUB_PREFIX):
        raise EntryError(f"{source}: write it as {HUB_PREFIX}org/name, or {HUB_PREFIX}org/name@rev")
    check_repo(repo)
    if at and not named:
        raise EntryError(f"{source}: no revision after the @")
    if named and revision is not None and revision != named:
        raise EntryError(f"{source}: names revision {named}, and {revision} was asked for as well")
    return repo, named or revision


def check_repo(repo_id: str) -> None:
    """Raise EntryError unless it has the form of a repository's name."""
    if not REPO.fullmatch(repo_id):
        raise EntryError(f"{repo_id!r} is not the name of a repository: write your-name/entry")


def _resolve(repo: str, wanted: str, known: str | None, offline: bool) -> tuple[str, bool]:
    """The commit that a branch or tag stands for, and whether only the cache could be asked."""
    from huggingface_hub import HfApi

    api = HfApi(library_name="qaudio")
    why = "nobody was to be asked"
    if not offline:
        try:
            ask = lambda: api.model_info(repo, revision=wanted, timeout=TIMEOUT).sha  # noqa: E731
            return (ask() if known else with_retries(ask)) or wanted, False
        except Exception as error:
            if not Fault(error).transient:
                raise
            why = reason(error, repo, None)
    if known is None:
        raise EntryError(f"{HUB_PREFIX}{repo}@{wanted} is not in the cache: {why}")
    if not offline:
        log.warning(
            "%s%s: %s; taking the cache's copy of %s, commit %s",
            HUB_PREFIX, repo, why.partition(":")[0], wanted, known[:12],
        )  # fmt: skip
    return known, True


def listed_files(config: Path, source: str) -> dict[str, str]:
    """Files and checksums that an entry's config.json lists; raises EntryError."""
    try:
        return read_config(config.parent).files
    except EntryError as error:
        raise EntryError(f"{source}: is no qaudio entry: {error}") from None


def _fetch_whole(
    fetch: Callable[..., Path], name: str, sha256: str, repo: str, offline: bool
) -> None:
    """Fetch a file; where the cache's copy is not what config.json states, fetch it again."""
    path = with_retries(lambda: fetch(name))
    if file_hash(path) != sha256 and not offline:
        path = with_retries(lambda: fetch(name, again=True))
    if file_hash(path) == sha256:
        return
    if name == "README.md":  # whoever owns a repository may edit its card in the browser
        log.warning("%s%s: README.md is not the card that was pushed", HUB_PREFIX, repo)
        return
    raise EntryError(
        f"{HUB_PREFIX}{repo}: {name} is not the file that config.json lists (sha256); "
        + ("go online and pull it again" if offline else "push the entry again, or tell its owner")
    )
