import contextlib
import hashlib
import json
import logging
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests

from qaudio.download import CHUNK, Download, ResumingDownloader, fetch
from qaudio.errors import DownloadError
from tests.support.server import running, serving

CONTENT = os.urandom(1_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("QAUDIO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "*")
    with serving() as server:
        server.files["/a.pth"] = CONTENT
        yield server


def item(server, **facts) -> Download:
    return Download("a.pth", f"{server.url}/a.pth", **facts)


def files_of(wanted: Download) -> set[str]:
    """What lies beside the file, without locks."""
    return {path.name for path in wanted.path.parent.iterdir() if path.suffix != ".lock"}


def test_a_file_is_downloaded_once(server):
    wanted = item(server)
    path = fetch(wanted, "x")
    assert path.read_bytes() == CONTENT
    assert fetch(wanted, "x") == path
    assert server.asked("/a.pth") == [None]
    assert files_of(wanted) == {"a.pth", "a.pth.json"}


def test_a_broken_connection_is_taken_up_where_it_broke(server):
    server.breaks = [20 * CHUNK, 10 * CHUNK]
    assert fetch(item(server), "x").read_bytes() == CONTENT
    assert server.asked("/a.pth") == [None, f"bytes={20 * CHUNK}-", f"bytes={30 * CHUNK}-"]
    assert server.requests[1][1]["If-Range"] == '"one"'


def test_a_later_call_resumes_what_an_earlier_one_left(server):
    server.breaks = [20 * CHUNK, 0]
    wanted = item(server)
    with pytest.raises(DownloadError, match=r"a\.pth cannot be downloaded \(no connection"):
        fetch(wanted, "x")
    assert files_of(wanted) == {"a.pth.part", "a.pth.part.validator"}
    assert fetch(wanted, "x").read_bytes() == CONTENT
    assert server.asked("/a.pth") == [None, f"bytes={20 * CHUNK}-", f"bytes={20 * CHUNK}-"]
    assert files_of(wanted) == {"a.pth", "a.pth.json"}


def test_a_server_that_ignores_ranges_is_started_over(server):
    server.ranges, server.breaks = False, [20 * CHUNK]
    assert fetch(item(server), "x").read_bytes() == CONTENT
    assert server.asked("/a.pth") == [None, f"bytes={20 * CHUNK}-"]


def test_a_server_that_always_breaks_off_is_given_up(server):
    server.ranges, server.breaks = False, [20 * CHUNK] * 10
    with pytest.raises(DownloadError, match="or it broke"):
        fetch(item(server), "x")
    assert len(server.requests) == 2


def test_parts_of_two_files_are_never_joined(server):
    server.breaks = [20 * CHUNK, 0]
    with pytest.raises(DownloadError):
        fetch(item(server), "x")
    server.files["/a.pth"], server.etag = CONTENT[::-1], '"two"'
    server.breaks = [30 * CHUNK]
    assert fetch(item(server), "x").read_bytes() == CONTENT[::-1]
    assert server.requests[-1][1]["If-Range"] == '"two"'


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_strong_validator_no_range_is_asked(server, etag):
    server.etag, server.breaks = etag, [20 * CHUNK, 30 * CHUNK]
    assert fetch(item(server), "x").read_bytes() == CONTENT
    assert server.asked("/a.pth") == [None, None, None]


@pytest.mark.parametrize(("beyond", "asked"), [(b"", 1), (b"more", 2)])
def test_a_part_that_is_whole_or_too_long(server, tmp_path, beyond, asked):
    part, out = tmp_path / "a.part", tmp_path / "a"
    part.write_bytes(CONTENT + beyond)
    (tmp_path / "a.part.validator").write_text('"one"')
    ResumingDownloader(part)(f"{server.url}/a.pth", str(out), None)
    assert out.read_bytes() == CONTENT
    assert len(server.requests) == asked
    assert not part.exists()


def test_a_missing_file_says_what_to_do_by_hand(server):
    wanted = Download("b.pth", f"{server.url}/b.pth")
    with pytest.raises(DownloadError, match="the server answers 404") as caught:
        fetch(wanted, "qaudio info b")
    for fact in ("fetch " + wanted.url, f"save it as {wanted.path}", "then `qaudio info b` works"):
        assert fact in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[]", '{"size": "1"}', "[" * 60_000, "x" * 99_999, '{"size": 1}'])
def test_a_record_that_somebody_edited_is_refused(server, text):
    wanted = item(server)
    fetch(wanted, "go on")
    wanted.record.write_text(text)
    with pytest.raises(DownloadError, match=r"\.json is not readable .*: delete it"):
        fetch(wanted, "go on")


def test_without_a_published_checksum_it_is_said_and_recorded(server, caplog):
    wanted = item(server)
    fetch(wanted, "x")
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("qaudio", logging.WARNING)
    assert "no checksum is published for a.pth" in record.getMessage()
    recorded = json.loads(wanted.record.read_text())
    assert recorded == {"url": wanted.url, "size": len(CONTENT), "sha256": SHA256}


def test_a_later_change_is_noticed(server):
    wanted = item(server)
    fetch(wanted, "x")
    changed = bytes([CONTENT[0] ^ 1]) + CONTENT[1:]
    wanted.path.write_bytes(changed)
    with pytest.raises(DownloadError, match=r"not the file that was recorded: sha256 .* expected"):
        fetch(wanted, "x")
    wanted.path.unlink()
    server.files["/a.pth"] = CONTENT[1:]
    with pytest.raises(DownloadError, match="recorded: size 999999, expected 1000000"):
        fetch(wanted, "x")
    wanted.record.unlink()
    assert fetch(wanted, "x").read_bytes() == CONTENT[1:]


def test_published_facts_are_checked(server, caplog):
    assert fetch(item(server, size=len(CONTENT), sha256=SHA256), "x").read_bytes() == CONTENT
    assert not caplog.records
    with pytest.raises(
        DownloadError, match="not the file that was published: size 1000000, expected"
    ):
        fetch(item(server, size=5), "x")
    item(server).path.unlink()
    with pytest.raises(DownloadError, match="does not match"):
        fetch(item(server, sha256="0" * 64), "x")
    assert not item(server).path.exists()


def test_a_file_put_there_by_hand_will_do(server):
    wanted = item(server)
    wanted.path.parent.mkdir(parents=True)
    wanted.path.write_bytes(CONTENT)
    assert fetch(wanted, "x") == wanted.path
    assert not server.requests
    assert json.loads(wanted.record.read_text())["sha256"] == SHA256


def test_a_published_md5_is_checked(server, caplog):
    md5 = hashlib.md5(CONTENT).hexdigest()
    path = fetch(item(server, md5=md5), "x")
    assert not caplog.records
    path.unlink()
    path.with_name("a.pth.json").unlink()
    with pytest.raises(DownloadError, match="does not match"):
        fetch(item(server, md5="0" * 32), "x")
    path.write_bytes(CONTENT[::-1])  # put there by hand
    with pytest.raises(DownloadError, match="not the file that was published: md5"):
        fetch(item(server, md5=md5), "x")


@pytest.mark.parametrize(
    ("answer", "facts", "said"),
    [
        ({"headers": {"Content-Encoding": "gzip"}}, {}, "sends it packed (gzip), unasked"),
        ({"headers": {"Content-Type": "text/html; charset=x"}}, {}, "a web page in its place"),
        ({"status": 203}, {}, "answers 203, which is no file"),
        ({"status": 206}, {}, "answers 206, which is no file"),
        ({}, {"size": 999}, "sends more than 999 bytes"),
    ],
)
def test_an_answer_that_is_not_the_file_is_refused(server, answer, facts, said):
    for name, value in answer.items():
        setattr(server, name, value)
    wanted = item(server, **facts)
    with pytest.raises(DownloadError) as caught:
        fetch(wanted, "x")
    assert said in str(caught.value)
    assert not wanted.path.exists() and files_of(wanted) == set()


def test_a_server_that_never_ends_fills_no_disk(tmp_path):
    """It says no length, and goes on."""

    class Endless(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(bytes(CHUNK))

        def log_message(self, *_):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    with running(http):
        load = ResumingDownloader(tmp_path / "part", 10 * CHUNK)
        with pytest.raises(requests.RequestException, match="sends more than"):
            load(f"http://127.0.0.1:{http.server_address[1]}/a", str(tmp_path / "out"), None)
    http.server_close()
    assert not list(tmp_path.iterdir())
