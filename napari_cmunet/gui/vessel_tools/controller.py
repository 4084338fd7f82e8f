"""The active vessel tool: hovering previews an edit, a click applies it.

While a tool is active, the mask layer is in its pan/zoom mode, so that a drag moves the
image and a click without a drag is ours. Any other napari mode deactivates the tool.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.layers import Shapes
from psygnal import Signal

from napari_cmunet.gui.canvas import is_click
from napari_cmunet.gui.images.layers import pixel_at
from napari_cmunet.gui.vessel_tools.frame_state import ContextCache, review_record
from napari_cmunet.gui.vessel_tools.preview import Preview, uncertain_marks
from napari_cmunet.vessels.tools import NARROWER, WIDER, propose_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari.components import ViewerModel
    from napari.layers import Labels

    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.gui.images.image_state import ImageState
    from napari_cmunet.gui.vessel_tools.preview import Mark
    from napari_cmunet.vessels.minimal_path import Tracer
    from napari_cmunet.vessels.tools import EditContext, Point, Proposal, VesselTool

_WIDENING = 1.1  # per press of a key


class VesselTools:
    """The vessel tools of one panel, of which one may be active."""

    #: The tool or the hint has changed.
    changed = Signal()
    #: A tool is about to become active.
    activated = Signal()

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self.viewer = controller.viewer
        self.cache = ContextCache()
        self.cache.ready.connect(self._on_ready)
        self.preview = Preview(self.viewer)
        self.tool: VesselTool | None = None
        self.hint = ""
        self._mask: Labels | None = None
        self._tracer: tuple[Tracer, ImageState, int] | None = None
        self._cursor: tuple[float, ...] | None = None
        self._shift = False
        self._widening = 1.0
        self._proposed: tuple[EditContext, tuple[Any, ...], Proposal | None] | None = (
            None
        )
        self._marked: EditContext | None = None
        self._place: tuple[Mark, tuple[ImageState, int]] | None = None
        # A click that came before the context was ready.
        self._pending: tuple[ImageState, int, tuple[float, ...], bool] | None = None

    # -- activation -----------------------------------------------------------

    def toggle(self, tool: VesselTool) -> None:
        """Activate a tool, or deactivate it if it is active."""
        if self.tool is tool:
            self.deactivate()
        else:
            self.activate(tool)

    def activate(self, tool: VesselTool) -> None:
        """Make a tool the active one."""
        mask = self._controller.editor.select_mask()
        if mask is None:
            return
        self.activated.emit()
        self._release_mask()
        self.tool = tool
        self._tracer = self._pending = None
        self._proposed = self._marked = None
        mask.mode = "pan_zoom"
        mask.cursor = "crosshair"
        self._mask = mask
        mask.events.mode.connect(self._on_mode)
        # On this layer only, and only for now: napari's own Escape is for polygons.
        mask.bind_key("Escape", self._on_escape, overwrite=True)
        mask.bind_key(WIDER, self._on_wider, overwrite=True)
        mask.bind_key(NARROWER, self._on_narrower, overwrite=True)
        for callbacks, ours in self._callbacks():
            if ours not in callbacks:
                callbacks.append(ours)
        self.show_hint(tool.hint)
        self._hover()

    def deactivate(self) -> None:
        """Return to napari's own tools."""
        if self.tool is None:
            return
        self.tool = None
        self._tracer = self._pending = None
        self._release_mask()
        for callbacks, ours in self._callbacks():
            if ours in callbacks:
                callbacks.remove(ours)
        self._show_place()
        self.show_hint("")

    def mark_place(self, mark: Mark | None) -> None:
        """Mark a place of the shown frame, with or without a tool; None for no mark."""
        here = self.current_frame()
        self._place = None if mark is None or here is None else (mark, here)
        self._marked = None
        if self.tool is not None:
            self._hover()
        else:
            self._show_place()

    def _show_place(self) -> None:
        marks, here = self._place_here(), self.current_frame()
        if not marks or here is None:
            self.preview.hide()
            return
        self.preview.show(*here)
        self.preview.draw_below(marks)

    def _place_here(self) -> list[Mark]:
        if self._place is None or self._place[1] != self.current_frame():
            return []
        return [self._place[0]]

    def follow(self) -> None:
        """Follow the viewer to another image, frame or layer."""
        if self.tool is None:
            return
        if isinstance(self.viewer.layers.selection.active, Shapes):
            self.deactivate()
            return
        here = self.current_frame()
        if here is not None and not self.preview.is_over(*here):
            self._hover()

    def close(self) -> None:
        """Deactivate the tool and drop what is prepared."""
        self.deactivate()
        self.cache.clear()

    def _callbacks(self) -> tuple[tuple[list[Any], Callable[..., Any]], ...]:
        viewer = self.viewer
        return (
            (viewer.mouse_move_callbacks, self._on_move),
            (viewer.mouse_drag_callbacks, self._on_press),
        )

    def _release_mask(self) -> None:
        if self._mask is not None:
            self._mask.events.mode.disconnect(self._on_mode)
            for key in ("Escape", WIDER, NARROWER):
                self._mask.bind_key(key, None)
            if str(self._mask.mode) == "pan_zoom":
                self._mask.cursor = "standard"
            self._mask = None

    def _on_mode(self, event: Any) -> None:
        if self.tool is not None and str(event.source.mode) != "pan_zoom":
            self.deactivate()

    def _on_escape(self, layer: Labels) -> None:
        self._pending = None
        if self._tracer is not None and self.tool is not None:
            self._tracer = None
            self.show_hint(self.tool.hint)
            self._hover()
        else:
            self.deactivate()

    # napari asks every bound function for its name: a partial has none, and no key of
    # the window would work.
    def _on_wider(self, layer: Labels) -> None:
        self._widen(_WIDENING)

    def _on_narrower(self, layer: Labels) -> None:
        self._widen(1 / _WIDENING)

    def _widen(self, factor: float) -> None:
        """Change the width of the path before its second click."""
        if self._tracer is not None:
            self._widening *= factor
            self._hover()

    # -- the mouse ----------------------------------------------------------------

    def _on_move(self, viewer: ViewerModel, event: Any) -> None:
        self._point_at(event)
        self._hover()

    def _point_at(self, event: Any) -> None:
        self._cursor = tuple(event.position)
        self._shift = "Shift" in event.modifiers

    def _on_press(self, viewer: ViewerModel, event: Any) -> Iterator[None]:
        self._point_at(event)
        if (yield from is_click(event)):
            self.click()

    # -- what is under the cursor ---------------------------------------------------

    def current_frame(self) -> tuple[ImageState, int] | None:
        """Image and frame that the tools act on."""
        here = self._controller.images.editable
        return here if here and here[0].image in self.viewer.layers else None

    def context(self) -> EditContext | None:
        """Edit context of the shown frame, or None until it is ready."""
        if (here := self.current_frame()) is None:
            return None
        image_state, frame = here
        mask = image_state.mask_frame(frame)
        background = review_record(image_state).background(frame, mask)
        return self.cache.get(image_state, frame, background)

    def _point(self, image_state: ImageState) -> Point | None:
        if self._cursor is None:
            return None
        assert image_state.mask is not None
        return pixel_at(image_state.mask, self._cursor)

    def _hover(self) -> None:
        if self.tool is None or (here := self.current_frame()) is None:
            return
        image_state, frame = here
        if image_state.mask is not self._mask:
            # Another image is active: the same tool, on its mask.
            self.activate(self.tool)
            return
        if not self.preview.is_over(image_state, frame):
            self.preview.show(image_state, frame)
            self._marked = None
        if (context := self.context()) is None:
            self.preview.draw(None)
            self.show_hint(self.cache.problem or "Preparing this frame…")
            return
        self._mark(context, self.tool)
        made = self._propose(context, self.tool, image_state, frame)
        self.preview.draw(None if made is None else made.edit)
        self.show_hint(self.tool.hint if made is None else made.hint)

    def _propose(
        self,
        context: EditContext,
        tool: VesselTool,
        image_state: ImageState,
        frame: int,
    ) -> Proposal | None:
        point = self._point(image_state)
        if point is None:
            return None
        where = (tool, round(point[0]), round(point[1]), self._shift, self._widening)
        if self._proposed is not None:
            known_context, known_where, known = self._proposed
            if known_context is context and known_where == where:
                return known
        tracer = self._tracer_here(image_state, frame)
        if tracer is not None:
            made: Proposal | None = propose_path(context, tracer, point, self._widening)
        else:
            made = tool.propose(context, point, shift=self._shift)
        self._proposed = (context, where, made)
        return made

    def _tracer_here(self, image_state: ImageState, frame: int) -> Tracer | None:
        if self._tracer is None:
            return None
        tracer, of, at = self._tracer
        return tracer if of is image_state and at == frame else None

    def _mark(self, context: EditContext, tool: VesselTool) -> None:
        if context is not self._marked:
            self._marked = context
            marks = [*uncertain_marks(context, tool), *self._place_here()]
            self.preview.draw_below(marks)

    # -- acting -----------------------------------------------------------------------

    def click(self) -> None:
        """Apply the proposal as one undo step, or start a path."""
        tool = self.tool
        if tool is None or (here := self.current_frame()) is None:
            return
        image_state, frame = here
        if (point := self._point(image_state)) is None:
            return
        if (context := self.context()) is None:
            assert self._cursor is not None
            self._pending = (image_state, frame, self._cursor, self._shift)
            return
        made = self._propose(context, tool, image_state, frame)
        if made is None:
            tracer = tool.start_path(context, point)
            if tracer is not None:
                self._tracer = (tracer, image_state, frame)
                self._widening = 1.0
                self._proposed = None
                self.show_hint(
                    "Now click where the vessel ends. [ ] change its width. "
                    "Esc: start again."
                )
            return
        if not len(made.edit):
            return
        if tool.marks_background:
            review_record(image_state).add_background(frame, made.edit)
        self.apply(made, image_state, frame)

    def apply(self, proposal: Proposal, image_state: ImageState, frame: int) -> None:
        """Write a proposal into the mask."""
        self._tracer = None
        self._proposed = None
        mask = image_state.mask
        assert mask is not None
        label = mask.selected_label or 1
        values = proposal.edit.values.astype(mask.data.dtype) * label
        image_state.write(frame, proposal.edit.where, values)
        self.preview.draw(None)
        self._controller.changed.emit()
        self._hover()

    def _on_ready(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None and pending[:2] == self.current_frame():
            now = self._cursor, self._shift
            self._cursor, self._shift = pending[2:]
            self.click()
            self._cursor, self._shift = now
        self._hover()
        self.changed.emit()

    def show_hint(self, hint: str) -> None:
        """Show one line in the window's status bar and in the panel."""
        if hint == self.hint:
            return
        self.hint = hint
        self.viewer.help = hint
        self.changed.emit()
