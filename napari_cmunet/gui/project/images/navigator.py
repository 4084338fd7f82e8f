"""Goes from image to image of a project, and holds the one that is open."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_cmunet.gui.images.layers import is_inverted, show_frame
from napari_cmunet.gui.jobs import Job, JobResult
from napari_cmunet.gui.project import alerts
from napari_cmunet.gui.project.draft_saver import DraftSaver
from napari_cmunet.gui.project.images.next_image import Prefetcher
from napari_cmunet.gui.project.images.open_image import (
    ImageMemory,
    LoadedImage,
    OpenImage,
    find_open,
    load_image,
)
from napari_cmunet.gui.project.reviewed_area import ReviewedArea

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.gui.images.image_state import ImageState
    from napari_cmunet.gui.project.workspace import Workspace


class Navigator:
    """Opens the images of a project, one at a time."""

    #: The open image is being replaced or its project closed.
    image_left = Signal()
    #: An image could not be opened; with its id and the error.
    open_failed = Signal(str, object)

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._messages = workspace.messages
        self.current: OpenImage | None = None
        self.draft_saver: DraftSaver | None = None
        self.area: ReviewedArea | None = None
        #: The image that is being opened.
        self.opening: str | None = None
        #: The image that could not be opened; Next goes on from there.
        self.stuck: str | None = None
        # What a closed project has left open, with its mask at that time.
        self._left: tuple[OpenImage, np.ndarray | None] | None = None
        self._memory = ImageMemory()
        self._prefetcher = Prefetcher(workspace, self._make_prefetched)
        self._loading: Job | None = None
        self._generation = 0

    # -- state ----------------------------------------------------------------

    @property
    def _controller(self) -> Controller:
        return self._workspace.controller

    @property
    def is_shown(self) -> bool:
        """Whether the viewer still has the open image's layer."""
        opened, images = self.current, self._controller.images
        return (
            opened is not None
            and images.viewer is not None
            and opened.image_state in images.images
            and opened.image_state.image in images.viewer.layers
        )

    @property
    def shown(self) -> OpenImage | None:
        """The open image, while the viewer has its layer."""
        return self.current if self.is_shown else None

    @property
    def frame(self) -> int:
        """The frame of the open image that is shown."""
        assert self.current is not None
        return self._controller.images.shown_frame(self.current.image_state)

    def parts(self) -> tuple[OpenImage, ReviewedArea, DraftSaver]:
        """The open image, its reviewed area and its saver; an image must be open."""
        assert self.current is not None
        assert self.area is not None
        assert self.draft_saver is not None
        return self.current, self.area, self.draft_saver

    def tick(self) -> None:
        """Note that the user is active."""
        if self.current is not None:
            self.current.clock.tick()

    # -- going ----------------------------------------------------------------

    def next(self) -> None:
        """Open the next image that has no label and is not skipped."""
        project = self._workspace.project
        if project is None or self.opening is not None:
            return
        after = self._position()
        self._workspace.writer.submit(
            lambda: project.next_image(after),
            self._on_next,
            self._messages.show_error,
        )

    def _on_next(self, image: str | None) -> None:
        if image is None:
            self._messages.show(
                "Every image has a label or is skipped. Any of them can be opened "
                "again from the list."
            )
        elif image == self._position() and self.stuck is None:
            self._messages.show("No other image is left without a label.")
        else:
            self.go(image)

    def previous(self) -> None:
        """Open the image before this one in the project's order."""
        project, position = self._workspace.project, self._position()
        if project is None or position is None or self.opening is not None:
            return
        image = project.neighbour(position, -1)
        if image is None:
            self._messages.show("This is the first image of the project.")
        else:
            self.go(image)

    def _position(self) -> str | None:
        return self.stuck or (self.current.id if self.current else None)

    def go(self, image: str, frame: int | None = None) -> None:
        """Open an image, once the strokes in the present one are saved.

        Parameters
        ----------
        frame : int, optional
            The frame to show; one with a draft or a label, or the middle, by default.
        """
        if self._workspace.project is None or not self._controller.connected:
            return
        if self.current is not None and self.current.id == image and self.is_shown:
            self._controller.show_image(self.current.image_state)
            if frame is not None:
                self._show_frame(self.current.image_state, frame)
            return
        self.opening = image
        self._generation += 1
        self._messages.show("")
        self.save_then(partial(self._load, image, frame, self._generation))

    def retry(self) -> None:
        """Open again what could not be opened."""
        if self.stuck is not None:
            self.go(self.stuck)

    def prefetch(self) -> None:
        """Prepare the image that comes next."""
        if self.current is not None:
            self._prefetcher.plan(self.current.id)

    def save_then(self, then: Callable[[], None]) -> None:
        """Save the strokes in the open image, then go on; ask if they cannot be."""
        if self.draft_saver is not None:
            self.draft_saver.flush()
        if self.draft_saver is None or self.draft_saver.saved:
            then()
            return
        self._workspace.writer.submit(lambda: None, lambda _: self._on_flushed(then))

    def _on_flushed(self, then: Callable[[], None]) -> None:
        if self.draft_saver is None or not self.draft_saver.problems:
            then()
            return
        self.opening = None

        alerts.not_saved(
            self._messages,
            next(iter(self.draft_saver.problems.values())),
            again=partial(self.save_then, then),
            without=then,
        )

    # -- opening --------------------------------------------------------------

    def _load(self, image: str, frame: int | None, generation: int) -> None:
        project = self._workspace.project
        if project is None or generation != self._generation:
            return
        self.opening = image
        ready = self._prefetcher.take(image)
        if ready is not None:
            self._show(ready, frame)
            return
        if self._loading is not None:
            self._loading.cancel()
        self._loading = Job(
            "Opening the image",
            lambda _, __: load_image(project, image),
            partial(self._on_loaded, image, frame, generation),
        ).start()

    def _on_loaded(
        self, image: str, frame: int | None, generation: int, outcome: JobResult
    ) -> None:
        if generation != self._generation or self._workspace.project is None:
            return
        self._loading = None
        if outcome.error is not None:
            self.opening = None
            self.stuck = image
            self.open_failed.emit(image, outcome.error)
        elif outcome.result is not None:
            self._show(self._make(outcome.result), frame)

    def _make(self, loaded: LoadedImage) -> OpenImage:
        return OpenImage(loaded, self._find_open(loaded))

    def _make_prefetched(self, loaded: LoadedImage) -> OpenImage | None:
        busy = self.opening is not None or self._find_open(loaded) is not None
        return None if busy else self._make(loaded)

    def _find_open(self, loaded: LoadedImage) -> ImageState | None:
        left = self._untouched()
        known = self._controller.image_states
        if left is not None:  # the project opens it anew
            known = [state for state in known if state is not left.image_state]
        return find_open(loaded, known)

    def _show(self, opened: OpenImage, frame: int | None) -> None:
        workspace, controller = self._workspace, self._controller
        image_state, project = opened.image_state, workspace.project
        assert project is not None
        assert controller.viewer is not None
        former = self.current or self._untouched()
        self._left = None
        self._release()
        self.opening = self.stuck = None
        self.current = opened
        self._memory.recall(opened)
        self.area = ReviewedArea(controller, opened)
        self.draft_saver = DraftSaver(project, workspace.writer, opened, self.area)
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
                # Show the new image first, then remove the old one.
                QTimer.singleShot(0, partial(self._remove, former))
        controller.viewer.reset_view()
        frame = opened.first_frame(frame)
        self._show_frame(image_state, frame)
        if controller.pre_segment and image_state.waiting_frames():
            controller.queue.add(image_state, first=True)
        controller.start_next()
        self._messages.dismiss("image")
        if opened.problems:
            self._messages.show(" ".join(opened.problems))
        workspace.writer.submit(partial(project.remember_position, opened.id, frame))
        if not opened.own_layers and is_inverted(image_state.image):
            self.note_inversion()
        self._prefetcher.plan(opened.id)

    def note_inversion(self) -> None:
        """Record in the project whether the open image is shown inverted."""
        opened, project = self.shown, self._workspace.writable
        if opened is not None and project is not None:
            inverted = is_inverted(opened.image_state.image)
            self._workspace.writer.submit(partial(project.invert, opened.id, inverted))

    def _show_frame(self, image_state: ImageState, frame: int) -> None:
        viewer = self._controller.viewer
        if image_state.is_cine and viewer is not None:
            show_frame(image_state.image, viewer, frame)

    def _remove(self, opened: OpenImage) -> None:
        """Remove an image's layers, if the program has added them."""
        if opened is self.current or self._controller.viewer is None:
            return
        opened.image_state.in_project = False
        if opened.own_layers:
            self._controller.close_image(opened.image_state)

    def _release(self) -> None:
        """Stop what follows the open image and remove its extra layers."""
        if self.current is not None:
            self.current.clock.stop()
        if self.draft_saver is not None:
            self.draft_saver.stop()
        if self.area is not None:
            self.area.remove()
        self.image_left.emit()
        self.draft_saver = self.area = None

    # -- closing --------------------------------------------------------------

    def close(self) -> None:
        """Close the project; its image stays open, as one of no project.

        With software OpenGL, napari crashes when the last layers are removed while a
        brush is in use.
        """
        self._save_position()
        self._generation += 1
        self._prefetcher.stop()
        self._release()
        left, self.current = self.current, None
        self.opening = self.stuck = None
        self._memory.clear()
        if left is not None:
            left.image_state.in_project = False
            mask = left.image_state.mask
            self._left = left, None if mask is None else mask.data.copy()

    def forget_after_closing(self) -> None:
        """Let the image that closing will leave open go when another one opens."""
        if self.current is not None:
            self.current.own_layers = True

    def _untouched(self) -> OpenImage | None:
        """The image that a closed project has left, if nothing was painted since."""
        if self._left is None:
            return None
        opened, before = self._left
        mask = opened.image_state.mask
        same = mask is None or (
            before is not None and np.array_equal(mask.data, before)
        )
        return opened if same else None

    def pause(self) -> None:
        """The panel was closed; the layers stay."""
        self._generation += 1
        self.opening = None
        self._prefetcher.stop()
        if self.draft_saver is not None:
            self.draft_saver.flush()

    def resume(self) -> None:
        """The panel was opened again."""
        if self.current is None:
            self.next()
        else:
            if self.is_shown:
                self._controller.images.set_active(self.current.image_state)
            self.prefetch()

    def close_window(self) -> None:
        """The window is closing: submit what is left to save."""
        if self.draft_saver is not None:
            self.draft_saver.flush()
            self.draft_saver.stop()
        self._save_position()
        self._generation += 1

    def _save_position(self) -> None:
        """Remember which frame of a cine was shown last."""
        opened, project = self.current, self._workspace.project
        if project is None or opened is None or not self.is_shown:
            return
        if opened.image_state.is_cine:
            act = partial(project.remember_position, opened.id, self.frame)
            self._workspace.writer.submit(act)

    def on_model(self) -> None:
        """Another model was chosen."""
        self._prefetcher.on_model()

    def _on_draft(self) -> None:
        if self.draft_saver is not None and not self.draft_saver.problems:
            self._messages.dismiss("draft")
        self._workspace.changed.emit()

    def _on_area(self) -> None:
        if self.draft_saver is not None:
            self.draft_saver.note({self.frame})
        self._workspace.changed.emit()
