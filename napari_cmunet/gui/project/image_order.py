"""The order of images: as the reader has chosen it, and scored for that."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_cmunet.errors import Cancelled, CMUNetError
from napari_cmunet.gui.jobs import Job, JobResult
from napari_cmunet.gui.project.alerts import Alert
from napari_cmunet.project.active_learning import UNSURE

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_cmunet.gui.jobs import Report, ShouldStop
    from napari_cmunet.gui.prediction import EngineFactory, ModelChoice
    from napari_cmunet.gui.project.session import ProjectSession
    from napari_cmunet.project.project import Project

_SAVE_EVERY = 20
_LOOK_EVERY = 0.1


class ImageOrder:
    """Knows the order, and scores the images in the background where it needs that.

    Begins when a project is opened and anew when another model is in use. It waits while
    anything is predicted, so that no image that the reader looks at comes later.

    Parameters
    ----------
    session : ProjectSession
    """

    #: More images are scored.
    changed = Signal()

    def __init__(self, session: ProjectSession) -> None:
        self._session = session
        self._job: Job | None = None
        #: Why the images cannot be scored; empty if they can.
        self.problem = ""
        session.opened.connect(lambda _: self.score())
        session.closed.connect(self.stop)

    @property
    def order(self) -> str:
        """As the project has it."""
        project = self._session.project
        return "" if project is None else project.settings.next_image

    @property
    def scored(self) -> tuple[int, int]:
        """Images that are scored with the model in use, and images in all."""
        project = self._session.project
        return (
            (0, 0)
            if project is None
            else (len(project.acquisition_scores()), len(project.images))
        )

    @property
    def working(self) -> bool:
        """Whether images are being scored."""
        return self._job is not None

    def choose(self, order: str) -> None:
        """Take another order from now on; it is kept with the project."""
        project = self._session.project
        if project is not None and not project.read_only:
            self._session.writer.submit(
                lambda: project.change_settings(next_image=order),
                lambda _: self._on_chosen(),
                lambda problem: self._session.show_alert(Alert(problem, serious=True)),
            )

    def _on_chosen(self) -> None:
        self._session.navigator.plan_ahead()
        self.score()
        self._session.changed.emit()

    def score(self) -> None:
        """Score what is not scored yet with the model in use, if the order needs it."""
        self.stop()
        project, controller = self._session.project, self._session.controller
        if project is None or project.read_only or self.order != UNSURE:
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
        self._job = job = Job(
            "Looking where the model is least sure", act, lambda o: self._ended(job, o)
        )
        job.changed.connect(self.changed.emit)
        job.start()

    def stop(self) -> None:
        """Score no more."""
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
    """Score the middle frame of each image without a label. For a worker.

    Parameters
    ----------
    project : Project
    factory : callable
        Loads the model once more: the window's own is not to be waited for.
    choice : ModelChoice
    busy : callable
        Asked before each image; nothing is done while it says yes.
    report, should_stop : callable

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
    model, engine = project.model_sha256(), None
    try:
        for number, image in enumerate(todo):
            while busy() and not should_stop():
                time.sleep(_LOOK_EVERY)
            if should_stop():
                raise Cancelled
            engine = engine or factory(choice)
            # One that cannot be read is told of when it is opened.
            with suppress(CMUNetError, OSError, ValueError):
                frames = read_angiogram(project.images.found_path(image)).frames
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
