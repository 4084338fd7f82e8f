"""Which image is shown, and its prediction and mask as layers in the viewer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_cmunet.gui.layer_reuse import can_reuse, reuse_layers
from napari_cmunet.gui.layers import add_mask, add_prediction, set_visible, show_alone
from napari_cmunet.gui.viewer_events import follow_layers, leave_layers

if TYPE_CHECKING:
    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.gui.image_state import ImageState


class Showing:
    """The layers of a controller's readings.

    Parameters
    ----------
    controller : Controller
        Knows the readings; told of every change.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    def add_prediction(self, image_state: ImageState) -> None:
        """Lay the prediction over an open image, if it is wanted and not there."""
        controller = self._controller
        wanted = (
            image_state.prediction is None and not image_state.prediction_was_deleted
        )
        if wanted and image_state in controller.image_states and image_state.sources:
            follow_layers(controller, add_prediction(controller.viewer, image_state))
            controller.changed.emit()

    def add_mask(self, image_state: ImageState) -> None:
        """Lay a fresh mask over an image, in hand if the image is worked on."""
        controller = self._controller
        chosen = controller.viewer.layers.selection.active
        select = image_state is controller.active and (
            controller.image_state_of(chosen) in (None, image_state)
        )
        follow_layers(
            controller, add_mask(controller.viewer, image_state, select=select)
        )

    def make_mask_again(self) -> None:
        """Put back a mask that was deleted or that no longer fits."""
        image_state = self._controller.active
        if image_state is None or image_state.why_not is not None:
            return
        leave_layers(self._controller, image_state.mask)
        self.add_mask(image_state)
        self._controller.say("")

    def activate(self, image_state: ImageState) -> None:
        """Work on another image: show it and its layers, hide the other images'."""
        controller = self._controller
        controller.active = image_state
        controller.message = ""
        show_alone(controller.viewer, controller.image_states, image_state)
        controller.go_on()
        controller.on_dims()

    def set_prediction_visible(self, visible: bool) -> None:
        """Show or hide the prediction, making its layer anew if it was deleted."""
        image_state = self._controller.active
        if image_state is None:
            return
        image_state.show_prediction = visible
        set_visible(image_state.prediction, visible)
        if visible:
            image_state.prediction_was_deleted = False
            self.add_prediction(image_state)
        self._controller.changed.emit()

    # -- images that the program opens and closes -----------------------------

    def open(self, image_state: ImageState) -> None:
        """Show an image, beneath all other layers, and work on it."""
        controller = self._controller
        layers = controller.viewer.layers
        if image_state not in controller.image_states:
            controller.image_states.append(image_state)
            follow_layers(controller, *image_state.layers())
        controller.active = image_state
        if image_state.image not in layers:
            layers.insert(0, image_state.image)
        if image_state.sources or image_state.own:
            if image_state.mask is None:
                self.add_mask(image_state)
            self.add_prediction(image_state)
        show_alone(controller.viewer, controller.image_states, image_state)

    def replace(self, former: ImageState, image_state: ImageState) -> None:
        """Show an image in the place of another, which is closed.

        The layers stay where they can and get the new image's pixels: to remove and add
        some takes napari the better part of a second.
        """
        controller = self._controller
        known = former in controller.image_states
        if not known or not can_reuse(controller.viewer, former, image_state):
            self.open(image_state)
            self.close(former)
            return
        controller.schedule.remove(former)
        leave_layers(controller, *former.layers())
        reuse_layers(former, image_state)
        controller.image_states[controller.image_states.index(former)] = image_state
        follow_layers(controller, *image_state.layers())
        if image_state.prediction is not None:
            image_state.prediction.editable = False
        controller.active = image_state
        show_alone(controller.viewer, controller.image_states, image_state)
        controller.changed.emit()

    def close(self, image_state: ImageState) -> None:
        """Take an image and its overlays out of the viewer."""
        controller = self._controller
        controller.schedule.remove(image_state)
        leave_layers(controller, *image_state.layers())
        if image_state in controller.image_states:
            controller.image_states.remove(image_state)
        if controller.active is image_state:
            controller.active = None
        for layer in reversed(image_state.layers()):
            if layer in controller.viewer.layers:
                controller.viewer.layers.remove(layer)
        controller.changed.emit()
