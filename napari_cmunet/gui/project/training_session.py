"""The fine-tuning of the project that is open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psygnal import Signal

from napari_cmunet.gui.project import alerts
from napari_cmunet.gui.training.session import TrainingSession

if TYPE_CHECKING:
    from napari_cmunet.gui.project.session import ProjectSession
    from napari_cmunet.project.model_history import ModelVersion
    from napari_cmunet.project.project import Project
    from napari_cmunet.project.promotion import TrainingResult


class ProjectTraining:
    """Begins and ends with the project; outlives the panel, as the reader does.

    Parameters
    ----------
    session : ProjectSession
    """

    #: The reader wants to see how the training ended.
    looked_for = Signal()

    def __init__(self, session: ProjectSession) -> None:
        self._session = session
        self._told: TrainingResult | None = None
        #: None while no project is open, or one that can only be read.
        self.session: TrainingSession | None = None
        session.opened.connect(self._on_opened)
        session.closed.connect(self.shut)
        session.accepted.connect(self._on_accepted)
        session.taken_back.connect(self._on_taken_back)

    def _on_opened(self, project: Project) -> None:
        self.shut()
        if not project.read_only:
            self.session = TrainingSession(project, device=self._device)
            self.session.model_changed.connect(self._on_model_changed)
            self.session.ended.connect(self._on_ended)
            self.session.changed.connect(self._on_changed)

    def shut(self) -> None:
        """End a training at work, without a question."""
        if self.session is not None:
            self.session.close()
            self.session = None

    def _device(self) -> str:
        return self._session.controller.choice.device

    def _on_accepted(self, key: object) -> None:
        if self.session is not None:
            self.session.on_accepted(key)

    def _on_taken_back(self, key: object) -> None:
        if self.session is not None:
            self.session.changed.emit()

    def _on_changed(self) -> None:
        self._session.preview.update()
        if self.session is not None and self.session.result is not self._told:
            self._session.dismiss("training")  # decided, or another one runs

    def _on_ended(self, result: TrainingResult) -> None:
        """Say so where the reader looks, who may be far from the section by now."""
        session = self._session
        verdict = result.verdict
        if verdict is not None:
            session.note_annotation_time(
                session.overview.effort.with_training(
                    verdict.patients, verdict.gain_low
                )
            )
        self._told = result
        alert = alerts.training_ended(result, self._look, session.dismiss)
        if alert is not None and (session.alert is None or not session.alert.serious):
            session.show_alert(alert)

    def _look(self) -> None:
        self._session.dismiss("training")
        self.looked_for.emit()

    def _on_model_changed(self, version: ModelVersion) -> None:
        self._session.use_current_model()
