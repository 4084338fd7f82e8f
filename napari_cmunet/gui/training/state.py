"""How the fine-tuning of a project stands, as one value for the view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_cmunet.gui.training.promotion import UNDECIDED

if TYPE_CHECKING:
    from napari_cmunet.gui.training.promotion import Settled
    from napari_cmunet.gui.training.run_progress import Progress
    from napari_cmunet.project.model_store import ModelVersion
    from napari_cmunet.project.settings import Settings


@dataclass(frozen=True)
class TrainingState:
    """Everything that a view shows of a project's fine-tuning.

    Parameters
    ----------
    settings : Settings
    labels, patients : int
        That the project has now.
    new_labels : int
        Accepted or changed since the training at work began; while none is, labels
        that the newest model has not seen.
    progress : Progress or None
        None while nothing is trained.
    stopping, cancelling : bool
        What the trainer was asked to do.
    settled : Settled or None
        How the last training of this window ended.
    current : ModelVersion
        The model in use.
    can_go_back, can_go_forward : bool
    versions : tuple of ModelVersion
        Those that can be chosen: of the history, and the project's others.
    busy : bool
        Another model is being put to use.
    problem : str
        Why something could not be done.
    """

    settings: Settings
    labels: int
    patients: int
    new_labels: int
    current: ModelVersion
    progress: Progress | None = None
    stopping: bool = False
    cancelling: bool = False
    settled: Settled | None = None
    can_go_back: bool = False
    can_go_forward: bool = False
    versions: tuple[ModelVersion, ...] = ()
    busy: bool = False
    problem: str = ""

    @property
    def running(self) -> bool:
        """Whether a training runs."""
        return self.progress is not None

    @property
    def undecided(self) -> str:
        """The new model that the reader is to decide about; empty if there is none."""
        settled = self.settled
        if settled is None or settled.decision != UNDECIDED or self.running:
            return ""
        return settled.outcome.model
