"""The checkpoints that the authors of CM-UNet have published, and their download.

They are not part of this program; ``models fetch`` downloads one when asked to.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cmunet import __version__
from napari_cmunet.errors import DownloadError, ModelError, WriteError
from napari_cmunet.util.safe_files import write_reason

if TYPE_CHECKING:
    from collections.abc import Callable

REPOSITORY = "CamilleChallier/Contrastive-Masked-UNet"
COMMIT = "cdbc615a51ca36ac3712e30bc0d9306a13033c70"
FOLDER = "Finetuning/models_checkpoints"
LICENCE = "none stated by the authors"
MEGABYTES = 124.28
"""About, for each of them."""
_LFS_HOST = "https://media.githubusercontent.com/media"

_STARTS = {
    "cmunet": "CM-UNet pre-training",
    "mae": "MAE pre-training",
    "moco": "MoCo pre-training",
    "model_genesis": "Models Genesis pre-training",
    "spark": "SparK pre-training",
    "unet": "random weights",
}
_LABELS = {"ratio_50-30": 530, "ratio_79-1": 18}


@dataclass(frozen=True)
class PublishedFile:
    """One published checkpoint: a network fine-tuned by its authors."""

    #: folder, file: where it lies in their repository.
    folder: str
    file: str
    sha256: str

    @property
    def method(self) -> str:
        """How its start was pre-trained: ``cmunet``, ``mae``, ..."""
        return self.file.split("_lr")[0]

    @property
    def name(self) -> str:
        """What ``models fetch`` calls it, and the model made of it."""
        method = self.method.replace("_", "-")
        return f"published-{method}-{self.folder.removeprefix('ratio_')}"

    @property
    def url(self) -> str:
        """Where the authors' file is, at the commit that is known."""
        return f"{_LFS_HOST}/{REPOSITORY}/{COMMIT}/{FOLDER}/{self.folder}/{self.file}"

    @property
    def labels(self) -> int:
        """Labelled frames it was fine-tuned on, about, as the paper says."""
        return _LABELS[self.folder]

    @property
    def description(self) -> str:
        """One sentence."""
        return (
            f"Published by the authors of CM-UNet: fine-tuned on about {self.labels} "
            f"labels from {_STARTS[self.method]}."
        )


_FILES = {
    "ratio_50-30": {
        "cmunet_lr0.001_e128_b32.pth":
            "d80516c8d165062391656797b4a06b7b7ec391f764b34c99ea3758639310854c",
        "mae_lr0.001_e128_b32.pth":
            "315264a7e80958b87d8e2aa1d7454b1285970957a59ba541e2a7a6bb4dce5ab3",
        "moco_lr0.001_e128_b32.pth":
            "b05123996fd0fc3bc9953745391192d2fe7db1ad7c355e3d7e59bcf9786c6f61",
        "model_genesis_lr0.0001_e128_b32.pth":
            "5e13505c30a1b1159588e25efe40e5fa1519dc1dadb2f14e2bb5b94ea7af9fd2",
        "spark_lr0.001_e128_b32.pth":
            "e568c20dc0a786006ca4c736a02b8130929d6be4005011d7fb07bcb7e09cac2b",
        "unet_lr0.001_e128_b32.pth":
            "6f543b0ed6ee851c233a52f154755c56b024e737ef9c0379b5ec2d9b27e1cb83",
    },
    "ratio_79-1": {
        "cmunet_lr0.001.pth":
            "c8466d30101a80d7a41b2d4f8913302c94f4b506c46a456d13b708c2db927d98",
        "mae_lr0.001.pth":
            "df3d5d6812c3ae8ac61e11254f5feead1d1f543fbb2e4f111cde73707f052f56",
        "moco_lr0.001.pth":
            "0c66342fb50978be77b5a655f11bccec14aee47b0b75d82d29063ddd31c3205b",
        "model_genesis_lr0.001.pth":
            "f812da53ff76ac09bcece0facde80828bddb150c6b147466cc052dd42537b1d0",
        "spark_lr0.001.pth":
            "64c76a9efbea938f72ec699b55fbd0aa8f0f2a8dd75b6be0d25e19692bfa31a5",
        "unet_lr0.001.pth":
            "33f5dd757df2be70b43b911e6c26ab81e024f6825df278fe9c0b714fa3881842",
    },
}  # fmt: skip
PUBLISHED = tuple(
    PublishedFile(folder, file, sha256)
    for folder, files in _FILES.items()
    for file, sha256 in files.items()
)


def find_published(name: str) -> PublishedFile:
    """A published file by its name.

    Raises
    ------
    ModelError
        If there is none, naming those that there are.
    """
    for published in PUBLISHED:
        if published.name == name:
            return published
    names = ", ".join(published.name for published in PUBLISHED)
    raise ModelError(f"There is no published model named '{name}'. There are: {names}.")


def published_by_hash(sha256: str) -> PublishedFile | None:
    """The published file that has this hash, if one does."""
    return next((p for p in PUBLISHED if p.sha256 == sha256), None)


CHUNK = 2**18
TIMEOUT = 30.0


def download(
    url: str,
    target: Path,
    sha256: str,
    *,
    limit: int,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> None:
    """Download a file; it is put in place only if it has the hash.

    Parameters
    ----------
    url : str
        https, or http on this machine.
    target : Path
        The file to write. If it exists with this hash, nothing is downloaded.
    limit : int
        Largest size in bytes.
    progress : callable
        Called with the bytes so far and the total, where the server states it.

    Raises
    ------
    DownloadError
        If the address is not allowed, the server refuses, the connection breaks, or
        the file has another hash.
    WriteError
        If the file cannot be written.
    """
    import pooch
    import requests

    _check_address(url)
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)  # it logs whole paths

    def fetch(url: str, output_file: str, _: Any) -> None:
        with requests.Session() as session, Path(output_file).open("wb") as file:
            session.trust_env = not _is_this_machine(url)  # no proxy to this machine
            session.headers["User-Agent"] = f"napari-cmunet/{__version__}"
            session.hooks["response"].append(_check_redirect)
            with session.get(url, stream=True, timeout=TIMEOUT) as response:
                response.raise_for_status()
                _receive(response, file, limit, progress)

    try:
        pooch.retrieve(
            url,
            known_hash=f"sha256:{sha256}",
            path=target.parent,
            fname=target.name,
            downloader=fetch,
        )
    except requests.HTTPError as exc:
        code = exc.response.status_code if exc.response is not None else "error"
        raise DownloadError(
            f"{_host(url)} does not provide the file (HTTP {code}). Check the address "
            "or try again later."
        ) from exc
    except requests.RequestException as exc:
        raise DownloadError(
            f"The connection to {_host(url)} failed ({type(exc).__name__}). Run the "
            "same command again."
        ) from exc
    except ValueError as exc:
        raise DownloadError(
            f"What came from {_host(url)} is not the file that was asked for (its "
            "SHA-256 is another). It was deleted. Try again, or from another address."
        ) from exc
    except OSError as exc:
        raise WriteError(target, write_reason(exc)) from exc
    finally:
        logger.setLevel(level)


def _receive(
    response: Any, file: Any, limit: int, progress: Callable[[int, int | None], None]
) -> None:
    length = response.headers.get("Content-Length", "")
    total = int(length) if length.isdigit() else None
    done = 0
    progress(done, total)
    chunks = response.iter_content(CHUNK) if (total or 0) <= limit else [b""]
    for chunk in chunks:
        done += len(chunk)
        if max(done, total or 0) > limit:
            raise DownloadError(
                f"What {_host(response.url)} sends is larger than the file that was "
                "asked for. Nothing was kept."
            )
        file.write(chunk)
        progress(done, total)


def _check_redirect(response: Any, *_: Any, **__: Any) -> None:
    if response.is_redirect:
        _check_address(urllib.parse.urljoin(response.url, response.headers["Location"]))


def _check_address(url: str) -> None:
    try:
        scheme = urllib.parse.urlsplit(url).scheme
        local = scheme == "http" and _is_this_machine(url)
        # Anything but printable ASCII is escaped in an address.
        allowed = (
            (scheme == "https" or local)
            and bool(_host(url))
            and re.fullmatch("[!-~]+", url) is not None
        )
    except ValueError:
        allowed = False
    if not allowed:
        raise DownloadError(
            "Downloads are accepted over https only (or http from this machine): the "
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
