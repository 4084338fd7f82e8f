"""Which model an open project uses: promoted, refused, back and forward."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from napari_cmunet.errors import ModelError
from napari_cmunet.model.registry import read_card
from napari_cmunet.project.errors import ProjectError
from napari_cmunet.project.model_store import ModelHistory, ModelStore, ModelVersion

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from napari_cmunet.model.registry import ModelCard
    from napari_cmunet.project.model_store import NewModel
    from napari_cmunet.project.session import Session


class ProjectModels:
    """The models of a project and the one in use."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.store = ModelStore(session.folder)
        self._noted: set[str] = set()  # in the journal as trained

    @property
    def history(self) -> ModelHistory:
        """The models in use one after the other."""
        return self.store.history

    @property
    def current(self) -> ModelVersion:
        """The model in use."""
        return self.store.history.current

    def names(self) -> list[str]:
        """Names of the models that were trained in this project."""
        return self.store.names()

    def card(self, name: str) -> ModelCard:
        """The card of a model of this project; raises ModelError."""
        return self.store.card(name)

    def folder(self, version: ModelVersion | None = None) -> Path:
        """The folder of the model in use, or of another version.

        Raises
        ------
        ModelError
            If it is not there any more, or is not the same model.
        """
        return self.store.find(version or self.current)

    def training(self, name: str) -> dict[str, Any]:
        """How a model of this project was trained; empty if that is not noted."""
        return self.store.training(name)

    def free_name(self) -> str:
        """A name for the next model."""
        return self.store.free_name()

    def new_folder(self) -> AbstractContextManager[NewModel]:
        """See :meth:`ModelStore.new_folder`; possible without the lock."""
        return self.store.new_folder()

    def register(self, name: str) -> ModelVersion:
        """Note in the journal that a model was trained, and how; twice is once.

        Parameters
        ----------
        name : str
            Of a finished model folder of this project.
        """
        version = self._checked(name)
        with self._session.writing():
            if name not in self._noted:
                self._journal("trained", version, self.figures(name))
                self._noted.add(name)
        return version

    def _checked(self, name: str, *, installed: bool = False) -> ModelVersion:
        """A model for the history; hashed while nobody has to wait for the project."""
        with self._session.writing():
            pass  # raises if nothing can be written at all
        return self.store.version(name, installed=installed)

    def figures(self, name: str) -> dict[str, Any]:
        """What a training came to: labels, patients, Dice, seconds and the like."""
        figures = self.training(name).get("figures")
        return figures if isinstance(figures, dict) else {}

    def recover(self, noted: set[str]) -> None:
        """Note models that the journal does not know."""
        self._noted = noted
        for name in self.names():
            if name not in noted:
                with contextlib.suppress(ModelError, ProjectError):
                    self.register(name)

    def promote(
        self, name: str, *, installed: bool = False, **figures: Any
    ) -> ModelVersion:
        """Put a model to use.

        Parameters
        ----------
        name : str
            Of a model of this project, or of an installed one.
        figures : plain JSON values
            What was compared, and how it came out.

        Raises
        ------
        ModelError
            If the model is damaged; the one in use stays.
        WriteError
        """
        version = self._checked(name, installed=installed)
        with self._session.writing():
            self.store.save(self.history.with_next(version))
            self._journal("promoted", version, figures)
        return version

    def refuse(self, name: str, reason: str, **figures: Any) -> None:
        """Note that a model is kept but not put to use, and why."""
        with self._session.writing():
            version = ModelVersion(name, self.store.card(name).sha256)
            self._journal("refused", version, {"reason": reason[:500], **figures})

    def choose(self, version: ModelVersion, reason: str = "") -> ModelVersion:
        """Use any version of the history, or a model of the project.

        The nearest place in the history is gone to; what is not in it is promoted.
        """
        with self._session.writing():
            places = [n for n, v in enumerate(self.history.versions) if v == version]
            if not places:
                return self.promote(
                    version.name, installed=version.installed, reason=reason
                )
            here = self.history.position
            there = min(places, key=lambda place: abs(place - here))
            step = 1 if there > here else -1
            self.store.find(version)
            for _ in range(abs(there - here)):
                self._move(
                    step, "rolled_forward" if step > 0 else "rolled_back", reason
                )
        return self.current

    def roll_back(self, reason: str = "") -> ModelVersion:
        """Use the model before; raises ProjectError if there is none."""
        return self._move(-1, "rolled_back", reason)

    def roll_forward(self, reason: str = "") -> ModelVersion:
        """Use the model after, once gone back; raises ProjectError if there is none."""
        return self._move(1, "rolled_forward", reason)

    def _move(self, by: int, what: str, reason: str) -> ModelVersion:
        with self._session.writing():
            moved = self.history.moved(by)
            self.store.find(moved.current)  # it may have been deleted
            self.store.save(moved)
            self._journal(what, moved.current, {"reason": reason[:500]})
        return moved.current

    def learned_labels(self, name: str) -> set[str]:
        """Hashes of the label files that a model learned from or was chosen by."""
        labels = self.store.training(name).get("labels")
        listed: Iterable[Any] = labels if isinstance(labels, list) else ()
        return {
            x["sha256"]
            for x in listed
            if isinstance(x, dict) and isinstance(x.get("sha256"), str)
        }

    def learned_patients(self, version: ModelVersion) -> set[str]:
        """Patients that a model learned from, by itself or through where it started.

        Empty for an installed one, which comes from elsewhere. Where an older program
        did not note it, every patient of the training counts.
        """
        if version.installed:
            return set()
        training = self.store.training(version.name)
        listed = training.get("learned_patients")
        if isinstance(listed, list):
            return {x for x in listed if isinstance(x, str)}
        labels = training.get("labels")
        return {
            x["patient"]
            for x in (labels if isinstance(labels, list) else ())
            if isinstance(x, dict) and isinstance(x.get("patient"), str)
        }

    def discard(self, name: str) -> None:
        """Remove a model that never was in use; raises ProjectError if it was."""
        with self._session.writing():
            if any(v.name == name and not v.installed for v in self.history.versions):
                raise ProjectError(f"The model '{name}' was in use and stays.")
            self.store.remove(name)
            if name in self._noted:
                self._noted.discard(name)
                self._session.journal.append("discarded", model=name)

    def describe(self) -> list[tuple[ModelVersion, ModelCard | None]]:
        """The history with each model's card, None where it is gone or damaged."""
        described: list[tuple[ModelVersion, ModelCard | None]] = []
        for version in self.history.versions:
            try:
                card = read_card(self.store.find(version))
            except (ModelError, ProjectError):
                card = None
            described.append((version, card))
        return described

    def _journal(
        self, what: str, version: ModelVersion, details: dict[str, Any]
    ) -> None:
        self._session.journal.append(
            what,
            **details
            | {
                "model": version.name,
                "sha256": version.sha256,
                "installed": version.installed,
            },
        )
