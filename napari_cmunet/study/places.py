"""Where a study's images lie on this computer.

A study does not say: the folder is another on each computer, its path may name people,
and a study from elsewhere must not choose which of this computer's files are read. It
is remembered with the user's own data, under the study's id.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from platformdirs import user_data_path

from napari_cmunet.errors import WriteError
from napari_cmunet.study.errors import StudyDamagedError
from napari_cmunet.study.images import STUDY_ROOT
from napari_cmunet.study.layout import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping


def user_folder() -> Path:
    """Where the user's own data on studies is kept."""
    home = os.environ.get("NAPARI_CMUNET_HOME")
    return Path(home) if home else user_data_path("napari-cmunet", appauthor=False)


class Places:
    """The folders that the roots of one study stand for.

    Parameters
    ----------
    study_id : str
        32 hexadecimal digits.
    study_folder : Path
    """

    def __init__(self, study_id: str, study_folder: Path) -> None:
        self._file = user_folder() / "studies" / f"{study_id}.json"
        self._study = study_folder
        self._folders: dict[str, Path] = {}
        try:
            saved = read_json(self._file) or {}
        except StudyDamagedError:  # a convenience only: the user is asked again
            saved = {}
        for root, folder in saved.items():
            if isinstance(folder, str) and Path(folder).is_absolute():
                self._folders[root] = Path(folder)

    def folder(self, root: str) -> Path | None:
        """The folder of a root, None if it is not known here."""
        return self._study if root == STUDY_ROOT else self._folders.get(root)

    def known(self) -> dict[str, Path]:
        """All roots with their folders."""
        return {**self._folders, STUDY_ROOT: self._study}

    def remember(self, folders: Mapping[str, Path]) -> bool:
        """Take note of folders; False if they are known for this session alone."""
        self._folders |= {r: f for r, f in folders.items() if r != STUDY_ROOT}
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._file, {r: str(f) for r, f in self._folders.items()})
        except (OSError, WriteError):
            return False
        return True
