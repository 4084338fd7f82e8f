"""The studies that were opened last, with the user's own data on this computer."""

from __future__ import annotations

from pathlib import Path

from napari_cmunet.errors import CMUNetError
from napari_cmunet.study.layout import make_folder, read_json, write_json
from napari_cmunet.study.places import user_folder
from napari_cmunet.study.session import is_study

KEPT = 8
_FILE = "recent-studies.json"


def recent_studies() -> list[Path]:
    """Folders of studies that are still there, the last one first. Looks at disks."""
    try:
        listed = (read_json(user_folder() / _FILE) or {}).get("folders")
    except CMUNetError:  # a convenience only
        return []
    texts = listed if isinstance(listed, list) else []
    found = []
    for folder in [Path(t) for t in texts[:KEPT] if isinstance(t, str)]:
        try:
            if folder.is_absolute() and is_study(folder):
                found.append(folder)
        except (OSError, ValueError):
            continue
    return found


def note_recent(folder: Path) -> None:
    """Put a study first in the list. Does nothing if that cannot be written."""
    folders = [str(f) for f in (folder, *recent_studies())]
    kept = list(dict.fromkeys(folders))[:KEPT]
    try:
        make_folder(user_folder())
        write_json(user_folder() / _FILE, {"version": 1, "folders": kept})
    except CMUNetError:
        return
