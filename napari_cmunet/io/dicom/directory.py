"""List the images of a DICOMDIR: the index of a disc."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from napari_cmunet.io.dicom.header import read_elements
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
                for record in records.get("DirectoryRecordSequence") or ()
                if record.get("DirectoryRecordType") == "IMAGE"
                and (name := _below(record.get("ReferencedFileID")))
            ]
    except Exception:  # noqa: BLE001
        return []
    return [_as_on_disk(path.parent, name) for name in found[:_MOST_IMAGES]]


def _below(parts: Any) -> str:
    """Join the parts of a file ID to a path; empty if it is not below the folder."""
    names = [parts] if isinstance(parts, str) else list(parts or ())
    names = [str(name) for name in names]
    if any(n in ("", ".", "..") or set(n) & set("/\\:\0") for n in names):
        return ""
    if any(map(is_device, names)):
        return ""
    return "/".join(names)


def _as_on_disk(folder: Path, name: str) -> str:
    """Try lower case too: copying a disc may have changed the case of its names."""
    for spelled in (name, name.lower()):
        if os.path.exists(folder / spelled):  # noqa: PTH110 - never raises
            return spelled
    return name
