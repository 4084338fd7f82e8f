"""Adapts the model in use to the first labels by itself, without a training.

The labels choose its threshold, its side branches and its grid. The adapted model takes
over if it is better on patients that did not choose, and is discarded if it is not.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_cmunet.gui.jobs import Job, JobResult
from napari_cmunet.project.models.promotion import (
    CANCELLED,
    PROMOTED,
    TrainingResult,
    promote_or_discard,
)
from napari_cmunet.project.training.worker import TrainingOrder, TrainingProcess
from napari_cmunet.training.events import ENOUGH_PATIENTS
from napari_cmunet.training.options import CURRENT
from napari_cmunet.util.cluster import is_address

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_cmunet.errors import CMUNetError
    from napari_cmunet.gui.jobs import Report, ShouldStop
    from napari_cmunet.project.project import Project

GROWTH = 1.5
"""Growth of the number of patients after which it is tried again."""


class ModelAdaptation:
    """Adapts the model of an open project as labels are accepted.

    Only a model that no training of the project has changed: a training sets all this
    itself.

    Parameters
    ----------
    project : Project
        Open for writing.
    device : callable
        Asked each time: one of ``model.device.DEVICES``, or a cluster's address.
    """

    #: It has begun or ended.
    changed = Signal()
    #: An adapted model is in use; the comparison that it won.
    promoted = Signal(TrainingResult)

    def __init__(self, project: Project, device: Callable[[], str]) -> None:
        self._project, self._device = project, device
        self._tried = 0  # patients
        self.why_not = ""
        self._process: TrainingProcess | None = None

    @property
    def running(self) -> bool:
        """Whether a model is being adapted."""
        return self._process is not None

    def on_accepted(self) -> None:
        """Begin if there are enough patients, and enough more than the last time."""
        project = self._project
        if self.running or project.read_only or not project.settings.adapt:
            return
        patients = len(project.reference.patients())
        if patients < max(ENOUGH_PATIENTS, math.ceil(GROWTH * self._tried)):
            return
        if project.models.history.can_go_forward:
            return  # the reader went back to this model
        self._tried, self.why_not = patients, ""
        process = self._process = TrainingProcess()
        # It takes seconds: not for a cluster.
        device = "auto" if is_address(self._device()) else self._device()

        def act(_: Report, should_stop: ShouldStop) -> TrainingResult | None:
            return _adapt(project, process, device, should_stop)

        def ended(outcome: JobResult) -> None:
            if process is self._process:
                self._process = None
            result: TrainingResult | None = outcome.result
            if result is not None and result.verdict is not None:
                # Labels that came in before the process had read them count.
                self._tried = max(self._tried, result.verdict.patients)
            if result is not None and result.decision == PROMOTED:
                self.promoted.emit(result)
            elif not process.cancelled:
                self.why_not = _why_not(result, outcome.error)
            if not process.cancelled:
                self.changed.emit()
                self.on_accepted()  # those that came in meanwhile

        Job("Adapting the model", act, ended).start()
        self.changed.emit()

    def cancel(self, *, again: bool = True) -> None:
        """End it within two seconds; nothing is kept.

        Parameters
        ----------
        again : bool
            Whether the next label may begin it again; else only many more patients do.
        """
        process, self._process = self._process, None
        if process is not None:
            process.cancel()
            if again:
                self._tried = 0
            self.changed.emit()

    def on_settings(self, _: object = None) -> None:
        """End it if the project does not want it any more."""
        if not self._project.settings.adapt:
            self.cancel()

    def pause_briefly(self) -> None:
        """Pause it for a moment: the window is used."""
        if self._process is not None:
            self._process.pause_briefly()


def _adapt(
    project: Project, process: TrainingProcess, device: str, should_stop: ShouldStop
) -> TrainingResult | None:
    """How the adaptation ended; None where it does not apply."""
    if project.models.is_trained(project.models.current):
        return None
    options = {"train": False, "start": CURRENT, "device": device}
    run = process.run(TrainingOrder(project.folder, options))
    while True:
        try:
            next(run)
        except StopIteration as end:
            result: TrainingResult = end.value
            break
        if should_stop():
            process.cancel()
    if process.cancelled:
        result = replace(result, kind=CANCELLED)
    return promote_or_discard(project, result)


def _why_not(result: TrainingResult | None, error: CMUNetError | None) -> str:
    """Why the model in use stays as it is; empty where that goes without saying."""
    if error is not None:
        return f"The model could not be adapted. {error}"
    if result is None:
        return ""
    if result.failed:
        return f"The model could not be adapted. {result.text}"
    return (
        "Your labels chose no better threshold, side branches or grid: the model stays "
        "as it is."
    )
