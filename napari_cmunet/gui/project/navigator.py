"""From image to image of a project: next, previous, any; the next one made ready."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer

from napari_cmunet.gui.export import source_file
from napari_cmunet.gui.jobs import Job, JobResult
from napari_cmunet.gui.project import alerts
from napari_cmunet.gui.project.alerts import Alert
from napari_cmunet.gui.project.closed_project import Remains
from napari_cmunet.gui.project.difference_layer import ModelChange
from napari_cmunet.gui.project.draft_saver import DraftSaver
from napari_cmunet.gui.project.image_loading import ImageMemory, LoadedImage, load_image
from napari_cmunet.gui.project.open_image import OpenImage
from napari_cmunet.gui.project.prefetcher import Prefetcher
from napari_cmunet.gui.project.reviewed_area import ReviewedArea

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.gui.images.image_state import ImageState
    from napari_cmunet.gui.project.session import ProjectSession


class Navigator:
    """The one image of a project that is open, and the one that comes next.

    Parameters
    ----------
    session : ProjectSession
    """

    def __init__(self, session: ProjectSession) -> None:
        self._session = session
        self.current: OpenImage | None = None
        self.draft_saver: DraftSaver | None = None
        self.area: ReviewedArea | None = None
        self.change: ModelChange | None = None
        #: The image that is being opened.
        self.opening: str | None = None
        self._remains = Remains()
        self._memory = ImageMemory()
        # Where Next goes on from, if that image could not be opened.
        self._stuck: str | None = None
        self._ahead = Prefetcher(session, self._opened_ahead)
        self._loading: Job | None = None
        self._wanted = 0

    # -- what the reader asks for ---------------------------------------------

    @property
    def _controller(self) -> Controller:
        return self._session.controller

    def next(self) -> None:
        """Open the next image that has no label and is not skipped."""
        project = self._session.project
        if project is None or self.opening is not None:
            return
        after = self._place()
        self._session.writer.submit(
            lambda: project.next_image(after), self._on_next, self._on_problem
        )

    def _on_next(self, image: str | None) -> None:
        if image is None:
            self._session.show_message(
                "Every image has a label or is skipped. Any of them can be opened "
                "again from the list."
            )
        elif image == self._place() and self._stuck is None:
            self._session.show_message("No other image is left without a label.")
        else:
            self.go(image)

    def plan_ahead(self) -> None:
        """Another image may come next: make that one ready."""
        if self.current is not None:
            self._ahead.plan(self.current.id)

    def previous(self) -> None:
        """Open the image before this one in the project's order."""
        self._beside(-1)

    def _beside(self, by: int) -> None:
        project, place = self._session.project, self._place()
        if project is None or place is None or self.opening is not None:
            return
        image = project.neighbour(place, by)
        if image is None:
            self._session.show_message("This is the first image of the project.")
        else:
            self.go(image)

    def _place(self) -> str | None:
        return self._stuck or (self.current.id if self.current else None)

    def go(self, image: str, frame: int | None = None) -> None:
        """Open an image, once the strokes in the present one are saved.

        Parameters
        ----------
        image : str
        frame : int, optional
            The frame to show; one with a draft or a label, or the middle, by default.
        """
        if self._session.project is None or not self._controller.connected:
            return
        if self.current is not None and self.current.id == image and self.is_shown:
            self._controller.show_image(self.current.image_state)
            if frame is not None:
                self._show_frame(self.current.image_state, frame)
            return
        self.opening = image
        self._wanted += 1
        self._session.show_message("")
        self.leave(partial(self._load, image, frame, self._wanted))

    def retry(self) -> None:
        """Open again what could not be opened."""
        if self._stuck is not None:
            self.go(self._stuck)

    def leave(self, then: Callable[[], None]) -> None:
        """Save the strokes in the open image, then go on; ask if they cannot be."""
        if self.draft_saver is None:
            then()
            return
        self.draft_saver.flush()
        if self.draft_saver.saved:
            then()
            return
        self._session.writer.submit(lambda: None, lambda _: self._left(then))

    def _left(self, then: Callable[[], None]) -> None:
        if self.draft_saver is None or not self.draft_saver.problems:
            then()
            return
        self.opening = None
        problem = next(iter(self.draft_saver.problems.values()))
        self._session.show_alert(
            alerts.not_saved(
                problem,
                again=self._after_dismissing(partial(self.leave, then)),
                without=self._after_dismissing(then),
                stay=self._session.dismiss,
            )
        )

    def _after_dismissing(self, act: Callable[[], None]) -> Callable[[], None]:
        def after() -> None:
            self._session.dismiss()
            act()

        return after

    # -- opening --------------------------------------------------------------

    def _load(self, image: str, frame: int | None, wanted: int) -> None:
        project = self._session.project
        if project is None or wanted != self._wanted:
            return
        self.opening = image
        ready = self._ahead.take(image)
        if ready is not None:
            self._show(ready, frame)
            return
        if self._loading is not None:
            self._loading.cancel()
        self._loading = Job(
            "Opening the image",
            lambda _, __: load_image(project, image),
            partial(self._on_loaded, image, frame, wanted),
        ).start()

    def _on_loaded(
        self, image: str, frame: int | None, wanted: int, outcome: JobResult
    ) -> None:
        if wanted != self._wanted or self._session.project is None:
            return
        self._loading = None
        if outcome.error is not None:
            self.opening = None
            self._stuck = image
            self._session.show_alert(self._cannot_open(image, outcome.error))
        elif outcome.result is not None:
            self._show(self._opened(outcome.result), frame)

    def _opened(self, loaded: LoadedImage) -> OpenImage:
        return OpenImage(loaded, self._adopted(loaded))

    def _opened_ahead(self, loaded: LoadedImage) -> OpenImage | None:
        busy = self.opening is not None or self._adopted(loaded) is not None
        return None if busy else self._opened(loaded)

    def _adopted(self, loaded: LoadedImage) -> ImageState | None:
        """An image that the reader has opened already, perhaps corrected."""
        wanted = os.path.normcase(os.path.abspath(loaded.path))  # noqa: PTH100
        for image_state in self._controller.image_states:
            path = source_file(image_state)
            left = self._remains.untouched()
            if left is not None and image_state is left.image_state:
                continue  # it is shown anew, by the project
            if path is None or image_state.image_replaced:
                continue
            same = os.path.normcase(os.path.abspath(path)) == wanted  # noqa: PTH100
            if same and image_state.shape == loaded.angiogram.frames.shape:
                return image_state
        return None

    def _show(self, opened: OpenImage, frame: int | None) -> None:
        controller, image_state = self._controller, opened.image_state
        former = self.current or self._remains.untouched()
        self._remains.forget()
        self._take_away_extras()
        self.opening = self._stuck = None
        self.current = opened
        self._memory.recall(opened)
        self.area = ReviewedArea(controller, opened)
        self.draft_saver = DraftSaver(
            self._session.project, self._session.writer, opened, self.area
        )
        self.draft_saver.changed.connect(self._on_draft)
        self.area.changed.connect(self._on_area)
        self.draft_saver.note(image_state.corrections.in_history)
        if controller.queue.current is image_state:
            controller.queue.remove(image_state)
        if former is not None and former.own_layers and opened.own_layers:
            controller.replace_image(former.image_state, image_state)
            former.image_state.in_project = False
        else:
            controller.images.open(image_state)
            if former is not None:
                # The new image is seen first; then the old one goes, a moment later.
                QTimer.singleShot(0, partial(self._close, former))
        # All of it, whatever part of the last one was looked at.
        controller.viewer.reset_view()
        frame = opened.first_frame(frame)
        self._show_frame(image_state, frame)
        if controller.pre_segment and image_state.waiting_frames():
            controller.queue.add(image_state, first=True)
        controller.start_next()
        self._session.dismiss("image")
        if opened.problems:
            self._session.show_message(" ".join(opened.problems))
        project = self._session.project
        self._session.writer.submit(
            partial(project.remember_position, opened.id, frame)
        )
        self._ahead.plan(opened.id)

    def _show_frame(self, image_state: ImageState, frame: int) -> None:
        if image_state.is_cine:
            viewer = self._controller.viewer
            point = image_state.image.data_to_world((frame, 0, 0))
            viewer.dims.set_point(viewer.dims.ndim - 3, point[0])

    def _close(self, opened: OpenImage) -> None:
        """Take an image's layers away, those that the program has added."""
        if opened is self.current or self._controller.viewer is None:
            return
        opened.image_state.in_project = False
        if opened.own_layers:
            self._controller.close_image(opened.image_state)

    def _take_away_extras(self) -> None:
        if self.current is not None:
            self.current.clock.stop()
        if self.draft_saver is not None:
            self.draft_saver.stop()
        if self.area is not None:
            self.area.remove()
        if self.change is not None:
            self.change.remove()
        self._session.preview.put_away()
        self.draft_saver = self.area = self.change = None

    def put_away(self) -> None:
        """The project is closed: its image stays open, as one of no project."""
        self._note_frame()
        self._wanted += 1
        self._ahead.forget()
        self._take_away_extras()
        former, self.current = self.current, None
        self.opening = self._stuck = None
        self._memory.forget()
        if former is not None:
            self._remains.keep(former)

    # -- another model --------------------------------------------------------

    def use_model(self, model: str, *, predict_again: bool) -> None:
        """Predict with another model from now on; see ProjectSession."""
        controller = self._controller
        controller.set_choice(model=model)
        self._session.preview.stop()
        opened = self.current
        if predict_again and opened is not None and opened.image_state.sources:
            self.hide_change()
            controller.queue.remove(opened.image_state)
            self.change = ModelChange(controller, opened.image_state)
            opened.image_state.discard_predictions()
            controller.queue.add(opened.image_state, first=True)
            controller.start_next()
        self._ahead.on_model()
        self._session.changed.emit()

    def update_change(self) -> None:
        """Show what has changed in the shown frame, once it is predicted again."""
        if self.change is not None and self.is_shown:
            self.change.update(self._controller.shown(self.current.image_state))

    def _on_area(self) -> None:
        if self.draft_saver is not None:
            self.draft_saver.note({self.frame})
        self._session.changed.emit()

    def draw_area(self, tool: str) -> None:
        """Put a tool in hand that draws the reviewed part; see ReviewedArea."""
        project = self._session.project
        if project is not None and not project.read_only and self.is_shown:
            self.area.draw(tool)

    def clear_area(self) -> None:
        """Let the whole shown frame count as reviewed again."""
        if self.is_shown:
            self.area.clear(self.frame)

    @property
    def stuck(self) -> str | None:
        """The image that could not be opened, while that is what is in hand."""
        return self._stuck

    def take_looked_at(self, on: bool = True) -> None:
        """Let what was looked at be the shown frame's reviewed part, or no more."""
        project = self._session.project
        if project is not None and not project.read_only and self.is_shown:
            self.area.take_looked_at(self.frame, on)

    def tick(self) -> None:
        """The reader is there."""
        if self.current is not None:
            self.current.clock.tick()

    def hide_change(self) -> None:
        """Show the differences no more."""
        if self.change is not None:
            self.change.remove()
            self.change = None
            self._session.changed.emit()

    def take_over_prediction(self) -> None:
        """Make the shown frame's mask the new prediction. Can be undone."""
        if self.is_shown:
            self._controller.editor.reset_frame()
            self.hide_change()

    # -- state ----------------------------------------------------------------

    @property
    def is_shown(self) -> bool:
        """Whether the viewer still has the open image's layer."""
        opened, viewer = self.current, self._controller.viewer
        return (
            opened is not None
            and viewer is not None
            and opened.image_state in self._controller.image_states
            and opened.image_state.image in viewer.layers
        )

    @property
    def frame(self) -> int:
        """The frame of the open image that is shown."""
        return self._controller.shown(self.current.image_state)

    def _on_draft(self) -> None:
        if self.draft_saver is not None and not self.draft_saver.problems:
            self._session.dismiss("draft")
        self._session.changed.emit()

    def _on_problem(self, problem: str) -> None:
        self._session.show_alert(Alert(problem, serious=True))

    def _cannot_open(self, image: str, error: Exception) -> Alert:
        return alerts.image_not_opened(
            self._session.overview.name(image),
            error,
            show=self._session.images_wanted.emit,
            go_on=self._after_dismissing(self.next),
            skip=self._after_dismissing(self._session.annotation.skip),
            again=self.retry,
        )

    # -- with and without a panel ---------------------------------------------

    def step_back(self) -> None:
        """The panel is closed; the layers stay."""
        self._wanted += 1
        self.opening = None
        self._ahead.forget()
        if self.draft_saver is not None:
            self.draft_saver.flush()

    def come_back(self) -> None:
        """The panel is open again."""
        if self.current is None:
            self.next()
        else:
            if self.is_shown:
                self._controller.images.set_active(self.current.image_state)
            self._ahead.plan(self.current.id)

    def let_go(self) -> None:
        """The window closes: hand over what is left to save."""
        if self.draft_saver is not None:
            self.draft_saver.flush()
            self.draft_saver.stop()
        self._note_frame()
        self._wanted += 1

    def _note_frame(self) -> None:
        """Remember which frame of a cine was shown last."""
        project = self._session.project
        if project is not None and self.is_shown and self.current.image_state.is_cine:
            act = partial(project.remember_position, self.current.id, self.frame)
            self._session.writer.submit(act)
