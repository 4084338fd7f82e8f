"""Annotation of the open image: labels, the reviewed area, flags and comments."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_cmunet.errors import ProjectError
from napari_cmunet.gui.images.layers import pixel_size_mm, record_of
from napari_cmunet.gui.measurement.measurement import measurement_of
from napari_cmunet.gui.project import alerts
from napari_cmunet.gui.project.workspace import read_change
from napari_cmunet.io.masks.files import is_large
from napari_cmunet.io.masks.label_file import NAMES, Label, names_to_json, read_label

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from napari_cmunet.gui.project.images.navigator import Navigator
    from napari_cmunet.gui.project.images.open_image import OpenImage
    from napari_cmunet.gui.project.reviewed_area import ReviewedArea
    from napari_cmunet.gui.project.workspace import Workspace
    from napari_cmunet.project.files import FrameKey
    from napari_cmunet.project.labels.labels import AcceptedLabel, OlderLabel

WAIT_SECONDS = 0.04
"""How long accepting may block the window, so that the label is on the disk before the
key is released. On a slower disk the window goes on and shows that it is saving."""


class Annotation:
    """What the user decides about the open image of a project."""

    #: A label is on the disk; with its (image id, frame).
    accepted = Signal(object)
    #: A label was withdrawn, or replaced by the one before; with (image id, frame).
    withdrawn = Signal(object)
    #: The project is to be closed and opened again.
    reopen_wanted = Signal()

    def __init__(self, workspace: Workspace, navigator: Navigator) -> None:
        self._workspace, self._navigator = workspace, navigator
        self._messages = workspace.messages
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
        workspace, navigator = self._workspace, self._navigator
        opened = navigator.current
        if workspace.project is None:
            return "To accept masks as labels, choose a folder of angiograms first."
        if opened is None or navigator.opening is not None:
            return "No image of the project is open yet."
        if workspace.project.read_only:
            return "The project is open for reading only."
        image_state, images = opened.image_state, workspace.controller.images
        if other := self.other_selected:
            return other
        if image_state.image_replaced:
            return (
                "The pixels of this image layer were replaced. Open the image again "
                "from the list."
            )
        if not image_state.usable_mask:
            if image_state.mask_was_deleted:
                return "The mask was deleted. Make it again."
            return "The image is not segmented yet."
        if not images.has_shown_frame(image_state):
            return "The slider is at a frame that this cine does not have."
        frame = navigator.frame
        if (
            not image_state.has_prediction(frame)
            and not image_state.mask_frame(frame).any()
        ):
            return "This frame is not segmented yet."
        _, area, _ = navigator.parts()
        if area.is_begun and not area.is_part(frame):
            return "Draw the box or lasso first, or press Whole for all of it."
        return ""

    def accept(self, *, empty: bool = False, large: bool = False) -> None:
        """Save the shown mask as the label of its frame.

        Parameters
        ----------
        empty : bool
            Whether the user has confirmed that there is no artery.
        large : bool
            Whether the user has confirmed that so much of the frame is artery.
        """
        workspace, navigator = self._workspace, self._navigator
        if problem := self.why_not():
            self._messages.show(problem)
            return
        started = time.perf_counter()
        opened, area, draft_saver = navigator.parts()
        frame, project = navigator.frame, workspace.project
        assert project is not None
        workspace.controller.editor.end_threshold()
        opened.image_state.history.bring_up_to_date(frame)
        mask = opened.mask(frame)
        assert mask is not None
        if not mask.any() and not empty:
            alerts.mask_is_empty(self._messages, partial(self.accept, empty=True))
            return
        if is_large(mask) and not large:
            accept = partial(self.accept, large=True)
            share = round(100 * float(mask.mean()))
            alerts.mask_is_large(self._messages, share, accept)
            return
        reviewed = area.reviewed(frame, mask)
        if reviewed is not None and not reviewed.any():
            self._messages.show(
                "Nothing of this frame counts as reviewed yet. Look at it with Q, draw "
                "a box around what you have seen, or press Whole for all of it."
            )
            return
        self._messages.dismiss("accept")
        provenance = opened.provenance(frame)
        key, names = opened.key(frame), opened.image_state.names.get(frame, ())
        cost = opened.clock.seconds, opened.pixels_changed(frame, mask)
        record = record_of(opened.image_state.image)
        act = partial(
            project.labels.accept,
            *key,
            mask,
            reviewed,
            provenance=provenance,
            pixel_size_mm=pixel_size_mm(opened.image_state.image),
            pixel_size_source=record.get("pixel_size_source"),
            pixel_size_error=record.get("pixel_size_error"),
            seconds=cost[0],
            pixels_changed=cost[1],
            pixels_added=opened.pixels_added(frame, mask),
            measurement=measurement_of(opened.image_state, frame),
            names=names,
        )
        opened.clock.restart()
        label = Label(mask, reviewed, provenance, note={NAMES: names_to_json(names)})
        draft_saver.discard(frame)
        area.accepted(frame)
        self.saving.add(key)
        future = workspace.writer.submit(
            lambda: (
                act(),
                time.perf_counter() - started,
                read_change(project, key[0]),
            ),
            partial(self._on_accepted, opened, label, cost[0]),
            partial(self._on_refused, opened, frame),
        )
        workspace.writer.wait_for(future, WAIT_SECONDS)
        workspace.changed.emit()

    def _on_accepted(
        self, opened: OpenImage, label: Label, seconds: float, result: Any
    ) -> None:
        accepted, self.seconds, change = result
        key = (accepted.image, accepted.frame)
        self.saving.discard(key)
        self.times[key] = time.strftime("%H:%M")
        self._accepted[key] = accepted
        opened.labels[accepted.frame] = label
        opened.image_state.origins[accepted.frame] = label.provenance
        # Later predictions do not replace this mask.
        opened.image_state.own_masks[accepted.frame] = label.mask
        self._messages.dismiss("draft")
        self._messages.show(accepted.notice)
        self._workspace.apply(change)
        self._workspace.set_annotation_time(
            self._workspace.overview.annotation_time.with_label(key, seconds)
        )
        self.accepted.emit(key)

    def _on_refused(self, opened: OpenImage, frame: int, problem: str) -> None:
        navigator = self._navigator
        self.saving.discard(opened.key(frame))
        if navigator.current is opened and navigator.draft_saver is not None:
            navigator.draft_saver.note({frame})
        alerts.not_accepted(
            self._messages, problem, self.accept, self.reopen_wanted.emit
        )

    def take_back(self) -> None:
        """Withdraw the label of the shown frame; the mask stays as a draft.

        If this window has replaced an older label, that one is restored.
        """
        workspace, navigator = self._workspace, self._navigator
        opened, project = navigator.current, workspace.project
        if opened is None or project is None or not navigator.is_shown:
            return
        frame = navigator.frame
        key = opened.key(frame)
        if frame not in opened.labels and key not in self.saving:
            self._messages.show("This frame has no label to take back.")
            return
        accepted = self._accepted.pop(key, None)

        def act() -> tuple[Label | None, Any]:
            labels, fits = project.labels, partial(opened.fits, frame=frame)
            if accepted is None or not labels.undo_accept(accepted, fits):
                labels.withdraw(*key)
            return project.labels.get(*key), read_change(project, key[0])

        workspace.writer.submit(
            act, partial(self._on_taken_back, opened, frame), self._on_problem
        )

    def _on_taken_back(self, opened: OpenImage, frame: int, result: Any) -> None:
        label, change = result
        if label is None:
            opened.labels.pop(frame, None)
            text = "The label was withdrawn. It is kept among the older versions."
        else:
            opened.labels[frame] = label
            text = "The label before it is in use again; your mask is kept as a draft."
        self.times.pop(opened.key(frame), None)
        navigator = self._navigator
        if navigator.current is opened and navigator.draft_saver is not None:
            _, area, _ = navigator.parts()
            area.withdrawn(frame)
            navigator.draft_saver.note({frame})
        self._messages.show(text)
        self._workspace.apply(change)
        self.withdrawn.emit(opened.key(frame))

    def restore(self, older: OlderLabel) -> None:
        """Make an older version of the label of the open image the label again."""
        opened, project = self._navigator.current, self._workspace.project
        if opened is None or project is None or opened.id != older.image:
            return

        def act() -> tuple[AcceptedLabel, Label | None, Any]:
            if not opened.fits(read_label(older.path), older.frame):
                raise ProjectError(
                    "That version does not fit the image any more: the file has "
                    "changed. The label stays as it is."
                )
            accepted = project.labels.restore(older)
            label = project.labels.get(older.image, older.frame)
            return accepted, label, read_change(project, older.image)

        self._workspace.writer.submit(
            act, partial(self._on_restored, opened), self._on_problem
        )

    def _on_restored(self, opened: OpenImage, result: Any) -> None:
        accepted, label, change = result
        frame, key = accepted.frame, opened.key(accepted.frame)
        self._accepted[key] = accepted
        self.times[key] = time.strftime("%H:%M")
        opened.labels[frame] = label
        if self._navigator.current is opened:
            _, area, draft_saver = self._navigator.parts()
            opened.show_label(frame, label, area.restored(frame, label))
            draft_saver.discard(frame)
        self._messages.show(f"The version is the label again. {accepted.notice}")
        self._workspace.apply(change)
        self.accepted.emit(key)

    # -- flags and comments ---------------------------------------------------

    def skip(self) -> None:
        """Skip the image and open the next one, or undo that."""
        image = self._image()
        if image is None:
            return
        state = self._workspace.overview.status(image).state
        if state == "labelled":
            self._messages.show(
                "This image has a label. Take that back first (Shift+K) to skip it."
            )
            return
        skipped = state == "skipped"
        self._submit(image, lambda project: project.skip(image, not skipped))
        if not skipped:
            self._navigator.next()

    def flag(self) -> None:
        """Flag the image for a second look, or remove the flag."""
        image = self._image()
        if image is not None:
            flagged = self._workspace.overview.status(image).flagged
            self._submit(image, lambda project: project.flag(image, not flagged))

    def comment(self, image: str, text: str) -> None:
        """Save a comment on an image."""
        if text != self._workspace.overview.status(image).comment:
            self._submit(image, lambda project: project.comment(image, text))

    def _image(self) -> str | None:
        navigator = self._navigator
        if navigator.stuck is not None:
            return navigator.stuck
        if navigator.current is None or navigator.opening is not None:
            return None
        if other := self.other_selected:
            self._messages.show(other)
            return None
        return navigator.current.id

    @property
    def other_selected(self) -> str:
        """That an image is looked at which is not the project's; empty if it is."""
        navigator, images = self._navigator, self._workspace.controller.images
        opened, active = navigator.current, images.active
        if opened is None:
            return ""
        if not navigator.is_shown:
            return "This image was closed. Open it again from the list."
        if active is None or active is opened.image_state:
            return ""
        return (
            f"{active.image.name} is selected, not the project's image "
            f"{self._workspace.overview.name(opened.id)}. Go back, or add it."
        )

    def go_back(self) -> None:
        """Show the project's image again, after another one was selected."""
        if (opened := self._navigator.current) is not None:
            self._navigator.go(opened.id)

    def _submit(self, image: str, act: Callable[..., None]) -> None:
        project = self._workspace.project
        assert project is not None

        def changed() -> Any:
            act(project)
            return read_change(project, image)

        self._workspace.writer.submit(changed, self._workspace.apply, self._on_problem)

    def _on_problem(self, problem: str) -> None:
        self._messages.show_error(problem, about="flag")

    # -- the reviewed area ----------------------------------------------------

    def _editable_area(self) -> ReviewedArea | None:
        navigator = self._navigator
        writable = self._workspace.writable is not None and navigator.is_shown
        return navigator.area if writable else None

    def draw_area(self, tool: str) -> None:
        """Select a tool that draws the reviewed area; see ReviewedArea."""
        if (area := self._editable_area()) is not None:
            area.draw(tool)

    def review_looked_at(self, on: bool = True) -> None:
        """Count what was looked at as reviewed in the shown frame."""
        if (area := self._editable_area()) is not None:
            area.add_looked_at(self._navigator.frame, on)

    def review_all(self) -> None:
        """Count the whole shown frame as reviewed."""
        navigator = self._navigator
        if navigator.area is not None and navigator.is_shown:
            navigator.area.clear(navigator.frame)

    def is_unchanged(self, opened: OpenImage, frame: int) -> bool:
        """Whether mask, names and reviewed area are as they were accepted."""
        navigator = self._navigator
        area = navigator.area
        if navigator.current is opened and area is not None and area.is_changed(frame):
            return False
        known = frame in opened.labels and opened.mask(frame) is not None
        return known and not opened.is_changed(frame)
