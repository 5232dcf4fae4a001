"""Retry transient errors of the Hub; turn the others into one-line messages."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from qaudio.download import log
from qaudio.errors import EntryError
from qaudio.text import one_line

MAIN = "main"
WAITS = (1.0, 4.0, 10.0)  # seconds before each new attempt, where the Hub does not say
LONGEST_WAIT = 60.0  # where it does say
T = TypeVar("T")


class Fault:
    """What a call of huggingface_hub's went wrong by.

    Attributes:
        cause: the error, without "not found in the cache" around it.
        status: of the Hub's answer; None without one.
        pause: seconds that the Hub asks to wait.
        offline: whether HF_HUB_OFFLINE is set.
    """

    def __init__(self, error: BaseException):
        from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

        wrapped = isinstance(error, LocalEntryNotFoundError) or "Force download" in str(error)
        self.cause = error.__cause__ if wrapped and error.__cause__ is not None else error
        response = getattr(self.cause, "response", None)
        self.status = None if response is None else int(response.status_code)
        after = "" if response is None else response.headers.get("Retry-After", "")
        self.pause = float(after) if after.isdigit() else None
        self.offline = isinstance(self.cause, OfflineModeIsEnabled)

    @property
    def transient(self) -> bool:
        """Whether the call may work later: no connection, too many requests, a failing server."""
        from huggingface_hub.errors import HTTPError

        if self.status is not None:
            return self.status in (408, 409, 412, 429) or self.status >= 500
        # JSONDecodeError: a failing server's page in place of an answer. OSError: a file cut short.
        cut = isinstance(self.cause, OSError) and "Consistency check failed" in str(self.cause)
        return isinstance(self.cause, HTTPError | json.JSONDecodeError) or cut or self.offline

    def __str__(self) -> str:
        if self.status is not None:
            return f"the Hub answers {self.status}"
        if isinstance(self.cause, json.JSONDecodeError):
            return "the Hub's answer cannot be read"
        if self.offline:
            return "HF_HUB_OFFLINE is set"
        return "the Hub cannot be reached, or the connection broke"


def with_retries(attempt: Callable[[], T]) -> T:
    """Call until it works, with a pause after each failure that may pass; raises the last one."""
    for wait in WAITS:
        try:
            return attempt()
        except Exception as error:
            fault = Fault(error)
            if not fault.transient or fault.offline or (fault.pause or 0) > LONGEST_WAIT:
                raise
            pause = wait if fault.pause is None else fault.pause
            log.warning("%s; trying again in %g s", fault, pause)
            time.sleep(pause)
    return attempt()


def reason(error: BaseException, repo: str, revision: str | None) -> str:
    """What went wrong and what to do, in a line."""
    from huggingface_hub import errors

    fault = Fault(error)
    cause, status = fault.cause, fault.status
    said = getattr(cause, "server_message", None)
    said = f" ({one_line(said)})" if said else ""
    if isinstance(cause, errors.GatedRepoError):
        return f"{repo} is gated: ask for access on its page, then `hf auth login`"
    if isinstance(cause, errors.RepositoryNotFoundError):
        return (
            f"the Hub shows no repository {repo} ({status}): check the name; a private one needs "
            "`hf auth login`, or HF_TOKEN, with access to it"
        )
    if isinstance(cause, errors.RevisionNotFoundError):
        return f"{repo} has no revision {revision or MAIN!r}: see its branches, tags and commits"
    if isinstance(cause, errors.RemoteEntryNotFoundError):
        return f"{repo} is no whole qaudio entry: {one_line(said) or 'a file'} is missing"
    if status == 401:
        return f"the Hub does not know you (401){said}: `hf auth login`, or set HF_TOKEN"
    if status == 403:
        return f"your token may not do this to {repo} (403){said}: use one with write access"
    if status == 429:
        when = "later" if fault.pause is None else f"in {fault.pause:g} s"
        return f"too many requests (429){said}: try again {when}"
    if status is not None and status >= 500:
        return f"{fault}{said}: try again later; what came so far is kept, nothing is half done"
    if status is not None:
        return f"{fault}{said}"
    if fault.offline:
        return f"{fault}: unset it to reach the Hub"
    if isinstance(cause, errors.LocalEntryNotFoundError):
        return "the cache holds only a part of it: pull it once with a connection"
    if fault.transient:
        return f"{fault}: try again; what came so far is kept"
    return one_line(cause)


@contextmanager
def one_line_errors(repo: str, revision: str | None) -> Iterator[None]:
    """Turn what huggingface_hub raises into one clear line without a token in it."""
    from huggingface_hub import get_token
    from huggingface_hub.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # its remarks run over several lines; ours say the same
    try:
        yield
    except EntryError:
        raise
    except Exception as error:
        message = reason(error, repo, revision)
        token = get_token()
        message = message.replace(token, "…") if token else message
        raise EntryError(message if repo in message else f"{repo}: {message}") from None
    finally:
        logging.set_verbosity(verbosity)
