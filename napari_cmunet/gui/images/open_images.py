"""The open images of a viewer, their layers, and which image is active.

Follows the viewer's layers and dims, and emits signals for what the controller has to
react to. Knows no predictions queue and no widget.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_cmunet.gui.images import layers, view
from napari_cmunet.gui.images.image_state import ImageState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from napari.components import ViewerModel
    from napari.layers import Image, Layer

# Images of closed panels, for the life of the viewer: a panel that is opened again goes
# on with the same masks.
_kept: weakref.WeakKeyDictionary[ViewerModel, list[ImageState]] = (
    weakref.WeakKeyDictionary()
)


class OpenImages:
    """The images of one viewer. The only one to change ``images`` and ``active``."""

    #: Something about the images or their layers has changed.
    changed = Signal()
    #: Images were added to the viewer: a list of ImageState.
    added = Signal(list)
    #: An image was removed from the viewer; its mask may be left.
    removed = Signal(ImageState)
    #: Other pixels were put into an image layer.
    pixels_replaced = Signal(ImageState)
    #: Another image was selected in the layer list.
    selected = Signal()
    #: Another frame is shown.
    frame_changed = Signal()
    #: Something was drawn, or the threshold was moved.
    painted = Signal()
    #: A mask was drawn again: another frame, or an undo.
    redrawn = Signal()

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = weakref.ref(viewer)
        self.images: list[ImageState] = []
        self.active: ImageState | None = None
        self.connected = False
        self._stroke = view.StrokeHold()
        self._view = view.ViewFitter(self._image_to_fit)
        self._units = view.UnitKeeper()
        self.new: list[Image] = []
        self._new_timer = QTimer()
        self._new_timer.setSingleShot(True)
        self._new_timer.timeout.connect(self.take_new)
        self._check = view.FileCheck(self._viewer, lambda: self._new_timer.start(0))

    @property
    def viewer(self) -> ViewerModel:
        """The viewer. Its layers are accessed on the GUI thread only."""
        return self._viewer()

    def connect(self) -> None:
        """Follow the viewer and take over the images of a closed panel."""
        viewer = self._viewer()
        if self.connected or viewer is None:
            return
        self.connected = True
        for emitter, slot in self._viewer_slots(viewer):
            emitter.connect(slot)
        viewer.mouse_drag_callbacks.insert(0, self._on_press)
        self._view.connect(viewer)
        self._update_units()
        for image_state in _kept.pop(viewer, []):
            self._take_over(image_state)
        images = filter(layers.is_image, viewer.layers)
        self.new = [image for image in images if self.of(image) is None]
        if self.images:
            self.active = self.images[-1]
            self._on_selected()
        if self.new:
            self._new_timer.start(0)

    def disconnect(self) -> None:
        """Stop following the viewer; the layers stay."""
        self.connected = False
        self._new_timer.stop()
        for image_state in self.images:
            self._disconnect_layers(*image_state.layers())
            image_state.undone.disconnect(self._on_undone, missing_ok=True)
        if (viewer := self._viewer()) is not None:
            for emitter, slot in self._viewer_slots(viewer):
                emitter.disconnect(slot)
            viewer.mouse_drag_callbacks.remove(self._on_press)
            self._view.disconnect(viewer)
            _kept[viewer] = self.images
        self.images = []
        self.active = None

    def _take_over(self, image_state: ImageState) -> None:
        present = self.viewer.layers
        if image_state.prediction is not None and image_state.prediction not in present:
            image_state.on_prediction_removed()
        if image_state.mask is not None and image_state.mask not in present:
            image_state.on_mask_removed()
        if image_state.image in present or image_state.mask is not None:
            self.images.append(image_state)
            self._follow(image_state)
            self.add_prediction(image_state)

    def _follow(self, image_state: ImageState) -> None:
        self._connect_layers(*image_state.layers())
        image_state.undone.connect(self._on_undone, unique=True)

    def of(self, layer: Layer | None) -> ImageState | None:
        """The image that a layer belongs to."""
        return next((r for r in self.images if layer in r.layers()), None)

    def shown_frame(self, image_state: ImageState) -> int:
        """Index of the shown frame."""
        return layers.shown_frame(image_state.image, self.viewer, image_state.count)

    def has_shown_frame(self, image_state: ImageState) -> bool:
        """Whether the slider is at a frame that the image has."""
        return layers.has_shown_frame(image_state.image, self.viewer, image_state.count)

    def _image_to_fit(self) -> Layer | None:
        image = None if self.active is None else self.active.image
        return image if image in self.viewer.layers else None

    @property
    def editable(self) -> tuple[ImageState, int] | None:
        """The active image and the shown frame, where there is a mask to edit."""
        state = self.active
        if state is None or not state.usable_mask or not self.has_shown_frame(state):
            return None
        return state, self.shown_frame(state)

    def set_active(self, image_state: ImageState) -> None:
        """Work on another image; what is visible stays as it is."""
        self.active = image_state

    def show(self, image_state: ImageState) -> None:
        """Work on an image: show its layers, hide the others, and fit the view."""
        self.active = image_state
        view.show_alone(self.viewer, self.images, image_state)
        self._view.fit()

    def open(self, image_state: ImageState) -> None:
        """Show an image that the program has read, beneath all other layers."""
        present = self.viewer.layers
        if image_state not in self.images:
            self.images.append(image_state)
            self._follow(image_state)
        self.active = image_state
        if image_state.image not in present:
            present.insert(0, image_state.image)
        if image_state.sources or image_state.own_masks:
            if image_state.mask is None:
                self.add_mask(image_state)
            self.add_prediction(image_state)
        view.show_alone(self.viewer, self.images, image_state)

    def replace(self, former: ImageState, image_state: ImageState) -> None:
        """Show an image in place of another one, which is closed.

        Reuses the layers where possible: napari is slow in removing and adding layers.
        """
        if former not in self.images or not view.can_reuse(
            self.viewer, former, image_state
        ):
            self.open(image_state)
            self.close(former)
            return
        self._disconnect_layers(*former.layers())
        view.reuse_layers(former, image_state)
        self.images[self.images.index(former)] = image_state
        former.undone.disconnect(self._on_undone, missing_ok=True)
        self._follow(image_state)
        if image_state.prediction is not None:
            image_state.prediction.editable = False
        self.show(image_state)
        self.changed.emit()

    def close(self, image_state: ImageState) -> None:
        """Remove an image and its overlays from the viewer."""
        self._disconnect_layers(*image_state.layers())
        if image_state in self.images:
            self.images.remove(image_state)
        if self.active is image_state:
            self.active = None
        for layer in reversed(image_state.layers()):
            if layer in self.viewer.layers:
                self.viewer.layers.remove(layer)
        self.changed.emit()

    def add_mask(self, image_state: ImageState) -> None:
        """Add a new mask over an image; select it if the image is worked on."""
        chosen = self.viewer.layers.selection.active
        select = image_state is self.active and (self.of(chosen) in (None, image_state))
        mask = image_state.new_mask_layer()
        under = image_state.prediction
        if under is None:
            under = image_state.image
        layers.insert_above(self.viewer, mask, under)
        if select:
            self.viewer.layers.selection.active = mask
        self._connect_layers(mask)

    def remake_mask(self, image_state: ImageState) -> None:
        """Add a new mask where it was deleted or no longer fits."""
        self._disconnect_layers(image_state.mask)
        self.add_mask(image_state)

    def add_prediction(self, image_state: ImageState) -> None:
        """Add the prediction over an open image, if it is wanted and not there."""
        wanted = (
            image_state.prediction is None and not image_state.prediction_was_deleted
        )
        if wanted and image_state in self.images and image_state.sources:
            layer = image_state.new_prediction_layer()
            layers.insert_above(self.viewer, layer, image_state.image)
            self._connect_layers(layer)
            self.changed.emit()

    def _viewer_slots(self, viewer: ViewerModel) -> Iterator[tuple[Any, Callable]]:
        yield viewer.layers.events.inserted, self._on_inserted
        yield viewer.layers.events.removed, self._on_removed
        yield viewer.layers.selection.events.active, self._on_selected
        yield viewer.dims.events.current_step, self.on_frame

    def _update_units(self) -> None:
        def image_of(layer: Layer) -> Layer | None:
            image_state = self.of(layer)
            return None if image_state is None else image_state.image

        self._units.update(list(self.viewer.layers), image_of)

    def _on_units(self, event: Any) -> None:
        self._units.note(event.source)
        self._update_units()

    def _on_inserted(self, event: Any) -> None:
        self._update_units()
        if layers.is_image(event.value):
            # The viewer has not selected it yet, nor set its dims.
            self.new.append(event.value)
            self._new_timer.start(0)

    def take_new(self) -> None:
        """Take up images that were added to the viewer."""
        viewer = self._viewer()
        if viewer is None:
            return
        images = [i for i in self.new if i in viewer.layers]
        self.new = [i for i in images if self._check.is_pending(i)]
        images = [i for i in images if i not in self.new]
        if not images:
            return
        added = []
        for image in images:
            image_state = self.of(image)
            if image_state is None:
                image_state = ImageState(image, problem=self._check.problem(image))
                self.images.append(image_state)
                self._follow(image_state)
            self.active = image_state
            added.append(image_state)
        self.active = self.of(viewer.layers.selection.active) or self.active
        if self.active is not None:
            self.show(self.active)
        self.added.emit(added)

    def add(self, images: Sequence[tuple[Path, Layer]]) -> None:
        """Add images that the program has read, and show the last one."""
        for _, layer in images:
            self.viewer.add_layer(layer)
        if images:
            self.viewer.layers.selection.active = images[-1][1]
        self.take_new()
        for path, layer in images:
            if (image_state := self.of(layer)) is not None:
                image_state.file = path

    def _on_removed(self, event: Any) -> None:
        layer = event.value
        self._update_units()
        if layer in self.new:
            self.new.remove(layer)
        image_state = self.of(layer)
        if image_state is None:
            return
        if layer is image_state.image:
            self.removed.emit(image_state)
        else:
            self._disconnect_layers(layer)
            if layer is image_state.mask:
                image_state.on_mask_removed()
            else:
                image_state.on_prediction_removed()
        # The mask of a removed image can still be corrected and exported.
        if image_state.image not in self.viewer.layers and image_state.mask is None:
            self._disconnect_layers(*image_state.layers())
            self.images.remove(image_state)
            if self.active is image_state:
                self.active = self.images[-1] if self.images else None
        self.changed.emit()

    def _on_undone(self, image_state: ImageState, frames: set[int]) -> None:
        """Show the frame of an undone step, so that no edit happens out of sight."""
        shown = self.shown_frame(image_state)
        if frames and shown not in frames and image_state.image in self.viewer.layers:
            nearest = min(frames, key=lambda frame: abs(frame - shown))
            layers.show_frame(image_state.image, self.viewer, nearest)

    def _on_selected(self, event: Any = None) -> None:
        image_state = self.of(self.viewer.layers.selection.active)
        if image_state is not None and image_state is not self.active:
            self.active = image_state
            if not any(layer.visible for layer in image_state.layers()):
                self.show(image_state)
            self.selected.emit()
        self.changed.emit()

    def on_frame(self, event: Any = None) -> None:
        """Bring the masks of the shown frames up to date."""
        if self._stroke.restore(self.viewer):
            return
        for image_state in self.images:
            shown = self.shown_frame(image_state)
            if image_state.usable_mask and image_state.history.bring_up_to_date(shown):
                image_state.refresh_mask()
        self.frame_changed.emit()
        self.changed.emit()

    def _on_press(self, viewer: ViewerModel, event: Any) -> Iterator[None]:
        """Hold the frame during a stroke; put the tool down at a frame that is none."""
        image_state = self.of(viewer.layers.selection.active)
        if image_state is None or image_state.mask is None:
            return
        if not self.has_shown_frame(image_state):
            image_state.mask.mode = "pan_zoom"
        if image_state.mask.mode != "pan_zoom":
            yield from self._stroke.hold(viewer, event)

    def _layer_slots(self) -> Iterator[tuple[str, Callable]]:
        for name in ("name", "visible", "mode", "contour"):
            yield name, self._on_appearance
        yield "data", self._on_data
        yield "units", self._on_units
        # Labels alone have these. napari draws again after an undo and emits no more.
        yield "paint", self._on_drawn
        yield "set_data", self._on_drawn
        yield "editable", self._on_editable

    def _connect_layers(self, *connected: Layer | None) -> None:
        for emitter, slot in layers.emitters(connected, dict(self._layer_slots())):
            emitter.connect(slot)

    def _disconnect_layers(self, *connected: Layer | None) -> None:
        for emitter, slot in layers.emitters(connected, dict(self._layer_slots())):
            emitter.disconnect(slot)

    def _on_appearance(self, event: Any) -> None:
        self.changed.emit()

    def _on_drawn(self, event: Any) -> None:
        (self.painted if event.type == "paint" else self.redrawn).emit()
        self.changed.emit()

    def _on_data(self, event: Any) -> None:
        image_state = self.of(event.source)
        if image_state is None:
            return
        if event.source is image_state.mask:
            image_state.on_data_replaced()
        elif event.source is image_state.image:
            overlays = image_state.overlays()
            image_state.on_image_replaced()
            left = image_state.overlays()
            self._disconnect_layers(*(o for o in overlays if o not in left))
            self.pixels_replaced.emit(image_state)
        self.changed.emit()

    def _on_editable(self, event: Any) -> None:
        """Keep the prediction read-only, whatever napari does when it slices."""
        if any(event.source is state.prediction for state in self.images):
            event.source.editable = False
