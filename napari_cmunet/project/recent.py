"""The projects that were opened last, with the user's own data on this computer."""

from __future__ import annotations

from pathlib import Path

from napari_cmunet.errors import CMUNetError
from napari_cmunet.project.files import make_folder, read_json, write_json
from napari_cmunet.project.image_roots import user_folder
from napari_cmunet.project.session import is_project

KEPT = 8
_FILE = "recent-projects.json"


def recent_projects() -> list[Path]:
    """Folders of projects that are still there, the last one first. Looks at disks."""
    try:
        listed = (read_json(user_folder() / _FILE) or {}).get("folders")
    except CMUNetError:  # a convenience only
        return []
    texts = listed if isinstance(listed, list) else []
    found = []
    for folder in [Path(t) for t in texts[:KEPT] if isinstance(t, str)]:
        try:
            if folder.is_absolute() and is_project(folder):
                found.append(folder)
        except (OSError, ValueError):
            continue
    return found


def note_recent(folder: Path) -> None:
    """Put a project first in the list. Does nothing if that cannot be written."""
    folders = [str(f) for f in (folder, *recent_projects())]
    kept = list(dict.fromkeys(folders))[:KEPT]
    try:
        make_folder(user_folder())
        write_json(user_folder() / _FILE, {"version": 1, "folders": kept})
    except CMUNetError:
        return
