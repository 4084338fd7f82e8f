"""The vessel tools in the panel: buttons, shortcuts, hint; the guided review."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from psygnal import Signal
from qtpy.QtWidgets import QWidget

from napari_cmunet.gui.vessel_tools.controller import VesselTools
from napari_cmunet.gui.vessel_tools.frame_state import review_record
from napari_cmunet.gui.vessel_tools.preview import PLACE
from napari_cmunet.gui.widgets import ToolRow, button, column, row, text_label
from napari_cmunet.model.threshold import mask_at
from napari_cmunet.vessels.centreline import tube
from napari_cmunet.vessels.tools import ADD, REMOVE, TOOLS

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.gui.images.image_state import ImageState
    from napari_cmunet.vessels.tools import EditContext
    from napari_cmunet.vessels.uncertainty import Segment

MIN_ERROR_PROBABILITY = 0.5
"""Places that are less likely to be wrong are not worth a look."""

MIN_LENGTH = 8.0
"""Shorter places are left out, in pixels of a frame 512 wide."""

_VIEW = 140.0  # pixels of a frame 512 wide


class GuidedReview:
    """The uncertain places of the shown frame, one at a time.

    Parameters
    ----------
    tools : VesselTools
        Prepare the frame and mark the place.
    """

    #: Another place, or none, or another message.
    changed = Signal()

    def __init__(self, tools: VesselTools) -> None:
        self._tools = tools
        self.place: Segment | None = None
        self._of: tuple[ImageState, int] | None = None
        self._wanted = False
        self.text = ""
        tools.cache.ready.connect(self._on_ready)

    def confirm(self) -> None:
        """Mark the place as reviewed and go to the next."""
        if (here := self._here()) is not None and self.place is not None:
            review_record(here[0]).add_segment(here[1], self.place)
        self._show_next()

    def skip(self) -> None:
        """Go to the next place without reviewing this one."""
        if (here := self._here()) is not None and self.place is not None:
            review_record(here[0]).add_skipped(here[1], self.place)
        self._show_next()

    def stop(self) -> None:
        """Leave the place and remove its mark."""
        self.place = self._of = None
        self._wanted = False
        self._tools.mark_place(None)
        if self.text:
            self._say("")

    def follow(self) -> None:
        """Stop if another frame is shown, or none."""
        if self._of is not None and self._tools.current_frame() != self._of:
            self.stop()

    def _here(self) -> tuple[ImageState, int] | None:
        here = self._tools.current_frame()
        if here != self._of:
            self.stop()
        return here

    def _show_next(self) -> None:
        self.place = None
        self._of = self._tools.current_frame()
        if self._of is None:
            self._say("")
            return
        context = self._tools.context()
        if context is None:
            self._wanted = True
            self._tools.mark_place(None)
            self._say("Looking for uncertain places…")
            return
        self._wanted = False
        self._go_to_worst(context)

    def _on_ready(self) -> None:
        self.follow()
        if self._wanted:
            self._show_next()

    def _go_to_worst(self, context: EditContext) -> None:
        assert self._of is not None
        image_state, frame = self._of
        record = review_record(image_state)
        cut = mask_at(image_state.probability[frame], image_state.thresholds[frame])
        changed = (image_state.mask_frame(frame) != 0) != cut
        least = MIN_LENGTH * max(1.0, max(image_state.shape[1:]) / 512)
        places = [
            segment
            for segment in context.uncertain
            if segment.error_probability >= MIN_ERROR_PROBABILITY
            and segment.length >= least
            and not record.is_done(frame, segment)
            # The user's own changes need no review.
            and changed[tuple(segment.points.T)].mean() < 0.5
        ]
        if not places:
            self._tools.mark_place(None)
            self._say(
                "No uncertain place is left in this frame that is worth a look. "
                "Enough: accept it."
            )
            return
        self.place = max(places, key=lambda s: s.error_probability)
        self._center_on(image_state, frame, self.place)
        probability = f"{100 * self.place.artery_probability:.0f} % likely artery"
        what = (
            f"In the mask, {probability}. If it is not: {REMOVE.key}, then click it."
            if self.place.in_mask
            else f"Not in the mask, {probability}. If it is: {ADD.key}, then click it."
        )
        more = len(places) - 1
        left = "place is" if more == 1 else "places are"
        self._say(
            f"{what} {more} more {left} worth a look."
            if more
            else f"{what} The last one worth a look."
        )

    def _center_on(self, image_state: ImageState, frame: int, place: Segment) -> None:
        viewer, mask = self._tools.viewer, image_state.mask
        assert mask is not None
        middle = (place.points.min(axis=0) + place.points.max(axis=0)) / 2
        extent = float(np.ptp(place.points, axis=0).max())
        where = (frame, *middle) if mask.ndim == 3 else tuple(middle)
        world = mask.data_to_world(where)
        viewer.scene.camera.center = (0.0, *world[-2:])
        pixel = float(np.abs(mask.scale[-2:]).mean())
        span = max(_VIEW * max(image_state.shape[1:]) / 512, 2.5 * extent) * pixel
        viewer.scene.camera.zoom = min(viewer.canvas.size) / span
        # A line on both sides leaves the place itself visible.
        points = place.points.astype(float)
        shape = image_state.shape[1:]
        step = max(shape) / 512
        wide = np.zeros(shape, bool)
        wide[tube(points, np.full(len(points), 9 * step), shape)] = True
        wide[tube(points, np.full(len(points), 8 * step), shape)] = False
        rows, columns = np.nonzero(wide)
        self._tools.mark_place((rows, columns, PLACE))

    def _say(self, text: str) -> None:
        self.text = text
        self._tools.viewer.help = text
        self.changed.emit()


NEXT_PLACE, SKIP_PLACE = "Q", "Shift+Q"


def vessel_shortcuts() -> list[tuple[str, str]]:
    """Return (key, what it does) for the panel's list of shortcuts."""
    return [
        *((tool.key, tool.summary) for tool in TOOLS),
        (NEXT_PLACE, "correct: go to the next uncertain place"),
        (SKIP_PLACE, "skip this place"),
    ]


class VesselSection(QWidget):
    """The vessel tools in the panel."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller = controller
        self.tools = VesselTools(controller)
        self.review = GuidedReview(self.tools)
        self.row = ToolRow((t.name, t.title, f"{t.tooltip} ({t.key})") for t in TOOLS)
        self.hint = text_label(lines=2)
        self.next = button("Next uncertain place", "")
        self.skip = button("Skip", f"Go on without reviewing this place ({SKIP_PLACE})")
        self.place = text_label(lines=2)
        self.setLayout(
            column(
                self.row,
                self.hint,
                row(self.next, self.skip, stretch=0),
                self.place,
                spacing=2,
            )
        )
        self.row.picked.connect(self._on_picked)
        self.next.clicked.connect(self.review.confirm)
        self.skip.clicked.connect(self.review.skip)
        self.destroyed.connect(self.tools.cache.clear)
        self.tools.changed.connect(self._on_changed)
        self.review.changed.connect(self.refresh)
        self.refresh()

    @property
    def active(self) -> bool:
        """Whether a vessel tool is active."""
        return self.tools.tool is not None

    def key_actions(self) -> dict[str, Callable[[], object]]:
        """Return what the keys do, by key."""
        toggles = {tool.key: partial(self.tools.toggle, tool) for tool in TOOLS}
        return {
            **toggles,
            NEXT_PLACE: self.review.confirm,
            SKIP_PLACE: self.review.skip,
        }

    def close_tools(self) -> None:
        """Deactivate the tools. Idempotent."""
        self.review.stop()
        self.tools.close()

    def _on_picked(self, name: str) -> None:
        self.tools.toggle(next(tool for tool in TOOLS if tool.name == name))
        self.refresh()

    def _on_changed(self) -> None:
        self.refresh()
        self._controller.changed.emit()

    def refresh(self) -> None:
        """Show the active tool, its hint, and the place under review."""
        self.tools.follow()
        usable = self.tools.current_frame() is not None
        self.review.follow()
        for widget in (self.row, self.hint, self.next):
            widget.setEnabled(usable)
        self.row.show_active(self.tools.tool.name if self.tools.tool else "")
        self.hint.setText(self.tools.hint)
        reviewing = self.review.place is not None
        self.skip.setEnabled(usable and reviewing)
        self.next.setText(
            "Correct, next place" if reviewing else "Next uncertain place"
        )
        self.next.setToolTip(
            f"This place is correct now: go to the next ({NEXT_PLACE})"
            if reviewing
            else f"Go to the most uncertain place ({NEXT_PLACE})"
        )
        self.place.setText(self.review.text)
        self.place.setVisible(bool(self.review.text))
