"""The image that comes next, read and predicted while the reader works on this one."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from napari_cmunet.gui.jobs import Job, JobResult
from napari_cmunet.gui.project.image_loading import LoadedImage, load_image

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_cmunet.gui.prediction import ModelChoice
    from napari_cmunet.gui.project.open_image import OpenImage
    from napari_cmunet.gui.project.session import ProjectSession


class Prefetcher:
    """Makes one image ready.

    Parameters
    ----------
    session : ProjectSession
    make : callable
        Makes an OpenImage of a loaded one, on the GUI thread; None if it is open in
        the viewer already.
    """

    def __init__(
        self,
        session: ProjectSession,
        make: Callable[[LoadedImage], OpenImage | None],
    ) -> None:
        self._session, self._make = session, make
        self._ready: OpenImage | None = None
        self._by: ModelChoice | None = None  # what it is predicted with
        self._turn = 0

    def plan(self, after: str) -> None:
        """Make ready what Next would open after an image."""
        project = self._session.project
        self._turn += 1
        self._session.writer.submit(
            lambda: project.next_image(after),
            partial(self._on_planned, after, self._turn),
        )

    def _on_planned(self, after: str, turn: int, image: str | None) -> None:
        project = self._session.project
        if turn != self._turn or project is None or image in (None, after):
            return
        if self._ready is not None and self._ready.id == image:
            return
        self._drop()
        Job(
            "Reading the next image",
            lambda _, __: load_image(project, image),
            partial(self._on_loaded, turn),
        ).start()

    def _on_loaded(self, turn: int, outcome: JobResult) -> None:
        # An error is told when the image is really opened.
        if outcome.result is not None and turn == self._turn:
            self._ready = self._make(outcome.result)
            self.predict()

    def predict(self) -> None:
        """Predict the frame that will be shown, once nothing else is in line."""
        ready, controller = self._ready, self._session.controller
        if ready is None or not controller.pre_segment or not controller.connected:
            return
        self._by = controller.choice
        if ready.image_state.unsupported is None:
            controller.queue.add(ready.image_state, only=ready.first_frame())
            controller.start_next()

    def take(self, image: str) -> OpenImage | None:
        """Hand over an image if it is the one that is ready; forget any other."""
        ready = self._ready
        if ready is None or ready.id != image:
            self.forget()
            return None
        self._ready = None
        self._turn += 1
        if self._by != self._session.controller.choice:
            _unpredict(ready)
        return ready

    def on_model(self) -> None:
        """Another model is in use: predict once more."""
        if self._ready is not None:
            self._session.controller.queue.remove(self._ready.image_state)
            _unpredict(self._ready)
            self.predict()

    def forget(self) -> None:
        """Make nothing ready any more."""
        self._turn += 1
        self._drop()

    def _drop(self) -> None:
        if self._ready is not None:
            self._session.controller.queue.remove(self._ready.image_state)
            self._ready = None


def _unpredict(opened: OpenImage) -> None:
    opened.image_state.discard_predictions()
    opened.image_state.sources.clear()
