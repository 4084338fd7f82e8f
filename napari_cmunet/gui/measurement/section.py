"""The panel's measurement: a stretch, its plot and numbers; narrowings one by one."""

from __future__ import annotations

from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal
from qtpy.QtCore import Qt
from qtpy.QtCore import Signal as QtSignal
from qtpy.QtWidgets import QSpinBox, QWidget

from napari_cmunet.gui.images.corrections import fingerprint
from napari_cmunet.gui.images.layers import Frames
from napari_cmunet.gui.jobs import JobRunner
from napari_cmunet.gui.measurement.measurement import (
    BRANCH,
    POINTS,
    Measurement,
    calibration_of,
)
from napari_cmunet.gui.measurement.profile import ProfilePlot
from napari_cmunet.gui.measurement.report import ReportSaver
from napari_cmunet.gui.vessel_tools.vessel_names import (
    NAME_KEY,
    NAME_KEYS,
    NamesSection,
)
from napari_cmunet.gui.widgets import (
    TAB_ONLY,
    NameCombo,
    button,
    column,
    group,
    ignore_wheel,
    lay_out_again,
    row,
    text_label,
)
from napari_cmunet.io.measurements import ranked
from napari_cmunet.vessels.qca import LEAST_STENOSIS, Markers, analyse_tree

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.gui.images.image_state import ImageState
    from napari_cmunet.gui.jobs import Report, ShouldStop
    from napari_cmunet.vessels.qca import Analysis, Calibration, Lesion

    Place = tuple[tuple[float, float], Lesion]


class StenosisFinder:
    """Searches the tree of the shown mask, and goes from narrowing to narrowing."""

    #: The search or its result has changed.
    changed = Signal()

    def __init__(self, controller: Controller, measurement: Measurement) -> None:
        self._controller, self._measurement = controller, measurement
        self.least = LEAST_STENOSIS
        #: Where a lesion is narrowest, and the lesion; the first is the most likely.
        self.places: list[Place] | None = None
        self.message = ""
        self._of: tuple[ImageState, int] | None = None
        self._searched = 0  # fingerprint of the searched mask
        self._jobs = JobRunner("Finding stenoses", failure="The search failed")

    @property
    def running(self) -> bool:
        """Whether a search is under way."""
        return self._jobs.running

    @property
    def calibration(self) -> Calibration:
        """The pixel size of the searched image."""
        assert self._of is not None
        return calibration_of(self._of[0])

    def find(self) -> None:
        """Search the shown mask, in a worker."""
        if (here := self._controller.images.editable) is None:
            return
        state, frame = here
        mask = state.mask_frame(frame) != 0
        self._of, self._searched = (state, frame), fingerprint(mask)
        drawn = None
        if state.has_prediction(frame):
            drawn = mask != state.thresholded(frame).astype(bool)
        self.places = None
        frames = Frames.of(state.image)
        self._jobs.start(
            partial(_search, frames, frame, mask, drawn, self.least),
            on_result=self._on_result,
            on_error=self._on_error,
        )
        self.message = "Searching…"
        self.changed.emit()

    def follow(self) -> None:
        """Drop what was found of another image or frame; edits of the mask keep it."""
        if self._of != self._controller.images.editable:
            self.clear()

    def clear(self) -> None:
        """Drop what was found. Idempotent."""
        if self._of is not None:
            self._jobs.cancel()
            self._of = self.places = None
            self.message = ""
            self.changed.emit()

    def go(self, number: int) -> None:
        """Show a place in the middle of the canvas, and measure its branch."""
        if self._of is None or self.places is None:
            return
        state, frame = self._of
        point, lesion = self.places[number]
        camera = self._controller.viewer.scene.camera
        centre = np.array(camera.center, float)
        inner = (frame, *point) if state.is_cine else point
        centre[-2:] = state.image.data_to_world(inner)[-2:]
        camera.center = tuple(centre)
        limits = Markers(start=lesion.start, end=lesion.end)
        if fingerprint(state.mask_frame(frame)) != self._searched:
            limits = Markers()  # the branch may be another since an edit
        self._measurement.measure(state, frame, (point,), limits)

    def _on_result(self, places: list[Place]) -> None:
        self.places = places
        self.message = "" if places else "No narrowing of so much is found."
        self.changed.emit()

    def _on_error(self, message: str) -> None:
        self.message = message
        self.changed.emit()


def _search(
    frames: Frames,
    frame: int,
    mask: np.ndarray,
    drawn: np.ndarray | None,
    least: float,
    report: Report,
    should_stop: ShouldStop,
) -> list[Any]:
    """Measure the whole tree. Runs in a worker."""
    tree = analyse_tree(frames[frame], mask, drawn=drawn, least=least)
    return [
        (tuple(map(float, tree[number].borders.centre[lesion.at])), lesion)
        for number, lesion in ranked(tree)
        if lesion.is_resolved
    ]


POINT_KEY, BRANCH_KEY = "Y", "Shift+Y"
MEASURE_KEYS = (
    (POINT_KEY, "measure from here; again: to here"),
    (BRANCH_KEY, "measure the branch under the cursor"),
    *NAME_KEYS,
)


class MeasureSection(QWidget):
    """Diameters and stenosis of one stretch of the active image; names of vessels."""

    #: Clicks are about to measure or to name.
    started = QtSignal()

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller = controller
        self.measurement = Measurement(controller)
        self.finder = StenosisFinder(controller, self.measurement)
        self.saver = ReportSaver(controller)
        self.names = NamesSection(controller)
        self.points = button(
            "Two points",
            "Measure a vessel between two clicks, from proximal to distal "
            f"({POINT_KEY})",
            checkable=True,
        )
        self.branch = button(
            "Branch",
            "Measure a branch from bifurcation to bifurcation, with one click "
            f"({BRANCH_KEY})",
            checkable=True,
        )
        self.search = button(
            "Find stenoses",
            "List the narrowings of the whole tree, those of wide vessels first",
        )
        self.least = QSpinBox()
        self.least.setRange(10, 90)
        self.least.setSuffix(" %")
        self.least.setValue(round(100 * self.finder.least))
        self.least.setToolTip("Diameter stenosis from which a narrowing is listed")
        self.least.setFocusPolicy(TAB_ONLY)
        ignore_wheel(self.least)
        self.places = NameCombo("Go to a narrowing and measure its branch")
        self.clear = button("Clear", "Remove the measurement from the image")
        self.report = button(
            "Report…",
            "Save picture, profiles and numbers of this frame as a page to read, print "
            "or save as PDF",
        )
        self.message = text_label(lines=2)
        self.plot = ProfilePlot()
        self.numbers = text_label()
        self.numbers.setTextFormat(Qt.TextFormat.RichText)
        self.numbers.setTextInteractionFlags(
            Qt.TextInteractionFlag.TextSelectableByMouse
        )
        self.numbers.setToolTip(
            "MLD: minimum lumen diameter. %DS, %AS: diameter and area stenosis. Where "
            "you have changed the mask: the model's number, and yours"
        )
        self.source = text_label()
        self.reset = button(
            "Find markers again", "Let the program find lesion and reference again"
        )
        self.found = group(
            column(self.plot, self.numbers, self.source, row(self.reset))
        )
        self.setLayout(
            column(
                row(self.points, self.branch, self.clear, self.report),
                row(self.search, self.least, stretch=0),
                self.places,
                self.message,
                self.found,
                self.names,
            )
        )
        measurement, naming = self.measurement, self.names.naming
        for one, other in ((measurement, naming), (naming, measurement)):
            one.started.connect(other.stop_picking)
            one.started.connect(self.started.emit)
        self.points.clicked.connect(lambda: measurement.pick(POINTS))
        self.branch.clicked.connect(lambda: measurement.pick(BRANCH))
        self.clear.clicked.connect(measurement.close)
        self.reset.clicked.connect(measurement.reset_markers)
        self.plot.moved.connect(measurement.move_marker)
        measurement.changed.connect(self._show)
        self.search.clicked.connect(self.finder.find)
        self.least.valueChanged.connect(self._on_least)
        self.places.chosen.connect(self._on_place)
        self.finder.changed.connect(self._show)
        self.report.clicked.connect(
            lambda: self.saver.save(self.finder.least, self.window())
        )
        self.saver.changed.connect(self._show)
        self._listed: object = None
        self.refresh()

    def key_actions(self) -> dict[str, Callable[[], object]]:
        """Return what the keys do, by key."""
        return {
            POINT_KEY: partial(self.measurement.take, POINTS),
            BRANCH_KEY: partial(self.measurement.take, BRANCH),
            NAME_KEY: self.names.naming.take_here,
        }

    def stop(self) -> None:
        """Remove the measurement. Idempotent."""
        self.finder.clear()
        self.saver.close()
        self.measurement.stop_picking()
        self.measurement.close()
        self.names.naming.close()

    def stop_picking(self) -> None:
        """Leave clicks to others. Idempotent."""
        self.measurement.stop_picking()
        self.names.naming.stop_picking()

    def refresh(self) -> None:
        """Follow the active image and its mask."""
        self.finder.follow()
        self.saver.follow()
        self.measurement.follow()
        self.names.refresh()
        self._show()

    def _on_least(self, percent: int) -> None:
        self.finder.least = percent / 100
        self.finder.clear()

    def _on_place(self, number: int) -> None:
        if number > 0:  # the first says how many there are
            self.finder.go(number - 1)

    def _show(self) -> None:
        measurement = self.measurement
        usable = self._controller.images.editable is not None
        for way, made in ((POINTS, self.points), (BRANCH, self.branch)):
            made.setEnabled(usable)
            made.setChecked(measurement.picking == way)
        self.clear.setEnabled(measurement.frame is not None)
        self.search.setEnabled(usable and not self.finder.running)
        self.report.setEnabled(usable and not self.saver.running)
        self._show_places()
        analysis = measurement.analysis
        before = self._height()
        text = measurement.message or self.finder.message or self.saver.message
        if not text and measurement.running and analysis is None:
            text = "Measuring…"
        self.message.setText(text)
        self.message.setVisible(bool(text))
        self.found.setVisible(analysis is not None)
        if analysis is not None and measurement.markers is not None:
            markers, calibration = measurement.markers, measurement.calibration
            self.plot.show_analysis(analysis, measurement.model, markers, calibration)
            self.numbers.setText(_table(analysis, measurement.model, calibration))
            self.source.setText(_notes(analysis, calibration))
            self.reset.setEnabled(markers != Markers())
        if before != self._height():
            lay_out_again(self.found)

    def _height(self) -> tuple[object, ...]:
        """What the height depends on."""
        wrapped = self.numbers.heightForWidth(self.numbers.width())
        return self.message.text(), self.found.isHidden(), self.source.text(), wrapped

    def _show_places(self) -> None:
        places = self.finder.places or []
        self.places.setVisible(bool(places))
        names = [f"{len(places)} found: go to…"]
        for number, (_, lesion) in enumerate(places, 1):
            width = _length(lesion.reference, self.finder.calibration)
            names.append(f"{number}: {lesion.percent_diameter:.0f} % of {width}")
        if places and self._listed is not places:
            self._listed = places
            self.places.show_names(names, 0, "")


def _table(analysis: Analysis, model: Analysis | None, calibration: Calibration) -> str:
    """Return the numbers as a table, each with the model's where that is another."""
    now = numbers(analysis, calibration)
    before = now if model is None else numbers(model, calibration)
    rows = []
    for (name, text), (_, former) in zip(now, before, strict=True):
        shown = text if former == text else f"{former} → <b>{text}</b>"
        title = f"<td style='padding-right:8px; white-space:nowrap'>{escape(name)}</td>"
        rows.append(f"<tr>{title}<td>{shown}</td></tr>")
    return f"<table cellspacing='0'>{''.join(rows)}</table>"


def numbers(analysis: Analysis, calibration: Calibration) -> list[tuple[str, str]]:
    """Name and value of what is measured, lengths in one unit."""
    lesion = analysis.narrowest
    return [
        ("%DS", _share(lesion.percent_diameter, lesion)),
        ("%AS", _share(lesion.percent_area, lesion)),
        ("MLD", _length(lesion.mld, calibration)),
        ("Reference", _length(lesion.reference, calibration)),
        ("proximal", _length(lesion.proximal, calibration)),
        ("distal", _length(lesion.distal, calibration)),
        ("Lesion length", _length(lesion.length, calibration)),
        ("Mean diameter", _length(analysis.mean_diameter, calibration)),
    ]


def _share(percent: float, lesion: Lesion) -> str:
    return f"{percent:.0f} %" + ("" if lesion.is_resolved else " ?")


def _length(pixels: float, calibration: Calibration) -> str:
    if calibration.mm is None:
        return f"{pixels:.1f} px"
    text = f"{pixels * calibration.mm:.2f}"
    if calibration.error is not None:
        text += f" ± {pixels * calibration.mm * calibration.error:.2f}"
    return f"{text} mm"


def _notes(analysis: Analysis, calibration: Calibration) -> str:
    if calibration.mm is None:
        notes = ["Lengths in pixels: the pixel's size is unknown. Calibrate it above."]
    else:
        notes = [f"A pixel is {calibration.mm:.3g} mm, {calibration.source}."]
        if calibration.error is not None:
            notes.append("±: the calibration's standard error.")
    if not analysis.narrowest.is_resolved:
        notes.append(
            "The vessel is thinner there than the blur of the image: its diameter "
            "cannot be measured."
        )
    return " ".join(notes)
