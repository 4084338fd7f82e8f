"""Downloads from a server on this machine: checked and refused."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import threading
from typing import TYPE_CHECKING, Any

import pytest

from napari_cmunet.errors import DownloadError, WriteError
from napari_cmunet.model import published as module
from napari_cmunet.model.published import download

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
LIMIT = 2 * len(CONTENT)


class Server:
    """Serves one file, and breaks as it is told.

    ``cuts`` holds, for each coming request, after how many bytes it breaks off.
    """

    def __init__(self) -> None:
        self.content = CONTENT
        self.cuts: list[int] = []
        self.statuses: list[int] = []
        self.ranges = True
        self.length = True
        self.redirect = ""
        self.asked: list[str | None] = []
        self.url = ""

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        wanted = handler.headers.get("Range")
        self.asked.append(wanted)
        if self.statuses:
            handler.send_error(self.statuses.pop(0))
            return
        if self.redirect and handler.path == "/moved":
            handler.send_response(302)
            handler.send_header("Location", self.redirect)
            handler.end_headers()
            return
        start = int(wanted[6:-1]) if wanted and self.ranges else 0
        total = len(self.content)
        if start >= total:
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{total}")
            handler.end_headers()
            return
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        if self.length:
            handler.send_header("Content-Length", str(total - start))
        handler.end_headers()
        data = self.content[start:]
        if self.cuts:
            data = data[: self.cuts.pop(0)]
        handler.wfile.write(data)
        handler.close_connection = True


@pytest.fixture
def server() -> Iterator[Server]:
    served = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with contextlib.suppress(OSError):  # the other side may have had enough
                served.answer(self)

        def log_message(self, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        served.url = f"http://127.0.0.1:{listening.server_port}/file"
        thread = threading.Thread(target=listening.serve_forever, args=(0.02,))
        thread.start()
        yield served
        listening.shutdown()
        thread.join()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "downloads" / "file.pth"


def get(url: str, target: Path, **options: Any) -> None:
    download(url, target, SHA256, **({"limit": LIMIT} | options))


def left(target: Path) -> dict[str, int]:
    return {p.name: p.stat().st_size for p in target.parent.iterdir()}


def test_a_whole_file(server: Server, target: Path) -> None:
    told: list[tuple[int, int | None]] = []
    get(server.url, target, progress=lambda done, total: told.append((done, total)))
    assert target.read_bytes() == CONTENT
    assert left(target) == {"file.pth": len(CONTENT)}
    assert told[0] == (0, len(CONTENT))
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [d for d, _ in told] == sorted(d for d, _ in told)


def test_a_file_that_is_there_is_not_downloaded_again(
    server: Server, target: Path
) -> None:
    get(server.url, target)
    get(server.url, target)
    assert len(server.asked) == 1


def test_a_broken_connection_leaves_nothing(server: Server, target: Path) -> None:
    server.cuts = [len(CONTENT) // 2]
    with pytest.raises(DownloadError, match=r"connection to 127\.0\.0\.1 failed"):
        get(server.url, target)
    assert left(target) == {}
    get(server.url, target)
    assert target.read_bytes() == CONTENT


def test_stopping_leaves_nothing(server: Server, target: Path) -> None:
    def stop(done: int, total: int | None) -> None:
        if done >= len(CONTENT) // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(server.url, target, progress=stop)
    assert left(target) == {}


def test_another_file_is_refused(server: Server, target: Path) -> None:
    server.content = b"x" + CONTENT[1:]
    with pytest.raises(DownloadError, match="not the file that was asked for"):
        get(server.url, target)
    assert left(target) == {}


@pytest.mark.parametrize("length", [True, False])
def test_a_larger_file_is_not_taken(server: Server, target: Path, length: bool) -> None:
    server.length = length
    with pytest.raises(DownloadError, match="larger than"):
        get(server.url, target, limit=len(CONTENT) - 1)
    assert left(target) == {}


@pytest.mark.parametrize("status", [401, 403, 404, 410, 429, 503])
def test_a_server_that_refuses(server: Server, target: Path, status: int) -> None:
    server.statuses = [status] * 2
    with pytest.raises(DownloadError, match=f"HTTP {status}"):
        get(server.url, target)
    assert len(server.asked) == 1


def test_no_server(target: Path) -> None:
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1 failed"):
        get("http://127.0.0.1:9/file", target)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/file",
        "file:///etc/passwd",
        "ftp://127.0.0.1/file",
        "https://",
        "https:file",
        "example.org/file",
        "//example.org/file",
        "http://127.0.0.1.example.org/file",
        "http://localhost@example.org/file",
        "http://[::2]/file",
        "https://example.org/a b",
        "https://example.org/\r\nHost: x",
        "http://[",
        "",
    ],
)
def test_only_https_or_this_machine(url: str, target: Path) -> None:
    with pytest.raises(DownloadError, match="over https only"):
        get(url, target)
    assert not target.parent.exists()


def test_a_redirect_is_followed_only_to_where_downloads_may_come_from(
    server: Server, target: Path
) -> None:
    moved = server.url.replace("/file", "/moved")
    server.redirect = server.url
    get(moved, target)
    target.unlink()
    for elsewhere in ("http://example.org/file", "file:///etc/passwd"):
        server.redirect = elsewhere
        with pytest.raises(DownloadError):
            get(moved, target)
        assert left(target) == {}


def test_a_folder_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "downloads").write_text("a file in the way")
    with pytest.raises(WriteError):
        get(server.url, tmp_path / "downloads" / "file.pth")


def test_a_full_disk(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    def write(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_receive", write)
    with pytest.raises(WriteError, match="the disk is full"):
        get(server.url, target)
    assert len(server.asked) == 1
