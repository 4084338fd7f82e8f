"""Masks become labels: accept, take back, and what is noted about an image."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from napari_cmunet.gui.export import pixel_size_mm
from napari_cmunet.gui.images.layers import record_of
from napari_cmunet.gui.project import alerts
from napari_cmunet.gui.project.alerts import Alert
from napari_cmunet.gui.project.overview import look_at
from napari_cmunet.io.label_file import Label

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from napari_cmunet.gui.project.open_image import OpenImage
    from napari_cmunet.gui.project.session import ProjectSession
    from napari_cmunet.project.files import FrameKey
    from napari_cmunet.project.labels import AcceptedLabel

WAIT_SECONDS = 0.04
"""How long an acceptance may hold up the window, so that it is on the disk before the
key comes up. Where a disk is slower, the window goes on and says that it is saving."""


class Annotation:
    """What the user decides about the open image of a project.

    Parameters
    ----------
    session : ProjectSession
    """

    def __init__(self, session: ProjectSession) -> None:
        self._session = session
        #: Frames whose label is being written.
        self.saving: set[FrameKey] = set()
        #: When the label of a frame was accepted in this window.
        self.times: dict[FrameKey, str] = {}
        #: Seconds from the key to the disk, of the last acceptance.
        self.seconds = 0.0
        self._accepted: dict[FrameKey, AcceptedLabel] = {}

    # -- labels ---------------------------------------------------------------

    def why_not(self) -> str:
        """Why the shown mask cannot be accepted now; empty if it can."""
        session, navigator = self._session, self._session.navigator
        opened = navigator.current
        if session.project is None:
            return "To accept masks as labels, choose a folder of angiograms first."
        if opened is None or navigator.opening is not None:
            return "No image of the project is open yet."
        if session.project.read_only:
            return "The project is open for reading only."
        image_state = opened.image_state
        if not navigator.is_shown or session.controller.active is not image_state:
            return "Another image is in hand."
        if image_state.image_replaced:
            return (
                "The pixels of this image layer were replaced. Open the image again "
                "from the list."
            )
        if not image_state.usable_mask:
            if image_state.mask_was_deleted:
                return "The mask was deleted. Make it again."
            return "The image is not segmented yet."
        frame = navigator.frame
        if (
            not image_state.has_prediction(frame)
            and not image_state.mask_frame(frame).any()
        ):
            return "This frame is not segmented yet."
        if navigator.area.is_begun and not navigator.area.is_part(frame):
            return "Draw the box or lasso first, or press Whole for all of it."
        return ""

    def accept(self, *, empty: bool = False) -> None:
        """Let the shown mask count as the label of its frame.

        Parameters
        ----------
        empty : bool
            Whether the reader has said that there is no artery.
        """
        session, navigator = self._session, self._session.navigator
        if problem := self.why_not():
            session.show_message(problem)
            return
        started = time.perf_counter()
        opened, frame, draft_saver = (
            navigator.current,
            navigator.frame,
            navigator.draft_saver,
        )
        session.controller.editor.end_threshold()
        opened.image_state.history.bring_up_to_date(frame)
        mask = opened.mask(frame)
        if not mask.any() and not empty:
            accept = partial(self.accept, empty=True)
            session.show_alert(alerts.mask_is_empty(accept, session.dismiss))
            return
        reviewed = navigator.area.reviewed(frame, mask)
        if reviewed is not None and not reviewed.any():
            session.show_message(
                "Nothing of this frame counts as reviewed yet. Look at it with Q, draw "
                "a box around what you have seen, or press Whole for all of it."
            )
            return
        session.dismiss("accept")
        provenance = opened.provenance(frame)
        project, key = session.project, opened.key(frame)
        cost = opened.clock.seconds, opened.pixels_changed(frame, mask)
        act = partial(
            project.labels.accept,
            *key,
            mask,
            reviewed,
            provenance=provenance,
            pixel_size_mm=pixel_size_mm(opened.image_state),
            pixel_size_source=record_of(opened.image_state.image).get(
                "pixel_size_source"
            ),
            seconds=cost[0],
            pixels_changed=cost[1],
        )
        opened.clock.restart()
        label = Label(mask, reviewed, provenance)
        draft_saver.forget(frame)
        navigator.area.accepted(frame)
        self.saving.add(key)
        future = session.writer.submit(
            lambda: (act(), time.perf_counter() - started, look_at(project, key[0])),
            partial(self._on_accepted, opened, label, cost),
            partial(self._on_refused, opened, frame),
        )
        session.writer.wait_for(future, WAIT_SECONDS)
        session.changed.emit()

    def _on_accepted(
        self, opened: OpenImage, label: Label, cost: tuple[float, int], result: Any
    ) -> None:
        accepted, self.seconds, change = result
        key = (accepted.image, accepted.frame)
        self.saving.discard(key)
        self.times[key] = time.strftime("%H:%M")
        self._accepted[key] = accepted
        opened.labels[accepted.frame] = label
        opened.origins[accepted.frame] = label.provenance
        # Whatever is predicted from now on, this mask stays.
        opened.image_state.own_masks[accepted.frame] = label.mask
        self._session.dismiss("draft")
        self._session.message = accepted.notice
        self._session.note_change(change)
        self._session.note_annotation_time(
            self._session.overview.effort.with_label(key, *cost)
        )
        self._session.accepted.emit(key)

    def _on_refused(self, opened: OpenImage, frame: int, problem: str) -> None:
        session, navigator = self._session, self._session.navigator
        self.saving.discard(opened.key(frame))
        if navigator.current is opened and navigator.draft_saver is not None:
            navigator.draft_saver.note({frame})

        folder = session.project.folder if session.project is not None else None
        reopen = (
            partial(session.open, folder) if folder is not None else session.dismiss
        )
        session.show_alert(alerts.not_accepted(problem, self.accept, reopen))

    def take_back(self) -> None:
        """Let the shown frame's label count no more; the mask stays to be corrected.

        What this window has just accepted over an older label gives way to that one.
        """
        session, navigator = self._session, self._session.navigator
        opened, project = navigator.current, session.project
        if opened is None or project is None or not navigator.is_shown:
            return
        frame = navigator.frame
        key = opened.key(frame)
        if frame not in opened.labels and key not in self.saving:
            session.show_message("This frame has no label to take back.")
            return
        accepted = self._accepted.pop(key, None)

        def act() -> tuple[Label | None, Any]:
            if accepted is None or not project.labels.undo_accept(accepted):
                project.labels.withdraw(*key)
            return project.labels.get(*key), look_at(project, key[0])

        session.writer.submit(
            act, partial(self._on_taken_back, opened, frame), self._on_problem
        )

    def _on_taken_back(self, opened: OpenImage, frame: int, result: Any) -> None:
        label, change = result
        if label is None:
            opened.labels.pop(frame, None)
            text = "The label counts no more. It is kept among the older ones."
        else:
            opened.labels[frame] = label
            text = "The label is the one before again; your mask is kept as a draft."
        self.times.pop(opened.key(frame), None)
        navigator = self._session.navigator
        if navigator.current is opened and navigator.draft_saver is not None:
            navigator.area.taken_back(frame)
            navigator.draft_saver.note({frame})
        self._session.message = text
        self._session.note_change(change)
        self._session.taken_back.emit(opened.key(frame))

    # -- marks ----------------------------------------------------------------

    def skip(self) -> None:
        """Pass the image over and open the next one; or no more, if it was skipped."""
        image = self._image()
        if image is None:
            return
        state = self._session.overview.status(image).state
        if state == "labelled":
            self._session.show_message(
                "This image has a label. Take that back first (Shift+K) to skip it."
            )
            return
        skipped = state == "skipped"
        self._mark(image, lambda project: project.skip(image, not skipped))
        if not skipped:
            self._session.navigator.next()

    def flag(self) -> None:
        """Flag the image for a second look, or no more."""
        image = self._image()
        if image is not None:
            flagged = self._session.overview.status(image).flagged
            self._mark(image, lambda project: project.flag(image, not flagged))

    def comment(self, image: str, text: str) -> None:
        """Note something about an image."""
        if text != self._session.overview.status(image).comment:
            self._mark(image, lambda project: project.comment(image, text))

    def _image(self) -> str | None:
        navigator = self._session.navigator
        if navigator.stuck is not None:
            return navigator.stuck
        if navigator.current is None or navigator.opening is not None:
            return None
        return navigator.current.id

    def _mark(self, image: str, act: Callable[..., None]) -> None:
        project = self._session.project

        def mark() -> Any:
            act(project)
            return look_at(project, image)

        self._session.writer.submit(mark, self._session.note_change, self._on_problem)

    def _on_problem(self, problem: str) -> None:
        self._session.show_alert(Alert(problem, about="mark", serious=True))

    # -- what is said of the shown frame --------------------------------------

    def is_unchanged(self, opened: OpenImage, frame: int) -> bool:
        """Whether the shown mask and its reviewed part are as they were accepted."""
        label, mask = opened.labels.get(frame), opened.mask(frame)
        navigator = self._session.navigator
        if navigator.current is opened and navigator.area.is_changed(frame):
            return False
        return (
            label is not None and mask is not None and np.array_equal(mask, label.mask)
        )
