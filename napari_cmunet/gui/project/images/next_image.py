"""The next image: scores for active learning, and reading and predicting it ahead.

Which image comes next is decided in :mod:`napari_cmunet.project.next_image`.
"""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_cmunet.errors import Cancelled, CMUNetError
from napari_cmunet.gui.jobs import Job, JobResult
from napari_cmunet.gui.project.images.open_image import (
    LoadedImage,
    OpenImage,
    load_image,
)
from napari_cmunet.project.next_image import UNSURE

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_cmunet.gui.jobs import Report, ShouldStop
    from napari_cmunet.gui.prediction.prediction import EngineFactory, ModelChoice
    from napari_cmunet.gui.project.workspace import Workspace
    from napari_cmunet.project.project import Project

_SAVE_EVERY = 20
_LOOK_EVERY = 0.1


class ImageOrder:
    """The order of images, scored in the background if the order is by score.

    Scoring waits while anything is predicted, so that the open image comes first.
    """

    #: More images are scored.
    changed = Signal()
    #: Another order was chosen.
    order_changed = Signal()

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._job: Job | None = None
        #: Why the images cannot be scored; empty if they can.
        self.problem = ""

    @property
    def order(self) -> str:
        """Order of images in the open project."""
        project = self._workspace.project
        return "" if project is None else project.settings.next_image

    @property
    def scored(self) -> tuple[int, int]:
        """Number of images scored with the model in use, and of all to be scored."""
        project = self._workspace.project
        if project is None:
            return 0, 0
        scores = project.acquisition_scores()
        labelled = {image for image, _ in project.labels.keys()}
        return len(scores), len((set(project.images.ids()) - labelled) | set(scores))

    def choose(self, order: str) -> None:
        """Change the order; it is saved with the project."""
        project = self._workspace.writable
        if project is not None:
            self._workspace.writer.submit(
                lambda: project.change_settings(next_image=order),
                lambda _: self._on_chosen(),
                self._workspace.messages.show_error,
            )

    def _on_chosen(self) -> None:
        self.order_changed.emit()
        self.score()
        self._workspace.changed.emit()

    def score(self) -> None:
        """Score the images not scored with the model in use, if the order needs it."""
        self.stop()
        project, controller = self._workspace.writable, self._workspace.controller
        if project is None or project.is_blind or self.order != UNSURE:
            return
        runner, choice = controller.queue, controller.choice

        def act(report: Report, should_stop: ShouldStop) -> None:
            score_images(
                project,
                runner.load,
                choice,
                busy=lambda: runner.running,
                report=report,
                should_stop=should_stop,
            )

        self.problem = ""
        self._job = job = Job("Scoring images", act, lambda o: self._ended(job, o))
        job.changed.connect(self.changed.emit)
        job.start()

    def stop(self) -> None:
        """Stop scoring."""
        if self._job is not None:
            self._job.cancel()
            self._job = None

    def _ended(self, job: Job, outcome: JobResult) -> None:
        if job is not self._job:
            return
        self._job = None
        if outcome.error is not None:
            self.problem = str(outcome.error)
        self.changed.emit()


def score_images(
    project: Project,
    factory: EngineFactory,
    choice: ModelChoice,
    *,
    busy: Callable[[], bool],
    report: Report,
    should_stop: ShouldStop,
) -> None:
    """Score the middle frame of each image without a label. Runs in a worker.

    Parameters
    ----------
    factory : callable
        Loads another copy of the model, since the window's own may be in use.
    busy : callable
        Scoring waits while this returns True.

    Raises
    ------
    Cancelled
    CMUNetError
        If the model cannot be loaded.
    """
    from napari_cmunet.io.images import read_angiogram
    from napari_cmunet.model.threshold import mask_at
    from napari_cmunet.vessels.uncertainty import expected_gain

    labelled = {image for image, _ in project.labels.keys()}
    known = project.acquisition_scores()
    todo = [i for i in project.images.ids() if i not in labelled and i not in known]
    inverted = {
        image
        for image, frame in project.drafts.keys()
        if (draft := project.drafts.load(image, frame)) and draft.provenance.inverted
    }
    model, engine = project.model_sha256(), None
    try:
        for number, image in enumerate(todo):
            while busy() and not should_stop():
                time.sleep(_LOOK_EVERY)
            if should_stop():
                raise Cancelled
            engine = engine or factory(choice)
            # A file that cannot be read is reported when it is opened.
            with suppress(CMUNetError, OSError, ValueError):
                angiogram = read_angiogram(project.images.found_path(image))
                chosen = project.is_inverted(image)
                if image in inverted if chosen is None else chosen:
                    angiogram = angiogram.inverted()
                frames = angiogram.frames
                frame = frames[(len(frames) - 1) // 2]
                probability = engine.predict(frame)
                mask = mask_at(probability, engine.threshold)
                gain = expected_gain(frame, probability, mask)
                project.add_scores(model, {image: gain})
            if number % _SAVE_EVERY == _SAVE_EVERY - 1:
                project.save_scores()
            report(number + 1, len(todo))
    finally:
        if engine is not None:
            project.save_scores()


class Prefetcher:
    """Reads and predicts the image that comes next.

    Parameters
    ----------
    make : callable
        Makes an OpenImage of a loaded one, on the GUI thread; returns None if it is
        open in the viewer already.
    """

    def __init__(
        self,
        workspace: Workspace,
        make: Callable[[LoadedImage], OpenImage | None],
    ) -> None:
        self._workspace, self._make = workspace, make
        self._ready: OpenImage | None = None
        self._by: ModelChoice | None = None  # what it is predicted with
        self._generation = 0

    def plan(self, after: str) -> None:
        """Prepare the image that comes after another."""
        project = self._workspace.project
        assert project is not None
        self._generation += 1
        self._workspace.writer.submit(
            lambda: project.next_image(after),
            partial(self._on_planned, after, self._generation),
        )

    def _on_planned(self, after: str, generation: int, image: str | None) -> None:
        project = self._workspace.project
        if generation != self._generation or project is None or image in (None, after):
            return
        if self._ready is not None and self._ready.id == image:
            return
        self._drop()
        Job(
            "Reading the next image",
            lambda _, __: load_image(project, image),
            partial(self._on_loaded, generation),
        ).start()

    def _on_loaded(self, generation: int, outcome: JobResult) -> None:
        # An error is shown when the image is opened.
        if outcome.result is not None and generation == self._generation:
            self._ready = self._make(outcome.result)
            self.predict()

    def predict(self) -> None:
        """Predict the frame that will be shown, after all other predictions."""
        ready, controller = self._ready, self._workspace.controller
        if ready is None or not controller.pre_segment or not controller.connected:
            return
        self._by = controller.choice
        if ready.image_state.unsupported is None:
            controller.queue.add(ready.image_state, only=ready.first_frame())
            controller.start_next()

    def take(self, image: str) -> OpenImage | None:
        """Return an image if it is the prepared one; drop any other."""
        ready = self._ready
        if ready is None or ready.id != image:
            self.stop()
            return None
        self._ready = None
        self._generation += 1
        if self._by != self._workspace.controller.choice:
            _reset_prediction(ready)
        return ready

    def on_model(self) -> None:
        """Predict again: another model was chosen."""
        if self._ready is not None:
            self._workspace.controller.queue.remove(self._ready.image_state)
            _reset_prediction(self._ready)
            self.predict()

    def stop(self) -> None:
        """Drop the prepared image."""
        self._generation += 1
        self._drop()

    def _drop(self) -> None:
        if self._ready is not None:
            self._workspace.controller.queue.remove(self._ready.image_state)
            self._ready = None


def _reset_prediction(opened: OpenImage) -> None:
    opened.image_state.discard_predictions()
    opened.image_state.sources.clear()
