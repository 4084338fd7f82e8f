"""The fine-tuning of one open project: start, stop, and which model is in use.

Whatever reads or writes the project's files runs in a worker. A view shows a
:class:`~napari_cmunet.gui.training.state.TrainingState`.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari.qt.threading import create_worker
from psygnal import Signal

from napari_cmunet.gui.jobs import Job, JobResult, spare_thread
from napari_cmunet.gui.training.adaptation import ModelAdaptation
from napari_cmunet.gui.training.run import TrainingRun, TrainingTask, train
from napari_cmunet.gui.training.state import (
    TrainingProgress,
    TrainingState,
    progress_after,
)
from napari_cmunet.project.models.history import ModelVersion
from napari_cmunet.project.models.promotion import (
    CANCELLED,
    PROMOTED,
    REFUSED,
    SAFE,
    UNDECIDED,
    TrainingResult,
    figures,
)
from napari_cmunet.project.training.worker import TrainingOrder, TrainingProcess
from napari_cmunet.training.events import OTHER_FAILURE, Planned
from napari_cmunet.util.cluster import is_address

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_cmunet.project.project import Project
    from napari_cmunet.training.events import Event

logger = logging.getLogger(__name__)


class TrainingSession:
    """Fine-tunes from the labels of an open project, one training at a time.

    Parameters
    ----------
    project : Project
        Open for writing. Close it only after :meth:`close`.
    device : callable
        Asked at each start: one of ``model.device.DEVICES``, or a cluster's address.
    options : dict, optional
        Fields of FinetuneOptions beyond those that the project's settings choose.
    """

    #: Something that a view shows has changed.
    changed = Signal()
    #: A training has ended; its result.
    ended = Signal(TrainingResult)
    #: Another model is in use.
    model_changed = Signal(ModelVersion)

    def __init__(
        self,
        project: Project,
        *,
        device: Callable[[], str] = lambda: "auto",
        options: dict[str, Any] | None = None,
    ) -> None:
        self.project = project
        self.options = options or {}
        self._device = device
        self._run: TrainingRun | None = None
        self._prepared: TrainingProcess | None = None
        self._plan: Planned | None = None
        self._planned_for: object = None  # labels and settings
        self._result: TrainingResult | None = None
        self._problem = ""
        self._told = project.models.current  # what a view knows
        self._changes = 0  # of the project, at work
        self._begun: set[str] = set()  # hashes of labels that a training began with
        self._learned: set[str] = set()  # and of those that the newest model knows
        self._unused: tuple[ModelVersion, ...] = ()
        self._closed = False
        self._adaptation = ModelAdaptation(project, self._device)
        self._adaptation.changed.connect(self.changed.emit)
        self._adaptation.promoted.connect(self._on_adapted)
        self._change(self._read_models, self._on_models_read)

    @property
    def running(self) -> bool:
        """Whether a training runs."""
        return self._run is not None

    @property
    def result(self) -> TrainingResult | None:
        """How the last training of this window ended, and what was decided."""
        return self._result

    @property
    def candidate(self) -> str:
        """The model of the last training, while it is not in use; empty if none is."""
        result = self._result
        if self.running or result is None or not result.model:
            return ""
        if result.decision not in (UNDECIDED, REFUSED):
            return ""
        in_use = result.model == self.project.models.current.name
        return "" if in_use else result.model

    def state(self) -> TrainingState:
        """How it stands now. Quick: nothing is read from the disk."""
        project, run = self.project, self._run
        history = project.models.history
        return TrainingState(
            settings=project.settings,
            labels=len(project.reference.keys()),
            patients=len(project.reference.patients()),
            new_labels=len(self._hashes() - (self._begun if run else self._learned)),
            progress=run.progress_now() if run else None,
            stopping=bool(run and run.process.stopping),
            cancelling=bool(run and run.process.cancelled),
            result=self._result,
            current=history.current,
            has_older=history.can_go_back,
            has_newer=history.can_go_forward,
            versions=tuple(dict.fromkeys((*history.versions, *self._unused))),
            busy=self._changes > 0,
            plan=self._plan if self._planned_for == self._plan_key() else None,
            first=run.first if run else None,
            problem=self._problem,
            adapting=self._adaptation.running,
            not_adapted=self._adaptation.why_not,
        )

    def _hashes(self) -> set[str]:
        return self.project.reference.hashes()

    # -- training -------------------------------------------------------------

    def start(self) -> bool:
        """Train, as the project's settings say; False if a training runs already."""
        if self._run is not None or self._closed or self.project.read_only:
            return False
        self._adaptation.cancel()
        minutes = self.options.get("minutes", self.project.settings.minutes)
        limit = 60 * (minutes or math.inf)
        run = self._run = TrainingRun(self._process(), TrainingProgress(limit=limit))
        self._result, self._problem = None, ""
        self._begun |= self._hashes()
        run.worker = create_worker(
            TrainingTask(train, run.process, self._order(), self.project),
            _progress={"desc": "CM-UNet fine-tuning"},
        )
        run.worker.yielded.connect(self._on_event)
        run.worker.returned.connect(self._on_returned)
        run.worker.errored.connect(self._on_errored)
        run.worker.aborted.connect(run.process.cancel)
        run.worker.finished.connect(self._on_finished)
        run.worker.start()
        self.changed.emit()
        return True

    def prepare(self) -> None:
        """Start the process ahead of time: it imports torch, and plans the training."""
        busy = self.running or self._adaptation.running  # a step would be timed wrong
        if busy or self._closed or self.project.read_only or is_address(self._device()):
            return  # the speed of a cluster is not known here
        if self._prepared is None:
            self._prepared = TrainingProcess()
        elif self._planned_for == self._plan_key() or self._prepared.exit_code:
            return  # one that has died, too: it might again, and for ever
        process, order = self._prepared, self._order()
        key = self._planned_for = self._plan_key()
        self._plan = None

        def plan() -> Planned | None:
            with spare_thread(), contextlib.suppress(OSError):
                return process.plan(order)
            return None  # the reason is shown when a training is wanted

        worker = create_worker(plan)
        worker.returned.connect(functools.partial(self._on_planned, key))
        worker.start()

    def _on_planned(self, key: object, plan: Planned | None) -> None:
        if not self._closed and plan is not None and key == self._planned_for:
            self._plan = plan
            self.changed.emit()

    def _plan_key(self) -> object:
        """What a plan depends on."""
        return len(self.project.reference.keys()), self.project.settings, self._device()

    def _order(self) -> TrainingOrder:
        key = "cluster" if is_address(device := self._device()) else "device"
        return TrainingOrder(self.project.folder, {key: device} | self.options)

    def _process(self) -> TrainingProcess:
        """The one that was prepared, if it is there; else another one."""
        process, self._prepared = self._prepared, None
        return process if process and process.exit_code is None else TrainingProcess()

    def stop(self) -> None:
        """End the training soon and keep the best model so far."""
        if self._run is not None:
            self._run.process.stop()
            self.changed.emit()

    def pause_briefly(self) -> None:
        """Pause the training for a moment: a hand paints, drags or scrubs."""
        self._adaptation.pause_briefly()
        if self._run is not None:
            self._run.process.pause_briefly()

    def cancel(self) -> None:
        """End the training or the adaptation within two seconds; nothing is kept."""
        self._adaptation.cancel(again=False)
        if self._run is not None:
            self._run.process.cancel()
            self.changed.emit()

    def on_accepted(self, key: object = None) -> None:
        """A label was accepted; start a training if there are enough new ones."""
        every = self.project.settings.finetune_every
        waiting = self._hashes() - self._begun - self._learned
        if every and not self.running and len(waiting) >= every:
            self.start()
        if not self.running and not self.state().undecided:
            self._adaptation.on_accepted()
        self.changed.emit()

    def close(self) -> None:
        """End what runs, without waiting for it. No signal is emitted any more."""
        self._closed = True
        for signal in (self.changed, self.ended, self.model_changed):
            signal.disconnect()
        if self._prepared is not None:
            self._prepared.cancel()
        self.cancel()

    # -- from the worker, on the GUI thread -----------------------------------

    def _on_event(self, event: Event | TrainingResult | None) -> None:
        if self._run is None or event is None:
            return
        if isinstance(event, TrainingResult):
            self._run.first = event
            self._tell_model()
        else:
            self._run.progress = progress_after(self._run.progress_now(), event)
            self._run.last_event_at = time.monotonic()
        self.changed.emit()

    def _on_returned(self, result: TrainingResult) -> None:
        if self._run is not None:
            self._run.result = result

    def _on_errored(self, error: Exception) -> None:
        logger.error("The training's worker failed", exc_info=error)
        text = f"The training ended on an unexpected error ({error}). {SAFE}"
        self._on_returned(TrainingResult(OTHER_FAILURE, text))

    def _on_finished(self) -> None:
        run, self._run = self._run, None
        if run is None:
            return
        result = run.result or TrainingResult(CANCELLED, f"Cancelled. {SAFE}")
        self._result, self._problem = result, result.problem
        if self._closed:
            return
        self._change(self._read_models, self._on_models_read)
        self.changed.emit()
        self.ended.emit(result)
        self._tell_model()
        if not result.failed and result.kind != CANCELLED:
            self.on_accepted()  # those that came in during this training

    def _on_adapted(self, result: TrainingResult) -> None:
        if not self._closed:
            if not self.running:
                self._result, self._problem = result, result.problem
            self._change(self._read_models, self._on_models_read)
            self._tell_model()

    def _tell_model(self) -> None:
        """Emit ``model_changed`` if another model is in use than was told last."""
        before, self._told = self._told, self.project.models.current
        if self._told != before:
            self.model_changed.emit(self._told)

    # -- which model is in use ------------------------------------------------

    def decide(self, use: bool) -> None:
        """Put the undecided model to use, or keep the present one."""
        name, result = self.state().undecided, self._result
        if not name or result is None:
            return
        models = self.project.models
        details = figures(result.verdict) if result.verdict else {}
        act: Callable[..., object] = models.promote if use else models.refuse
        reason = f"The user {'chose it' if use else 'kept the former'}. {result.text}"
        change = functools.partial(act, name, reason=reason, **details)
        self._use(change, replace(result, decision=PROMOTED if use else REFUSED))

    def back(self) -> None:
        """Use the model before."""
        self._use(self.project.models.roll_back)

    def forward(self) -> None:
        """Use the model after, once gone back."""
        self._use(self.project.models.roll_forward)

    def choose(self, version: ModelVersion) -> None:
        """Use any of the versions."""
        if version != self.project.models.current:
            self._use(functools.partial(self.project.models.choose, version))

    def change_settings(self, **changes: Any) -> None:
        """Change how the project is trained, and keep that with it."""
        change = functools.partial(self.project.change_settings, **changes)
        self._change(change, self._adaptation.on_settings)

    def _use(
        self, change: Callable[[], Any], decided: TrainingResult | None = None
    ) -> None:
        """Change which model is in use, and then what is said of the last training."""
        self._adaptation.cancel()  # it would overrule the choice

        def on_changed(_: Any) -> None:
            self._result, self._problem = decided or self._result, ""
            self._tell_model()
            self._change(self._read_models, self._on_models_read)

        if not self._changes:
            self._change(change, on_changed)

    def _change(
        self, change: Callable[[], Any], then: Callable[[Any], None] = lambda _: None
    ) -> None:
        """Change the project in a worker; show why if that is not possible."""

        def ended(outcome: JobResult) -> None:
            self._changes -= 1
            if self._closed or outcome.cancelled:
                return
            if outcome.error is not None:
                self._problem = str(outcome.error)
            else:
                then(outcome.result)
            self.changed.emit()

        self._changes += 1
        Job("Changing the project", lambda *_: change(), ended).start()

    def _read_models(self) -> tuple[set[str], tuple[ModelVersion, ...]]:
        models = self.project.models
        return models.labels_of_newest(), models.unused_versions()

    def was_used(self, version: ModelVersion) -> bool:
        """Whether a version comes with the program or was in use in the project."""
        return version.installed or version not in self._unused

    def _on_models_read(self, found: tuple[set[str], tuple[ModelVersion, ...]]) -> None:
        self._learned, self._unused = found
