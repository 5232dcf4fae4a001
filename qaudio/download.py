"""Downloads that resume, into the user's cache, with a record of what came."""

import hashlib
import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qaudio.errors import DownloadError
from qaudio.paths import cache_folder, write_whole
from qaudio.progress import progress
from qaudio.records import Count, Record, Sha256, Text, parse

TIMEOUT = (15, 60)  # seconds to connect, and between two reads
LARGEST = 1 << 36  # bytes of a file whose size is not published
MOST_RECORD = 1 << 16  # characters of what is noted of a file
CHUNK = 1 << 14  # bytes; where a connection breaks, less than this is lost

log = logging.getLogger("qaudio")


@dataclass(frozen=True)
class Download:
    """A file that others host.

    Attributes:
        size: bytes; None where not published.
        sha256, md5: in hexadecimal; None where not published.
    """

    file: str
    url: str
    size: int | None = None
    sha256: str | None = None
    md5: str | None = None

    @property
    def path(self) -> Path:
        """Where it lies, or would lie, in the cache."""
        return cache_folder() / "downloads" / self.file

    @property
    def record(self) -> Path:
        """The size and sha256 of what first came, as JSON beside the file."""
        return self.path.with_name(f"{self.file}.json")


class ResumingDownloader:
    """A pooch downloader that goes on where an earlier attempt stopped.

    Bytes go to a `.part` file, and the server's validator (a strong ETag, else Last-Modified) to a
    file beside it, so that a Range request with If-Range (RFC 9110, 13.1.5) never joins parts of
    two different files. Starts over where the server sends the whole file, gave no validator, or
    its file changed. A connection that breaks is taken up again as long as each attempt got
    further than the one before.

    Args:
        part: the file that holds what came so far.
        most: bytes; more are not taken.

    Raises:
        requests.RequestException: when the server cannot be reached, refuses, or the connection
            breaks without progress; the part is kept.
    """

    def __init__(self, part: Path, most: int = LARGEST):
        self.part, self.most = part, most
        self.validator = part.with_name(f"{part.name}.validator")

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        import requests

        while True:
            before = self._held()
            try:
                self._attempt(url)
                break
            except (
                requests.ConnectionError,
                requests.Timeout,
                requests.exceptions.ChunkedEncodingError,
            ):
                if self._held() <= before:
                    raise
        os.replace(self.part, output_file)
        self.validator.unlink(missing_ok=True)

    def _held(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _attempt(self, url: str) -> None:
        import requests

        # Compressed transfer would count other bytes than the file has.
        headers = {"Accept-Encoding": "identity"}
        held = self._held()
        if held and self.validator.is_file():
            validator = self.validator.read_text(encoding="utf-8")
            headers |= {"Range": f"bytes={held}-", "If-Range": validator}
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            answered = response.headers.get("Content-Range", "")
            if response.status_code == 416 and answered == f"bytes */{held}":
                return  # stopped after the last byte: all is there
            resumed = response.status_code == 206 and answered.startswith(f"bytes {held}-")
            if "Range" in headers and response.status_code in (206, 416) and not resumed:
                self.validator.unlink(missing_ok=True)
                return self._attempt(url)  # without a Range this time
            response.raise_for_status()
            self._refuse_other(response, resumed, url)
            if not resumed:
                held = 0
                self._start_over(response.headers)
            length = response.headers.get("Content-Length")
            total = None if length is None else held + int(length)
            if total is not None and total > self.most:
                raise self._too_much()
            with (
                open(self.part, "ab") as file,
                progress(
                    what=self.part.stem, total=total, initial=held, unit="B", unit_scale=True
                ) as bar,
            ):
                for chunk in response.iter_content(CHUNK):
                    held += len(chunk)
                    if held > self.most:
                        raise self._too_much()
                    file.write(chunk)
                    bar.update(len(chunk))
        if total is not None and self._held() != total:
            raise requests.ConnectionError(f"{self._held()} of {total} bytes came")

    @staticmethod
    def _refuse_other(response: Any, resumed: bool, url: str) -> None:
        """Raise RequestException for an answer that is not the file, byte by byte."""
        import requests

        headers, fault = response.headers, ""
        if response.status_code != 200 and not resumed:
            fault = f"the server answers {response.status_code}, which is no file"
        elif headers.get("Content-Encoding", "identity").lower() not in ("", "identity"):
            fault = f"the server sends it packed ({headers['Content-Encoding']}), unasked"
        elif headers.get("Content-Type", "").lower().startswith("text/html"):
            fault = "the server sends a web page in its place"
        elif url.startswith("https://") and not response.url.startswith("https://"):
            fault = "the server leads to a connection that is not encrypted"
        if fault:
            raise requests.RequestException(fault)

    def _too_much(self) -> Exception:
        """The error for a file larger than it can be; what came of it is dropped."""
        import requests

        self.part.unlink(missing_ok=True)
        self.validator.unlink(missing_ok=True)
        return requests.RequestException(f"the server sends more than {self.most} bytes")

    def _start_over(self, headers: Any) -> None:
        """Forget the part, and note the validator of the file that is about to come."""
        self.part.unlink(missing_ok=True)
        self.validator.unlink(missing_ok=True)
        validator = headers.get("ETag", "")
        if not validator.startswith('"'):  # a weak one does not promise the same bytes
            validator = headers.get("Last-Modified", "")
        if validator:
            self.validator.write_text(validator, encoding="utf-8")


def fetch(item: Download, then: str) -> Path:
    """A file from the cache, downloaded at the first call.

    Its size and sha256 are recorded beside it the first time, and compared each time, so that a
    file that changed, here or at the host, is noticed. The same goes for a file that the user put
    there by hand.

    Args:
        then: command that works once the file is there, for the error message.

    Raises:
        DownloadError: when it cannot be downloaded; says which file to fetch from which URL, where
            to put it, and which command then works. When it is not the file that was published or
            recorded; says what was expected and found.
    """
    from filelock import FileLock

    item.path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(item.path.with_name(f".{item.file}.lock")):
        if not item.path.is_file():
            _download(item, then)
        _check(item)
    return item.path


def _check(item: Download) -> None:
    """Compare the file with what was published and recorded; record it the first time."""
    recorded = _record(item)
    found = _facts(item.path, md5=item.md5 is not None and not recorded)
    expected = {"size": item.size, "sha256": item.sha256, "md5": item.md5}
    for what, facts in (("published", expected), ("recorded", recorded)):
        for key, value in found.items():
            if facts.get(key) not in (None, value):
                accept = f"delete {item.path} to download it anew"
                if what == "recorded":
                    accept += f", or {item.record} to accept this one"
                raise DownloadError(
                    f"{item.path} is not the file that was {what}: {key} {value}, expected "
                    f"{facts[key]}; {accept}"
                )
    if not recorded:
        if item.sha256 is None and item.md5 is None:
            log.warning(
                "no checksum is published for %s: what came, %d bytes of sha256 %s, is recorded "
                "and compared from now on", item.file, found["size"], found["sha256"],
            )  # fmt: skip
        write_whole(item.record, json.dumps({"url": item.url, **found}, indent=1) + "\n")


class _Record(Record):
    """Facts on the file that first came."""

    size: Count
    sha256: Sha256
    md5: Text | None = None


def _record(item: Download) -> dict[str, Any]:
    try:
        with open(item.record, encoding="utf-8") as file:
            return parse(json.loads(file.read(MOST_RECORD)), _Record).to_dict()
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise DownloadError(f"{item.record} is not readable ({error}): delete it") from None


def _download(item: Download, then: str) -> None:
    import pooch
    import requests

    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)  # its notes on URLs and hashes are ours to give
    part = item.path.with_name(f"{item.file}.part")
    published = item.sha256 or (item.md5 and f"md5:{item.md5}")
    try:
        pooch.retrieve(
            item.url,
            published,
            item.file,
            item.path.parent,
            downloader=ResumingDownloader(part, item.size or LARGEST),
        )
    except (requests.RequestException, OSError, ValueError) as error:
        raise DownloadError(
            f"{item.file} cannot be downloaded ({_fault(error)}): fetch {item.url} by hand, save "
            f"it as {item.path}, then `{then}` works"
        ) from None
    finally:
        logger.setLevel(level)


def _fault(error: Exception) -> str:
    """What a library's nested network error comes down to, in a few words."""
    import requests

    response = getattr(error, "response", None)
    if response is not None:
        return f"the server answers {response.status_code} {response.reason}"
    if isinstance(error, requests.Timeout):
        return "the server does not answer in time"
    if isinstance(error, (requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        return "no connection to the server, or it broke"
    return " ".join(str(error).split())


def _facts(path: Path, md5: bool) -> dict[str, Any]:
    facts: dict[str, Any] = {"size": path.stat().st_size}
    for name in ("sha256", "md5") if md5 else ("sha256",):
        with open(path, "rb") as file:
            facts[name] = hashlib.file_digest(file, name).hexdigest()
    return facts
