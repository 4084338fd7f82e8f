"""The vessel tools in hand: hover shows what a click would do, a click does it.

While one is in hand, the mask layer is in its pan/zoom mode: a drag moves the image,
as always, and a click without a drag is ours. Taking up the brush, or any other of
napari's tools, puts ours down.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Shapes
from psygnal import Signal

from napari_cmunet.gui.vessel_tools.context_keeper import SceneKeeper
from napari_cmunet.gui.vessel_tools.looked_at import looked_at
from napari_cmunet.gui.vessel_tools.preview import Preview
from napari_cmunet.gui.vessel_tools.unsure import unsure_marks
from napari_cmunet.vessels.modes import Mode

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.gui.images.image_state import ImageState
    from napari_cmunet.gui.vessel_tools.preview import Mark
    from napari_cmunet.vessels.edit_context import Scene
    from napari_cmunet.vessels.minimal_path import Tracer
    from napari_cmunet.vessels.tools import Offer

BEGIN = {
    Mode.ADD: "Click where a missing vessel begins; or a yellow branch, or a gap.",
    Mode.REMOVE: "Click a branch to remove it; yellow ones are unsure. Shift+click: a "
    "catheter or wire whole.",
}

_DRAG = 4.0


class VesselTools:
    """The modes of one panel.

    Parameters
    ----------
    controller : Controller
        Knows the active reading and the viewer.
    """

    #: Another tool, or another hint.
    changed = Signal()
    #: One of them is in hand from now on.
    taken_up = Signal()

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self.viewer = controller.viewer
        self.keeper = SceneKeeper()
        self.keeper.ready.connect(self._on_ready)
        self.preview = Preview(self.viewer)
        self.mode: Mode | None = None
        self.hint = ""
        self._mask: Labels | None = None
        self._tracer: tuple[Tracer, ImageState, int] | None = None
        self._cursor: tuple[float, float] | None = None
        self._whole = False
        self._offered: tuple[Scene, tuple, Offer | None] | None = None
        self._marked: Scene | None = None
        self._place: tuple[Mark, tuple[ImageState, int]] | None = None
        # A click that came before its scene.
        self._early: tuple[ImageState, int, tuple[float, ...], bool] | None = None

    # -- taking up and putting down ---------------------------------------------

    def toggle(self, mode: Mode) -> None:
        """Take a tool up, or put it down if it is in hand."""
        self.put_down() if self.mode is mode else self.take_up(mode)

    def take_up(self, mode: Mode) -> None:
        """Put a tool in hand."""
        mask = self._controller.editor.select_mask()
        if mask is None:
            return
        self.taken_up.emit()
        self._leave_mask()
        self.mode = mode
        self._tracer = self._early = None
        self._offered = self._marked = None
        mask.mode = "pan_zoom"
        mask.cursor = "crosshair"
        self._mask = mask
        mask.events.mode.connect(self._on_mode)
        # Of this layer alone, and only meanwhile: napari's own Escape is for polygons.
        mask.bind_key("Escape", self._on_escape, overwrite=True)
        for callbacks, ours in self._callbacks():
            if ours not in callbacks:
                callbacks.append(ours)
        self.say(BEGIN[mode])
        self._hover()

    def put_down(self) -> None:
        """Back to napari's own tools."""
        if self.mode is None:
            return
        self.mode = None
        self._tracer = self._early = None
        self._leave_mask()
        for callbacks, ours in self._callbacks():
            if ours in callbacks:
                callbacks.remove(ours)
        self._show_place()
        self.say("")

    def mark_place(self, mark: Mark | None) -> None:
        """Mark a place of the shown frame, whatever is in hand; None marks none."""
        here = self.here()
        self._place = None if mark is None or here is None else (mark, here)
        self._marked = None
        self._hover() if self.mode is not None else self._show_place()

    def _show_place(self) -> None:
        marks = self._place_here()
        if not marks:
            self.preview.hide()
            return
        self.preview.show(*self.here())
        self.preview.draw_below(marks)

    def _place_here(self) -> list[Mark]:
        if self._place is None or self._place[1] != self.here():
            return []
        return [self._place[0]]

    def follow(self) -> None:
        """Another image or frame is shown, or something else is drawn in the viewer."""
        if self.mode is None:
            return
        if isinstance(self.viewer.layers.selection.active, Shapes):
            self.put_down()
            return
        here = self.here()
        if here is not None and not self.preview.lies_over(*here):
            self._hover()

    def shut_down(self) -> None:
        """The panel closes."""
        self.put_down()
        self.keeper.forget()

    def _callbacks(self):
        viewer = self.viewer
        return (
            (viewer.mouse_move_callbacks, self._on_move),
            (viewer.mouse_drag_callbacks, self._on_press),
        )

    def _leave_mask(self) -> None:
        if self._mask is not None:
            self._mask.events.mode.disconnect(self._on_mode)
            self._mask.bind_key("Escape", None)
            if str(self._mask.mode) == "pan_zoom":
                self._mask.cursor = "standard"
            self._mask = None

    def _on_mode(self, event) -> None:
        if self.mode is not None and str(event.source.mode) != "pan_zoom":
            self.put_down()

    def _on_escape(self, layer) -> None:
        self._early = None
        if self._tracer is not None:
            self._tracer = None
            self.say(BEGIN[Mode.ADD])
            self._hover()
        else:
            self.put_down()

    # -- the mouse ----------------------------------------------------------------

    def _on_move(self, viewer, event) -> None:
        self._point_at(event)
        self._hover()

    def _point_at(self, event) -> None:
        self._cursor = tuple(event.position)
        self._whole = "Shift" in event.modifiers

    def _on_press(self, viewer, event):
        if event.button != 1 or set(event.modifiers) - {"Shift"}:
            return
        pressed = np.array(event.pos, float)
        self._point_at(event)
        yield
        while event.type == "mouse_move":
            if np.hypot(*(np.array(event.pos, float) - pressed)) > _DRAG:
                return
            yield
        self.click()

    # -- what is under the cursor ---------------------------------------------------

    def here(self) -> tuple[ImageState, int] | None:
        """The reading and the frame that the tools act on."""
        image_state = self._controller.active
        if image_state is None or not image_state.usable_mask:
            return None
        if image_state.image not in self.viewer.layers:
            return None
        return image_state, self._controller.shown(image_state)

    def scene(self) -> Scene | None:
        """What the tools know of the shown frame, or None until it is prepared."""
        if (here := self.here()) is None:
            return None
        image_state, frame = here
        mask = image_state.mask_frame(frame)
        background = looked_at(image_state).background(frame, mask)
        return self.keeper.scene(image_state, frame, background)

    def _point(self, image_state: ImageState) -> tuple[float, float] | None:
        if self._cursor is None:
            return None
        row, column = image_state.mask.world_to_data(self._cursor)[-2:]
        rows, columns = image_state.shape[1:]
        inside = -0.5 <= row < rows - 0.5 and -0.5 <= column < columns - 0.5
        return (float(row), float(column)) if inside else None

    def _hover(self) -> None:
        if self.mode is None or (here := self.here()) is None:
            return
        image_state, frame = here
        if image_state.mask is not self._mask:
            # Another image is worked on now; the same tool, on its mask.
            self.take_up(self.mode)
            return
        if not self.preview.lies_over(image_state, frame):
            self.preview.show(image_state, frame)
            self._marked = None
        if (scene := self.scene()) is None:
            self.preview.draw(None)
            self.say(self.keeper.problem or "Preparing this frame…")
            return
        self._mark(scene)
        made = self._offer(scene, image_state, frame)
        self.preview.draw(None if made is None else made.edit)
        self.say(BEGIN[self.mode] if made is None else made.hint)

    def _offer(self, scene: Scene, image_state: ImageState, frame: int) -> Offer | None:
        point = self._point(image_state)
        if point is None:
            return None
        pixel = (round(point[0]), round(point[1]), self._whole)
        if self._offered is not None:
            known_scene, known_pixel, known = self._offered
            if known_scene is scene and known_pixel == pixel:
                return known
        tools = _tools()
        tracer = self._tracer_here(image_state, frame)
        if tracer is not None:
            made = tools.trace_offer(scene, tracer, point)
        elif self.mode is Mode.ADD and self._whole:
            made = None  # Shift begins a trace, whatever is proposed here
        else:
            made = tools.offer_in(self.mode, scene, point, whole=self._whole)
        self._offered = (scene, pixel, made)
        return made

    def _tracer_here(self, image_state: ImageState, frame: int) -> Tracer | None:
        if self._tracer is None:
            return None
        tracer, of, at = self._tracer
        return tracer if of is image_state and at == frame else None

    def _mark(self, scene: Scene) -> None:
        if scene is not self._marked:
            self._marked = scene
            marks = [*unsure_marks(scene, self.mode), *self._place_here()]
            self.preview.draw_below(marks)

    # -- acting -----------------------------------------------------------------------

    def click(self) -> None:
        """Do what was offered, as one undo step."""
        if self.mode is None or (here := self.here()) is None:
            return
        image_state, frame = here
        if (point := self._point(image_state)) is None:
            return
        if (scene := self.scene()) is None:
            self._early = (image_state, frame, self._cursor, self._whole)
            return
        made = self._offer(scene, image_state, frame)
        if made is None and self.mode is Mode.ADD:
            self._tracer = (_tools().begin_trace(scene, point), image_state, frame)
            self._offered = None
            self.say("Now click where the vessel ends. Esc: begin again.")
            return
        if made is None or not len(made.edit):
            return
        if self.mode is Mode.REMOVE:
            looked_at(image_state).note_background(frame, made.edit)
        self.apply(made, image_state, frame)

    def apply(self, made: Offer, image_state: ImageState, frame: int) -> None:
        """Write an offer into the mask."""
        self._tracer = None
        self._offered = None
        label = image_state.mask.selected_label or 1
        values = made.edit.values.astype(image_state.mask.data.dtype) * label
        image_state.write(frame, made.edit.where, values)
        self.preview.draw(None)
        self._controller.changed.emit()
        self._hover()

    def _on_ready(self) -> None:
        early, self._early = self._early, None
        here = self.here()
        if early is not None and here is not None and early[0] is here[0]:
            if early[1] == here[1]:
                now = self._cursor, self._whole
                self._cursor, self._whole = early[2:]
                self.click()
                self._cursor, self._whole = now
        self._hover()
        self.changed.emit()

    def say(self, hint: str) -> None:
        """Show one line in the window's status bar and in the panel."""
        if hint == self.hint:
            return
        self.hint = hint
        self.viewer.help = hint
        self.changed.emit()


def _tools():
    # They bring half of scipy along. The scene's worker has imported them by the time
    # that anybody hovers, so that the panel opens without them.
    from napari_cmunet.vessels import tools

    return tools
