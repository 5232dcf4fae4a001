"""A file server on loopback that can break off, forget ranges and change its files."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Server:
    """What it serves and how; may be changed between requests.

    Attributes:
        files: content by path, such as "/a.pth".
        etag: sent with every file; None: no validator at all.
        ranges: whether Range requests are honoured.
        breaks: how many bytes each coming answer sends before the connection is cut, in order.
        headers: sent with every file as well.
        status: of answers with a whole file.
        requests: (path, headers) of every request so far.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    etag: str | None = '"one"'
    ranges: bool = True
    breaks: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    def asked(self, path: str) -> list[str | None]:
        """The Range header of every request of a path, in order."""
        return [headers.get("Range") for asked, headers in self.requests if asked == path]


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.requests.append((self.path, dict(self.headers)))
            content, start = server.files.get(self.path), 0
            if content is None:
                return self.send_error(404)
            asked = self.headers.get("Range")
            same = self.headers.get("If-Range") == server.etag
            if asked and server.ranges and same:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                if start >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(content)}")
                    self.send_header("Content-Length", "0")
                    return self.end_headers()
                self.send_response(206)
                last = len(content) - 1
                self.send_header("Content-Range", f"bytes {start}-{last}/{len(content)}")
            else:
                self.send_response(server.status)
            body = content[start:]
            self.send_header("Content-Length", str(len(body)))
            for name, value in server.headers.items():
                self.send_header(name, value)
            if server.etag is not None:
                self.send_header("ETag", server.etag)
            self.end_headers()
            self.wfile.write(body[: server.breaks.pop(0)] if server.breaks else body)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_address[1]}"
    with running(http):
        yield server
    http.server_close()


@contextmanager
def running(http: ThreadingHTTPServer) -> Iterator[None]:
    """Let a server answer in a thread of its own."""
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield
    finally:
        http.shutdown()
        thread.join()
