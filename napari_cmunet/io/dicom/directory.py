"""The images that a DICOMDIR lists: the table of contents of a disc."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from napari_cmunet.io.dicom.header import read_elements
from napari_cmunet.io.sniffing import open_source
from napari_cmunet.util.safe_files import is_device

if TYPE_CHECKING:
    from pathlib import Path

_MOST_IMAGES = 100_000


def listed_images(path: Path) -> list[str]:
    """Paths of the images that a DICOMDIR lists, below its own folder, in its order.

    Entries that lead out of the folder are left out, and so is everything if the file
    is no DICOMDIR: reading it will say so.
    """
    try:
        with open_source(path) as source:
            if source.kind != "DICOM":
                return []
            records = read_elements(source, ["DirectoryRecordSequence"])
            found = [
                name
                for record in records.get("DirectoryRecordSequence") or ()
                if record.get("DirectoryRecordType") == "IMAGE"
                and (name := _below(record.get("ReferencedFileID")))
            ]
    except Exception:  # noqa: BLE001
        return []
    return [_as_on_disk(path.parent, name) for name in found[:_MOST_IMAGES]]


def _below(parts: object) -> str:
    """A file's path of the parts that DICOM gives it; empty if it leads elsewhere."""
    names = [parts] if isinstance(parts, str) else list(parts or ())
    names = [str(name) for name in names]
    if any(n in ("", ".", "..") or set(n) & set("/\\:\0") for n in names):
        return ""
    if any(map(is_device, names)):
        return ""
    return "/".join(names)


def _as_on_disk(folder: Path, name: str) -> str:
    """A disc that was copied may have its names in small letters, unlike its list."""
    for spelled in (name, name.lower()):
        if os.path.exists(folder / spelled):  # noqa: PTH110 - never raises
            return spelled
    return name
