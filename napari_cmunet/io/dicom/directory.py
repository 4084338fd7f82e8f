"""List the images of a DICOMDIR: the index of a disc."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from napari_cmunet.io.dicom.header import items, read_elements, text, value_of
from napari_cmunet.io.sniffing import open_sniffed
from napari_cmunet.util.safe_files import is_device

if TYPE_CHECKING:
    from pathlib import Path

_MOST_IMAGES = 100_000


def listed_images(path: Path) -> list[str]:
    """Return the paths of the images in a DICOMDIR, relative to its folder, in order.

    Entries outside the folder are skipped. Returns nothing if the file cannot be
    read as DICOMDIR; reading it as an image reports why.
    """
    try:
        with open_sniffed(path) as file:
            if file.kind != "DICOM":
                return []
            records = read_elements(file, ["DirectoryRecordSequence"])
            found = [
                name
                for record in items(records, "DirectoryRecordSequence")
                if text(record, "DirectoryRecordType") == "IMAGE"
                and (name := _below(value_of(record, "ReferencedFileID")))
            ]
    except Exception:  # noqa: BLE001
        return []
    disc = _Disc(path.parent)
    return [disc.find(name) for name in found[:_MOST_IMAGES]]


def _below(parts: Any) -> str:
    """Join the parts of a file ID to a path; empty if it is not below the folder."""
    names = [parts] if isinstance(parts, str) else list(parts or ())
    names = [str(name) for name in names]
    if any(n in ("", ".", "..") or set(n) & set("/\\:\0") for n in names):
        return ""
    if any(map(is_device, names)):
        return ""
    return "/".join(names)


class _Disc:
    """The names below a folder, to find files whose names a copy has changed.

    Copying a disc may change the case of names, keep the version of ISO 9660
    (``IM1;1``), or add a suffix (``IM1.dcm``).
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[str, tuple[dict[str, str], dict[str, str]]] = {}

    def find(self, listed: str) -> str:
        """Return the path as it is on disk; the listed one if there is none."""
        if os.path.exists(self._folder / listed):  # noqa: PTH110 - never raises
            return listed
        found = ""
        parts = listed.split("/")
        for part in parts:
            name = self._match(found, part, is_file=part is parts[-1])
            if not name:
                return listed
            found = f"{found}/{name}" if found else name
        return found

    def _match(self, below: str, part: str, *, is_file: bool) -> str:
        if below not in self._names:
            by_name: dict[str, str] = {}
            by_stem: dict[str, str] = {}
            for name in _listed(self._folder / below):
                folded = name.casefold().partition(";")[0]
                by_name.setdefault(folded, name)
                by_stem.setdefault(folded.rpartition(".")[0], name)
            self._names[below] = by_name, by_stem
        by_name, by_stem = self._names[below]
        wanted = part.casefold().partition(";")[0]
        return by_name.get(wanted) or (by_stem.get(wanted, "") if is_file else "")


def _listed(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208
    except (OSError, ValueError):
        return []
