"""Open a file and detect its format by content, not by name."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_cmunet.errors import ReadError
from napari_cmunet.util.safe_files import without_waiting

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader

# Format by suffix, for messages about files that turn out to be something else.
KIND_OF_SUFFIX = {
    ".bmp": "BMP",
    ".dcm": "DICOM",
    ".dicom": "DICOM",
    ".jpeg": "JPEG",
    ".jpg": "JPEG",
    ".npy": "NPY",
    ".png": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WebP",
}
SUFFIXES = tuple(KIND_OF_SUFFIX)

# (offset, bytes, format) of what can be read.
_SIGNATURES = (
    # First: the preamble of a DICOM file may hold a TIFF header.
    (128, b"DICM", "DICOM"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (0, b"\x93NUMPY", "NPY"),
    (8, b"WEBP", "WebP"),
)
# (offset, bytes, message) of other formats that are often met.
_OTHER_FORMATS = (
    (0, b"GIF8", "it is a GIF picture"),
    (0, b"%PDF", "it is a PDF document"),
    (0, b"PK\x03\x04", "it is a ZIP archive"),
    (0, b"\x1f\x8b", "it is a gzip archive"),
    (0, b"\x89HDF", "it is an HDF5 file"),
    (0, b"\x80\x04", "it is a Python pickle, which is never run"),
    (0, b"\0\0\0\x0cjP  ", "it is a JPEG 2000 picture"),
    (0, b"\xff\x4f\xff\x51", "it is a JPEG 2000 picture"),
    (8, b"AVI ", "it is an AVI video"),
    # PKCS #7 envelope (RFC 5652): encrypted DICOM.
    (4, b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x03", "it is encrypted"),
    (2, b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x03", "it is encrypted"),
    (4, b"ftyp", "it is a video or a phone picture"),
)
_HEADER_BYTES = 512
_ADVICE = "Export it as PNG or TIFF from the program it came from."


@dataclass(frozen=True)
class SniffedFile:
    """An open image file and its detected format."""

    path: Path
    handle: BufferedReader
    size: int  # bytes
    kind: str  # "PNG", "TIFF", …, by content
    header: bytes  # the first bytes, fewer if the file is shorter

    def error(self, reason: str) -> ReadError:
        """Return (not raise) an error about this file."""
        return ReadError(self.path, reason)

    def sha256(self) -> str:
        """Hash the whole file."""
        self.handle.seek(0)
        return hashlib.file_digest(self.handle, "sha256").hexdigest()


@contextlib.contextmanager
def open_sniffed(path: Path | str) -> Iterator[SniffedFile]:
    """Open a file for reading and detect its format.

    Raises
    ------
    ReadError
        If it cannot be opened, is no regular file, or holds no known kind of image.
    """
    path = Path(path)
    try:
        _refuse_irregular(path)
        with open(path, "rb", opener=without_waiting) as handle:
            status = os.fstat(handle.fileno())
            if not stat.S_ISREG(status.st_mode):  # replaced since the check above
                raise _not_regular(path)
            header = handle.read(_HEADER_BYTES)
            kind = _kind(path, header)
            handle.seek(0)
            yield SniffedFile(path, handle, status.st_size, kind, header)
    except OSError as error:
        raise ReadError(path, read_reason(path, error)) from error


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its content; False if it cannot be read."""
    try:
        with open_sniffed(path) as source:
            return source.kind == "DICOM"
    except ReadError:
        return False


def read_reason(path: Path, error: OSError) -> str:
    """Describe why a file cannot be read and what to do about it."""
    if isinstance(error, FileNotFoundError):
        if path.is_symlink():
            return "this is a link to a file that is not there."
        return "there is no such file. Check the name."
    if isinstance(error, PermissionError):
        return (
            "reading it is not permitted. Change its permissions, or copy it to a "
            "folder of your own."
        )
    if error.errno == errno.ELOOP:
        return "this link leads back to itself."
    if error.errno == errno.ENAMETOOLONG:
        return "the name is too long. Rename the file."
    if error.errno in (errno.ENOTDIR, errno.EINVAL):
        return "there is no such file. Check the name."
    detail = error.strerror or "unknown cause"
    return f"the disk or network failed while it was read ({detail}). Try again."


def _refuse_irregular(path: Path) -> None:
    """Refuse folders, and pipes and devices, since opening or reading may hang."""
    try:
        status = path.stat()
    except ValueError as error:  # a NUL in the name
        raise ReadError(path, "this is not a possible file name.") from error
    if stat.S_ISDIR(status.st_mode):
        raise ReadError(path, "this is a folder, not an image file.")
    if not stat.S_ISREG(status.st_mode):
        raise _not_regular(path)


def _not_regular(path: Path) -> ReadError:
    return ReadError(path, "this is a pipe, a device or a socket, not an image file.")


def _kind(path: Path, header: bytes) -> str:
    if not header:
        raise ReadError(path, "the file is empty. Copy or export it again.")
    for offset, signature, kind in _SIGNATURES:
        if header.startswith(signature, offset):
            return kind
    # "BM" alone could begin a text; bytes 6 to 9 of a bitmap are reserved zeros.
    if header.startswith(b"BM") and header[6:10] == bytes(4):
        return "BMP"
    if _is_bare_dicom(header):
        return "DICOM"
    promised = KIND_OF_SUFFIX.get(path.suffix.lower())
    what = f"not {_article(promised)} file" if promised else "not an image file"
    raise ReadError(path, f"{what}: {_describe_unknown(header)}. {_ADVICE}")


def _is_bare_dicom(header: bytes) -> bool:
    """Whether a file starts as a DICOM data set without preamble.

    That is with group 0002 or 0008, in either byte order, explicit or implicit VR.
    """
    start = header[:8]
    for order in ("little", "big"):
        group = int.from_bytes(start[:2], order)
        element = int.from_bytes(start[2:4], order)
        if group not in (2, 8) or element > 0x20 or len(start) < 8:
            continue
        if start[4:6] in (b"UL", b"UI", b"CS", b"DA", b"SH", b"OB"):
            return True
        # Implicit VR: the length of a short value.
        if order == "little" and int.from_bytes(start[4:], order) <= 256:
            return True
    return False


def _article(kind: str) -> str:
    return f"an {kind}" if kind == "NPY" else f"a {kind}"


def _describe_unknown(header: bytes) -> str:
    """Describe what a file with these first bytes seems to be."""
    for offset, signature, words in _OTHER_FORMATS:
        if header.startswith(signature, offset):
            return words
    start = header.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "it is a web page, perhaps saved in place of a download"
    if not any(header):
        return "it begins with nothing but zeros, perhaps a broken copy"
    if _is_text(header):
        return "it starts with text"
    return "its first bytes are those of no image format known here"


def _is_text(header: bytes) -> bool:
    # The last character may be cut in the middle.
    text = header.decode("utf-8", errors="ignore")
    enough = len(text.encode("utf-8")) >= len(header) - 3
    return enough and all(c.isprintable() or c in "\t\r\n\f" for c in text)
