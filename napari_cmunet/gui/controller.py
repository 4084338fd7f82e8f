"""The one controller of a panel: images, their predictions and masks, and the work.

It knows the viewer's model and no widget. The panel shows what ``panel_state`` makes of
it, and calls the methods below.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from napari.utils.notifications import show_error, show_warning
from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_cmunet.gui.image_layers import Showing
from napari_cmunet.gui.image_state import ImageState, Source
from napari_cmunet.gui.layers import is_image, shown_frame
from napari_cmunet.gui.mask_editor import Correcting
from napari_cmunet.gui.prediction import (
    Engine,
    EngineFactory,
    FrameReady,
    ModelChoice,
    load_engine,
)
from napari_cmunet.gui.prediction_queue import Schedule
from napari_cmunet.gui.prediction_runner import PredictionRunner
from napari_cmunet.gui.preferences import Preferences, load_preferences
from napari_cmunet.gui.viewer_events import (
    follow_layers,
    follow_viewer,
    leave_layers,
    leave_viewer,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import ViewerModel
    from napari.layers import Image, Layer
    from psygnal import SignalInstance

# Readings outlive a panel: one that is closed and opened again goes on with the same
# masks. Held by reference, for as long as the viewer lives.
_kept: weakref.WeakKeyDictionary[ViewerModel, list[ImageState]] = (
    weakref.WeakKeyDictionary()
)


class Controller:
    """Holds the readings of one viewer and does what the panel asks.

    Parameters
    ----------
    viewer : ViewerModel
    predictor_factory : callable, optional
        Loads a model; called in a worker's thread. An installed one by default.
    preferences : Preferences, optional
        Read from napari's settings where not given.
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
        self._viewer = weakref.ref(viewer)
        preferences = preferences or load_preferences()
        self.pre_segment = preferences.pre_segment
        self.choice = ModelChoice(preferences.model, preferences.device)
        self.working_folder = preferences.working_folder
        self.image_states: list[ImageState] = []
        self.active: ImageState | None = None
        self.message = ""
        self._tip = ("", "")
        self.failed = False
        self.notices: list[str] = []
        self.runner = PredictionRunner(predictor_factory or load_engine)
        self.schedule = Schedule(self.runner, self.shown)
        self.attached = False
        self._new_images: list[Image] = []
        self._soon = QTimer()
        self._soon.setSingleShot(True)
        self._soon.timeout.connect(self._take_new_images)
        self.correct = Correcting(self)
        self.show = Showing(self)
        self.attach()

    # -- life -----------------------------------------------------------------

    @property
    def viewer(self) -> ViewerModel:
        """The viewer; its layers are looked at on the GUI thread only."""
        return self._viewer()

    def attach(self) -> None:
        """Follow the viewer, and take up what a closed panel left."""
        viewer = self.viewer
        if self.attached or viewer is None:
            return
        self.attached = True
        follow_viewer(viewer, self)
        for signal, slot in self._runner_slots():
            signal.connect(slot)
        for image_state in _kept.pop(viewer, []):
            self._adopt(image_state)
        known = [image_state.image for image_state in self.image_states]
        self._new_images = [
            layer for layer in viewer.layers if is_image(layer) and layer not in known
        ]
        if self.image_states:
            self.active = self.image_states[-1]
            self.on_selected()
        if self._new_images:
            self._soon.start(0)

    def detach(self) -> None:
        """Let go of the viewer. Layers stay; work in hand is given up."""
        if not self.attached:
            return
        self.attached = False
        # The panel may be gone already.
        self.changed.disconnect()
        self._soon.stop()
        self.correct.stop()
        self.schedule.clear()
        for signal, slot in self._runner_slots():
            signal.disconnect(slot)
        for image_state in self.image_states:
            leave_layers(self, *image_state.layers())
        if (viewer := self.viewer) is not None:
            leave_viewer(viewer, self)
            _kept[viewer] = self.image_states
        self.image_states = []
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

    def _adopt(self, image_state: ImageState) -> None:
        layers = self.viewer.layers
        if image_state.prediction is not None and image_state.prediction not in layers:
            image_state.forget_prediction()
        if image_state.mask is not None and image_state.mask not in layers:
            image_state.forget_mask()
        if image_state.image in layers or image_state.mask is not None:
            self.image_states.append(image_state)
            follow_layers(self, *image_state.layers())
            self.show.add_prediction(image_state)

    # -- what the viewer tells, see viewer_link.Follower ----------------------

    def on_inserted(self, event) -> None:
        if is_image(event.value):
            # When it is inserted, the viewer has not yet selected it nor set its dims.
            self._new_images.append(event.value)
            self._soon.start(0)

    def _take_new_images(self) -> None:
        if self.viewer is None:
            return
        images = [i for i in self._new_images if i in self.viewer.layers]
        self._new_images = []
        for image in images:
            image_state = next((r for r in self.image_states if r.image is image), None)
            if image_state is None:
                image_state = ImageState(image)
                self.image_states.append(image_state)
                follow_layers(self, image)
            self.active = image_state
            if self.pre_segment and image_state.waiting_frames():
                self.schedule.add(image_state)
        self.active = self.image_state_of(self.viewer.layers.selection.active) or (
            self.active
        )
        self.go_on()
        self.say("")

    def on_removed(self, event) -> None:
        layer = event.value
        if layer in self._new_images:
            self._new_images.remove(layer)
        image_state = self.image_state_of(layer)
        if image_state is None:
            return
        if layer is image_state.image:
            self.schedule.remove(image_state)
            self.go_on()
        else:
            leave_layers(self, layer)
            if layer is image_state.mask:
                image_state.forget_mask()
            else:
                image_state.forget_prediction()
        # An image that is gone still has its mask to be corrected and exported.
        if image_state.image not in self.viewer.layers and image_state.mask is None:
            leave_layers(self, *image_state.layers())
            self.image_states.remove(image_state)
            if self.active is image_state:
                self.active = self.image_states[-1] if self.image_states else None
        self.changed.emit()

    def on_selected(self, event=None) -> None:
        image_state = self.image_state_of(self.viewer.layers.selection.active)
        if image_state is not None and image_state is not self.active:
            self.active = image_state
            self.message = ""
            self.go_on()
        self.changed.emit()

    def on_dims(self, event=None) -> None:
        for image_state in self.image_states:
            shown = self.shown(image_state)
            if image_state.usable_mask and image_state.steps.bring_up_to_date(shown):
                image_state.refresh_mask()
        if self.schedule.current is not None:
            self.runner.look_at(self.shown(self.schedule.current))
        self.changed.emit()

    def on_looks(self, event=None) -> None:
        self.changed.emit()

    def on_data(self, event) -> None:
        image_state = self.image_state_of(event.source)
        if image_state is None:
            return
        if event.source is image_state.mask:
            image_state.on_data_replaced()
        elif event.source is image_state.image:
            self.schedule.remove(image_state)
            overlays = image_state.overlays()
            image_state.on_image_replaced()
            leave_layers(
                self, *(o for o in overlays if o not in image_state.overlays())
            )
            self.go_on()
            self.message = "The image has changed. Segment it again."
        self.changed.emit()

    def on_paint(self, event) -> None:
        self.message = ""
        self.changed.emit()

    def on_redraw(self, event) -> None:
        self.correct.start_idle()
        self.changed.emit()

    def on_editable(self, event) -> None:
        """The prediction stays read-only, whatever napari does when it slices."""
        image_state = self.image_state_of(event.source)
        if image_state is not None and event.source is image_state.prediction:
            event.source.editable = False

    def image_state_of(self, layer: Layer | None) -> ImageState | None:
        """The reading that a layer belongs to."""
        if layer is None:
            return None
        return next((r for r in self.image_states if layer in r.layers()), None)

    def shown(self, image_state: ImageState) -> int:
        """Index of the frame that is shown."""
        return shown_frame(image_state.image, self.viewer, image_state.count)

    def say(self, message: str, *, failed: bool = False, tip: str = "") -> None:
        """Show a message in the panel; the tip tells the rest of it."""
        self.message, self.failed, self._tip = message, failed, (message, tip)
        self.changed.emit()

    @property
    def message_tip(self) -> str:
        """What a tip tells of the message that is shown."""
        message, tip = self._tip
        return tip if message == self.message else ""

    # -- prediction -----------------------------------------------------------

    def segment(self) -> None:
        """Predict the active image: what is missing, or all of it anew."""
        image_state = self.active
        if image_state is None or image_state.why_not is not None:
            return
        self.schedule.remove(image_state)
        if not image_state.waiting_frames():
            image_state.start_over()
        image_state.mask_was_deleted = False
        self.schedule.add(image_state, first=True)
        self.go_on()
        self.say("")

    def segment_layer(self, image: Image | None) -> None:
        """Segment an image layer by hand, the active one where none is given."""
        self._take_new_images()
        self.active = next(
            (r for r in self.image_states if r.image is image), self.active
        )
        if self.active is not self.schedule.current:
            self.segment()

    def warm_up(self) -> None:
        """Load the model ahead of time, unless there is work at hand."""
        if self.pre_segment:
            self.runner.warm_up(self.choice)
            self.changed.emit()

    def cancel(self) -> None:
        """Give up the prediction at work and those that wait."""
        self.schedule.clear()
        self.say("Cancelled. What is segmented already is kept.")

    def set_choice(self, model: str | None = None, device: str | None = None) -> None:
        """Use another model or device from the next prediction on."""
        choice = ModelChoice(model or self.choice.model, device or self.choice.device)
        if choice == self.choice:
            return
        self.choice = choice
        self.notices.clear()
        current = self.schedule.current
        if current is not None:
            # What is at work would end as a mixture of two models.
            self.schedule.remove(current)
            current.start_over()
            self.schedule.add(current, first=True)
            self.go_on()
        self.say("")

    def go_on(self) -> None:
        """Start what comes next in line."""
        self.schedule.go_on(self.active, self.choice)

    def _on_engine(self, engine: Engine) -> None:
        for image_state in self.image_states:
            image_state.start_threshold(engine.threshold)
        self.changed.emit()

    def _on_frame(self, event: FrameReady) -> None:
        image_state = self.schedule.current
        if image_state is None:
            return
        source = Source.of(event.engine)
        image_state.start_threshold(source.threshold)
        shown = self.shown(image_state)
        filled = image_state.set_prediction(
            event.frame, event.probability, source, shown
        )
        opened = image_state in self.image_states  # another one is only predicted ahead
        if opened and image_state.mask is None and not image_state.mask_was_deleted:
            self.show.add_mask(image_state)
            # Each new layer takes the window a moment: the other one comes after.
            QTimer.singleShot(0, lambda: self.show.add_prediction(image_state))
        own = event.frame in image_state.own
        if not filled and event.frame == shown and opened and not own:
            self.message = "Your own mask was kept. The line shows the new prediction."
        self.changed.emit()

    def _on_notice(self, message: str) -> None:
        self.notices.append(message)
        show_warning(message)
        self.say(message)

    def _on_failed(self, message: str) -> None:
        self.schedule.clear()
        show_error(message)
        self.say(message, failed=True)

    def _on_job_done(self) -> None:
        self.schedule.current = None
        self.go_on()
        self.changed.emit()
