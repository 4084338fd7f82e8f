"""A new model tried on the open image, before it is decided about: before and after.

Nothing is changed by it: neither the mask, nor the prediction, nor which model is used.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_cmunet.errors import Cancelled
from napari_cmunet.gui.images.layers import read_frame, source_array
from napari_cmunet.gui.jobs import Job, JobResult
from napari_cmunet.gui.prediction import ModelChoice
from napari_cmunet.gui.project.difference_layer import Difference, DifferenceLayer
from napari_cmunet.model.threshold import mask_at
from napari_cmunet.project.model_history import ModelVersion

if TYPE_CHECKING:
    from napari_cmunet.gui.images.image_state import ImageState
    from napari_cmunet.gui.prediction import Engine, Source
    from napari_cmunet.gui.project.session import ProjectSession
    from napari_cmunet.project.promotion import TrainingResult


class ModelPreview:
    """Shows what the candidate would find and no longer find in the shown frame.

    Goes on with the images that are opened next, and ends when the candidate is
    decided about, another model is used or another training begins.

    Parameters
    ----------
    session : ProjectSession
    """

    #: Something that a view shows has changed.
    changed = Signal()

    def __init__(self, session: ProjectSession) -> None:
        self._session = session
        #: The model that is tried; empty while none is.
        self.model = ""
        self._result: TrainingResult | None = None
        self._engine: Engine | None = None
        self._image_state: ImageState | None = None
        self._shown: DifferenceLayer | None = None
        self._known: dict[int, tuple[Source, Difference]] = {}
        self._job: Job | None = None
        session.closed.connect(self.stop)

    # -- state ----------------------------------------------------------------

    @property
    def candidate(self) -> str:
        """The newest model, while it is not in use; empty if there is none."""
        training = self._session.training.session
        return training.candidate if training is not None else ""

    def why_not(self) -> str:
        """Why there is nothing to compare now; empty if there is."""
        navigator = self._session.navigator
        if not self.candidate:
            return "There is no new model to compare. Fine-tune first."
        if navigator.opening is not None or not navigator.is_shown:
            return "Open an image of the project to compare on."
        if not navigator.current.image_state.has_prediction(navigator.frame):
            return "This frame is not segmented yet."
        return ""

    def difference(self) -> Difference | None:
        """How the predictions of the shown frame differ; None if not known yet."""
        navigator = self._session.navigator
        if self._image_state is None or not navigator.is_shown:
            return None
        if navigator.current.image_state is not self._image_state:
            return None
        known = self._known.get(navigator.frame)
        return known[1] if known is not None else None

    # -- on and off -----------------------------------------------------------

    def toggle(self) -> None:
        """Begin to compare, or end it."""
        if self.model:
            self.stop()
        elif problem := self.why_not():
            self._session.show_message(problem)
        else:
            self._session.navigator.hide_change()
            self.model = self.candidate
            self._result = self._session.training.session.result
            self.update()
            self.changed.emit()

    def stop(self) -> None:
        """Compare no more."""
        if not self.model:
            return
        self.model, self._engine = "", None
        if self._job is not None:
            self._job.cancel()
        self.put_away()
        self.changed.emit()

    def put_away(self) -> None:
        """Another image is opened: what was shown of this one goes."""
        if self._shown is not None and self._session.controller.viewer is not None:
            self._shown.remove()
        self._shown = self._image_state = None
        self._known.clear()

    # -- comparing ------------------------------------------------------------

    def update(self) -> None:
        """Compare the shown frame, once the model in use has predicted it."""
        if not self.model:
            return
        deleted = self._shown is not None and self._shown.was_deleted
        if deleted or not self.candidate or self._is_decided():
            self.stop()
            return
        if self._job is not None or self.why_not():
            return
        navigator = self._session.navigator
        image_state, frame = navigator.current.image_state, navigator.frame
        if image_state is not self._image_state:
            self.put_away()
            self._image_state = image_state
            self._shown = DifferenceLayer(self._session.controller, image_state)
        source = image_state.sources[frame]
        if (
            image_state.predicted[frame]
            and self._known.get(frame, (None,))[0] != source
        ):
            self._start(image_state, frame, source)

    def _is_decided(self) -> bool:
        return self._session.training.session.result is not self._result

    def _start(self, image_state: ImageState, frame: int, source: Source) -> None:
        controller, project = self._session.controller, self._session.project
        name, device = self.model, controller.choice.device
        data, cine, rgb = (
            source_array(image_state.image),
            image_state.is_cine,
            image_state.image.rgb,
        )
        engine, load = self._engine, controller.queue.load

        def act(_: Any, should_stop: Any) -> tuple[Engine, Any]:
            ready = engine
            if ready is None:
                folder = project.models.folder(ModelVersion(name))
                ready = load(ModelChoice(str(folder), device))
            if should_stop():
                raise Cancelled
            pixels = read_frame(data, frame, cine=cine, rgb=rgb)
            return ready, mask_at(ready.predict(pixels), ready.threshold)

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
            self._session.show_message(f"{name} cannot be compared: {outcome.error}")
        elif wanted and outcome.result is not None and not self._shown.was_deleted:
            self._engine, now = outcome.result
            if image_state.sources.get(frame) == source:
                counts = self._shown.show(frame, image_state.found(frame), now)
                difference = Difference(source.model, name, *counts)
                self._known[frame] = source, difference
        # What came in between is seen to by the next refresh of the panel.
        self._session.changed.emit()
        self.changed.emit()
