"""Flies from one doubtful place to the next, the most to be gained first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from psygnal import Signal

from napari_cmunet.gui.vessel_tools.looked_at import looked_at
from napari_cmunet.gui.vessel_tools.preview import PLACE
from napari_cmunet.model.threshold import mask_at
from napari_cmunet.vessels.centreline import tube
from napari_cmunet.vessels.uncertainty import doubt, likely_artery

if TYPE_CHECKING:
    from napari_cmunet.gui.images.image_state import ImageState
    from napari_cmunet.gui.vessel_tools.controller import VesselTools
    from napari_cmunet.vessels.edit_context import Scene
    from napari_cmunet.vessels.segments import Segment

LEAST_DOUBT = 6.0
"""Places with fewer pixels of centreline in doubt are not worth a look."""

_IN_VIEW = 140.0


class Tour:
    """The places of the shown frame, one after the other.

    Parameters
    ----------
    tools : VesselTools
        Prepares the frame and shows the place.
    """

    #: Another place, or none.
    changed = Signal()

    def __init__(self, tools: VesselTools) -> None:
        self._tools = tools
        self.place: Segment | None = None
        self._of: tuple[ImageState, int] | None = None
        self._wanted = False
        self.text = ""
        tools.keeper.ready.connect(self._on_ready)

    def right(self) -> None:
        """What is here is right, or has been mended: on to the next place."""
        if (here := self._here()) is not None and self.place is not None:
            looked_at(here[0]).note_seen(here[1], self.place)
        self._go_on()

    def skip(self) -> None:
        """Leave this place as it is, unreviewed, and go on."""
        if (here := self._here()) is not None and self.place is not None:
            looked_at(here[0]).note_skipped(here[1], self.place)
        self._go_on()

    def end(self) -> None:
        """Forget where we are, and show it no more."""
        self.place = self._of = None
        self._wanted = False
        self._tools.mark_place(None)
        if self.text:
            self._say("")

    def leave_elsewhere(self) -> None:
        """Forget it all if another frame is shown by now, or none."""
        if self._of is not None and self._tools.here() != self._of:
            self.end()

    def _here(self) -> tuple[ImageState, int] | None:
        here = self._tools.here()
        if here != self._of:
            self.end()
        return here

    def _go_on(self) -> None:
        self.place = None
        self._of = self._tools.here()
        if self._of is None:
            self._say("")
            return
        scene = self._tools.scene()
        if scene is None:
            self._wanted = True
            self._tools.mark_place(None)
            self._say("Looking for doubtful places…")
            return
        self._wanted = False
        self._fly(scene)

    def _on_ready(self) -> None:
        self.leave_elsewhere()
        if self._wanted:
            self._go_on()

    def _fly(self, scene: Scene) -> None:
        image_state, frame = self._of
        memory = looked_at(image_state)
        cut = mask_at(image_state.probability[frame], image_state.thresholds[frame])
        theirs = (image_state.mask_frame(frame) != 0) != cut
        places = [
            segment
            for segment in scene.doubtful
            if doubt(segment) >= LEAST_DOUBT
            and not memory.is_done(frame, segment)
            # What readers have drawn or removed themselves they need not be asked.
            and theirs[tuple(segment.points.T)].mean() < 0.5
        ]
        if not places:
            self._tools.mark_place(None)
            self._say("No doubtful place is left in this frame.")
            return
        self.place = places[0]
        self._look_at(image_state, frame, self.place)
        sure = f"artery, {100 * likely_artery(self.place):.0f} % sure"
        what = (
            f"In the mask: {sure}. If not: S, then click it."
            if self.place.in_mask
            else f"Not in the mask: {sure}. If so: A, then click it."
        )
        more = len(places) - 1
        self._say(f"{what} {more} more." if more else f"{what} The last one.")

    def _look_at(self, image_state: ImageState, frame: int, place: Segment) -> None:
        viewer = self._tools.viewer
        middle = (place.points.min(axis=0) + place.points.max(axis=0)) / 2
        extent = float(np.ptp(place.points, axis=0).max())
        where = (frame, *middle) if image_state.mask.ndim == 3 else tuple(middle)
        world = image_state.mask.data_to_world(where)
        viewer.scene.camera.center = (0.0, *world[-2:])
        pixel = float(np.abs(image_state.mask.scale[-2:]).mean())
        span = max(_IN_VIEW * max(image_state.shape[1:]) / 512, 2.5 * extent) * pixel
        viewer.scene.camera.zoom = min(viewer.canvas.size) / span
        # A line on both sides, so that what is judged stays free to be seen.
        points = place.points.astype(float)
        shape = image_state.shape[1:]
        step = max(shape) / 512
        wide = np.zeros(shape, bool)
        wide[tube(points, np.full(len(points), 9 * step), shape)] = True
        wide[tube(points, np.full(len(points), 8 * step), shape)] = False
        self._tools.mark_place((*np.nonzero(wide), PLACE))

    def _say(self, text: str) -> None:
        self.text = text
        self._tools.viewer.help = text
        self.changed.emit()
