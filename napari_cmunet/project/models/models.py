"""The models of a project: trained, promoted, refused, rolled back.

``models/<name>/`` are ordinary model folders; ``models/current.json`` holds the history
of models in use.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_cmunet.errors import (
    ModelError,
    ProjectDamagedError,
    ProjectError,
    ProjectVersionError,
)
from napari_cmunet.model.card import CARD, ModelCard, is_model_name, read_card
from napari_cmunet.model.registry import WEIGHTS, find_model, list_models
from napari_cmunet.project.files import CURRENT, MODELS, TRAINING, inside, read_json
from napari_cmunet.project.models.history import (
    ModelHistory,
    ModelVersion,
    check_model_name,
    history_from,
)
from napari_cmunet.util.safe_files import (
    hash_file,
    make_folder,
    rename,
    sync_folder,
    write_errors,
    write_json,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari_cmunet.project.lock import ProjectContext

_PARTIAL = re.compile(r"\.partial-[0-9a-f]{16}")
_FORGOTTEN_SECONDS = 3600


class ProjectModels:
    """The models of a project and the history of those in use."""

    def __init__(self, context: ProjectContext) -> None:
        self._context = context
        self.history = ModelHistory()
        self._noted: set[str] = set()  # in the journal as trained

    @property
    def current(self) -> ModelVersion:
        """The model in use."""
        return self.history.current

    def load(self) -> None:
        """Read the history; raises ProjectDamagedError."""
        path = inside(self._context.folder, MODELS, CURRENT)
        self.history = history_from(read_json(path))

    def save(self, history: ModelHistory) -> None:
        """Write a history and take it over; raises WriteError."""
        make_folder(inside(self._context.folder, MODELS))
        path = inside(self._context.folder, MODELS, CURRENT)
        write_json(path, {"version": 1, **history.to_json()})
        self.history = history

    def names(self) -> list[str]:
        """Return the names of the models in the project, sorted."""
        base = inside(self._context.folder, MODELS)
        if not base.is_dir():
            return []
        return sorted(
            p.name
            for p in base.iterdir()
            if is_model_name(p.name) and not p.is_symlink() and (p / CARD).is_file()
        )

    def path(self, name: str) -> Path:
        """Return the folder of a model of this project, whether it exists or not.

        Raises
        ------
        ProjectError
            If the name is not valid.
        """
        return inside(self._context.folder, MODELS, check_model_name(name))

    def new_path(self, name: str) -> Path:
        """Return the folder of a new model; raises ProjectError if it exists."""
        path = self.path(name)
        if path.exists():
            raise ProjectError(f"The project already has a model named '{name}'.")
        return path

    def card(self, name: str) -> ModelCard:
        """Return the card of a model of this project; raises ModelError."""
        folder = self.path(name)
        for part in (CARD, WEIGHTS):
            inside(self._context.folder, MODELS, name, part)
        return read_card(folder)

    def folder(self, version: ModelVersion | None = None) -> Path:
        """Return the folder of a version, by default of the model in use.

        Raises
        ------
        ModelError
            If it is missing, or is another model of the same name.
        """
        version = version or self.current
        if version.installed:
            folder = find_model(check_model_name(version.name))
            card = read_card(folder)
        else:
            folder = self.path(version.name)
            card = self.card(version.name)
        if version.sha256 and card.sha256 != version.sha256:
            raise ModelError(
                f"The model '{version.name}' is not the one that this project used: "
                "its weights differ. Go to another version, or install that one again."
            )
        return folder

    def version(self, name: str, *, installed: bool = False) -> ModelVersion:
        """Return a model as a version of the history, its weights checked; slow.

        Raises
        ------
        ModelError
            If it is damaged or missing.
        """
        folder = self.folder(ModelVersion(name, "", installed))
        card = read_card(folder)
        try:
            sha256 = hash_file(folder / WEIGHTS)
        except OSError as error:
            raise ModelError(f"Model '{name}': its weights cannot be read.") from error
        if sha256 != card.sha256:
            raise ModelError(
                f"Model '{name}' is damaged: its weights do not match its card."
            )
        return ModelVersion(name, card.sha256, installed)

    def free_name(self, kind: str = "tuned") -> str:
        """Return a name that no model of the project has: ``tuned-001`` and so on."""
        base = inside(self._context.folder, MODELS)
        taken = {p.name.casefold() for p in base.iterdir()} if base.is_dir() else set()
        number = 1
        while (name := f"{kind}-{number:03d}").casefold() in taken:
            number += 1
        return name

    @contextlib.contextmanager
    def new_folder(self) -> Iterator[NewModel]:
        """Create a folder to write a model into; it counts once it is finished.

        Needs no lock: nothing that exists is changed.
        """
        base = make_folder(inside(self._context.folder, MODELS))
        made = NewModel(self, base / f".partial-{secrets.token_hex(8)}")
        make_folder(made.folder)
        try:
            yield made
        finally:
            shutil.rmtree(made.folder, ignore_errors=True)

    def clean(self) -> None:
        """Delete old remains of trainings that were killed."""
        base = inside(self._context.folder, MODELS)
        with contextlib.suppress(OSError):
            for path in base.iterdir():
                if not _PARTIAL.fullmatch(path.name) or path.is_symlink():
                    continue
                # A running training may be writing there.
                if abs(time.time() - path.stat().st_mtime) > _FORGOTTEN_SECONDS:
                    shutil.rmtree(path, ignore_errors=True)

    def discard(self, name: str) -> None:
        """Delete a model that never was in use.

        Raises
        ------
        ProjectError
            If it was in use.
        WriteError
        """
        with self._context.writing():
            if any(v.name == name and not v.installed for v in self.history.versions):
                raise ProjectError(f"The model '{name}' was in use and stays.")
            folder = self.path(name)
            aside = folder.with_name(f".partial-{secrets.token_hex(8)}")
            with write_errors(folder), contextlib.suppress(FileNotFoundError):
                rename(folder, aside)
            shutil.rmtree(aside, ignore_errors=True)
            if name in self._noted:
                self._noted.discard(name)
                self._context.journal.append("discarded", model=name)

    def training(self, name: str) -> dict[str, Any]:
        """Return the training record of a model; empty if there is none."""
        try:
            path = inside(self._context.folder, MODELS, name, TRAINING)
            return read_json(path) or {}
        except (ProjectDamagedError, ProjectVersionError):
            return {}

    def _trained_at(self, name: str) -> float:
        with contextlib.suppress(OSError):
            return (self.path(name) / TRAINING).stat().st_mtime
        return 0.0

    def figures(self, name: str) -> dict[str, Any]:
        """Return the results of a training: labels, patients, Dice and so on."""
        figures = self.training(name).get("figures")
        return figures if isinstance(figures, dict) else {}

    def learned_labels(self, name: str) -> set[str]:
        """Return the hashes of the labels that a model was trained or selected on."""
        return _texts(self.training(name).get("labels"), "sha256")

    def is_trained(self, version: ModelVersion) -> bool:
        """Whether its weights were trained in this project, not only adapted."""
        return not version.installed and self.figures(version.name).get("steps") != 0

    def labels_of_newest(self) -> set[str]:
        """Return the hashes of the labels that the newest trained model knows."""
        trained = [n for n in self.names() if self.is_trained(ModelVersion(n))]
        newest = max(trained, key=self._trained_at, default=None)
        return self.learned_labels(newest) if newest else set()

    def unused_versions(self) -> tuple[ModelVersion, ...]:
        """Return installed models and those of the project that never were in use."""
        installed = [(c, f.name) for c, f in list_models() if c.kind == "artery"]
        every = [ModelVersion(name, card.sha256, True) for card, name in installed]
        for name in self.names():
            with contextlib.suppress(ModelError):  # one that is damaged cannot be used
                every.append(ModelVersion(name, self.card(name).sha256))
        used = {(v.name, v.installed) for v in self.history.versions}
        return tuple(v for v in every if (v.name, v.installed) not in used)

    def learned_patients(self, version: ModelVersion) -> set[str]:
        """Return the patients a model, or the model it started from, was trained on.

        Empty for an installed one. Where a former program did not record it, all
        patients of the training.
        """
        if version.installed:
            return set()
        training = self.training(version.name)
        listed = training.get("learned_patients")
        if isinstance(listed, list):
            return {x for x in listed if isinstance(x, str)}
        return _texts(training.get("labels"), "patient")

    def register(self, name: str) -> ModelVersion:
        """Note in the journal that a finished model was trained. Idempotent."""
        version = self._checked(name)
        with self._context.writing():
            if name not in self._noted:
                self._journal("trained", version, self.figures(name))
                self._noted.add(name)
        return version

    def _checked(self, name: str, *, installed: bool = False) -> ModelVersion:
        with self._context.writing():
            pass  # raises if nothing can be written
        return self.version(name, installed=installed)  # slow: not holding the project

    def recover(self, noted: set[str]) -> None:
        """Register models that the journal does not know."""
        self._noted = noted
        for name in self.names():
            if name not in noted:
                with contextlib.suppress(ModelError, ProjectError):
                    self.register(name)

    def promote(
        self, name: str, *, installed: bool = False, **figures: Any
    ) -> ModelVersion:
        """Use a model from now on.

        Parameters
        ----------
        name : str
            Of a model of this project, or of an installed one.
        figures : plain JSON values
            The result of the comparison.

        Raises
        ------
        ModelError
            If the model is damaged; the one in use stays.
        WriteError
        """
        version = self._checked(name, installed=installed)
        with self._context.writing():
            self.save(self.history.with_next(version))
            self._journal("promoted", version, figures)
        return version

    def refuse(self, name: str, reason: str, **figures: Any) -> None:
        """Note that a model is kept but not used, and why."""
        with self._context.writing():
            version = ModelVersion(name, self.card(name).sha256)
            self._journal("refused", version, {"reason": reason[:500], **figures})

    def choose(self, version: ModelVersion, reason: str = "") -> ModelVersion:
        """Use a version of the history, or promote another model of the project.

        Of several positions with this version, the nearest is chosen.
        """
        with self._context.writing():
            places = [n for n, v in enumerate(self.history.versions) if v == version]
            if not places:
                return self.promote(
                    version.name, installed=version.installed, reason=reason
                )
            here = self.history.position
            there = min(places, key=lambda place: abs(place - here))
            step = 1 if there > here else -1
            self.folder(version)
            for _ in range(abs(there - here)):
                self._move(step, reason)
        return self.current

    def roll_back(self, reason: str = "") -> ModelVersion:
        """Use the previous model; raises ProjectError if there is none."""
        return self._move(-1, reason)

    def roll_forward(self, reason: str = "") -> ModelVersion:
        """Use the next model, after rolling back; raises ProjectError if none."""
        return self._move(1, reason)

    def _move(self, by: int, reason: str) -> ModelVersion:
        with self._context.writing():
            moved = self.history.moved(by)
            self.folder(moved.current)  # it may have been deleted
            self.save(moved)
            what = "rolled_forward" if by > 0 else "rolled_back"
            self._journal(what, moved.current, {"reason": reason[:500]})
        return moved.current

    def _journal(
        self, what: str, version: ModelVersion, details: dict[str, Any]
    ) -> None:
        own = {
            "model": version.name,
            "sha256": version.sha256,
            "installed": version.installed,
        }
        self._context.journal.append(what, **details | own)


@dataclass(frozen=True)
class NewModel:
    """A model that is being written."""

    models: ProjectModels
    folder: Path

    def note_training(self, values: dict[str, Any]) -> None:
        """Write the training record; raises WriteError."""
        write_json(self.folder / TRAINING, values)

    def finish(self, name: str) -> Path:
        """Add the model to the project under a name; returns its folder.

        Raises
        ------
        ProjectError
            If the name is taken.
        WriteError
        """
        target = self.models.new_path(name)
        with write_errors(target):
            rename(self.folder, target)
            sync_folder(target.parent)
        return target


def _texts(listed: Any, name: str) -> set[str]:
    """Return the texts of one name in a list of objects; skip what is damaged."""
    return {
        x[name]
        for x in (listed if isinstance(listed, list) else ())
        if isinstance(x, dict) and isinstance(x.get(name), str)
    }
