"""The CM-UNet panel: pre-segment, correct, export."""

from __future__ import annotations

import weakref
from functools import partial
from typing import Any

import napari  # noqa: TC002 - napari resolves the annotations of what it calls
from qtpy.QtCore import QEvent, Qt, QTimer
from qtpy.QtWidgets import QWidget

from napari_cmunet.gui.canvas import KeyFocus, guard_canvas
from napari_cmunet.gui.cine.section import CineSection
from napari_cmunet.gui.controller import Controller
from napari_cmunet.gui.export_section import ExportSection
from napari_cmunet.gui.images.layers import is_image
from napari_cmunet.gui.labels import KeyList, Legend, StatusLabel
from napari_cmunet.gui.measurement.section import MEASURE_KEYS, MeasureSection
from napari_cmunet.gui.open_files import CloseQuestion, DropTarget, OpenRow
from napari_cmunet.gui.panel_state import EMPTY, FOUND, PENDING, REFUSED, describe
from napari_cmunet.gui.prediction.section import (
    InvertSwitch,
    ModelSection,
    ThresholdSlider,
)
from napari_cmunet.gui.preferences import save_preference
from napari_cmunet.gui.project.section import ProjectSection
from napari_cmunet.gui.project.session import ProjectSession, close_panel, close_session
from napari_cmunet.gui.shortcuts import (
    PROPAGATE,
    KeyBindings,
    listed_keys,
    mask_actions,
    project_actions,
)
from napari_cmunet.gui.training.section import FinetuneSection, ask_before_ending
from napari_cmunet.gui.vessel_tools.preview import LEGEND
from napari_cmunet.gui.vessel_tools.section import VesselSection, vessel_shortcuts
from napari_cmunet.gui.widgets import (
    Column,
    Fold,
    NameCombo,
    ToolRow,
    WorkBar,
    button,
    check,
    column,
    embolden,
    group,
    heading,
    labelled,
    narrow_dock,
    one_place,
    row,
    text_label,
)

_COLOUR_OF_KIND = {
    FOUND: "#2e9e4f",
    EMPTY: "#d08a00",
    PENDING: "#5b8def",
    REFUSED: "#d1495b",
}
_TOOLS = (
    ("paint", "Paint", "Draw artery with the brush (P)"),
    ("erase", "Erase", "Erase artery with the brush (E)"),
    ("fill", "Fill", "Fill an enclosed area with one click (F)"),
    ("pan_zoom", "Move", "Drag to move the image (Z); or hold Space"),
)
_ACCEPTED = "This mask is a label now. N opens the next image."
_ALL_DONE = "This mask is a label now, and no image is left without one."
NOT_A_DEVICE = "Research use only. Not a medical device."


class CMUNetPanel(QWidget):
    """The panel of one viewer.

    Parameters
    ----------
    viewer : ViewerModel
        The viewer; napari hands over its own.
    parent : QWidget, optional
    controller : Controller, optional
        Made for the viewer where not given.
    """

    def __init__(
        self,
        viewer: napari.components.ViewerModel,
        parent: QWidget | None = None,
        *,
        controller: Controller | None = None,
    ) -> None:
        super().__init__(parent)
        self.setObjectName("cmunet_panel")
        # napari hands over a proxy, whose layers are new proxies at each access. Layers
        # are held by reference, so take the viewer itself.
        viewer = getattr(viewer, "__wrapped__", viewer)
        self.controller = controller or Controller(viewer)
        self._viewer = viewer
        self.project = ProjectSession.of(self.controller)
        self._docked = self._shown_once = False
        self._key_focus = KeyFocus(self)
        self._build()
        self._connect()
        self._bind_keys()
        # Changes come in groups: refresh once for all of them.
        self._refresh_soon = QTimer(self)
        self._refresh_soon.setSingleShot(True)
        self._refresh_soon.timeout.connect(self.refresh)
        self._listen()
        # A window that closes deletes its docks without closing them.
        self.destroyed.connect(partial(close_panel, self.controller, self.project))
        self.refresh()

    def _build(self) -> None:
        self.image = NameCombo("The image that you work on")
        self.image_label = labelled("&Image", self.image)
        self.on_opening = check(
            "&Pre-segment on opening",
            "Find the arteries of every image as soon as it is opened",
        )
        self.on_opening.setChecked(self.controller.pre_segment)
        self.segment = button(
            "&Segment arteries", "Find the arteries of this image now"
        )
        self.opening = OpenRow(self.controller)
        self.work = WorkBar("Stop segmenting; frames already done are kept", "Ca&ncel")
        self.invert = InvertSwitch(self.controller)
        self.cine = CineSection(self.controller)
        self.status = StatusLabel()
        self.tools = ToolRow(_TOOLS)
        self.vessels = VesselSection(self.controller)
        self.undo = button("&Undo", "Undo the last change to the mask (Ctrl+Z)")
        self.redo = button("&Redo", "Redo what was undone (Ctrl+Shift+Z)")
        self.reset = button(
            "Reset mask",
            "Replace the mask of the shown frame by the prediction at this threshold. "
            "Can be undone.",
        )
        self.again = button(
            "&Make the mask again", "Make a new mask from the prediction"
        )
        self.threshold = ThresholdSlider()
        for part in (self.threshold.slider, self.threshold.number):
            part.setToolTip(
                "Probability from which a pixel counts as artery. A lower threshold "
                "finds more. Your corrections stay. One drag is one undo step."
            )
        self.threshold_note = text_label()
        self.mask_shown = check("Show mask", "Show the mask")
        self.outline = check("Outline", "Show the mask as an outline (T)")
        self.prediction_shown = check(
            "Prediction", "Show the prediction of the model as a thin line (G)"
        )
        self.legend = Legend(LEGEND)
        self.measuring = MeasureSection(self.controller)
        self.exporting = ExportSection(self.controller)
        self.project_section = ProjectSection(self.project)
        self.finetune = FinetuneSection()
        self.finetune_fold = Fold("Fine-tune", self.finetune)
        self.model = ModelSection(self.controller)
        self.keys = KeyList([*vessel_shortcuts(), *MEASURE_KEYS, *listed_keys()])
        self.notice = text_label(NOT_A_DEVICE)
        self.notice.setAlignment(Qt.AlignmentFlag.AlignHCenter)

        content = column(
            self.opening,
            row(self.image_label, self.image, stretch=1),
            row(group(one_place(self.segment, self.work)), self.invert, stretch=0),
            self.on_opening,
            self.status,
            self.cine,
            heading("Project"),
            self.project_section,
            heading("Correct the mask"),
            self.again,
            self.tools,
            self.vessels,
            row(self.undo, self.redo, self.reset, stretch=2),
            row(labelled("&Threshold", self.threshold), self.threshold, stretch=1),
            self.threshold_note,
            row(self.mask_shown, self.outline, self.prediction_shown),
            self.legend,
            Fold("Measure", self.measuring),
            self.project_section.page.images,
            self.finetune_fold,
            heading("Export"),
            self.exporting,
            Fold("Model and device", self.model),
            Fold("Keys", self.keys, is_open=False),
        )
        content.setContentsMargins(8, 4, 8, 4)
        content.addStretch(1)
        below = column(self.status.whole, self.project_section.notices)
        below.setContentsMargins(8, 0, 8, 0)
        outer = column(Column(group(content)), below, self.notice)
        outer.setContentsMargins(0, 0, 0, 4)
        self.setLayout(outer)

    def _connect(self) -> None:
        controller = self.controller
        self.image.chosen.connect(self._on_image_chosen)
        self.on_opening.toggled.connect(self._on_opening_toggled)
        self.opening.folder_chosen.connect(self.project_section.commands.begin)
        self.segment.clicked.connect(controller.segment)
        self.invert.clicked.connect(self.project.navigator.note_inversion)
        self.work.cancel.clicked.connect(controller.cancel)
        self.tools.picked.connect(self._on_tool)
        self.undo.clicked.connect(controller.editor.undo)
        self.redo.clicked.connect(controller.editor.redo)
        self.reset.clicked.connect(controller.editor.reset_frame)
        self.again.clicked.connect(controller.remake_mask)
        self.threshold.grabbed.connect(controller.editor.begin_threshold)
        self.threshold.moved.connect(controller.editor.move_threshold)
        self.threshold.moved.connect(self.project.activity.note_gesture)
        self.measuring.plot.moved.connect(self.project.activity.note_gesture)
        self.threshold.released.connect(controller.editor.end_threshold)
        self.mask_shown.clicked.connect(controller.editor.set_mask_visible)
        self.outline.clicked.connect(controller.editor.set_outline)
        self.prediction_shown.clicked.connect(controller.editor.set_prediction_visible)
        commands, page = self.project_section.commands, self.project_section.page
        page.to_training.clicked.connect(self.finetune.scroll_into_view)
        self.exporting.labels.triggered.connect(commands.export)
        commands.exported.connect(self.exporting.show_result)
        self.vessels.review.changed.connect(self.project.navigator.tick)
        # Both show what they would do in the same colours: one at a time.
        propagation, tools = self.cine.propagation.propagation, self.vessels.tools
        propagation.started.connect(tools.deactivate)
        propagation.started.connect(self.vessels.review.stop)
        tools.activated.connect(propagation.dismiss)
        tools.activated.connect(self.measuring.stop_picking)
        self.measuring.started.connect(tools.deactivate)

    def _on_image_chosen(self, index: int) -> None:
        if 0 <= index < len(self.controller.image_states):
            self.controller.show_image(self.controller.image_states[index])

    def _on_opening_toggled(self, on: bool) -> None:
        self.controller.set_pre_segment(on)
        save_preference("pre_segment", on)

    def _on_tool(self, mode: str) -> None:
        self.vessels.tools.deactivate()
        if (mask := self.controller.editor.select_mask()) is not None:
            mask.mode = mode
        self._on_changed()

    def _on_changed(self) -> None:
        if not self._refresh_soon.isActive():
            self._refresh_soon.start(0)

    def refresh(self) -> None:
        """Show the controller's state as it is now."""
        self.project.preview.update()
        in_project = self.project_section.refresh()
        self.finetune.set_training(self.project.training.session, self.project.preview)
        project = self.project.project
        self.project_section.page.images.setVisible(project is not None)
        for part in (self.finetune_fold, self.project_section.page.to_training):
            part.setVisible(project is not None and not project.is_blind)
        state = describe(self.controller)
        self.image.show_names(state.images, state.active, "no image open")
        self.opening.refresh()
        self.segment.setText(state.segment_text)
        self.segment.setEnabled(state.can_segment)
        self.work.show_work(state.busy, state.done, state.total)
        self.segment.setVisible(state.show_segment)
        needless = state.in_project and self.controller.pre_segment
        self.on_opening.setVisible(not needless)
        for widget in (self.image, self.image_label):
            widget.setVisible(not state.in_project or len(state.images) > 1)
        accepted = in_project.saved and not (
            self.controller.message or state.busy or state.mask_missing
        )
        words = _ALL_DONE if in_project.all_done else _ACCEPTED
        self.status.setText(words if accepted else state.status)
        self.status.setToolTip("" if accepted else state.status_tip)
        embolden(self.status, state.failed)
        self.status.show_colour(_COLOUR_OF_KIND.get(state.kind, "transparent"))
        self.again.setVisible(state.mask_missing)
        for control in (self.tools, self.mask_shown, self.outline):
            control.setEnabled(state.can_correct)
        self.undo.setEnabled(state.can_undo)
        self.redo.setEnabled(state.can_redo)
        self.tools.show_active("" if self.vessels.active else state.mode)
        self.vessels.refresh()
        self.measuring.refresh()
        self.reset.setEnabled(state.can_reset)
        self.reset.setText(state.reset_text)
        self.mask_shown.setChecked(state.mask_visible)
        self.outline.setChecked(state.outline)
        self.prediction_shown.setEnabled(state.has_prediction)
        self.prediction_shown.setChecked(state.prediction_visible)
        self.threshold.setEnabled(state.can_cut)
        self.threshold.show_value(state.threshold)
        self.threshold_note.setText(state.threshold_note)
        self.threshold_note.setVisible(bool(state.threshold_note))
        self.exporting.refresh(state, is_project=self.project.project is not None)
        self.cine.show_image_state(self.controller.active)
        self.invert.refresh()
        self.model.show_choice(in_project=self.project.project is not None)
        self.model.show_devices(state.devices)
        self.model.show_device_in_use(state.device_in_use)

    def stop(self) -> None:
        """Stop work and unbind the shortcuts; layers stay. Idempotent."""
        self.cine.stop()
        self._shortcuts.unbind()
        self._key_focus.stop()
        self.vessels.close_tools()
        self.measuring.stop()
        if self.controller.connected:
            self.project.workspace.changed.disconnect(self._on_changed)
            self.project.annotation.accepted.disconnect(self.vessels.review.stop)
            self.project_section.commands.disconnect()
            wanted = self.project.training.result_wanted
            wanted.disconnect(self.finetune.scroll_into_view)
            del self.project.may_close
            self.project.disconnect_panel()
        self.controller.disconnect()
        self._refresh_soon.stop()  # what is stopped above may have started it

    def _wake_up(self) -> None:
        if self.controller.connected:
            return
        self.controller.connect()
        self._listen()
        self.project.connect_panel(self.controller)
        self._bind_keys()
        self.refresh()

    def _bind_keys(self) -> None:
        self._key_focus.start()
        self._shortcuts = KeyBindings(
            self._viewer,
            project_actions(self.project)
            | mask_actions(self.controller, self.threshold.step)
            | {PROPAGATE: self.cine.propagation.propagation.press}
            | self.vessels.key_actions()
            | self.measuring.key_actions(),
        )

    def _listen(self) -> None:
        self.controller.changed.connect(self._on_changed)
        self.project.workspace.changed.connect(self._on_changed)
        self.project.annotation.accepted.connect(self.vessels.review.stop)
        self.project_section.commands.connect()
        self.project.training.result_wanted.connect(self.finetune.scroll_into_view)
        # The session outlives the panel: hold a weak reference only.
        self.project.may_close = partial(_may_close, weakref.ref(self))

    def showEvent(self, event: Any) -> None:
        super().showEvent(event)
        guard_canvas(self._viewer, self.window())
        if not self._shown_once:
            self._shown_once = True
            window = self.window()
            assert window is not None
            DropTarget(self.opening)
            CloseQuestion(window, self.controller, self.project)
            window.destroyed.connect(partial(close_session, weakref.ref(self.project)))
            self.model.look_for_models()
            narrow_dock(self)
            QTimer.singleShot(500, self._warm_up)

    def _warm_up(self) -> None:
        # Load the model while the user looks for a file.
        if self.controller.connected:
            self.controller.warm_up()

    def event(self, event: QEvent | None) -> bool:
        assert event is not None
        # napari closes a dock by removing the widget from it, without closing it.
        if event.type() == QEvent.Type.ParentChange:
            if self.parent() is not None:
                self._docked = True
                self._wake_up()
            elif self._docked:
                self.stop()
        return super().event(event)

    def closeEvent(self, event: Any) -> None:
        self.stop()
        super().closeEvent(event)


def _may_close(panel: weakref.ref[CMUNetPanel]) -> bool:
    """Whether the project may be closed: an existing panel asks about a training."""
    found = panel()
    training = found.project.training.session if found is not None else None
    return training is None or ask_before_ending(training, found)


def segment_arteries(viewer: napari.Viewer) -> None:
    """Open the panel and segment the selected image. Command of the layer menu."""
    layer = viewer.layers.selection.active
    _, panel = viewer.window.add_plugin_dock_widget("napari-cmunet", "CM-UNet")
    panel.controller.segment_layer(layer if layer and is_image(layer) else None)
