"""The fine-tuning of the open project, and a preview of the model that it gave.

A preview changes neither the mask, nor the prediction, nor the model in use.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_cmunet.errors import Cancelled
from napari_cmunet.gui.images.layers import Frames
from napari_cmunet.gui.jobs import Job, JobResult
from napari_cmunet.gui.prediction.prediction import ModelChoice
from napari_cmunet.gui.project import alerts
from napari_cmunet.gui.project.difference_layer import (
    Difference,
    DifferenceLayer,
    ModelChange,
)
from napari_cmunet.gui.training.session import TrainingSession
from napari_cmunet.model.threshold import mask_at
from napari_cmunet.project.models.history import ModelVersion

if TYPE_CHECKING:
    from napari_cmunet.gui.images.image_state import ImageState
    from napari_cmunet.gui.prediction.prediction import Engine, Source
    from napari_cmunet.gui.project.images.navigator import Navigator
    from napari_cmunet.gui.project.workspace import Workspace
    from napari_cmunet.project.models.promotion import TrainingResult
    from napari_cmunet.project.project import Project


@dataclass(frozen=True)
class PreviewState:
    """The comparison of a new model on the open image, as shown."""

    possible: bool
    on: bool
    tip: str
    text: str = ""


class ProjectTraining:
    """Fine-tuning of the open project, and the alert when it has ended."""

    #: The user wants to see how the training ended.
    result_wanted = Signal()
    #: The training has changed.
    changed = Signal()
    #: Another model is in use.
    model_changed = Signal(ModelVersion)

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._shown: TrainingResult | None = None
        #: None while no project is open, or one that is read-only.
        self.session: TrainingSession | None = None

    def open(self, project: Project) -> None:
        """Get ready to train on a project, unless it is read-only or read blind."""
        self.close()
        if not project.read_only and not project.is_blind:
            self.session = TrainingSession(project, device=self._device)
            self.session.model_changed.connect(self.model_changed.emit)
            self.session.ended.connect(self._on_ended)
            self.session.changed.connect(self._on_changed)

    @property
    def result(self) -> TrainingResult | None:
        """The result that waits for a decision."""
        return self.session.result if self.session is not None else None

    def close(self) -> None:
        """Stop a running training, without a question."""
        if self.session is not None:
            self.session.close()
            self.session = None

    def _device(self) -> str:
        return self._workspace.controller.choice.device

    def pause_briefly(self) -> None:
        """Pause a running training for a moment: the window is used."""
        if self.session is not None:
            self.session.pause_briefly()

    def on_accepted(self, key: object) -> None:
        """A label was accepted."""
        if self.session is not None:
            self.session.on_accepted(key)

    def on_withdrawn(self, key: object) -> None:
        """A label was withdrawn."""
        if self.session is not None:
            self.session.changed.emit()

    def _on_changed(self) -> None:
        self.changed.emit()
        if self.session is not None and self.session.result is not self._shown:
            self._workspace.messages.dismiss("training")

    def _on_ended(self, result: TrainingResult) -> None:
        workspace = self._workspace
        verdict = result.verdict
        if verdict is not None:
            time = workspace.overview.annotation_time
            workspace.set_annotation_time(
                time.with_training(verdict.patients, verdict.gain_low)
            )
        self._shown = result
        alerts.training_ended(workspace.messages, result, self._show_result)

    def _show_result(self) -> None:
        self._workspace.messages.dismiss("training")
        self.result_wanted.emit()


class ModelPreview:
    """Shows how the predictions of another model differ in the shown frame.

    The comparison with a new model that is not in use yet ends when that is
    accepted or refused, another model is chosen or another training starts.
    """

    #: Something that a view shows has changed.
    changed = Signal()

    def __init__(
        self, workspace: Workspace, navigator: Navigator, training: ProjectTraining
    ) -> None:
        self._workspace, self._navigator = workspace, navigator
        self._training = training
        #: The model that is compared; empty while none is.
        self.model = ""
        self._result: TrainingResult | None = None
        self._engine: Engine | None = None
        self._image_state: ImageState | None = None
        self._shown: DifferenceLayer | None = None
        #: Differences to the former model, after another one was chosen.
        self.change: ModelChange | None = None
        self._known: dict[int, tuple[Source, Difference]] = {}
        self._job: Job | None = None

    # -- state ----------------------------------------------------------------

    @property
    def candidate(self) -> str:
        """The newest model, while it is not in use; empty if there is none."""
        training = self._training.session
        return training.candidate if training is not None else ""

    def why_not(self) -> str:
        """Why there is nothing to compare now; empty if there is."""
        navigator, opened = self._navigator, self._navigator.shown
        if not self.candidate:
            return "There is no new model to compare. Fine-tune first."
        if navigator.opening is not None or opened is None:
            return "Open an image of the project to compare on."
        if not opened.image_state.has_prediction(navigator.frame):
            return "This frame is not segmented yet."
        return ""

    def difference(self) -> Difference | None:
        """Difference of the predictions of the shown frame; None if not known yet."""
        opened = self._navigator.shown
        if opened is None or opened.image_state is not self._image_state:
            return None
        known = self._known.get(self._navigator.frame)
        return known[1] if known is not None else None

    def state(self) -> PreviewState | None:
        """What is shown of the comparison; None if there is no new model."""
        if not self.candidate:
            return None
        on, why_not, text = bool(self.model), self.why_not(), ""
        d = self.difference()
        if on and d is None:
            text = why_not or "Comparing…"
        elif on and d is not None and d.found == d.gone == 0:
            text = f"Here {d.now} would find exactly what {d.before} has found."
        elif on and d is not None:
            text = (
                f"Here {d.now} would find {d.found} pixels more (yellow) than "
                f"{d.before} and {d.gone} no more (violet). Your mask is not touched."
            )
        tip = (
            f"Show what {self.candidate} would find in the open image, and in those "
            "you open next, without using it (I)"
        )
        return PreviewState(on or not why_not, on, why_not or tip, text)

    # -- on and off -----------------------------------------------------------

    def toggle(self) -> None:
        """Start or stop the comparison."""
        if self.model:
            self.stop()
        elif problem := self.why_not():
            self._workspace.messages.show(problem)
        else:
            self.hide_change()
            self.model = self.candidate
            self._result = self._training.result
            self.update()
            self.changed.emit()

    def stop(self) -> None:
        """Stop the comparison."""
        if not self.model:
            return
        self.model, self._engine = "", None
        if self._job is not None:
            self._job.cancel()
        self._clear()
        self.changed.emit()

    def _clear(self) -> None:
        """Remove what is shown of the new model."""
        if self._shown is not None:
            self._shown.remove()
        self._shown = self._image_state = None
        self._known.clear()

    def on_image_left(self) -> None:
        """Remove all differences: another image is being opened, or this one closed."""
        if self.change is not None:
            self.change.hide()
            self.change = None
        self._clear()

    # -- another model in use -------------------------------------------------

    def on_model(self) -> None:
        """Another model was chosen; see ``ProjectSession.use_current_model``."""
        controller, opened = self._workspace.controller, self._navigator.current
        self.stop()
        if opened is not None and opened.image_state.sources:
            origins = opened.image_state.origins
            for frame in opened.image_state.sources:
                if frame not in origins:
                    origins[frame] = opened.provenance(frame)
            controller.queue.remove(opened.image_state)
            if self.change is None:
                self.change = ModelChange(controller, opened.image_state)
            else:
                self.change.restart()
            opened.image_state.discard_predictions()
            controller.queue.add(opened.image_state, first=True)
            controller.start_next()

    def hide_change(self) -> None:
        """Hide the differences to the former model."""
        if self.change is not None:
            self.change.hide()
            self._workspace.changed.emit()

    def use_new_prediction(self) -> None:
        """Replace the shown frame's mask by the new prediction. Can be undone."""
        opened = self._navigator.shown
        if opened is not None and self.change is not None:
            frame = self._navigator.frame
            self._workspace.controller.editor.reset_frame()
            self.change.accept(frame)
            self.hide_change()

    # -- comparing ------------------------------------------------------------

    def update(self) -> None:
        """Compare the shown frame, once the model in use has predicted it."""
        if not self._navigator.is_shown:
            self.on_image_left()
        elif self.change is not None:
            self.change.update(self._navigator.frame)
        if not self.model:
            return
        deleted = self._shown is not None and self._shown.was_deleted
        decided = self._training.result is not self._result
        if deleted or not self.candidate or decided:
            self.stop()
            return
        if self._job is not None or self.why_not():
            return
        opened, frame = self._navigator.shown, self._navigator.frame
        assert opened is not None
        image_state = opened.image_state
        if image_state is not self._image_state:
            self._clear()
            self._image_state = image_state
            self._shown = DifferenceLayer(self._workspace.controller, image_state)
        source = image_state.sources[frame]
        if (
            image_state.predicted[frame]
            and self._known.get(frame, (None,))[0] != source
        ):
            self._start(image_state, frame, source)

    def _layer(self) -> DifferenceLayer | None:
        """The layer that shows the difference, unless the user has deleted it."""
        shown = self._shown
        return None if shown is None or shown.was_deleted else shown

    def _start(self, image_state: ImageState, frame: int, source: Source) -> None:
        controller, project = self._workspace.controller, self._workspace.project
        assert project is not None
        models = project.models
        name, device = self.model, controller.choice.device
        frames = Frames.of(image_state.image)
        engine, load = self._engine, controller.queue.load

        def act(_: Any, should_stop: Any) -> tuple[Engine, Any]:
            ready = engine
            if ready is None:
                folder = models.folder(ModelVersion(name))
                ready = load(ModelChoice(str(folder), device))
            if should_stop():
                raise Cancelled
            return ready, mask_at(ready.predict(frames[frame]), ready.threshold)

        ended = partial(self._on_compared, name, image_state, frame, source)
        self._job = Job("Comparing the models", act, ended)
        self._job.start()

    def _on_compared(
        self,
        name: str,
        image_state: ImageState,
        frame: int,
        source: Source,
        outcome: JobResult,
    ) -> None:
        self._job = None
        wanted = name == self.model and image_state is self._image_state
        if wanted and outcome.error is not None:
            self.stop()
            self._workspace.messages.show(f"{name} cannot be compared: {outcome.error}")
        elif wanted and outcome.result is not None and (shown := self._layer()):
            self._engine, now = outcome.result
            if image_state.sources.get(frame) == source:
                if self._engine.tells_contrast:
                    now &= ~image_state.seen_before[frame]
                counts = shown.show(frame, image_state.found(frame), now)
                difference = Difference(source.model, name, *counts)
                self._known[frame] = source, difference
        # What came in between is seen to by the next refresh of the panel.
        self._workspace.changed.emit()
        self.changed.emit()
