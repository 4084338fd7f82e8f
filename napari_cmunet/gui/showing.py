"""Which image is shown, and its prediction and mask as layers in the viewer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_cmunet.gui.overlays import (
    add_mask,
    add_prediction,
    set_visible,
    show_alone,
)
from napari_cmunet.gui.reusing import can_reuse, reuse_layers
from napari_cmunet.gui.viewer_link import follow_layers, leave_layers

if TYPE_CHECKING:
    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.gui.reading import Reading


class Showing:
    """The layers of a controller's readings.

    Parameters
    ----------
    controller : Controller
        Knows the readings; told of every change.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    def add_prediction(self, reading: Reading) -> None:
        """Lay the prediction over an open image, if it is wanted and not there."""
        controller = self._controller
        wanted = reading.prediction is None and not reading.prediction_was_deleted
        if wanted and reading in controller.readings and reading.sources:
            follow_layers(controller, add_prediction(controller.viewer, reading))
            controller.changed.emit()

    def add_mask(self, reading: Reading) -> None:
        """Lay a fresh mask over an image, in hand if the image is worked on."""
        controller = self._controller
        chosen = controller.viewer.layers.selection.active
        select = reading is controller.active and (
            controller.reading_of(chosen) in (None, reading)
        )
        follow_layers(controller, add_mask(controller.viewer, reading, select=select))

    def make_mask_again(self) -> None:
        """Put back a mask that was deleted or that no longer fits."""
        reading = self._controller.active
        if reading is None or reading.why_not is not None:
            return
        leave_layers(self._controller, reading.mask)
        self.add_mask(reading)
        self._controller.say("")

    def activate(self, reading: Reading) -> None:
        """Work on another image: show it and its layers, hide the other images'."""
        controller = self._controller
        controller.active = reading
        controller.message = ""
        show_alone(controller.viewer, controller.readings, reading)
        controller.go_on()
        controller.on_dims()

    def set_prediction_visible(self, visible: bool) -> None:
        """Show or hide the prediction, making its layer anew if it was deleted."""
        reading = self._controller.active
        if reading is None:
            return
        reading.show_prediction = visible
        set_visible(reading.prediction, visible)
        if visible:
            reading.prediction_was_deleted = False
            self.add_prediction(reading)
        self._controller.changed.emit()

    # -- images that the program opens and closes -----------------------------

    def open(self, reading: Reading) -> None:
        """Show an image, beneath all other layers, and work on it."""
        controller = self._controller
        layers = controller.viewer.layers
        if reading not in controller.readings:
            controller.readings.append(reading)
            follow_layers(controller, *reading.layers())
        controller.active = reading
        if reading.image not in layers:
            layers.insert(0, reading.image)
        if reading.sources or reading.own:
            if reading.mask is None:
                self.add_mask(reading)
            self.add_prediction(reading)
        show_alone(controller.viewer, controller.readings, reading)

    def replace(self, former: Reading, reading: Reading) -> None:
        """Show an image in the place of another, which is closed.

        The layers stay where they can and get the new image's pixels: to remove and add
        some takes napari the better part of a second.
        """
        controller = self._controller
        known = former in controller.readings
        if not known or not can_reuse(controller.viewer, former, reading):
            self.open(reading)
            self.close(former)
            return
        controller.schedule.remove(former)
        leave_layers(controller, *former.layers())
        reuse_layers(former, reading)
        controller.readings[controller.readings.index(former)] = reading
        follow_layers(controller, *reading.layers())
        if reading.prediction is not None:
            reading.prediction.editable = False
        controller.active = reading
        show_alone(controller.viewer, controller.readings, reading)
        controller.changed.emit()

    def close(self, reading: Reading) -> None:
        """Take an image and its overlays out of the viewer."""
        controller = self._controller
        controller.schedule.remove(reading)
        leave_layers(controller, *reading.layers())
        if reading in controller.readings:
            controller.readings.remove(reading)
        if controller.active is reading:
            controller.active = None
        for layer in reversed(reading.layers()):
            if layer in controller.viewer.layers:
                controller.viewer.layers.remove(layer)
        controller.changed.emit()
