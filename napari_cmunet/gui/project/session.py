"""The session of a project in one viewer: opens and closes it and connects its parts.

It knows the panel's controller and no widget, and outlives the panel: while that is
closed, strokes are still saved. Its parts share a ``Workspace`` and know each other as
far as they need; none of them knows the session.
"""

from __future__ import annotations

import weakref
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from psygnal import Signal
from qtpy.QtCore import QCoreApplication, QTimer

from napari_cmunet.gui.canvas import ActivityTracker
from napari_cmunet.gui.jobs import Job, JobResult
from napari_cmunet.gui.project import alerts
from napari_cmunet.gui.project.annotation import Annotation
from napari_cmunet.gui.project.images.navigator import Navigator
from napari_cmunet.gui.project.images.next_image import ImageOrder
from napari_cmunet.gui.project.model_preview import ModelPreview, ProjectTraining
from napari_cmunet.gui.project.readers.review import Review
from napari_cmunet.gui.project.workspace import (
    NewProject,
    OpenedProject,
    Overview,
    Workspace,
    create_project,
    model_in_use,
    open_project,
    read_overview,
)
from napari_cmunet.util.text import some_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari.components import ViewerModel

    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.gui.jobs import JobFunction, Report, ShouldStop
    from napari_cmunet.project.images import RelinkResult
    from napari_cmunet.project.project import Project

_sessions: weakref.WeakKeyDictionary[ViewerModel, ProjectSession] = (
    weakref.WeakKeyDictionary()
)


class ProjectSession:
    """Holds the open project of one viewer."""

    #: The folder of missing images, or of further ones, is to be asked for.
    images_wanted = Signal()
    more_wanted = Signal()

    def __init__(self, controller: Controller) -> None:
        self.workspace = Workspace(controller)
        self.messages = self.workspace.messages
        self.missing: tuple[str, ...] = ()
        self.job: Job | None = None
        self._model = self._model_before = ""
        self.navigator = Navigator(self.workspace)
        self.annotation = Annotation(self.workspace, self.navigator)
        self.review = Review(self.workspace, self.navigator)
        self.image_order = ImageOrder(self.workspace)
        self.training = ProjectTraining(self.workspace)
        self.preview = ModelPreview(self.workspace, self.navigator, self.training)
        self.activity = ActivityTracker(
            self.navigator.tick, self.training.pause_briefly
        )
        self._connect()
        if (app := QCoreApplication.instance()) is not None:
            app.aboutToQuit.connect(partial(close_session, weakref.ref(self)))

    def _connect(self) -> None:
        self.navigator.image_left.connect(self.preview.on_image_left)
        self.navigator.open_failed.connect(self._on_open_failed)
        self.annotation.accepted.connect(self.training.on_accepted)
        self.annotation.withdrawn.connect(self.training.on_withdrawn)
        self.annotation.reopen_wanted.connect(self._reopen)
        self.image_order.order_changed.connect(self.navigator.prefetch)
        self.training.changed.connect(self.preview.update)
        self.training.model_changed.connect(self.use_current_model)

    @classmethod
    def of(cls, controller: Controller) -> ProjectSession:
        """The session of a controller's viewer, also one that a closed panel left."""
        session = _sessions.get(controller.viewer)
        if session is None:
            session = _sessions[controller.viewer] = cls(controller)
        else:
            session.connect_panel(controller)
        return session

    @property
    def controller(self) -> Controller:
        """The panel's controller."""
        return self.workspace.controller

    @property
    def project(self) -> Project | None:
        """The open project."""
        return self.workspace.project

    @property
    def overview(self) -> Overview:
        """Progress of the open project."""
        return self.workspace.overview

    # -- panel and window -----------------------------------------------------

    def connect_panel(self, controller: Controller) -> None:
        """Go on with the controller of a panel that was opened again."""
        self.workspace.controller = controller
        if self.project is not None:
            self._model_before = controller.choice.model
            if self._model:
                controller.set_choice(model=self._model)
            self.navigator.resume()

    def disconnect_panel(self) -> None:
        """The panel was closed; the project stays open, and strokes are saved."""
        self.preview.stop()
        self.navigator.pause()

    def close_window(self) -> None:
        """Write what is left and close the project, without a question."""
        with suppress(RuntimeError):  # Qt's parts may be gone already
            self.navigator.close_window()
        if self.job is not None:
            self.job.cancel()
        self.activity.stop()
        self.image_order.stop()
        self.training.close()
        writer, project = self.workspace.writer, self.project
        if project is not None:
            self.workspace.set_project(None, self.overview)
            writer.submit(project.close)
        writer.close()
        viewer = self.controller.viewer
        if viewer is not None and _sessions.get(viewer) is self:
            del _sessions[viewer]

    # -- opening and closing --------------------------------------------------

    def create(self, new: NewProject, then: Callable[[], None] | None = None) -> None:
        """Make a project and open it; then go on, if that succeeds."""
        self._open_by(
            "Making the project",
            lambda _, should_stop: create_project(new, should_stop),
            new.folder,
            then,
        )

    def open(
        self, folder: Path, then: Callable[[], None] | None = None, **how: Any
    ) -> None:
        """Open a project; if it cannot be opened, show what can be done.

        Parameters
        ----------
        then : callable, optional
            Called if it was opened.
        how : Any
            ``reader``, ``read_only`` and so on; see ``open_project``.
        """
        self._open_by(
            "Opening the project",
            lambda _, should_stop: open_project(folder, should_stop, **how),
            folder,
            then,
        )

    def _open_by(
        self,
        text: str,
        function: JobFunction,
        folder: Path,
        then: Callable[[], None] | None,
    ) -> None:
        if self.busy:
            return
        on_end = partial(self._on_opened, folder, then)
        start = partial(self.run, text, function, on_end)
        if self.project is None:
            start()
        else:
            self.close(then=start)

    def _on_opened(
        self, folder: Path, then: Callable[[], None] | None, outcome: JobResult
    ) -> None:
        messages = self.messages
        if outcome.error is not None:
            open_with = partial(self.open, folder, then)
            alerts.project_not_opened(messages, outcome.error, open_with)
        if outcome.cancelled:
            messages.show("Cancelled.")
        if outcome.result is None:
            return
        found: OpenedProject = outcome.result
        self.workspace.set_project(found.project, found.overview)
        self.missing = found.missing
        messages.clear(" ".join(found.notices))
        self._model_before = self.controller.choice.model
        self._model = found.model
        if found.model:
            self.controller.set_choice(model=found.model)
        self.activity.start(self.controller.viewer)
        self.training.open(found.project)
        self.image_order.score()
        if found.missing:
            self._show_missing()
        if found.first is not None:
            self.navigator.go(*found.first)
        elif not found.missing:
            alerts.no_image(messages, self.more_wanted.emit)
        self.workspace.changed.emit()
        if then is not None:
            QTimer.singleShot(0, then)  # it may ask, which is not to keep this waiting

    def _reopen(self) -> None:
        if self.project is not None:
            self.open(self.project.folder)
        else:
            self.messages.dismiss()

    def close(self, then: Callable[[], object] | None = None) -> None:
        """Close the project, once every stroke is saved and the window agrees."""
        if self.project is not None and self.may_close():
            self.navigator.save_then(partial(self._close, then))

    def _close(self, then: Callable[[], object] | None) -> None:
        project = self.project
        if project is None:
            return
        self.navigator.close()
        self.activity.stop()
        self.workspace.set_project(None, Overview())
        self.missing = ()
        self.messages.clear()
        if self._model_before:
            self.controller.set_choice(model=self._model_before)
        self.training.close()
        self.image_order.stop()
        self.preview.stop()
        self.workspace.changed.emit()
        self.workspace.writer.submit(project.close, lambda _: then() if then else None)

    # -- long jobs ------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether a long job runs."""
        return self.job is not None

    def run(
        self, text: str, function: JobFunction, on_end: Callable[[JobResult], None]
    ) -> bool:
        """Run a long job; one at a time. False if another one runs."""
        if self.busy:
            return False

        def ended(outcome: JobResult) -> None:
            self.job = None
            on_end(outcome)
            self.workspace.changed.emit()

        self.job = Job(text, function, ended)
        self.job.changed.connect(self.workspace.changed.emit)
        self.job.start()
        self.workspace.changed.emit()
        return True

    def relink(self, folder: Path) -> None:
        """Look for missing images in a folder."""
        if (project := self.project) is not None:
            self.run(
                "Looking for the images",
                lambda _, should_stop: project.images.relink(folder, should_stop),
                self._on_relinked,
            )

    def _on_relinked(self, outcome: JobResult) -> None:
        if outcome.error is not None:
            self.messages.show_error(outcome.error)
            return
        if outcome.result is None or self.project is None:
            return
        result: RelinkResult = outcome.result
        self.missing = result.missing
        if result.found:
            self.messages.dismiss()
            self.navigator.retry()
        if result.missing:
            self._show_missing(result.found)
        else:
            self.messages.dismiss()
            self.messages.show(f"All images are there again: {result.found} found.")

    def add_images(self, inputs: list[Path], shown: Path | None = None) -> None:
        """Add further files and folders to the project, and show one of them."""
        if (project := self.project) is None:
            return

        def add(_: Report, should_stop: ShouldStop) -> object:
            added = project.images.add(inputs, None, should_stop)
            return added, read_overview(project), shown and project.images.id_of(shown)

        self.run("Adding images", add, self._on_added)

    def _on_added(self, outcome: JobResult) -> None:
        if outcome.error is not None:
            self.messages.show_error(outcome.error)
        elif outcome.result is not None and self.project is not None:
            added, overview, image = outcome.result
            self.workspace.set_overview(overview)
            if image is not None:
                self.navigator.go(image)
            known = f" {added.known} were in it already." if added.known else ""
            count = len(added.images)
            new = "1 image was added." if count == 1 else f"{count} images were added."
            self.messages.show(f"{new}{known} {some_of(added.problems)}".strip())
            if image is None and self.navigator.current is None:
                self.navigator.next()

    # -- the model in use -----------------------------------------------------

    def use_current_model(self) -> None:
        """Predict with the model that the project uses now, also the open image.

        Its mask is not changed; the differences are shown.
        """
        if (project := self.project) is not None:
            self.workspace.writer.submit(lambda: model_in_use(project), self._on_model)

    def _on_model(self, found: tuple[str, str]) -> None:
        model, problem = found
        if problem:
            self.messages.show_error(problem)
        elif self.project is not None:
            self._model = model
            self.controller.set_choice(model=model)
            self.preview.on_model()
            self.navigator.on_model()
            self.workspace.changed.emit()
            self.image_order.score()

    def accept_and_next(self) -> None:
        """Accept the shown mask and open the next image; stay where it asks."""
        self.annotation.accept()
        opened = self.navigator.current
        # Labels of other frames may still be on their way to a slow disk.
        if opened and opened.key(self.navigator.frame) in self.annotation.saving:
            self.navigator.next()

    # -- alerts ---------------------------------------------------------------

    def _show_missing(self, found: int = 0) -> None:
        alerts.images_missing(
            self.messages,
            len(self.missing),
            len(self.overview.ids),
            found,
            self.images_wanted.emit,
        )

    def _on_open_failed(self, image: str, error: Exception) -> None:
        alerts.image_not_opened(
            self.messages,
            self.overview.name(image),
            error,
            show=self.images_wanted.emit,
            go_on=self.navigator.next,
            skip=self.annotation.skip,
            again=self.navigator.retry,
        )

    # What only a window can ask. Set by the panel.
    may_close: Callable[[], bool] = staticmethod(lambda: True)


def close_session(ref: weakref.ref[ProjectSession]) -> None:
    """Close a session, if it exists, before Qt deletes what it needs."""
    if (session := ref()) is not None:
        session.close_window()


def close_panel(controller: Controller, session: ProjectSession) -> None:
    """Close what a panel has shown; Qt may have deleted the controller's timers."""
    with suppress(RuntimeError):
        if controller.connected:  # otherwise the dock was closed before
            session.workspace.changed.disconnect()
            session.close_window()
        controller.disconnect()
