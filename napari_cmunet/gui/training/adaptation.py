"""Adapts the model in use to the first labels by itself, without a training.

The labels choose its threshold, its side branches and its grid. The adapted model takes
over if it is better on patients that did not choose, and is discarded if it is not.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_cmunet.errors import Cancelled
from napari_cmunet.gui.jobs import Job, JobResult
from napari_cmunet.model.registry import DEFAULT_MODEL
from napari_cmunet.project.models.promotion import TrainingResult, use_if_better
from napari_cmunet.project.training.worker import TrainingOrder, TrainingProcess
from napari_cmunet.training.events import ENOUGH_PATIENTS
from napari_cmunet.util.cluster import is_address

if TYPE_CHECKING:
    from collections.abc import Callable

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
        self._process: TrainingProcess | None = None
        self._job: Job | None = None

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
        self._tried = patients
        process = self._process = TrainingProcess()
        # It takes seconds: not for a cluster.
        device = "auto" if is_address(self._device()) else self._device()

        def act(_: Report, should_stop: ShouldStop) -> TrainingResult | None:
            return _adapt(project, process, device, should_stop)

        def ended(outcome: JobResult) -> None:
            if process is self._process:
                self._process = None
                if outcome.result is not None:
                    self.promoted.emit(outcome.result)
                self.changed.emit()
                self.on_accepted()  # those that came in meanwhile

        self._job = Job("Adapting the model", act, ended).start()
        self.changed.emit()

    def cancel(self) -> None:
        """End it within two seconds; nothing is kept."""
        process, self._process = self._process, None
        if process is not None and self._job is not None:
            self._job.cancel()
            process.cancel()


def _adapt(
    project: Project, process: TrainingProcess, device: str, should_stop: ShouldStop
) -> TrainingResult | None:
    """The comparison that an adapted model has won; None if there is none."""
    models = project.models
    current = models.current
    if models.is_trained(current):
        return None
    start = current.name
    if not current.installed:  # adapted before: once more from what it was
        start = models.training(current.name).get("start", DEFAULT_MODEL)
    options = {"train": False, "start": start, "device": device}
    run = process.run(TrainingOrder(project.folder, options))
    while True:
        try:
            next(run)
        except StopIteration as end:
            return use_if_better(project, end.value)
        if should_stop():
            run.close()
            raise Cancelled
