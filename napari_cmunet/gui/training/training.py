"""The fine-tuning of one open project: start, stop, follow, and which model is in use.

It knows no widget. Whatever reads or writes the project's files runs in a worker; what
the view needs lies in :class:`TrainingState`.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari.qt.threading import create_worker
from psygnal import Signal

from napari_cmunet.errors import CMUNetError
from napari_cmunet.gui.training.outcome import CANCELLED, SAFE, Outcome
from napari_cmunet.gui.training.promotion import (
    PROMOTED,
    REFUSED,
    UNDECIDED,
    Settled,
    figures,
    train,
)
from napari_cmunet.gui.training.run_progress import Progress, after
from napari_cmunet.gui.training.state import TrainingState
from napari_cmunet.gui.training.worker_client import TrainerProcess, TrainingOrder
from napari_cmunet.project.model_store import ModelVersion

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_cmunet.project.project import Project
    from napari_cmunet.training.events import Event

logger = logging.getLogger(__name__)

_CANDIDATES = (UNDECIDED, REFUSED)


@dataclass
class _Run:
    """One training at work."""

    trainer: TrainerProcess
    progress: Progress = field(default_factory=Progress)
    began: float = field(default_factory=time.monotonic)
    settled: Settled | None = None
    worker: Any = None


class Training:
    """Fine-tunes from the labels of an open project, one training at a time.

    Parameters
    ----------
    project : Project
        Open for writing. Close it only after :meth:`shut_down`.
    device : callable
        Asked at each start; see :func:`napari_cmunet.model.device.choose_device`.
    options : tuple of str
        Further options of the command ``finetune``, such as a smaller network.
    """

    #: Something that a view shows has changed.
    changed = Signal()
    #: A training is over; what followed from it.
    ended = Signal(Settled)
    #: Another model is in use.
    model_changed = Signal(ModelVersion)

    def __init__(
        self,
        project: Project,
        *,
        device: Callable[[], str] = lambda: "auto",
        options: tuple[str, ...] = (),
    ) -> None:
        self.project = project
        self.options = options
        self._device = device
        self._run: _Run | None = None
        self._warm: TrainerProcess | None = None
        self._settled: Settled | None = None
        self._problem = ""
        self._acting = 0
        self._begun: set[str] = set()  # hashes of labels that a training began with
        self._learned: set[str] = set()  # and of those that the newest model knows
        self._unused: tuple[ModelVersion, ...] = ()
        self._closed = False
        self._act(self._look_around, self._looked_around)

    # -- state ----------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether a training runs."""
        return self._run is not None

    @property
    def settled(self) -> Settled | None:
        """How the last training of this window ended, and what was decided."""
        return self._settled

    @property
    def candidate(self) -> str:
        """The model of the last training, while it is not in use; empty if none is."""
        settled = self._settled
        if self.running or settled is None or settled.decision not in _CANDIDATES:
            return ""
        name = settled.outcome.model
        return "" if name == self.project.models.current.name else name

    @property
    def process_id(self) -> int | None:
        """Of the trainer, None if none runs."""
        return self._run.trainer.process_id if self._run else None

    def state(self) -> TrainingState:
        """How it stands now. Quick: nothing is read from the disk."""
        project, run = self.project, self._run
        keys = project.labels.keys()
        history = project.models.history
        return TrainingState(
            settings=project.settings,
            labels=len(keys),
            patients=project.progress().patients,
            new_labels=len(self._hashes() - (self._begun if run else self._learned)),
            progress=run.progress if run else None,
            stopping=bool(run and run.trainer.stopping),
            cancelling=bool(run and run.trainer.cancelled),
            settled=self._settled,
            current=history.current,
            can_go_back=history.can_go_back,
            can_go_forward=history.can_go_forward,
            versions=tuple(dict.fromkeys((*history.versions, *self._unused))),
            busy=self._acting > 0,
            problem=self._problem,
        )

    def _hashes(self) -> set[str]:
        labels = self.project.labels
        return {h for key in labels.keys() if (h := labels.hash(*key))}

    # -- training -------------------------------------------------------------

    def start(self) -> bool:
        """Train, as the project's settings say; False if a training runs already."""
        if self._run is not None or self._closed or self.project.read_only:
            return False
        run = self._run = _Run(self._trainer())
        self._settled, self._problem = None, ""
        self._begun |= self._hashes()
        run.worker = create_worker(
            _Task(train, run.trainer, self.project),
            _progress={"desc": "CM-UNet fine-tuning"},
        )
        run.worker.yielded.connect(self._on_event)
        run.worker.returned.connect(self._on_returned)
        run.worker.errored.connect(self._on_errored)
        run.worker.aborted.connect(run.trainer.cancel)
        run.worker.finished.connect(self._on_finished)
        run.worker.start()
        self.changed.emit()
        return True

    def warm_up(self) -> None:
        """Start the trainer's process ahead of time: it imports torch and waits."""
        if self.running or self._closed or self.project.read_only:
            return
        if self._warm is not None and self._warm.order == self._order():
            return  # one that has died, too: it might again, and for ever
        self._cool_down()
        warm = self._warm = TrainerProcess(self._order())

        def launch() -> None:
            with contextlib.suppress(OSError):  # told when a training is wanted
                warm.launch()

        create_worker(launch).start()

    def _order(self) -> TrainingOrder:
        folder, device = self.project.folder, self._device()
        return TrainingOrder(folder, device=device, options=self.options)

    def _is_warm(self) -> bool:
        warm = self._warm
        return (
            warm is not None and warm.order == self._order() and warm.exit_code is None
        )

    def _trainer(self) -> TrainerProcess:
        """The one that is warm, if it fits; else another one."""
        if not self._is_warm():
            self._cool_down()
        warm, self._warm = self._warm, None
        return warm or TrainerProcess(self._order())

    def _cool_down(self) -> None:
        if self._warm is not None:
            self._warm.cancel()
            self._warm = None

    def stop(self) -> None:
        """End the training soon and keep the best model so far."""
        if self._run is not None:
            self._run.trainer.stop()
            self.changed.emit()

    def cancel(self) -> None:
        """End the training within two seconds; nothing of it is kept."""
        if self._run is not None:
            self._run.trainer.cancel()
            self.changed.emit()

    def note_accepted(self, key: object = None) -> None:
        """A label was accepted; so many of them start a training."""
        every = self.project.settings.finetune_every
        waiting = self._hashes() - self._begun - self._learned
        if every and not self.running and len(waiting) >= every:
            self.start()
        self.changed.emit()

    def shut_down(self) -> None:
        """End what runs, without waiting for it. Nothing is told any more."""
        self._closed = True
        for signal in (self.changed, self.ended, self.model_changed):
            signal.disconnect()
        self._cool_down()
        self.cancel()

    # -- from the worker, on the GUI thread -----------------------------------

    def _on_event(self, event: Event | None) -> None:
        if self._run is not None and event is not None:
            self._run.progress = after(self._run.progress, event)
            self.changed.emit()

    def _on_returned(self, settled: Settled) -> None:
        if self._run is not None:
            self._run.settled = settled

    def _on_errored(self, error: Exception) -> None:
        logger.error("The training's worker failed", exc_info=error)
        text = f"The training ended on an unexpected error ({error}). {SAFE}"
        self._on_returned(Settled(Outcome("failed", text)))

    def _on_finished(self) -> None:
        run, self._run = self._run, None
        if run is None:
            return
        settled = run.settled or Settled(Outcome(CANCELLED, f"Cancelled. {SAFE}"))
        self._settled, self._problem = settled, settled.problem
        if self._closed:
            return
        self._act(self._look_around, self._looked_around)
        self.changed.emit()
        self.ended.emit(settled)
        if settled.decision == PROMOTED:
            self.model_changed.emit(self.project.models.current)
        if not settled.outcome.failed and settled.outcome.kind != CANCELLED:
            self.note_accepted()  # those that came in during this training

    # -- which model is in use ------------------------------------------------

    def decide(self, use: bool) -> None:
        """Put the undecided model to use, or keep the present one."""
        name = self.state().undecided
        if not name:
            return
        settled = self._settled
        verdict = settled.outcome.verdict
        details = figures(verdict) if verdict else {}
        models = self.project.models
        if use:
            reason = f"The reader chose it. {settled.outcome.text}"
            self._use(functools.partial(models.promote, name, reason=reason, **details))
        else:
            reason = f"The reader kept the former one. {settled.outcome.text}"
            self._act(functools.partial(models.refuse, name, reason, **details))
        self._settled = Settled(settled.outcome, PROMOTED if use else REFUSED)
        self.changed.emit()

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
        self._act(functools.partial(self.project.change_settings, **changes))

    def _use(self, change: Callable[[], Any]) -> None:
        before = self.project.models.current

        def tell(_: Any) -> None:
            if self.project.models.current != before:
                self.model_changed.emit(self.project.models.current)
            self._act(self._look_around, self._looked_around)

        if not self._acting:
            self._act(change, tell)

    # -- off the GUI thread ---------------------------------------------------

    def _act(
        self, change: Callable[[], Any], then: Callable[[Any], None] = lambda _: None
    ) -> None:
        """Run something in a worker; then tell, or say why it could not be done."""

        def guarded() -> tuple[Any, str]:
            try:
                return change(), ""
            except CMUNetError as error:
                return None, str(error)

        def done(result: tuple[Any, str]) -> None:
            self._acting -= 1
            value, problem = result
            if self._closed:
                return
            if problem:
                self._problem = problem
            else:
                then(value)
            self.changed.emit()

        self._acting += 1
        worker = create_worker(guarded)
        worker.returned.connect(done)
        worker.start()

    def _look_around(self) -> tuple[set[str], tuple[ModelVersion, ...]]:
        """What the newest model has learned from, and models that never were in use."""
        models = self.project.models
        names = models.names()
        learned = models.learned_labels(names[-1]) if names else set()
        used = {v.name for v in models.history.versions if not v.installed}
        unused = [
            ModelVersion(n, models.card(n).sha256) for n in names if n not in used
        ]
        return learned, tuple(unused)

    def _looked_around(self, found: tuple[set[str], tuple[ModelVersion, ...]]) -> None:
        self._learned, self._unused = found


class _Task(functools.partial):
    """A worker's function with words for napari's question before it closes."""

    def __str__(self) -> str:
        return "the fine-tuning of CM-UNet; what it has learned so far would be lost"
