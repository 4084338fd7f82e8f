"""Keyboard shortcuts: napari's own, as the panel lists them, and the plugin's.

The plugin's are bound to the viewer, never over a key that is taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.settings import get_settings

from napari_cmunet.gui.images.layers import set_visible
from napari_cmunet.gui.project.reviewed_area import BOX

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from napari.components import ViewerModel

    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.gui.project.session import ProjectSession

MASK_KEYS = PEEK, OUTLINE, PREDICTION, LOWER, HIGHER, PROPAGATE = (
    "H",
    "T",
    "G",
    ",",
    ".",
    "J",  # next to K, which accepts
)
# Free in every layer type: Keep, Next, Without, Unsure, this Image. R draws boxes in
# Shapes layers, too.
PROJECT_KEYS = (
    ACCEPT,
    ACCEPT_NEXT,
    TAKE_BACK,
    NEXT,
    PREVIOUS,
    SKIP,
    FLAG,
    BOX_KEY,
    COMPARE,
) = (
    "K",
    "D",  # done
    "Shift+K",
    "N",
    "Shift+N",
    "W",
    "U",
    "R",
    "I",
)

# What the panel lists: napari's actions by name, to show the keys that the user has set
# in Preferences, and our keys.
_LISTED = (
    ((ACCEPT,), "accept: keep the mask as label"),
    ((ACCEPT_NEXT,), "done: accept, and open the next"),
    ((NEXT, PREVIOUS), "next without label / previous"),
    ((SKIP,), "go on without this image"),
    ((FLAG,), "unsure: flag the image"),
    ((TAKE_BACK,), "take the label back"),
    ((BOX_KEY,), "box around what was reviewed"),
    ((COMPARE,), "compare the new model on this image"),
    (("napari:activate_labels_paint_mode",), "paint artery"),
    (("napari:activate_labels_erase_mode",), "erase"),
    (("napari:activate_labels_fill_mode",), "fill"),
    (
        ("napari:decrease_brush_size", "napari:increase_brush_size"),
        "smaller / larger brush",
    ),
    (("napari:hold_for_pan_zoom",), "hold: move the image"),
    (("Ctrl+Z",), "undo"),
    (("Ctrl+Shift+Z",), "redo"),
    ((LOWER, HIGHER), "lower / higher threshold"),
    ((PROPAGATE,), "cine: propagate changes to other frames; again: accept"),
    ((PEEK,), "hold: hide all overlays"),
    ((OUTLINE,), "mask as outline"),
    ((PREDICTION,), "show the prediction"),
)


def listed_keys() -> list[tuple[str, str]]:
    """Return (keys, what they do) for the panel's list."""
    bound = get_settings().shortcuts.shortcuts
    return [
        ("  ".join(_key(name, bound) for name in names), text)
        for names, text in _LISTED
    ]


def _key(name: str, bound: Mapping) -> str:
    if not name.startswith("napari:"):
        return name
    keys = [str(binding) for binding in bound.get(name, [])]
    # Prefer a letter to a digit.
    keys.sort(key=str.isdigit)
    return keys[0] if keys else "(none)"


class Shortcuts:
    """The keys of one panel on one viewer.

    Parameters
    ----------
    step_threshold : callable
        Moves the threshold by hundredths.
    propagate : callable
        Proposes a mask for the shown frame, or accepts it.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        controller: Controller,
        project: ProjectSession,
        step_threshold: Callable[[int], None],
        propagate: Callable[[], None],
    ) -> None:
        self._controller, self._project = controller, project
        self._step_threshold, self._propagate = step_threshold, propagate
        self._bound: dict[str, Callable] = {}
        self._bind(viewer)

    def _bind(self, viewer: ViewerModel) -> None:
        # Plain functions: napari calls a generator again on release.
        controller, step = self._controller, self._step_threshold
        propagate_mask = self._propagate

        def peek(_viewer):
            layers = controller.active.overlays() if controller.active else []
            shown = [layer for layer in layers if layer.visible]
            for layer in shown:
                set_visible(layer, False)
            yield
            for layer in shown:
                set_visible(layer, True)

        def outline(_viewer) -> None:
            controller.editor.toggle_outline()

        def prediction(_viewer) -> None:
            image_state = controller.active
            if image_state is not None:
                layer = image_state.prediction
                visible = layer is not None and layer.visible
                controller.images.set_prediction_visible(not visible)

        def propagate(_viewer) -> None:
            propagate_mask()

        def lower(_viewer) -> None:
            step(-1)

        def higher(_viewer) -> None:
            step(1)

        for key, function in (
            *_project_keys(self._project),
            (PEEK, peek),
            (OUTLINE, outline),
            (PREDICTION, prediction),
            (LOWER, lower),
            (HIGHER, higher),
            (PROPAGATE, propagate),
        ):
            try:
                viewer.bind_key(key.replace("+", "-"), function)
            except ValueError:  # taken by another plugin or by the user
                continue
            self._bound[key] = function

    def unbind(self, viewer: ViewerModel) -> None:
        """Unbind the keys that are still ours."""
        for key, function in self._bound.items():
            key = key.replace("+", "-")
            taken = viewer.bind_key(key, None)
            if taken is not None and taken is not function:
                viewer.bind_key(key, taken)
        self._bound.clear()


def _project_keys(project: ProjectSession) -> list[tuple[str, Callable]]:
    annotation, navigator = project.annotation, project.navigator

    def accept(_viewer) -> None:
        annotation.accept()

    def accept_and_go_on(_viewer) -> None:
        project.accept_and_go_on()

    def take_back(_viewer) -> None:
        annotation.take_back()

    def go_on(_viewer) -> None:
        navigator.next()

    def go_back(_viewer) -> None:
        navigator.previous()

    def skip(_viewer) -> None:
        annotation.skip()

    def flag(_viewer) -> None:
        annotation.flag()

    def box(_viewer) -> None:
        annotation.draw_area(BOX)

    def compare(_viewer) -> None:
        project.preview.toggle()

    return [
        (ACCEPT, accept),
        (ACCEPT_NEXT, accept_and_go_on),
        (TAKE_BACK, take_back),
        (NEXT, go_on),
        (PREVIOUS, go_back),
        (SKIP, skip),
        (FLAG, flag),
        (BOX_KEY, box),
        (COMPARE, compare),
    ]


class KeyBindings:
    """Keys bound to a viewer, except those that are taken."""

    def __init__(
        self, viewer: ViewerModel, actions: dict[str, Callable[[], None]]
    ) -> None:
        self._viewer = viewer
        self._bound: dict[str, Callable[[ViewerModel], None]] = {}
        for key, action in actions.items():
            self._bind(key, action)

    def _bind(self, key: str, action: Callable[[], None]) -> None:
        def pressed(_viewer: ViewerModel) -> None:
            action()

        try:
            self._viewer.bind_key(key, pressed)
        except ValueError:  # taken by another plugin or by the user
            return
        self._bound[key] = pressed

    def unbind(self) -> None:
        """Unbind the keys that have not been bound anew since."""
        for key, pressed in self._bound.items():
            bound = self._viewer.bind_key(key, None)
            if bound is not None and bound is not pressed:
                self._viewer.bind_key(key, bound)
        self._bound.clear()
