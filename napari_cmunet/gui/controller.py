"""The controller of a panel: the open images, their masks, and the predictions.

It knows the viewer's model and no widget. The panel shows what ``panel_state`` makes of
it and calls the methods below; nobody else changes its attributes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from napari.utils.notifications import show_error, show_warning
from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_cmunet.gui.images.mask_editor import MaskEditor
from napari_cmunet.gui.images.open_images import OpenImages
from napari_cmunet.gui.prediction.prediction import (
    Engine,
    EngineFactory,
    FrameReady,
    ModelChoice,
    SeenBefore,
    Source,
    load_engine,
)
from napari_cmunet.gui.prediction.prediction_queue import PredictionQueue
from napari_cmunet.gui.preferences import Preferences, load_preferences
from napari_cmunet.io.polarity import BRIGHT_NOTE
from napari_cmunet.util.text import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import ViewerModel
    from napari.layers import Image
    from psygnal import SignalInstance

    from napari_cmunet.gui.images.image_state import ImageState


class Controller:
    """Does what the panel of one viewer asks.

    Parameters
    ----------
    predictor_factory : callable, optional
        Loads a model; called in a worker's thread. An installed model by default.
    preferences : Preferences, optional
        Read from napari's settings if not given.
    """

    #: Something that the panel shows has changed.
    changed = Signal()

    def __init__(
        self,
        viewer: ViewerModel,
        *,
        predictor_factory: EngineFactory | None = None,
        preferences: Preferences | None = None,
    ) -> None:
        preferences = preferences or load_preferences()
        self.pre_segment = preferences.pre_segment
        self.choice = ModelChoice(preferences.model, preferences.device)
        self.working_folder = preferences.working_folder
        self.message = ""
        self._tip = ("", "")
        self.failed = False
        self.notices: list[str] = []
        self.images = OpenImages(viewer)
        self.queue = PredictionQueue(predictor_factory or load_engine, self.shown)
        self.editor = MaskEditor(self.images)
        self.connect()

    # -- life -----------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether the viewer is followed."""
        return self.images.connected

    def connect(self) -> None:
        """Follow the viewer and take over the images of a closed panel."""
        if self.connected or self.viewer is None:
            return
        for signal, slot in self._slots():
            signal.connect(slot)
        self.images.connect()

    def disconnect(self) -> None:
        """Stop following the viewer. Layers stay; work in progress is stopped."""
        if not self.connected:
            return
        # The panel may be gone already.
        self.changed.disconnect()
        self.editor.stop()
        self.queue.clear()
        for signal, slot in self._slots():
            signal.disconnect(slot)
        self.images.disconnect()

    def _slots(self) -> list[tuple[SignalInstance, Callable]]:
        images, queue = self.images, self.queue
        return [
            (images.changed, self.changed.emit),
            (images.added, self._on_added),
            (images.removed, self._on_removed),
            (images.pixels_replaced, self._on_pixels_replaced),
            (images.selected, self._on_selected),
            (images.frame_changed, self._on_frame_changed),
            (images.painted, self._on_painted),
            (images.redrawn, self.editor.start_idle),
            (self.editor.changed, self.changed.emit),
            (queue.frame_ready, self._on_frame),
            (queue.seen_before, self._on_seen_before),
            (queue.engine_ready, self._on_engine),
            (queue.noticed, self._on_notice),
            (queue.failed, self._on_failed),
            (queue.finished, self._on_queue_finished),
        ]

    # -- images ---------------------------------------------------------------

    @property
    def viewer(self) -> ViewerModel:
        """The viewer. Its layers are accessed on the GUI thread only."""
        return self.images.viewer

    @property
    def image_states(self) -> list[ImageState]:
        """The open images."""
        return self.images.images

    @property
    def active(self) -> ImageState | None:
        """The image that is worked on."""
        return self.images.active

    def shown(self, image_state: ImageState) -> int:
        """Index of the shown frame."""
        return self.images.shown_frame(image_state)

    def unsaved(self, image_state: ImageState) -> str:
        """What would be lost if the image were closed; empty if nothing."""
        if image_state.in_project or not image_state.usable_mask:
            return ""
        frames = len(image_state.corrections.unsaved())
        if not frames:
            return ""
        if not image_state.is_cine:
            return "Your corrections of this mask are not exported."
        return f"Your corrections in {counted(frames, 'frame')} are not exported."

    def close_active(self) -> None:
        """Close the active image and show another one, if any is open."""
        image_state = self.active
        if image_state is None:
            return
        self.close_image(image_state)
        if self.image_states:
            self.show_image(self.image_states[-1])
        self.show_message("")

    def show_image(self, image_state: ImageState) -> None:
        """Work on another image: show its layers and hide those of the others."""
        self.message = ""
        self.images.show(image_state)
        self.start_next()
        self.images.on_frame()

    def replace_image(self, former: ImageState, image_state: ImageState) -> None:
        """Show an image in place of another one, which is closed."""
        self.queue.remove(former)
        self.images.replace(former, image_state)

    def close_image(self, image_state: ImageState) -> None:
        """Remove an image and its overlays from the viewer."""
        self.queue.remove(image_state)
        self.images.close(image_state)

    def remake_mask(self) -> None:
        """Make a new mask where it was deleted or no longer fits."""
        image_state = self.active
        if image_state is not None and image_state.unsupported is None:
            self.images.remake_mask(image_state)
            self.show_message("")

    def _on_added(self, added: list[ImageState]) -> None:
        for image_state in added:
            if image_state in self.image_states:
                self._pre_segment(image_state)
        self.start_next()
        self.show_message("")

    def _pre_segment(self, image_state: ImageState) -> None:
        if self.pre_segment and image_state.waiting_frames():
            self.queue.add(image_state)

    def _on_removed(self, image_state: ImageState) -> None:
        self.queue.remove(image_state)
        self.start_next()

    def _on_pixels_replaced(self, image_state: ImageState) -> None:
        self.queue.remove(image_state)
        self.start_next()
        self.message = "The image has changed. Segment it again."

    def _on_selected(self) -> None:
        self.message = ""
        self.start_next()

    def _on_frame_changed(self) -> None:
        if self.queue.current is not None:
            self.queue.set_focus(self.shown(self.queue.current))

    def _on_painted(self) -> None:
        self.message = ""

    # -- messages -------------------------------------------------------------

    def show_message(
        self, message: str, *, failed: bool = False, tip: str = ""
    ) -> None:
        """Show a message in the panel, with a tooltip for the details."""
        self.message, self.failed, self._tip = message, failed, (message, tip)
        self.changed.emit()

    @property
    def message_tip(self) -> str:
        """Tooltip of the shown message."""
        message, tip = self._tip
        return tip if message == self.message else ""

    # -- prediction -----------------------------------------------------------

    def segment(self) -> None:
        """Predict the frames that are missing, or all of them again."""
        image_state = self.active
        if image_state is None or image_state.unsupported is not None:
            return
        self.queue.remove(image_state)
        if not image_state.waiting_frames():
            image_state.discard_predictions()
        image_state.mask_was_deleted = False
        self.queue.add(image_state, first=True)
        self.start_next()
        self.show_message("")

    def segment_layer(self, image: Image | None) -> None:
        """Segment an image layer, or the active image if None."""
        self.images.take_new()
        chosen = next((r for r in self.image_states if r.image is image), None)
        if chosen is not None:
            self.images.set_active(chosen)
        if self.active is not self.queue.current:
            self.segment()

    def set_pre_segment(self, on: bool) -> None:
        """Segment every image as soon as it is opened, or on request only."""
        self.pre_segment = on

    def warm_up(self) -> None:
        """Load the model ahead of time, unless something is being predicted."""
        if self.pre_segment:
            self.queue.warm_up(self.choice)
            self.changed.emit()

    def cancel(self) -> None:
        """Stop the prediction at work and those that wait."""
        self.queue.clear()
        self.show_message("Cancelled. What is segmented already is kept.")

    def set_choice(self, model: str | None = None, device: str | None = None) -> None:
        """Use another model or device from the next prediction on."""
        choice = ModelChoice(model or self.choice.model, device or self.choice.device)
        if choice == self.choice:
            return
        self.choice = choice
        self.notices.clear()
        current = self.queue.current
        if current is not None:
            # Start it again: no image is predicted by two models.
            self.queue.remove(current)
            current.discard_predictions()
            self.queue.add(current, first=True)
            self.start_next()
        self.show_message("")

    def start_next(self) -> None:
        """Start the next image of the queue."""
        self.queue.start_next(self.active, self.choice)

    def _on_engine(self, engine: Engine) -> None:
        for image_state in self.image_states:
            image_state.start_threshold(engine.threshold)
        self.changed.emit()

    def _on_frame(self, event: FrameReady) -> None:
        image_state = self.queue.current
        if image_state is None:
            return
        source = Source.of(event.engine)
        image_state.start_threshold(source.threshold)
        (image_state.flat.add if event.flat else image_state.flat.discard)(event.frame)
        if event.bright is not None:
            image_state.bright_vessels = event.bright
        shown = self.shown(image_state)
        image_state.seen_before.clear(event.frame)
        filled = image_state.set_prediction(
            event.frame, event.probability, source, shown
        )
        opened = image_state in self.image_states  # otherwise it is only prefetched
        if opened and image_state.mask is None and not image_state.mask_was_deleted:
            self.images.add_mask(image_state)
            # Each new layer blocks the window for a moment: one at a time.
            QTimer.singleShot(0, lambda: self.images.add_prediction(image_state))
        own = event.frame in image_state.own_masks
        if not filled and event.frame == shown and opened and not own:
            self.message = "Your own mask was kept. The line shows the new prediction."
        if event.bright and opened and image_state is self.active:
            self.message = f"{BRIGHT_NOTE[0].upper()}{BRIGHT_NOTE[1:]}."
        self.changed.emit()

    def _on_seen_before(self, event: SeenBefore) -> None:
        image_state = self.queue.current
        if image_state is None or not image_state.predicted[event.frame]:
            return
        if image_state.usable_mask and image_state.is_corrected(event.frame):
            return  # the mask holds it: the prediction, too, stays as it was
        image_state.seen_before[event.frame] = event.found
        # Another object, as for every prediction: what was made of the former is old.
        source = replace(image_state.sources[event.frame])
        shown = self.shown(image_state)
        image_state.set_prediction(event.frame, event.probability, source, shown)
        self.changed.emit()

    def _on_notice(self, message: str) -> None:
        self.notices.append(message)
        show_warning(message)
        self.show_message(message)

    def _on_failed(self, message: str) -> None:
        self.queue.clear()
        show_error(message)
        self.show_message(message, failed=True)

    def _on_queue_finished(self) -> None:
        self.start_next()
        self.changed.emit()
