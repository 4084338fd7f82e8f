"""The one controller of a panel: images, their predictions and masks, and the work.

It knows the viewer's model and no widget. The panel shows what ``panel_state`` makes of
it, and calls the methods below.
"""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import TYPE_CHECKING

from napari.utils.notifications import show_error, show_warning
from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_cmunet.gui.layers import (
    OUTLINE_WIDTH,
    is_image,
    place_above,
    shown_frame,
    source_array,
)
from napari_cmunet.gui.prediction import (
    Engine,
    EngineFactory,
    FrameReady,
    ModelChoice,
    load_engine,
)
from napari_cmunet.gui.prediction_runner import PredictionRunner
from napari_cmunet.gui.preferences import Preferences, load_preferences
from napari_cmunet.gui.reading import Reading, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Layer
    from psygnal import SignalInstance

    from napari_cmunet.gui.export import Written

# Readings outlive a panel: one that is closed and opened again goes on with the same
# masks. Held by reference, for as long as the viewer lives.
_kept: weakref.WeakKeyDictionary[ViewerModel, list[Reading]] = (
    weakref.WeakKeyDictionary()
)


class Controller:
    """Holds the readings of one viewer and does what the panel asks.

    Parameters
    ----------
    viewer : ViewerModel
    predictor_factory : callable
        Loads a model; called in a worker's thread.
    preferences : Preferences, optional
        Read from napari's settings where not given.
    """

    #: Something that the panel shows has changed.
    changed = Signal()

    def __init__(
        self,
        viewer: ViewerModel,
        *,
        predictor_factory: EngineFactory = load_engine,
        preferences: Preferences | None = None,
    ) -> None:
        self._viewer = weakref.ref(viewer)
        preferences = preferences or load_preferences()
        self.pre_segment = preferences.pre_segment
        self.choice = ModelChoice(preferences.model, preferences.device)
        self.working_folder = preferences.working_folder
        self.readings: list[Reading] = []
        self.active: Reading | None = None
        self.message = ""
        self.failed = False
        self.notices: list[str] = []
        #: The reading that is being predicted, and those that wait for it.
        self.predicting: Reading | None = None
        self.queued: list[Reading] = []
        self.runner = PredictionRunner(predictor_factory)
        self._new_images: list[Image] = []
        self._attached = False
        self._soon = QTimer()
        self._soon.setSingleShot(True)
        self._soon.timeout.connect(self._take_new_images)
        self._idle = QTimer()
        self._idle.setInterval(0)
        self._idle.timeout.connect(self._on_idle)
        self.attach()

    # -- life -----------------------------------------------------------------

    @property
    def viewer(self) -> ViewerModel:
        """The viewer; its layers are looked at on the GUI thread only."""
        return self._viewer()

    @property
    def attached(self) -> bool:
        """Whether the controller follows its viewer."""
        return self._attached

    def attach(self) -> None:
        """Follow the viewer, and take up what a closed panel left."""
        if self._attached or self.viewer is None:
            return
        self._attached = True
        viewer = self.viewer
        viewer.layers.events.inserted.connect(self._on_inserted)
        viewer.layers.events.removed.connect(self._on_removed)
        viewer.layers.selection.events.active.connect(self._on_selected)
        viewer.dims.events.current_step.connect(self._on_dims)
        for signal, slot in self._runner_slots():
            signal.connect(slot)
        for reading in _kept.pop(viewer, []):
            self._adopt(reading)
        known = {id(reading.image) for reading in self.readings}
        self._new_images = [
            layer
            for layer in viewer.layers
            if is_image(layer) and id(layer) not in known
        ]
        if self.readings:
            self.active = self.readings[-1]
            self._on_selected()
        if self._new_images:
            self._soon.start(0)

    def detach(self) -> None:
        """Let go of the viewer. Layers stay; work in hand is given up."""
        if not self._attached:
            return
        self._attached = False
        self._soon.stop()
        self._idle.stop()
        self.queued.clear()
        self.predicting = None
        self.runner.stop()
        for signal, slot in self._runner_slots():
            signal.disconnect(slot)
        for reading in self.readings:
            self._unfollow(reading.image, reading.prediction, reading.mask)
        viewer = self.viewer
        if viewer is not None:
            viewer.layers.events.inserted.disconnect(self._on_inserted)
            viewer.layers.events.removed.disconnect(self._on_removed)
            viewer.layers.selection.events.active.disconnect(self._on_selected)
            viewer.dims.events.current_step.disconnect(self._on_dims)
            _kept[viewer] = self.readings
        self.readings = []
        self.active = None

    def _runner_slots(self) -> list[tuple[SignalInstance, Callable]]:
        runner = self.runner
        return [
            (runner.frame_ready, self._on_frame),
            (runner.engine_ready, self._on_engine),
            (runner.noticed, self._on_notice),
            (runner.failed, self._on_failed),
            (runner.finished, self._on_job_done),
        ]

    def _adopt(self, reading: Reading) -> None:
        layers = self.viewer.layers
        if reading.prediction not in layers:
            reading.prediction = None
        if reading.mask not in layers:
            reading.mask = None
        if reading.image not in layers and reading.mask is None:
            return
        self.readings.append(reading)
        self._follow(reading.image, reading.prediction, reading.mask)

    def _follow(self, *layers: Layer | None) -> None:
        for layer in layers:
            if layer is None:
                continue
            layer.events.name.connect(self._on_cosmetic)
            layer.events.visible.connect(self._on_cosmetic)
            layer.events.data.connect(self._on_data)
            if hasattr(layer.events, "paint"):
                layer.events.paint.connect(self._on_paint)
                layer.events.set_data.connect(self._on_redraw)
                layer.events.mode.connect(self._on_cosmetic)
                layer.events.contour.connect(self._on_cosmetic)

    def _unfollow(self, *layers: Layer | None) -> None:
        for layer in layers:
            if layer is None:
                continue
            layer.events.name.disconnect(self._on_cosmetic)
            layer.events.visible.disconnect(self._on_cosmetic)
            layer.events.data.disconnect(self._on_data)
            if hasattr(layer.events, "paint"):
                layer.events.paint.disconnect(self._on_paint)
                layer.events.set_data.disconnect(self._on_redraw)
                layer.events.mode.disconnect(self._on_cosmetic)
                layer.events.contour.disconnect(self._on_cosmetic)

    # -- what the viewer tells ------------------------------------------------

    def _on_inserted(self, event) -> None:
        layer = event.value
        if is_image(layer):
            # When it is inserted, the viewer has not yet selected it nor set its dims.
            self._new_images.append(layer)
            self._soon.start(0)

    def _take_new_images(self) -> None:
        if self.viewer is None:
            return
        images = [i for i in self._new_images if i in self.viewer.layers]
        self._new_images = []
        for image in images:
            reading = next((r for r in self.readings if r.image is image), None)
            if reading is None:
                reading = Reading(image)
                self.readings.append(reading)
                self._follow(image)
            self.active = reading
            if self.pre_segment and reading.why_not is None:
                self._want(reading)
        selected = self._reading_of(self.viewer.layers.selection.active)
        if selected is not None:
            self.active = selected
        self.message, self.failed = "", False
        self._work()
        self.changed.emit()

    def _on_removed(self, event) -> None:
        layer = event.value
        if layer in self._new_images:
            self._new_images.remove(layer)
        reading = self._reading_of(layer)
        if reading is None:
            return
        if layer is reading.prediction:
            self._unfollow(layer)
            reading.forget_prediction()
        elif layer is reading.mask:
            self._unfollow(layer)
            reading.forget_mask()
        elif layer is reading.image:
            self._drop_work(reading)
        if reading.image not in self.viewer.layers and reading.mask is None:
            self._drop(reading)
        self.changed.emit()

    def _drop(self, reading: Reading) -> None:
        self._unfollow(reading.image, reading.prediction, reading.mask)
        self.readings.remove(reading)
        if self.active is reading:
            self.active = self.readings[-1] if self.readings else None

    def _on_selected(self, event=None) -> None:
        reading = self._reading_of(self.viewer.layers.selection.active)
        if reading is not None and reading is not self.active:
            self.active = reading
            self._work()
        self.changed.emit()

    def _on_dims(self, event=None) -> None:
        for reading in self.readings:
            if reading.usable_mask and reading.steps.bring_up_to_date(
                self.shown(reading)
            ):
                reading.refresh_mask()
        if self.predicting is not None:
            self.runner.look_at(self.shown(self.predicting))
        self.changed.emit()

    def _on_cosmetic(self, event=None) -> None:
        self.changed.emit()

    def _on_data(self, event) -> None:
        reading = self._reading_of(event.source)
        if reading is None:
            return
        if event.source is reading.mask:
            reading.on_data_replaced()
        elif event.source is reading.image:
            self._drop_work(reading)
            reading.on_image_replaced()
            self.message = "The image has changed. Segment it again."
        self.changed.emit()

    def _on_paint(self, event) -> None:
        reading = self._reading_of(event.source)
        if reading is not None and reading.on_paint(event.value):
            self.changed.emit()

    def _on_redraw(self, event) -> None:
        reading = self._reading_of(event.source)
        if reading is None:
            return
        if reading.on_redraw():
            self._start_idle()
        self.changed.emit()

    def _reading_of(self, layer: Layer | None) -> Reading | None:
        if layer is None:
            return None
        for reading in self.readings:
            if layer in (reading.image, reading.prediction, reading.mask):
                return reading
        return None

    def shown(self, reading: Reading) -> int:
        """Index of the frame that is shown."""
        return shown_frame(reading.image, self.viewer, reading.count)

    # -- prediction -----------------------------------------------------------

    def segment(self) -> None:
        """Predict the active image: what is missing, or all of it anew."""
        reading = self.active
        if reading is None or reading.why_not is not None:
            return
        self._drop_work(reading)
        if not reading.waiting_frames():
            reading.start_over()
        reading.mask_was_deleted = False
        self.message, self.failed = "", False
        self._want(reading, first=True)
        self._work()
        self.changed.emit()

    def segment_layer(self, image: Image | None) -> None:
        """Segment an image layer by hand, the active one where none is given."""
        self._take_new_images()
        for reading in self.readings:
            if reading.image is image:
                self.active = reading
        if self.active is not self.predicting and self.active not in self.queued:
            self.segment()

    def warm_up(self) -> None:
        """Load the model ahead of time, unless there is work at hand."""
        if self.pre_segment:
            self.runner.warm_up(self.choice)
            self.changed.emit()

    def cancel(self) -> None:
        """Give up the prediction at work and those that wait."""
        self.queued.clear()
        self.predicting = None
        self.runner.stop()
        self.message, self.failed = "Cancelled.", False
        self.changed.emit()

    def set_choice(self, model: str | None = None, device: str | None = None) -> None:
        """Use another model or device from the next prediction on."""
        choice = ModelChoice(model or self.choice.model, device or self.choice.device)
        if choice == self.choice:
            return
        self.choice = choice
        self.notices.clear()
        self.message, self.failed = "", False
        if self.predicting is not None:
            # What is at work would end as a mixture of two models.
            self.segment_again()
        self.changed.emit()

    def segment_again(self) -> None:
        """Predict all of the active image anew with the chosen model."""
        if self.active is not None:
            self._drop_work(self.active)
            self.active.start_over()
            self.segment()

    def _want(self, reading: Reading, *, first: bool = False) -> None:
        if reading is self.predicting or reading in self.queued:
            return
        self.queued.insert(0 if first else len(self.queued), reading)

    def _drop_work(self, reading: Reading) -> None:
        if reading in self.queued:
            self.queued.remove(reading)
        if reading is self.predicting:
            self.predicting = None
            self.runner.stop()
            self._work()

    def _work(self) -> None:
        """Predict what is wanted, the active image before the others."""
        if self.active in self.queued and self.predicting is not self.active:
            self.queued.remove(self.active)
            if self.predicting is not None:
                self.queued.insert(0, self.predicting)
            self._start(self.active)
        elif self.predicting is None and self.queued:
            self._start(self.queued.pop(0))

    def _start(self, reading: Reading) -> None:
        self.predicting = reading
        image = reading.image
        self.runner.start(
            source_array(image),
            reading.waiting_frames(),
            focus=self.shown(reading),
            cine=reading.is_cine,
            rgb=image.rgb,
            choice=self.choice,
        )

    def _on_engine(self, engine: Engine) -> None:
        for reading in self.readings:
            reading.start_threshold(engine.threshold)
        self.changed.emit()

    def _on_frame(self, event: FrameReady) -> None:
        reading = self.predicting
        if reading is None:
            return
        engine = event.engine
        source = Source(engine.name, engine.sha256, engine.device(), engine.threshold)
        shown = self.shown(reading)
        filled = reading.set_prediction(event.frame, event.probability, source, shown)
        self._show_layers(reading)
        if not filled and event.frame == shown:
            self.message = "Your own mask was kept; the new prediction is beneath it."
        self.changed.emit()

    def _on_notice(self, message: str) -> None:
        self.notices.append(message)
        show_warning(message)
        self.changed.emit()

    def _on_failed(self, message: str) -> None:
        self.queued.clear()
        self.predicting = None
        self.message, self.failed = message, True
        show_error(message)
        self.changed.emit()

    def _on_job_done(self) -> None:
        self.predicting = None
        self._work()
        self.changed.emit()

    # -- layers ---------------------------------------------------------------

    def _show_layers(self, reading: Reading) -> None:
        """Add the layers of a reading that has none yet."""
        if reading.prediction is None and not reading.prediction_was_deleted:
            self._add_prediction(reading)
        if reading.mask is None and not reading.mask_was_deleted:
            self._add_mask(reading)

    def _add_prediction(self, reading: Reading) -> None:
        layer = reading.new_prediction_layer()
        place_above(self.viewer, layer, reading.image)
        self._follow(layer)

    def _add_mask(self, reading: Reading) -> None:
        viewer = self.viewer
        layer = reading.new_mask_layer()
        place_above(viewer, layer, reading.prediction or reading.image)
        self._follow(layer)
        if reading is self.active and self._reading_of(
            viewer.layers.selection.active
        ) in (None, reading):
            viewer.layers.selection.active = layer
        # Last: napari puts the tools of a layer away while another is selected.
        layer.mode = "paint"

    def make_mask_again(self) -> None:
        """Put back a mask that was deleted or that no longer fits."""
        reading = self.active
        if reading is None or reading.why_not is not None:
            return
        if reading.mask is not None:
            self._unfollow(reading.mask)
        self._add_mask(reading)
        self.changed.emit()

    def activate(self, reading: Reading) -> None:
        """Work on another image: show it and its layers, hide the other images'."""
        self.active = reading
        viewer = self.viewer
        for other in self.readings:
            for layer in other.layers():
                if layer in viewer.layers and layer is not other.prediction:
                    layer.visible = other is reading
            if other.prediction in viewer.layers:
                other.prediction.visible = other is reading and other.show_prediction
        target = reading.mask if reading.mask is not None else reading.image
        if target in viewer.layers:
            viewer.layers.selection.active = target
        self._work()
        self._on_dims()

    def set_prediction_visible(self, visible: bool) -> None:
        """Show or hide the prediction, making its layer anew if it was deleted."""
        reading = self.active
        if reading is None:
            return
        reading.show_prediction = visible
        if reading.prediction is not None:
            reading.prediction.visible = visible
        elif visible and reading.sources:
            self._add_prediction(reading)
        self.changed.emit()

    def set_mask_visible(self, visible: bool) -> None:
        """Show or hide the mask."""
        if self.active is not None and self.active.mask is not None:
            self.active.mask.visible = visible

    def set_outline(self, outline: bool) -> None:
        """Show the mask as an outline, or filled."""
        if self.active is not None and self.active.mask is not None:
            self.active.mask.contour = OUTLINE_WIDTH if outline else 0
            self.changed.emit()

    def toggle_outline(self) -> None:
        """Change between outline and fill."""
        if self.active is not None and self.active.mask is not None:
            self.set_outline(self.active.mask.contour == 0)

    def mask_in_hand(self) -> Labels | None:
        """The active mask, selected and shown so that tools act on it."""
        reading = self.active
        if reading is None or not reading.usable_mask:
            return None
        reading.mask.visible = True
        self.viewer.layers.selection.active = reading.mask
        return reading.mask

    # -- threshold and frames -------------------------------------------------

    def begin_threshold(self) -> None:
        """The slider is taken hold of."""
        reading = self.active
        if reading is not None and reading.usable_mask:
            reading.steps.begin(self.shown(reading))

    def move_threshold(self, threshold: float, *, join: bool = False) -> None:
        """Set the threshold; while the slider is held, as a preview.

        ``join`` makes it one undo step with the move before.
        """
        reading = self.active
        if reading is None or not reading.usable_mask:
            return
        if reading.steps.dragging:
            reading.steps.preview(threshold)
        else:
            reading.steps.step(self.shown(reading), threshold, join=join)
            self._start_idle()
        self.changed.emit()

    def end_threshold(self) -> None:
        """The slider is let go."""
        for reading in self.readings:
            if reading.steps.dragging:
                reading.steps.commit()
        self._start_idle()
        self.changed.emit()

    def reset_frame(self) -> None:
        """Make the shown frame's mask the prediction again. Can be undone."""
        reading = self.active
        if reading is None or not reading.usable_mask:
            return
        frame = self.shown(reading)
        if reading.has_prediction(frame):
            reading.steps.reset(frame)
            self.changed.emit()

    def undo(self) -> None:
        """Undo the last change to the active mask."""
        if (mask := self.mask_in_hand()) is not None:
            mask.undo()

    def redo(self) -> None:
        """Redo what was undone last."""
        if (mask := self.mask_in_hand()) is not None:
            mask.redo()

    def _start_idle(self) -> None:
        self._idle.start()

    def _on_idle(self) -> None:
        """Let one hidden frame of a cine follow the threshold."""
        for reading in self.readings:
            if not reading.usable_mask or reading.steps.dragging:
                continue
            frame = reading.next_out_of_date()
            if frame is not None:
                reading.steps.bring_up_to_date(frame)
                if frame == self.shown(reading):
                    reading.refresh_mask()
                return
        self._idle.stop()

    # -- export ---------------------------------------------------------------

    def export_folder(self) -> str:
        """Where an export dialog starts: the working folder, or the image's own."""
        if self.working_folder:
            return self.working_folder
        source = self.active.image.source.path if self.active is not None else None
        return str(Path(source).parent) if source else str(Path.home())

    def note_export(self, results: Iterable[Written]) -> None:
        """Masks that were written hold no unsaved corrections."""
        for result in results:
            if not result.problem:
                job = result.job
                job.reading.corrections.note_export(job.fingerprints, job.threshold)
        self.changed.emit()

    def say(self, message: str, *, failed: bool = False) -> None:
        """Show a message in the panel."""
        self.message, self.failed = message, failed
        self.changed.emit()
