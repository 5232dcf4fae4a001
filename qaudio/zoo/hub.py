"""Entries on the Hugging Face Hub: an entry's folder is a repository, file by file.

huggingface_hub does the talking; it is imported when one of these functions is called. Whose
account is used is its matter too (`hf auth login`, or HF_TOKEN): no token passes through here.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from qaudio import __version__
from qaudio.download import log
from qaudio.errors import EntryError
from qaudio.paths import locked, replace_folder
from qaudio.text import one_line
from qaudio.zoo.hub_cache import TIMEOUT, listed_files, snapshot
from qaudio.zoo.hub_errors import one_line_errors, with_retries
from qaudio.zoo.schema import HUB_PREFIX
from qaudio.zoo.store import NOT_OURS, copy_files, read_config, read_results, refuse_other

if TYPE_CHECKING:
    from huggingface_hub import HfApi


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
    folder: Path, repo_id: str, *, private: bool, create_pr: bool, revision: str | None
) -> Pushed:
    """Send an entry that was checked, in one commit; arguments as in `qaudio.push`.

    Raises:
        EntryError: when the Hub refuses or cannot be reached. Says what to do.
    """
    with one_line_errors(repo_id, revision):
        return with_retries(lambda: _push(folder, repo_id, private, create_pr, revision))


def push_space(folder: Path, repo_id: str, *, private: bool) -> Pushed:
    """Make a Space hold the files of a folder, in one commit; others in it are removed.

    Raises:
        EntryError: when the Hub refuses or cannot be reached. Says what to do.
    """
    with one_line_errors(repo_id, None):
        return with_retries(lambda: _push_space(folder, repo_id, private))


def _push_space(folder: Path, repo: str, private: bool) -> Pushed:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    space = "space"
    api, before = _made(repo, private, repo_type=space, space_sdk="gradio")
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*"))
             if path.is_file()}  # fmt: skip
    held = set(api.list_repo_files(repo, repo_type=space)) - {".gitattributes"}
    operations: list[Any] = [
        *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=path)
          for name, path in files.items()),
        *(CommitOperationDelete(path_in_repo=name) for name in sorted(held - files.keys())),
    ]  # fmt: skip
    commit = api.create_commit(
        repo, operations, repo_type=space, commit_message=f"demo by qaudio {__version__}"
    )
    return Pushed(f"spaces/{repo}", f"{api.endpoint}/spaces/{repo}", commit.oid != before.sha)


def _made(repo: str, private: bool, **kind: Any) -> tuple[HfApi, Any]:
    """The Hub's client, and what it knows of a repository, made where it does not exist.

    Raises:
        EntryError: where a private one is asked for and a public one is there.
    """
    from huggingface_hub import HfApi

    api = HfApi(library_name="qaudio", library_version=__version__)
    # None, not False: an organisation may make its repositories private unasked.
    api.create_repo(repo, private=private or None, exist_ok=True, **kind)
    found = api.repo_info(repo, repo_type=kind.get("repo_type"), timeout=TIMEOUT)
    if private and found.private is False:
        raise EntryError(
            f"{repo} exists and is public: make it private in its settings first, or push without "
            "asking for a private one"
        )
    return api, found


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

    Raises:
        EntryError: when it cannot be had, or is no entry. Says what to do.
    """
    if out is not None:
        refuse_other(Path(out))
    cached = snapshot(source, revision=revision, cache_dir=cache_dir, folds=True)
    if out is None:
        return cached
    names = ["config.json", *listed_files(cached / "config.json", source)]
    with locked(Path(out)):
        replace_folder(Path(out), partial(copy_files, cached, names), keep=NOT_OURS)
    return Path(out)


def _push(folder: Path, repo: str, private: bool, create_pr: bool, revision: str | None) -> Pushed:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    api, before = _made(repo, private)
    if revision is not None:
        api.create_branch(repo, branch=revision, exist_ok=True)
        before = api.model_info(repo, revision=revision, timeout=TIMEOUT)
    content = (folder / "config.json").read_bytes()
    if create_pr:
        earlier = _same_pull_request(api, repo, content)
        if earlier is not None:
            return earlier
    names = ["config.json", *read_config(folder).files]
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
    name = results.entry if results else folder.name
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always")
        commit = api.create_commit(
            repo, operations, revision=revision, create_pr=create_pr,
            commit_message=f"{name} by qaudio {__version__}",
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
