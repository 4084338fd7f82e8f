"""Names of the vessels of the shown frame: given by clicks, proposed, confirmed."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from psygnal import Signal
from qtpy.QtWidgets import QWidget

from napari_cmunet.errors import CMUNetError
from napari_cmunet.gui.canvas import Picker
from napari_cmunet.gui.jobs import JobRunner
from napari_cmunet.gui.vessel_tools.names_layer import NamesLayer
from napari_cmunet.gui.widgets import NameCombo, button, column, row, text_label
from napari_cmunet.vessels.naming import NamedTree
from napari_cmunet.vessels.segments import SEGMENTS, segment_title
from napari_cmunet.vessels.tree import build_tree

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.gui.images.corrections import Names
    from napari_cmunet.gui.images.image_state import ImageState

    Act = Callable[[np.ndarray, Names], Names]

_HINT = "Click on a branch to name it. With Shift: from there on. Esc: stop."
_REACH = 8.0  # pixels from a branch


class Naming:
    """Names vessels of the active image; each naming is an undo step."""

    #: Names, the way of clicking or the message have changed.
    changed = Signal()
    #: Clicks are about to name vessels.
    started = Signal()

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self.layer = NamesLayer(controller.viewer)
        #: The segment that a click gives: empty for no name, None to confirm.
        self.segment: str | None = "1"
        self.message = ""
        self._picker = Picker(controller, self.take, self._on_stopped)
        self._picker.starting.connect(self.started.emit)
        self._jobs = JobRunner("Naming vessels", failure="The vessels cannot be named")
        # Acts that wait for the one before, each on an image and frame.
        self._waiting: deque[tuple[ImageState, int, Act]] = deque()
        self._followed: ImageState | None = None
        self._model: Any = None

    @property
    def picking(self) -> bool:
        """Whether a click names a vessel."""
        return self._picker.active

    @property
    def running(self) -> bool:
        """Whether a vessel is being named."""
        return self._jobs.running

    @property
    def names(self) -> Names:
        """Those of the shown frame."""
        here = self._controller.images.editable
        return here[0].names.get(here[1], ()) if here else ()

    # -- naming ------------------------------------------------------------------

    def pick(self) -> None:
        """Name by clicks from now on, or stop."""
        if self.picking:
            self.stop_picking()
        elif self._picker.start():
            self._say(_HINT)

    def stop_picking(self) -> None:
        """Let clicks name no more. Idempotent."""
        self._picker.stop()

    def _on_stopped(self) -> None:
        self._say("")

    def take_here(self) -> None:
        """Name the vessel under the cursor, as a click does."""
        self.take(self._controller.viewer.cursor.position)

    def take(self, position: tuple[float, ...], onward: bool = False) -> None:
        """Name the vessel at a position of the world."""
        place = self._picker.place(position)
        if place is not None:
            image_state, frame, point = place
            act = partial(_rename, point, self.segment, onward)
            self._act(image_state, frame, act)

    def propose(self) -> None:
        """Propose names for the branches that the reader has not named."""
        here = self._controller.images.editable
        if here is not None:
            self._act(*here, self._propose)

    def confirm(self) -> None:
        """Take all proposed names of the shown frame for the reader's own."""
        here = self._controller.images.editable
        if here is not None:
            names = tuple(replace(name, doubt=0.0) for name in self.names)
            here[0].history.set_names(here[1], names)
            self._controller.changed.emit()

    def _propose(self, mask: np.ndarray, names: Names) -> Names:
        from napari_cmunet.model.registry import load_model
        from napari_cmunet.model.vessel_names import NAMES_MODEL, propose_names

        if self._model is None:
            self._model = load_model(NAMES_MODEL)
        return propose_names(mask, self._model, names)

    def _act(self, image_state: ImageState, frame: int, act: Act) -> None:
        self._waiting.append((image_state, frame, act))
        if not self._jobs.running:
            self._next()

    def _next(self) -> None:
        if not self._waiting:
            self.changed.emit()
            return
        image_state, frame, act = self._waiting.popleft()
        if not image_state.usable_mask:
            self._next()
            return
        mask, names = image_state.mask_frame(frame) != 0, image_state.names.get(frame)

        def run(report: object, should_stop: object) -> Names:
            return act(mask, names or ())

        self._jobs.start(
            run,
            on_result=partial(self._on_named, image_state, frame),
            on_error=self._on_error,
        )
        self.changed.emit()

    def _on_named(self, image_state: ImageState, frame: int, names: Names) -> None:
        if image_state.usable_mask:
            image_state.history.set_names(frame, names)
        self._say(_HINT if self.picking else "")
        self._next()
        self._controller.changed.emit()

    def _on_error(self, message: str) -> None:
        self._say(message)
        self._next()

    # -- showing -----------------------------------------------------------------

    def follow(self) -> None:
        """Show the names of the shown frame, as its mask has the vessels."""
        here = self._controller.images.editable
        if here is None:
            self.stop_picking()
        self._connect(here[0] if here else None)
        if here is None:
            self.layer.hide()
        else:
            self.layer.show(*here)

    def close(self) -> None:
        """Stop, and remove the layer; names stay. Idempotent."""
        self._jobs.cancel()
        self._waiting.clear()
        self.stop_picking()
        self._connect(None)
        self.layer.hide()

    def _connect(self, image_state: ImageState | None) -> None:
        if image_state is self._followed:
            return
        if self._followed is not None:
            self._followed.mask_changed.disconnect(self._on_changed)
        if image_state is not None:
            image_state.mask_changed.connect(self._on_changed)
        self._followed = image_state

    def _on_changed(self, frames: object) -> None:
        self.follow()
        self.changed.emit()

    def status(self) -> str:
        """How many segments of the shown frame are named, and how many doubtful."""
        placed = self.layer.placed
        named = {name.segment for name in placed}
        doubtful = {name.segment for name in placed if name.is_doubtful}
        hidden = named - {name.segment for name in placed if name.text}
        if not named:
            return ""
        text = f"{len(named)} named"
        if doubtful:
            text += f", {len(doubtful)} of them with a question mark"
        return f"{text}. Zoom in for {len(hidden)} more." if hidden else text

    def _say(self, message: str) -> None:
        self.message = message
        self.changed.emit()


def _rename(
    point: tuple[float, float],
    segment: str | None,
    onward: bool,
    mask: np.ndarray,
    names: Names,
) -> Names:
    """Name the stretch at a point. Runs in a worker."""
    tree = NamedTree(build_tree(mask), names)
    old = tree.stretch_at(point, _REACH)
    if old is None:
        raise CMUNetError("There is no branch of the mask.")
    if segment is None:
        if not old.segment:
            raise CMUNetError("No name is proposed there.")
        segment = old.segment
    return tree.rename(point, segment, onward=onward, reach=_REACH)


NAME_KEY = "Shift+T"
NAME_KEYS = ((NAME_KEY, "name the vessel under the cursor"),)

_CHOICES: tuple[str | None, ...] = (*SEGMENTS, "", None)
_TITLES = (*map(segment_title, SEGMENTS), "No name", "As proposed: confirm")


class NamesSection(QWidget):
    """SYNTAX segments of the vessels of the active image."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller = controller
        self.naming = Naming(controller)
        self.name = button(
            "Name",
            "Name vessels by clicks: each up to the next bifurcation, with Shift from "
            f"the click on. {NAME_KEY}: the vessel under the cursor",
            checkable=True,
        )
        self.segment = NameCombo("The SYNTAX segment that a click gives")
        self.segment.show_names(_TITLES, 0, "")
        self.propose = button(
            "Propose names",
            "Propose a segment for each branch that you have not named. A name with a "
            "question mark is doubtful, and not exported until you confirm it",
        )
        self.confirm = button("Confirm all", "Take all proposed names for your own")
        self.message = text_label()
        self.setLayout(
            column(
                row(self.name, self.segment, stretch=1),
                row(self.propose, self.confirm),
                self.message,
            )
        )
        naming = self.naming
        self.name.clicked.connect(naming.pick)
        self.segment.chosen.connect(self._on_segment)
        self.propose.clicked.connect(naming.propose)
        self.confirm.clicked.connect(naming.confirm)
        naming.changed.connect(self._show)
        self._show()

    def refresh(self) -> None:
        """Follow the active image and its mask."""
        self.naming.follow()
        self._show()

    def _on_segment(self, number: int) -> None:
        self.naming.segment = _CHOICES[number]

    def _show(self) -> None:
        naming = self.naming
        usable = self._controller.images.editable is not None
        self.name.setEnabled(usable)
        self.name.setChecked(naming.picking)
        self.propose.setEnabled(usable and not naming.running)
        self.confirm.setEnabled(any(name.doubt for name in naming.names))
        text = naming.message or naming.status()
        self.message.setText(text)
        self.message.setVisible(bool(text))
