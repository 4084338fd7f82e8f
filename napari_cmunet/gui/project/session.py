"""A session at work on a project: opens and closes it, and knows how far it is.

It knows the panel's controller and no widget. ``navigator`` goes from image to image,
``annotation`` turns masks into labels. It outlives the panel: while that is closed,
strokes are still saved.
"""

from __future__ import annotations

import weakref
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from psygnal import Signal
from qtpy.QtCore import QCoreApplication

from napari_cmunet.gui.jobs import Job, JobResult
from napari_cmunet.gui.project import alerts
from napari_cmunet.gui.project.activity import ActivityTracker
from napari_cmunet.gui.project.alerts import Alert
from napari_cmunet.gui.project.annotation import Annotation
from napari_cmunet.gui.project.disk_writer import ProjectWriter
from napari_cmunet.gui.project.image_order import ImageOrder
from napari_cmunet.gui.project.model_preview import ModelPreview
from napari_cmunet.gui.project.navigator import Navigator
from napari_cmunet.gui.project.opening import (
    NewProject,
    OpenedProject,
    create_project,
    model_in_use,
    open_project,
)
from napari_cmunet.gui.project.overview import Change, Overview, look
from napari_cmunet.gui.project.training_session import ProjectTraining

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari.components import ViewerModel

    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.gui.jobs import JobFunction
    from napari_cmunet.project.annotation_time import AnnotationTime
    from napari_cmunet.project.images import RelinkResult
    from napari_cmunet.project.project import Project

_kept: weakref.WeakKeyDictionary[ViewerModel, ProjectSession] = (
    weakref.WeakKeyDictionary()
)


class ProjectSession:
    """Holds the open project of one viewer.

    Parameters
    ----------
    controller : Controller
    """

    #: A project was opened; with the Project.
    opened = Signal(object)
    closed = Signal()
    #: A label is on the disk; with its (image id, frame).
    accepted = Signal(object)
    #: A label counts no more, or is the one before again; with its (image id, frame).
    taken_back = Signal(object)
    #: Something that the window shows has changed.
    changed = Signal()
    #: The folder of missing images, or of further ones, is to be asked for.
    images_wanted = Signal()
    more_wanted = Signal()

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.project: Project | None = None
        self.writer = ProjectWriter()
        self.overview = Overview()
        self.missing: tuple[str, ...] = ()
        self.alert: Alert | None = None
        self.message = ""
        self._tip = ("", "")
        self.job: Job | None = None
        self._model = self._model_before = ""
        self.navigator = Navigator(self)
        self.annotation = Annotation(self)
        self.training = ProjectTraining(self)
        self.image_order = ImageOrder(self)
        self._attention = ActivityTracker(self.navigator.tick)
        self.preview = ModelPreview(self)
        app = QCoreApplication.instance()
        if app is not None:
            app.aboutToQuit.connect(partial(_shut, weakref.ref(self)))

    @classmethod
    def of(cls, controller: Controller) -> ProjectSession:
        """The session of a controller's viewer; one that a closed panel left goes on."""
        session = _kept.get(controller.viewer)
        if session is None:
            session = _kept[controller.viewer] = cls(controller)
        else:
            session.attach(controller)
        return session

    # -- life -----------------------------------------------------------------

    def attach(self, controller: Controller) -> None:
        """A panel was opened again."""
        self.controller = controller
        if self.project is not None:
            self._model_before = controller.choice.model
            if self._model:
                controller.set_choice(model=self._model)
            self.navigator.come_back()

    def detach(self) -> None:
        """The panel is closed; the project stays open, and strokes are saved."""
        self.preview.stop()
        self.navigator.step_back()

    def shut(self) -> None:
        """The window closes: write what is left and let the project go. No question."""
        with suppress(RuntimeError):  # Qt's parts may be gone already
            self.navigator.let_go()
        if self.job is not None:
            self.job.cancel()
        self._attention.let_go()
        self.image_order.stop()
        self.training.shut()
        if self.project is not None:
            project, self.project = self.project, None
            self.writer.submit(project.close)
        self.writer.close()
        viewer = self.controller.viewer
        if viewer is not None and _kept.get(viewer) is self:
            del _kept[viewer]

    # -- opening and closing --------------------------------------------------

    def create(self, new: NewProject) -> None:
        """Make a project and open it."""
        self._open_by(
            "Making the project",
            lambda _, should_stop: create_project(new, should_stop),
            new.folder,
        )

    def open(self, folder: Path, **how: bool) -> None:
        """Open a project, asking for a way out where it cannot be.

        Parameters
        ----------
        folder : Path
        how : bool
            ``read_only``, ``take_over``, ``salvage``; see ``open_project``.
        """
        self._open_by(
            "Opening the project",
            lambda _, should_stop: open_project(folder, should_stop, **how),
            folder,
        )

    def _open_by(self, text: str, act: JobFunction, folder: Path) -> None:
        if self.busy:
            return
        start = partial(self.run, text, act, partial(self._on_opened, folder))
        if self.project is None:
            start()
        else:
            self.close(then=start)

    def _on_opened(self, folder: Path, outcome: JobResult) -> None:
        if outcome.error is not None:
            self.show_alert(alerts.project_not_opened(self, folder, outcome.error))
        if outcome.cancelled:
            self.show_message("Cancelled.")
        if outcome.result is None:
            return
        found: OpenedProject = outcome.result
        self.project, self.overview = found.project, found.overview
        self.missing = found.missing
        self.alert = None
        self.message = " ".join(found.notices)
        self._model_before = self.controller.choice.model
        self._model = found.model
        if found.model:
            self.controller.set_choice(model=found.model)
        self._attention.listen(self.controller.viewer)
        self.opened.emit(found.project)
        if found.missing:
            count = len(found.overview.ids)
            self.show_alert(alerts.images_missing(self, len(found.missing), count))
        if found.first is not None:
            self.navigator.go(*found.first)
        elif not found.missing:
            self.show_alert(alerts.no_image(self.more_wanted.emit, self.dismiss))
        self.changed.emit()

    def close(self, then: Callable[[], None] | None = None) -> None:
        """Close the project, once every stroke is saved and the window agrees."""
        if self.project is not None and self.may_close():
            self.navigator.leave(partial(self._close, then))

    def _close(self, then: Callable[[], None] | None) -> None:
        project = self.project
        if project is None:
            return
        self.navigator.put_away()
        self._attention.let_go()
        self.project = None
        self.overview, self.missing = Overview(), ()
        self.alert, self.message = None, ""
        if self._model_before:
            self.controller.set_choice(model=self._model_before)
        self.closed.emit()
        self.changed.emit()
        self.writer.submit(project.close, lambda _: then() if then else None)

    # -- what takes long ------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether a long job runs."""
        return self.job is not None

    def run(
        self, text: str, act: JobFunction, ended: Callable[[JobResult], None]
    ) -> bool:
        """Run a long job; one at a time. False if another one runs."""
        if self.busy:
            return False

        def on_ended(outcome: JobResult) -> None:
            self.job = None
            ended(outcome)
            self.changed.emit()

        self.job = Job(text, act, on_ended)
        self.job.changed.connect(self.changed.emit)
        self.job.start()
        self.changed.emit()
        return True

    def relink(self, folder: Path) -> None:
        """Look for missing images in a folder, then go on."""
        project = self.project
        if project is not None:
            self.run(
                "Looking for the images",
                lambda _, should_stop: project.images.relink(folder, should_stop),
                self._on_relinked,
            )

    def _on_relinked(self, outcome: JobResult) -> None:
        if outcome.error is not None:
            self.show_alert(Alert(str(outcome.error), serious=True))
            return
        if outcome.result is None or self.project is None:
            return
        result: RelinkResult = outcome.result
        self.missing = result.missing
        if result.found:
            self.dismiss()
            self.navigator.retry()
        if result.missing:
            count, missing = len(self.overview.ids), len(result.missing)
            self.show_alert(alerts.images_missing(self, missing, count, result.found))
        else:
            self.dismiss()
            self.show_message(f"All images are there again: {result.found} were found.")

    def add_images(self, inputs: list[Path], patient_of=None) -> None:
        """Add further files and folders to the project."""
        project = self.project
        if project is None:
            return

        def act(_, should_stop):
            return project.images.add(inputs, patient_of, should_stop), look(project)

        self.run("Adding images", act, self._on_added)

    def _on_added(self, outcome: JobResult) -> None:
        if outcome.error is not None:
            self.show_alert(Alert(str(outcome.error), serious=True))
        elif outcome.result is not None and self.project is not None:
            added, self.overview = outcome.result
            known = f" {added.known} were in it already." if added.known else ""
            problems = " ".join(added.problems[:3])
            count = len(added.images)
            new = "1 image was added." if count == 1 else f"{count} images were added."
            text = f"{new}{known} {problems}"
            self.show_message(text.strip())
            if self.navigator.current is None:
                self.navigator.next()

    # -- the model in use -----------------------------------------------------

    def use_current_model(self, *, predict_again: bool = True) -> None:
        """Predict with the model that the project uses now.

        Parameters
        ----------
        predict_again : bool
            Also the open image, showing what is found now and what is gone now. The
            session's mask stays as it is.
        """
        project = self.project
        if project is not None:
            self.writer.submit(
                lambda: model_in_use(project),
                partial(self._on_model, predict_again),
            )

    def _on_model(self, predict_again: bool, found: tuple[str, str]) -> None:
        model, problem = found
        if problem:
            self.show_alert(Alert(problem, serious=True))
        elif self.project is not None:
            self._model = model
            self.navigator.use_model(model, predict_again=predict_again)
            self.image_order.score()

    def choose_model(self, name: str) -> None:
        """Put an installed model to use in the project."""
        project = self.project
        if project is not None and not project.read_only:
            self.writer.submit(
                lambda: project.models.promote(name, installed=True, reason="chosen"),
                lambda _: self.use_current_model(),
                lambda problem: self.show_alert(Alert(problem, serious=True)),
            )

    def update_differences(self) -> None:
        """Show what another model changes in the shown frame, as far as it is known."""
        self.navigator.update_change()
        self.preview.update()

    # -- what is told ---------------------------------------------------------

    def show_message(self, message: str, tip: str = "") -> None:
        """Show a line until the next one; the tip tells the rest of it."""
        self.message, self._tip = message, (message, tip)
        self.changed.emit()

    @property
    def message_tip(self) -> str:
        """What a tip tells of the line that is shown."""
        message, tip = self._tip
        return tip if message == self.message else ""

    def show_alert(self, alert: Alert) -> None:
        """Show a alert with its actions out."""
        self.alert = alert
        self.changed.emit()

    def dismiss(self, about: str = "") -> None:
        """Take the alert away, or only one that is about this."""
        if self.alert is not None and about in ("", self.alert.about):
            self.alert = None
            self.changed.emit()

    def note_change(self, change: Change) -> None:
        """Something about one image has changed."""
        self.overview = self.overview.after(change)
        self.changed.emit()

    def note_annotation_time(self, effort: AnnotationTime) -> None:
        """A label has cost something, or a training was judged."""
        self.overview = replace(self.overview, effort=effort)
        self.changed.emit()

    # What only a window can ask. Put in by the panel.
    may_close: Callable[[], bool] = staticmethod(lambda: True)


def _shut(session: weakref.ref[ProjectSession]) -> None:
    if (found := session()) is not None:
        found.shut()
