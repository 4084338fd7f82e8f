"""Where the files of a project's images are on this computer."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from platformdirs import user_data_path

from napari_cmunet.errors import WriteError
from napari_cmunet.project.errors import (
    ImageMissingError,
    ProjectDamagedError,
    ProjectError,
)
from napari_cmunet.project.files import check_relative, inside, read_json, write_json
from napari_cmunet.project.image_table import PROJECT_ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_cmunet.io.discovery import InputFile
    from napari_cmunet.project.image_table import ImageTable
    from napari_cmunet.project.session import Session


def user_folder() -> Path:
    """Where the user's own data on projects is kept."""
    home = os.environ.get("NAPARI_CMUNET_HOME")
    return Path(home) if home else user_data_path("napari-cmunet", appauthor=False)


class ImageRoots:
    """The folders that the roots of one project stand for.

    Parameters
    ----------
    project_id : str
        32 hexadecimal digits.
    project_folder : Path
    """

    def __init__(self, project_id: str, project_folder: Path) -> None:
        self._file = user_folder() / "projects" / f"{project_id}.json"
        self._project = project_folder
        self._folders: dict[str, Path] = {}
        try:
            saved = read_json(self._file) or {}
        except ProjectDamagedError:  # a convenience only: the user is asked again
            saved = {}
        for root, folder in saved.items():
            if isinstance(folder, str) and Path(folder).is_absolute():
                self._folders[root] = Path(folder)

    def folder(self, root: str) -> Path | None:
        """The folder of a root, None if it is not known here."""
        return self._project if root == PROJECT_ROOT else self._folders.get(root)

    def known(self) -> dict[str, Path]:
        """All roots with their folders."""
        return {**self._folders, PROJECT_ROOT: self._project}

    def remember(self, folders: Mapping[str, Path]) -> bool:
        """Take note of folders; False if they are known for this session alone."""
        self._folders |= {r: f for r, f in folders.items() if r != PROJECT_ROOT}
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._file, {r: str(f) for r, f in self._folders.items()})
        except (OSError, WriteError):
            return False
        return True


class ImageLocations:
    """From a project's images to files and back."""

    def __init__(self, session: Session, table: ImageTable) -> None:
        self._session, self._table = session, table
        self._places = ImageRoots(session.identity.id, session.folder)

    def path(self, image: str) -> Path:
        """The file of an image, whether it is there or not.

        Raises
        ------
        ImageMissingError
            If this computer does not know the folder.
        """
        record = self._table[image]
        folder = self._places.folder(record.root)
        if folder is None or not record.path:
            raise ImageMissingError(
                f"Where image {image} lies is not known on this computer. Show the "
                "project the folder of its images."
            )
        if record.root == PROJECT_ROOT:
            return inside(folder, *record.path.split("/"))
        return folder / record.path

    def found_path(self, image: str) -> Path:
        """The file of an image that is there; raises ImageMissingError."""
        path = self.path(image)
        if not is_file(path):
            raise ImageMissingError(
                f"Image {image} is not where it was. Connect its disk, or show the "
                "project the folder of its images."
            )
        return path

    def is_there(self, image: str) -> bool:
        """Whether the file of an image is there."""
        try:
            return is_file(self.path(image))
        except ProjectError:
            return False

    def remember(self, places: dict[str, Path]) -> None:
        """Take note of folders that roots stand for."""
        if places and not self._places.remember(places):
            self._session.note(
                "Where the images lie could not be noted; it will be asked again."
            )

    def root_for(self, folder: Path) -> str:
        """The root that stands for a folder; a new one if need be."""
        for root, known in self._places.known().items():
            if _same(known, folder):
                return root
        used = {r.root for r in self._table} | set(self._places.known())
        number = 1
        while (root := f"r{number}") in used:
            number += 1
        self.remember({root: folder})
        return root

    def known_paths(self) -> set[str]:
        """Files of the project's images, to compare with ``os.path.normcase``."""
        known = set()
        for record in self._table:
            folder = self._places.folder(record.root)
            if folder is not None:
                known.add(os.path.normcase(os.path.abspath(folder / record.path)))  # noqa: PTH100
        return known

    def reference(self, path: Path, file: InputFile) -> tuple[str, str]:
        """Root and path below it; raises ValueError, ProjectError if impossible."""
        roots = sorted(
            self._places.known().items(), key=lambda item: -len(item[1].parts)
        )
        for root, folder in roots:
            if path.is_relative_to(folder):
                below = check_relative(path.relative_to(folder).as_posix())
                if root == PROJECT_ROOT:
                    inside(folder, *below.split("/"))
                return root, below
        depth = len(file.relative.parts)
        folder = path.parents[depth - 1]
        below = check_relative(path.relative_to(folder).as_posix())
        return self.root_for(folder), below


def is_file(path: Path) -> bool:
    """Whether there is a regular file."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def file_size(path: Path) -> int | None:
    """Bytes of a file, None if it is not there."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def _same(one: Path, other: Path) -> bool:
    return os.path.normcase(one) == os.path.normcase(other)
