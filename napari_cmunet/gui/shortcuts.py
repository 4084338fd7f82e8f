"""Keyboard shortcuts: napari's own, as the panel lists them, and the plugin's.

The plugin's are bound to the viewer, never over a key that is taken.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, cast

from napari.layers import Image
from napari.settings import get_settings

from napari_cmunet.gui.images.layers import let_viewer_keys_through, set_visible
from napari_cmunet.gui.project.reviewed_area import BOX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from napari.components import ViewerModel
    from napari.layers import Layer

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


class KeyBindings:
    """Keys bound to a viewer, except those that are taken.

    Parameters
    ----------
    actions : dict
        By key. A generator function goes on when its key is released.
    """

    def __init__(
        self, viewer: ViewerModel, actions: Mapping[str, Callable[[], object]]
    ) -> None:
        self._viewer = viewer
        self._bound: dict[str, Callable[[ViewerModel], object]] = {}
        for key, action in actions.items():
            self._bind(key.replace("+", "-"), action)
        for layer in viewer.layers:
            self._pass_on(layer)
        viewer.layers.events.inserted.connect(self._on_inserted)

    def _on_inserted(self, event: Any) -> None:
        self._pass_on(event.value)

    def _pass_on(self, layer: Layer) -> None:
        # Image layers bind Y to a plane of the 3D view.
        if isinstance(layer, Image):
            let_viewer_keys_through(layer, self._viewer)

    def _bind(self, key: str, action: Callable[[], object]) -> None:
        def pressed(_viewer: ViewerModel) -> None:
            action()

        def held(_viewer: ViewerModel) -> Iterator[None]:
            yield from cast("Iterator[None]", action())

        function = held if inspect.isgeneratorfunction(action) else pressed
        try:
            self._viewer.bind_key(key, function)
        except ValueError:  # taken by another plugin or by the user
            return
        self._bound[key] = function

    def unbind(self) -> None:
        """Unbind the keys that have not been bound anew since."""
        self._viewer.layers.events.inserted.disconnect(self._on_inserted)
        for key, function in self._bound.items():
            bound = self._viewer.bind_key(key, None)
            if bound is not None and bound is not function:
                self._viewer.bind_key(key, bound)
        self._bound.clear()


def mask_actions(
    controller: Controller, step_threshold: Callable[[int], None]
) -> dict[str, Callable[[], object]]:
    """Return what the keys do to the mask and the layers, by key.

    Parameters
    ----------
    step_threshold : callable
        Moves the threshold by hundredths.
    """

    def peek() -> Iterator[None]:
        layers = controller.active.overlays() if controller.active else []
        shown = [layer for layer in layers if layer.visible]
        for layer in shown:
            set_visible(layer, False)
        yield
        for layer in shown:
            set_visible(layer, True)

    return {
        PEEK: peek,
        OUTLINE: controller.editor.toggle_outline,
        PREDICTION: controller.editor.toggle_prediction,
        LOWER: lambda: step_threshold(-1),
        HIGHER: lambda: step_threshold(1),
    }


def project_actions(project: ProjectSession) -> dict[str, Callable[[], object]]:
    """Return what the keys do in a project, by key."""
    annotation, navigator = project.annotation, project.navigator
    return {
        ACCEPT: annotation.accept,
        ACCEPT_NEXT: project.accept_and_next,
        TAKE_BACK: annotation.take_back,
        NEXT: navigator.next,
        PREVIOUS: navigator.previous,
        SKIP: annotation.skip,
        FLAG: annotation.flag,
        BOX_KEY: lambda: annotation.draw_area(BOX),
        COMPARE: project.preview.toggle,
    }
