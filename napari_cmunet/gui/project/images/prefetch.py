"""The next image, read and predicted ahead."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from napari_cmunet.gui.jobs import Job, JobResult
from napari_cmunet.gui.project.images.open_image import (
    LoadedImage,
    OpenImage,
    load_image,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_cmunet.gui.prediction.prediction import ModelChoice
    from napari_cmunet.gui.project.workspace import Workspace


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
