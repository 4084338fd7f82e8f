"""The fine-tuning of the study that is open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_cmunet.gui.training.training import Training

if TYPE_CHECKING:
    from napari_cmunet.gui.study.reader import StudyReader
    from napari_cmunet.gui.training.settling import Settled
    from napari_cmunet.study.models import ModelVersion
    from napari_cmunet.study.study import Study


class Learning:
    """Begins and ends with the study; outlives the panel, as the reader does.

    Parameters
    ----------
    reader : StudyReader
    """

    def __init__(self, reader: StudyReader) -> None:
        self._reader = reader
        #: None while no study is open, or one that can only be read.
        self.training: Training | None = None
        reader.opened.connect(self._on_opened)
        reader.closed.connect(self.shut)
        reader.accepted.connect(self._on_accepted)
        reader.taken_back.connect(self._on_taken_back)

    def _on_opened(self, study: Study) -> None:
        self.shut()
        if not study.read_only:
            self.training = Training(study, device=self._device)
            self.training.model_changed.connect(self._on_model_changed)
            self.training.ended.connect(self._on_ended)

    def shut(self) -> None:
        """End a training at work, without a question."""
        if self.training is not None:
            self.training.shut_down()
            self.training = None

    def _device(self) -> str:
        return self._reader.controller.choice.device

    def _on_accepted(self, key: object) -> None:
        if self.training is not None:
            self.training.note_accepted(key)

    def _on_taken_back(self, key: object) -> None:
        if self.training is not None:
            self.training.changed.emit()

    def _on_ended(self, settled: Settled) -> None:
        verdict = settled.outcome.verdict
        if verdict is not None:
            effort = self._reader.overview.effort
            self._reader.note_effort(
                effort.with_training(verdict.patients, verdict.gain_low)
            )

    def _on_model_changed(self, version: ModelVersion) -> None:
        self._reader.use_current_model()
