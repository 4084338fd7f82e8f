"""The identity and the settings of a project, and the projects opened last."""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from napari_cmunet.errors import (
    CMUNetError,
    ProjectDamagedError,
    ProjectError,
    ReadError,
)
from napari_cmunet.model.registry import user_folder
from napari_cmunet.project.files import (
    FORMAT,
    IMAGES,
    JOURNAL,
    LABELS,
    PROJECT,
    VERSION,
    is_project,
    project_file,
    read_json,
    set_aside,
    validate,
)
from napari_cmunet.project.models.history import ModelName  # noqa: TC001
from napari_cmunet.project.next_image import LISTED, Order
from napari_cmunet.training.options import FinetuneOptions
from napari_cmunet.util.safe_files import make_folder, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping


RECENT_KEPT = 8
_RECENT = "recent-projects.json"
_FORMER_RECENT = "recent-studies.json"  # version 0.1


# -- identity ------------------------------------------------------------------


@dataclass(frozen=True)
class Identity:
    """The identity of a project; written once."""

    #: 32 hexadecimal digits. A copy of the folder keeps it.
    id: str
    salt: bytes  # for the hashes of patients; never leaves the project
    created: str  # UTC


@dataclass
class _Marker:
    """The content of ``project.json``; ``study`` is version 0.1's word."""

    format: Literal["napari-cmunet project", "napari-cmunet study"]
    version: Annotated[int, Field(strict=True, ge=1)]
    id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    salt: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")]
    created: Any = ""


_MARKER = TypeAdapter(_Marker)


def new_identity(folder: Path) -> Identity:
    """Make a folder a project.

    Raises
    ------
    ProjectError
        If it is one already, or was.
    WriteError
    """
    make_folder(folder)
    taken = [n for n in (IMAGES, JOURNAL, LABELS) if (folder / n).exists()]
    if is_project(folder) or (folder / PROJECT).exists():
        taken.insert(0, PROJECT)
    if taken:
        raise ProjectError(
            f"The folder '{folder.name}' holds a project already, or a part of one "
            f"({taken[0]}). Open it, or choose another folder."
        )
    return _write_identity(folder)


def _write_identity(folder: Path) -> Identity:
    made = Identity(
        secrets.token_hex(16),
        secrets.token_bytes(32),
        datetime.now(UTC).isoformat(timespec="seconds"),
    )
    values = {
        "format": FORMAT,
        "version": VERSION,
        "id": made.id,
        "created": made.created,
        "salt": made.salt.hex(),
        "about": "A project of napari-cmunet: labels/ holds the accepted masks (TIFF), "
        "images.jsonl the images by reference, journal.jsonl what was done.",
    }
    write_json(folder / PROJECT, values)
    return made


def read_identity(folder: Path) -> Identity:
    """Read ``project.json``, or ``study.json`` of version 0.1.

    Raises
    ------
    ReadError
        If the folder is not a project.
    ProjectDamagedError, ProjectVersionError
    """
    if not folder.is_dir():
        raise ReadError(folder, "there is no such folder. Check the name.")
    path = project_file(folder, PROJECT)
    values = read_json(path)
    if values is None:
        raise ReadError(folder, f"this folder is not a project: it has no {PROJECT}.")
    try:
        marker = validate(_MARKER, values)
        return Identity(marker.id, bytes.fromhex(marker.salt), str(marker.created))
    except ValueError as error:
        raise ProjectDamagedError(
            f"{path.name} of the project is damaged ({error}). The labels are not "
            "affected. Restore the file from a backup, or let the project be salvaged."
        ) from error


def salvage_identity(folder: Path) -> str:
    """Replace a damaged ``project.json`` by a new one; returns a notice.

    Images and labels keep their patients. Images that are added later are not
    recognized as of the same patients.
    """
    aside = set_aside(project_file(folder, PROJECT))
    _write_identity(folder)
    return (
        f"{PROJECT} was damaged and was made anew (the old one is {aside}). Images "
        "added from now on do not join the patients that are already there."
    )


# -- settings ------------------------------------------------------------------


_Count = Annotated[int, Field(strict=True, ge=0, le=10_000)]


@dataclass(frozen=True)
class Settings:
    """The settings of a project."""

    title: Annotated[str, Field(max_length=200)] = ""  # shown in the window
    # A name alone: a project from elsewhere must not choose what is read here.
    #: Model that fine-tuning starts from: a name, or ``current``.
    start: ModelName = FinetuneOptions.start
    #: Newly accepted labels after which fine-tuning starts by itself; 0: never.
    finetune_every: _Count = 0
    #: Whether the model in use is adapted to the first labels, without a training.
    adapt: Annotated[bool, Field(strict=True)] = False
    #: Time budget of a training; None: no limit.
    minutes: (
        Annotated[float, Field(strict=True, gt=0, lt=10_000, allow_inf_nan=False)]
        | None
    ) = 10.0
    #: Synthetic frames mixed into a training.
    phantoms: _Count = FinetuneOptions.phantoms
    #: Order of images; see :mod:`napari_cmunet.project.next_image`.
    next_image: Order = LISTED

    def finetune_options(self, chosen: Mapping[str, Any]) -> FinetuneOptions:
        """Return the options of a training: those chosen for it, else the project's."""
        own = FinetuneOptions(
            start=self.start, minutes=self.minutes, phantoms=self.phantoms
        )
        return replace(own, **chosen)


_SETTINGS = TypeAdapter(Settings)
_WORDS = {
    "title": "The title",
    "start": "The start model",
    "finetune_every": "The number of labels until a training",
    "adapt": "Whether the model is adapted",
    "phantoms": "The number of phantoms",
    "next_image": "The order of images",
    "minutes": "The time budget",
}


def load_settings(path: Path) -> tuple[Settings, dict[str, Any]]:
    """Return the settings and the whole file, which may hold a newer program's values.

    Values that are not valid are left at their defaults.

    Raises
    ------
    ProjectDamagedError, ProjectVersionError
    """
    values = read_json(path) or {}
    settings = Settings()
    for name in (f.name for f in fields(Settings)):
        if name in values:
            try:
                settings = _checked(replace(settings, **{name: values[name]}))
            except ProjectError:
                continue
    return settings, values


def save_settings(path: Path, settings: Settings, before: dict[str, Any]) -> None:
    """Write the settings; raises ProjectError if a value is not valid, WriteError."""
    write_json(path, before | {"version": 1} | asdict(_checked(settings)))


def _checked(settings: Settings) -> Settings:
    values = asdict(settings)
    try:
        validate(_SETTINGS, values)
    except ValueError as error:
        name = str(error).partition(":")[0].partition(".")[0]
        raise ProjectError(f"{_WORDS.get(name, name)} is out of range.") from error
    return settings


# -- recent projects -----------------------------------------------------------


def recent_projects() -> list[Path]:
    """Return the folders of recent projects that still exist, the latest first."""
    listed = _recent_folders(_RECENT)
    if listed is None:
        listed = _recent_folders(_FORMER_RECENT) or []
    found = []
    for folder in [Path(t) for t in listed[:RECENT_KEPT] if isinstance(t, str)]:
        try:
            if folder.is_absolute() and is_project(folder):
                found.append(folder)
        except (OSError, ValueError):
            continue
    return found


def _recent_folders(name: str) -> list[Any] | None:
    try:
        values = read_json(user_folder() / name)
    except CMUNetError:  # only a convenience
        return []
    if values is None:
        return None
    folders = values.get("folders")
    return folders if isinstance(folders, list) else []


def note_recent(folder: Path) -> None:
    """Put a project first in the list of recent ones; ignore write errors."""
    folders = [str(f) for f in (folder, *recent_projects())]
    kept = list(dict.fromkeys(folders))[:RECENT_KEPT]
    try:
        make_folder(user_folder())
        write_json(user_folder() / _RECENT, {"version": 1, "folders": kept})
    except CMUNetError:
        return
