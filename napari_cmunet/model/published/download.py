"""Downloads one file whose SHA-256 is known, and goes on where it was cut off."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import logging
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

from napari_cmunet import __version__
from napari_cmunet.errors import DownloadError, WriteError
from napari_cmunet.util.atomic import write_reason

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CHUNK = 2**18
TIMEOUT = 30.0
RETRIES = 4
PAUSE = 1.0
"""Seconds before the first new attempt; each further one waits twice as long."""
_RANGE_START = re.compile(r"bytes (\d+)-")
_RANGE_TOTAL = re.compile(r"bytes \*/(\d+)")


def download(
    url: str,
    target: Path,
    sha256: str,
    *,
    limit: int,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> None:
    """Download a file; it takes its place only if it has the hash.

    What has come so far is kept beside it, in ``NAME.part``, when the connection
    breaks or the user stops; the next call goes on from there.

    Parameters
    ----------
    url : str
        https, or http on this machine.
    target : Path
        The file to write.
    sha256 : str
        That it must have.
    limit : int
        More bytes than this are not taken.
    progress : callable
        Told the bytes so far and, where the server says so, of how many.

    Raises
    ------
    DownloadError
        If the address is not allowed, the server refuses, the connection stays
        broken, or another file came.
    WriteError
        If the disk does not take it.
    """
    import pooch

    _check_address(url)
    # pooch logs whole paths, at a level that reaches the terminal.
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    part = target.with_name(f"{target.name}.part")
    try:
        pooch.retrieve(
            url,
            known_hash=f"sha256:{sha256}",
            path=target.parent,
            fname=target.name,
            downloader=_Download(part, limit, progress),
        )
    except ValueError as exc:
        raise DownloadError(
            f"What came from {_host(url)} is not the file that was asked for (its "
            "SHA-256 is another). It was deleted. Try again, or from another address."
        ) from exc
    except OSError as exc:
        raise WriteError(target, write_reason(exc)) from exc
    finally:
        logger.setLevel(level)


class _Download:
    """What pooch calls to get the bytes."""

    def __init__(
        self, part: Path, limit: int, progress: Callable[[int, int | None], None]
    ) -> None:
        self._part, self._limit, self._progress = part, limit, progress

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        """Fill ``output_file``; pooch compares its hash and moves it."""
        failures = 0
        while True:
            before = self._size()
            try:
                self._attempt(url, before)
                break
            except (OSError, http.client.HTTPException) as exc:
                failures = 0 if self._size() > before else failures + 1
                if failures > RETRIES:
                    raise DownloadError(
                        f"The connection to {_host(url)} keeps breaking "
                        f"({_why(exc)}). Run the same command again to go on from "
                        f"{self._size() / 1e6:.0f} MB."
                    ) from exc
            time.sleep(PAUSE * 2 ** max(0, failures - 1))
        self._part.replace(output_file)

    def _size(self) -> int:
        try:
            return self._part.stat().st_size
        except FileNotFoundError:
            return 0

    def _attempt(self, url: str, have: int) -> None:
        """One request; returns if the file is whole."""
        headers = {
            "User-Agent": f"napari-cmunet/{__version__}",
            "Accept-Encoding": "identity",  # ranges count what is stored
        }
        if have:
            headers["Range"] = f"bytes={have}-"
        request = urllib.request.Request(url, headers=headers)
        try:
            response = _opener(url).open(request, timeout=TIMEOUT)
        except urllib.error.HTTPError as exc:
            with exc:
                if self._is_whole(exc, have):
                    return
                self._refuse(exc, url)
        with response:
            begin = _RANGE_START.match(response.headers.get("Content-Range", ""))
            resumed = response.status == 206 and begin and int(begin[1]) == have
            if response.status == 206 and not resumed:
                raise DownloadError(f"{_host(url)} sent another part of the file.")
            self._receive(response, have if resumed else 0, url)

    def _receive(self, response: http.client.HTTPResponse, have: int, url: str) -> None:
        length = response.headers.get("Content-Length", "")
        total = have + int(length) if length.isdigit() else None
        if total is not None and total > self._limit:
            self._too_large(url)
        with _writing(self._part):
            file = self._part.open("ab" if have else "wb")
        with file:
            while True:
                self._progress(have, total)
                chunk = response.read(CHUNK)
                if not chunk:
                    break
                have += len(chunk)
                if have > self._limit:
                    self._too_large(url)
                with _writing(self._part):
                    file.write(chunk)
                    file.flush()
        if total is not None and have < total:
            raise ConnectionError("cut off")

    def _is_whole(self, error: urllib.error.HTTPError, have: int) -> bool:
        """Whether a server has no more because all of it is here already."""
        if error.code != 416:
            return False
        total = _RANGE_TOTAL.match(error.headers.get("Content-Range", ""))
        if total and int(total[1]) == have:
            return True
        self._part.unlink(missing_ok=True)  # of another file: begin again
        raise ConnectionError("the file is another")

    def _refuse(self, error: urllib.error.HTTPError, url: str) -> None:
        if error.code in (408, 429) or error.code >= 500:
            raise ConnectionError(f"the server says {error.code}") from error
        raise DownloadError(
            f"{_host(url)} does not give the file (it says {error.code} "
            f"{error.reason}). Check the address."
        ) from error

    def _too_large(self, url: str) -> None:
        with contextlib.suppress(OSError):
            self._part.unlink()
        raise DownloadError(
            f"What {_host(url)} sends is larger than the file that was asked for. "
            "Nothing was kept."
        )


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only to where a download may come from."""

    def redirect_request(self, req: Any, fp: Any, *args: Any) -> Any:
        _check_address(args[-1])
        return super().redirect_request(req, fp, *args)


def _opener(url: str) -> urllib.request.OpenerDirector:
    handlers: list[Any] = [_SafeRedirects()]
    if _is_this_machine(url):
        handlers.append(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener(*handlers)


def _check_address(url: str) -> None:
    try:
        scheme = urllib.parse.urlsplit(url).scheme
        allowed = scheme == "https" or (scheme == "http" and _is_this_machine(url))
        # Anything else is escaped in an address.
        allowed = allowed and bool(_host(url)) and re.fullmatch("[!-~]+", url)
    except ValueError:
        allowed = False
    if not allowed:
        raise DownloadError(
            "Downloads are taken over https alone (or http from this machine): the "
            "address must begin with https://."
        )


def _host(url: str) -> str:
    return urllib.parse.urlsplit(url).hostname or ""


def _is_this_machine(url: str) -> bool:
    host = _host(url)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _why(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or error
    return str(reason).strip() or type(error).__name__


@contextlib.contextmanager
def _writing(path: Path) -> Any:
    """An OSError of the disk, told from one of the connection."""
    try:
        yield
    except OSError as exc:
        raise WriteError(path, write_reason(exc)) from exc
