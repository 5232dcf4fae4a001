"""Entries on the Hugging Face Hub: an entry's folder is a repository, file by file.

huggingface_hub does the talking; it is imported when one of these functions is called. Whose
account is used is its matter too (`hf auth login`, or HF_TOKEN): no token passes through here.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from qaudio.download import log
from qaudio.errors import EntryError
from qaudio.paths import replace_folder
from qaudio.text import one_line
from qaudio.zoo.catalog import HUB_PREFIX, locate, read_config, read_json, read_results
from qaudio.zoo.hub_errors import MAIN, passes, patiently, reason, told

if TYPE_CHECKING:
    from huggingface_hub import HfApi

REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
COMMIT = re.compile(r"[0-9a-f]{40}")

TIMEOUT = 15.0  # seconds to wait for the answer to a question


class Pushed(NamedTuple):
    """What `push` did.

    Attributes:
        source: the pushed revision, as `load` and `pull` take it.
        url: of the commit, or of the pull request.
        changed: False where the repository held this very entry already.
    """

    source: str
    url: str
    changed: bool

    def __str__(self) -> str:
        return f"{self.source}: {'pushed' if self.changed else 'there already'}, {self.url}"


def push(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    create_pr: bool = False,
    revision: str | None = None,
) -> Pushed:
    """Publish an entry as a repository on the Hub, in one commit.

    Nothing is sent of an entry that does not verify. What the repository holds already is not sent
    again, so a push can be repeated until it went through; files of an earlier entry that this one
    lacks are removed, other files in the repository stay.

    Args:
        folder: entry name or folder.
        repo_id: "your-name/entry"; made where it does not exist.
        private: make the repository a private one.
        create_pr: open a pull request; the repository's main branch stays as it is.
        revision: branch to commit to, made where it does not exist; default: main.

    Raises:
        EntryError: when the entry does not verify, or has no licence, results, recipe or card; when
            the Hub refuses or cannot be reached. Says what to do.
    """
    from qaudio.zoo.entry import verify

    check_repo(repo_id)
    if create_pr and revision is not None:
        raise EntryError("a pull request is made for the main branch: leave out the revision")
    folder = locate(folder)
    _refuse_unpublishable(folder)
    verify(folder)
    with told(repo_id, revision):
        return patiently(lambda: _push(folder, repo_id, private, create_pr, revision))


def pull(
    source: str,
    out: str | Path | None = None,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
) -> Path:
    """Fetch an entry from the Hub: all its files, each compared with the sha256 that it states.

    Args:
        source: "hf-hub:org/name", or "hf-hub:org/name@revision".
        out: folder to put a copy into, replaced when it is an entry; None: the cache alone.
        revision: branch, tag or commit, where the source names none.
        cache_dir: in place of huggingface_hub's own cache.

    Returns:
        The entry's folder.

    Raises:
        EntryError: when it cannot be had, or is no entry. Says what to do.
    """
    from qaudio.zoo.entry import NOT_OURS, refuse_other

    if out is not None:
        refuse_other(Path(out))
    cached = snapshot(source, revision=revision, cache_dir=cache_dir, folds=True)
    if out is None:
        return cached
    names = ["config.json", *_listed(cached / "config.json", source)]

    def copy(new: Path) -> None:
        for name in names:
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(cached / name, new / name)

    replace_folder(Path(out), copy, keep=NOT_OURS)
    return Path(out)


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

    with told(repo, revision):
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

        config = patiently(lambda: fetch("config.json"))
        folder = config.parent
        for name, sha256 in _listed(config, source).items():
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


def _refuse_unpublishable(folder: Path) -> None:
    config = read_config(folder)
    lacking = [name for name in ("results.json", "predictions.npz", "recipe.yaml", "README.md")
               if name not in config["files"]]  # fmt: skip
    if not config["license"]:
        lacking.insert(0, "a licence (writer.license, or save(license=…))")
    if lacking:
        raise EntryError(f"{folder.name}: is not fit to publish: it lacks {', '.join(lacking)}")


def _push(folder: Path, repo: str, private: bool, create_pr: bool, revision: str | None) -> Pushed:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    from qaudio import __version__

    api = HfApi(library_name="qaudio", library_version=__version__)
    # None, not False: an organisation may make its repositories private unasked.
    api.create_repo(repo, private=private or None, exist_ok=True)
    before = api.model_info(repo, timeout=TIMEOUT)
    if private and before.private is False:
        raise EntryError(
            f"{repo} exists and is public: make it private in its settings first, or push without "
            "asking for a private one"
        )
    if revision is not None:
        api.create_branch(repo, branch=revision, exist_ok=True)
        before = api.model_info(repo, revision=revision, timeout=TIMEOUT)
    content = (folder / "config.json").read_bytes()
    if create_pr:
        earlier = _same_pull_request(api, repo, content)
        if earlier is not None:
            return earlier
    names = ["config.json", *read_config(folder)["files"]]
    stale = _names_in(_remote_config(api, repo, revision)) - set(names)
    if stale:
        stale &= set(api.list_repo_files(repo, revision=revision))
    operations: list[Any] = [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name)
        for name in names
        if (folder / name).is_file()  # folds may be left out
    ]
    operations += [CommitOperationDelete(path_in_repo=name) for name in sorted(stale)]
    results = read_results(folder)
    assert results is not None
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always")
        commit = api.create_commit(
            repo, operations, revision=revision, create_pr=create_pr,
            commit_message=f"{results['entry']} by qaudio {__version__}",
        )  # fmt: skip
    for remark in remarks:
        log.warning("%s: %s", repo, one_line(remark.message))
    url = commit.pr_url or f"{api.endpoint}/{repo}/tree/{commit.oid}"
    return Pushed(f"{HUB_PREFIX}{repo}@{commit.oid}", url, commit.oid != before.sha)


def _same_pull_request(api: HfApi, repo: str, content: bytes) -> Pushed | None:
    """An open pull request that holds this very entry: an earlier push, answered or not."""
    for one in api.get_repo_discussions(
        repo, discussion_type="pull_request", discussion_status="open"
    ):
        branch = f"refs/pr/{one.num}"
        if _remote_config(api, repo, branch) == content:
            commit = api.model_info(repo, revision=branch, timeout=TIMEOUT).sha
            return Pushed(f"{HUB_PREFIX}{repo}@{commit}", one.url, False)
    return None


def _remote_config(api: HfApi, repo: str, revision: str | None) -> bytes | None:
    """config.json as the repository has it; None where it has none."""
    from huggingface_hub.errors import RemoteEntryNotFoundError

    with tempfile.TemporaryDirectory() as cache:
        try:
            path = api.hf_hub_download(repo, "config.json", revision=revision, cache_dir=cache)
            return Path(path).read_bytes()
        except RemoteEntryNotFoundError:
            return None


def _names_in(config: bytes | None) -> set[str]:
    """Files that a config lists; none where it is not an entry's."""
    try:
        found = json.loads(config or b"{}")
        return set(found.get("files", {}))
    except (ValueError, AttributeError, TypeError):
        return set()


def _resolve(repo: str, wanted: str, known: str | None, offline: bool) -> tuple[str, bool]:
    """The commit that a branch or tag stands for, and whether only the cache could be asked."""
    from huggingface_hub import HfApi

    api = HfApi(library_name="qaudio")
    why = "nobody was to be asked"
    if not offline:
        try:
            ask = lambda: api.model_info(repo, revision=wanted, timeout=TIMEOUT).sha  # noqa: E731
            return (ask() if known else patiently(ask)) or wanted, False
        except Exception as error:
            if not passes(error):
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


def _listed(config: Path, source: str) -> dict[str, str]:
    """Files and checksums that an entry's config.json lists; raises EntryError."""
    found = read_json(config)
    files = found.get("files") if isinstance(found, dict) else None
    if not isinstance(files, dict) or "schema_version" not in found:
        raise EntryError(f"{source}: is no qaudio entry: its config.json lists no files of one")
    for name in files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
            raise EntryError(f"{source}: config.json lists {name!r}, which lies outside the entry")
    return files


def _fetch_whole(
    fetch: Callable[..., Path], name: str, sha256: str, repo: str, offline: bool
) -> None:
    """Fetch a file; where the cache's copy is not what config.json states, fetch it anew."""
    from qaudio.zoo.entry import file_hash

    path = patiently(lambda: fetch(name))
    if file_hash(path) != sha256 and not offline:
        path = patiently(lambda: fetch(name, again=True))
    if file_hash(path) == sha256:
        return
    if name == "README.md":  # whoever owns a repository may edit its card in the browser
        log.warning("%s%s: README.md is not the card that was pushed", HUB_PREFIX, repo)
        return
    raise EntryError(
        f"{HUB_PREFIX}{repo}: {name} is not the file that config.json lists (sha256); "
        + ("go online and pull it again" if offline else "push the entry again, or tell its owner")
    )
