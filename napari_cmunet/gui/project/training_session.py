"""The fine-tuning of the project that is open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psygnal import Signal

from napari_cmunet.gui.project import alerts as notices
from napari_cmunet.gui.training.session import TrainingSession

if TYPE_CHECKING:
    from napari_cmunet.gui.project.session import ProjectSession
    from napari_cmunet.project.model_store import ModelVersion
    from napari_cmunet.project.project import Project
    from napari_cmunet.project.promotion import TrainingResult


class Learning:
    """Begins and ends with the project; outlives the panel, as the reader does.

    Parameters
    ----------
    reader : ProjectSession
    """

    #: The reader wants to see how the training ended.
    looked_for = Signal()

    def __init__(self, reader: ProjectSession) -> None:
        self._reader = reader
        self._told: TrainingResult | None = None
        #: None while no project is open, or one that can only be read.
        self.training: TrainingSession | None = None
        reader.opened.connect(self._on_opened)
        reader.closed.connect(self.shut)
        reader.accepted.connect(self._on_accepted)
        reader.taken_back.connect(self._on_taken_back)

    def _on_opened(self, project: Project) -> None:
        self.shut()
        if not project.read_only:
            self.training = TrainingSession(project, device=self._device)
            self.training.model_changed.connect(self._on_model_changed)
            self.training.ended.connect(self._on_ended)
            self.training.changed.connect(self._on_changed)

    def shut(self) -> None:
        """End a training at work, without a question."""
        if self.training is not None:
            self.training.close()
            self.training = None

    def _device(self) -> str:
        return self._reader.controller.choice.device

    def _on_accepted(self, key: object) -> None:
        if self.training is not None:
            self.training.on_accepted(key)

    def _on_taken_back(self, key: object) -> None:
        if self.training is not None:
            self.training.changed.emit()

    def _on_changed(self) -> None:
        self._reader.trying.update()
        if self.training is not None and self.training.result is not self._told:
            self._reader.dismiss("training")  # decided, or another one runs

    def _on_ended(self, result: TrainingResult) -> None:
        """Say so where the reader looks, who may be far from the section by now."""
        reader = self._reader
        verdict = result.verdict
        if verdict is not None:
            reader.note_annotation_time(
                reader.overview.effort.with_training(verdict.patients, verdict.gain_low)
            )
        self._told = result
        notice = notices.training_ended(result, self._look, reader.dismiss)
        if notice is not None and (reader.notice is None or not reader.notice.serious):
            reader.tell(notice)

    def _look(self) -> None:
        self._reader.dismiss("training")
        self.looked_for.emit()

    def _on_model_changed(self, version: ModelVersion) -> None:
        self._reader.use_current_model()
