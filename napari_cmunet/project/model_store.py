"""The models of a project: what was trained, which one is in use, back and forward.

``models/<name>/`` are model folders as everywhere; ``models/current.json`` is the list
of models that were in use, one after the other, and the place in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
import shutil
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from napari_cmunet.errors import ModelError, WriteError
from napari_cmunet.model.registry import (
    CARD,
    DEFAULT_MODEL,
    WEIGHTS,
    ModelCard,
    find_model,
    read_card,
)
from napari_cmunet.project.errors import (
    ProjectDamagedError,
    ProjectError,
    ProjectVersionError,
)
from napari_cmunet.project.files import (
    CURRENT,
    MODELS,
    TRAINING,
    check_relative,
    inside,
    make_folder,
    read_json,
    write_json,
)
from napari_cmunet.util.atomic import sync_folder, write_reason
from napari_cmunet.util.safe_files import open_plain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PARTIAL = re.compile(r"\.partial-[0-9a-f]{16}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_HISTORY = 10_000
_FORGOTTEN_SECONDS = 3600


@dataclass(frozen=True)
class ModelVersion:
    """A model that was or is in use.

    Parameters
    ----------
    name : str
    sha256 : str
        Of its weights; empty where it was not looked at.
    installed : bool
        Whether it comes with the program or was imported, and is not in the project.
    """

    name: str
    sha256: str = ""
    installed: bool = False


@dataclass(frozen=True)
class ModelHistory:
    """The models in use one after the other, and the place of the current one."""

    versions: tuple[ModelVersion, ...] = (ModelVersion(DEFAULT_MODEL, "", True),)
    position: int = 0

    @property
    def current(self) -> ModelVersion:
        """The model in use."""
        return self.versions[self.position]

    @property
    def can_go_back(self) -> bool:
        """Whether there is an older one."""
        return self.position > 0

    @property
    def can_go_forward(self) -> bool:
        """Whether a newer one was left by going back."""
        return self.position + 1 < len(self.versions)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        listed = [asdict(v) for v in self.versions]
        return {"history": listed, "position": self.position}

    def with_next(self, version: ModelVersion) -> ModelHistory:
        """The history after a promotion; what was ahead is no longer."""
        past = self.versions[: self.position + 1][-_MAX_HISTORY + 1 :]
        return ModelHistory((*past, version), len(past))

    def moved(self, by: int) -> ModelHistory:
        """The history one back or forward; raises ProjectError at its ends."""
        if not 0 <= self.position + by < len(self.versions):
            way = "an older" if by < 0 else "a newer"
            raise ProjectError(f"There is no {way} model to go to.")
        return ModelHistory(self.versions, self.position + by)


class ModelStore:
    """The model folders of a project and their history.

    Parameters
    ----------
    folder : Path
        Of the project.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.history = ModelHistory()

    def load(self) -> None:
        """Read the history; raises ProjectDamagedError."""
        self.history = history_from(read_json(inside(self._folder, MODELS, CURRENT)))

    def save(self, history: ModelHistory) -> None:
        """Write the history and take it over; raises WriteError."""
        make_folder(inside(self._folder, MODELS))
        write_json(
            inside(self._folder, MODELS, CURRENT),
            {"version": 1, **history.to_json()},
        )
        self.history = history

    def names(self) -> list[str]:
        """Names of the models in the project, the oldest first as far as names tell."""
        base = inside(self._folder, MODELS)
        if not base.is_dir():
            return []
        return sorted(
            p.name
            for p in base.iterdir()
            if _NAME.fullmatch(p.name) and not p.is_symlink() and (p / CARD).is_file()
        )

    def folder(self, name: str) -> Path:
        """The folder of a model of the project; raises ProjectError."""
        _check_name(name)
        return inside(self._folder, MODELS, name)

    def card(self, name: str) -> ModelCard:
        """A model's card; raises ModelError."""
        folder = self.folder(name)
        for part in (CARD, WEIGHTS):
            inside(self._folder, MODELS, name, part)
        return read_card(folder)

    def training(self, name: str) -> dict[str, Any]:
        """What is noted about how a model was trained; empty if nothing is."""
        try:
            return read_json(inside(self._folder, MODELS, name, TRAINING)) or {}
        except (ProjectDamagedError, ProjectVersionError):
            return {}

    def find(self, version: ModelVersion) -> Path:
        """The folder of a version, whether in the project or installed.

        Raises
        ------
        ModelError
            If it is not there, or is another model of the same name.
        """
        if version.installed:
            _check_name(version.name)
            folder = find_model(version.name)
            card = read_card(folder)
        else:
            folder = self.folder(version.name)
            card = self.card(version.name)
        if version.sha256 and card.sha256 != version.sha256:
            raise ModelError(
                f"The model '{version.name}' is not the one that this project used: its "
                "weights differ. Go to another version, or install that one again."
            )
        return folder

    def version(self, name: str, *, installed: bool = False) -> ModelVersion:
        """Name a model for the history, its weights checked.

        Raises
        ------
        ModelError
            If it is damaged or not there.
        """
        folder = self.find(ModelVersion(name, "", installed))
        card = read_card(folder)
        digest = hashlib.sha256()
        try:
            with open_plain(folder / WEIGHTS) as file:
                while piece := file.read(2**22):
                    digest.update(piece)
        except OSError as error:
            raise ModelError(f"Model '{name}': its weights cannot be read.") from error
        if digest.hexdigest() != card.sha256:
            raise ModelError(
                f"Model '{name}' is damaged: its weights are not what its card says."
            )
        return ModelVersion(name, card.sha256, installed)

    def free_name(self, stem: str = "tuned") -> str:
        """A name that no model of the project has: ``tuned-001`` and so on."""
        base = inside(self._folder, MODELS)
        taken = {p.name.casefold() for p in base.iterdir()} if base.is_dir() else set()
        number = 1
        while (name := f"{stem}-{number:03d}").casefold() in taken:
            number += 1
        return name

    @contextlib.contextmanager
    def new_folder(self) -> Iterator[NewModel]:
        """Make a folder to write a model into, which counts once it is finished.

        Needs no lock: nothing that is there is touched.
        """
        base = make_folder(inside(self._folder, MODELS))
        made = NewModel(self, base / f".partial-{secrets.token_hex(8)}")
        make_folder(made.folder)
        try:
            yield made
        finally:
            shutil.rmtree(made.folder, ignore_errors=True)

    def remove(self, name: str) -> None:
        """Remove a model of the project, whole or not at all; raises WriteError."""
        folder = self.folder(name)
        aside = folder.with_name(f".partial-{secrets.token_hex(8)}")
        try:
            _rename(folder, aside)
        except FileNotFoundError:
            return
        except OSError as error:
            raise WriteError(folder, write_reason(error)) from error
        shutil.rmtree(aside, ignore_errors=True)

    def clean(self) -> None:
        """Remove what trainings that were killed left behind, once it is old."""
        base = inside(self._folder, MODELS)
        with contextlib.suppress(OSError):
            for path in base.iterdir():
                if not _PARTIAL.fullmatch(path.name) or path.is_symlink():
                    continue
                # A training that runs now may be writing there.
                if abs(time.time() - path.stat().st_mtime) > _FORGOTTEN_SECONDS:
                    shutil.rmtree(path, ignore_errors=True)


@dataclass(frozen=True)
class NewModel:
    """A model that is being written."""

    store: ModelStore
    folder: Path

    def note_training(self, values: dict[str, Any]) -> None:
        """Say how it was trained, and on which labels; raises WriteError."""
        write_json(self.folder / TRAINING, values)

    def finish(self, name: str) -> Path:
        """Let it be a model of the project; returns its folder.

        Raises
        ------
        ProjectError
            If there is one of that name.
        WriteError
        """
        target = self.store.folder(name)
        if target.exists():
            raise ProjectError(f"The project already has a model named '{name}'.")
        try:
            _rename(self.folder, target)
            sync_folder(target.parent)
        except OSError as error:
            raise WriteError(target, write_reason(error)) from error
        return target


def _rename(source: Path, target: Path) -> None:
    for pause in (0.05, 0.2, 0.5):  # Windows: a virus scanner looks at new files
        try:
            source.rename(target)
            return
        except PermissionError:
            time.sleep(pause)
    source.rename(target)


def _check_name(name: str) -> None:
    try:
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name[-1] == ".":
            raise ValueError
        check_relative(name)
    except ValueError:
        raise ProjectError(
            "A model's name has letters, digits, dots and dashes alone, 64 at most."
        ) from None


def history_from(values: dict[str, Any] | None) -> ModelHistory:
    """Rebuild from ``to_json``; raises ProjectDamagedError."""
    if values is None:
        return ModelHistory()
    damaged = ProjectDamagedError(f"In the project, {MODELS}/{CURRENT} is damaged.")
    listed, position = values.get("history"), values.get("position")
    if not isinstance(listed, list) or not 0 < len(listed) <= _MAX_HISTORY:
        raise damaged
    versions = []
    for item in listed:
        if not isinstance(item, dict):
            raise damaged
        name, sha256 = item.get("name"), item.get("sha256")
        installed = item.get("installed")
        try:
            _check_name(name)
        except ProjectError:
            raise damaged from None
        hashed = isinstance(sha256, str) and (not sha256 or _SHA256.fullmatch(sha256))
        if not hashed or type(installed) is not bool:
            raise damaged
        versions.append(ModelVersion(name, sha256, installed))
    if type(position) is not int or not 0 <= position < len(versions):
        raise damaged
    return ModelHistory(tuple(versions), position)
