"""Measuring in the panel: two points or a branch, markers, edits, units."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from scipy.ndimage import gaussian_filter

from napari_cmunet.cine.catheter import CatheterWidth
from napari_cmunet.gui.cine.calibration import CatheterCalibration
from napari_cmunet.gui.images.layers import METADATA
from napari_cmunet.gui.measurement.measurement import measurement_of
from napari_cmunet.vessels.qca import Markers
from tests.gui.conftest import LEFT, NONE

SIZE, FINE, ROW = 160, 4, 80


def stenosed(healthy: float = 14.0, share: float = 0.5) -> np.ndarray:
    """Diameter of each column, narrowest in column 80."""
    way = np.clip((np.arange(SIZE) - 80) / 16, -1, 1)
    return healthy * (1 - share * np.cos(way * np.pi / 2) ** 2)


def angiogram(diameter: np.ndarray) -> np.ndarray:
    """A horizontal vessel of known diameter, so dark that the fake model finds it."""
    side = (np.arange(SIZE * FINE) + 0.5) / FINE - 0.5
    radius = np.interp(side, np.arange(SIZE), diameter) / 2
    square = radius[None] ** 2 - (side[:, None] - ROW) ** 2
    thick = 2 * np.sqrt(np.maximum(square, 0))
    thick = thick.reshape(SIZE, FINE, SIZE, FINE).mean(axis=(1, 3))
    # Half as dark at the border as the fake model's threshold wants.
    grey = 200 - 26 * gaussian_filter(thick, 0.8)
    return np.clip(grey, 0, 255).astype(np.uint8)


class Measuring:
    """A panel's measurement, driven as a reader does."""

    def __init__(self, qtbot, viewer, panel) -> None:
        self.qtbot, self.viewer, self.panel = qtbot, viewer, panel
        self.section = panel.measuring
        self.measurement = panel.measuring.measurement

    def settle(self) -> None:
        self.qtbot.wait(10)
        self.qtbot.waitUntil(lambda: not self.measurement.running)
        self.section.refresh()
        self.qtbot.waitUntil(lambda: not self.measurement.running)

    def click(self, row: float, column: float) -> None:
        position = (*self.viewer.dims.point[:-2], row, column)
        self.viewer.cursor.position = tuple(
            p * s
            for p, s in zip(
                position, self.panel.controller.active.image.scale, strict=True
            )
        )
        self.measurement._take(self.viewer.cursor.position)

    def between(self, first: int = 20, last: int = 140) -> None:
        self.section.points.click()
        self.click(ROW, first)
        self.click(ROW, last)
        self.settle()

    def number(self, name: str) -> str:
        """The text of a number, as the panel shows it."""
        text = self.section.numbers.text()
        return text.partition(f">{name}</td><td>")[2].partition("</td>")[0]


@pytest.fixture
def measuring(qtbot, viewer, panel, controller, settled) -> Measuring:
    viewer.add_image(angiogram(stenosed()), name="a")
    settled(controller)
    return Measuring(qtbot, viewer, panel)


def test_nothing_is_computed_before_somebody_asks(measuring, viewer):
    assert measuring.measurement.analysis is None
    assert not measuring.measurement.running
    assert measuring.section.found.isHidden()
    assert [layer.name for layer in viewer.layers] == ["a", "a prediction", "a mask"]


def test_a_stenosis_between_two_clicks(measuring, viewer):
    measuring.section.points.click()
    assert measuring.section.points.isChecked()
    assert "begins" in measuring.section.message.text()
    measuring.click(ROW, 20)
    assert "ends" in measuring.section.message.text()
    measuring.click(ROW, 140)
    measuring.settle()
    lesion = measuring.measurement.analysis.narrowest
    assert lesion.percent_diameter == pytest.approx(50, abs=6)
    assert lesion.mld == pytest.approx(7, abs=0.8)
    assert measuring.number("%DS") == f"{lesion.percent_diameter:.0f} %"
    assert measuring.number("MLD") == f"{lesion.mld:.1f} px"
    assert " mm" not in measuring.section.numbers.text()
    assert "unknown" in measuring.section.source.text()
    assert not measuring.section.points.isChecked()
    overlay = measuring.measurement.overlay.layer
    assert overlay in viewer.layers
    assert viewer.layers.selection.active is measuring.panel.controller.active.mask
    # Its pixels lie on the borders: 4 to one of the image.
    rows, columns = np.nonzero(overlay.data)
    world = np.array([overlay.data_to_world(p) for p in ((rows.min(), columns.min()),)])
    assert world[0] == pytest.approx((ROW - 7, 20), abs=6)
    at = lesion.at + 20
    bar = [overlay.data_to_world((r, c)) for r, c in zip(rows, columns, strict=True)]
    across = [row for row, column in bar if abs(column - at) < 0.3]
    assert max(across) - min(across) == pytest.approx(lesion.mld, abs=1)
    measuring.section.clear.click()
    assert overlay not in viewer.layers
    assert measuring.section.found.isHidden()


def test_a_branch_with_one_click_by_key(measuring, viewer):
    measuring.viewer.cursor.position = (ROW + 1.0, 50.0)
    bound = {str(key): act for key, act in viewer.keymap.items()}
    bound["Shift+Y"](viewer)
    measuring.settle()
    analysis = measuring.measurement.analysis
    assert analysis.length > 120
    assert analysis.narrowest.percent_diameter == pytest.approx(50, abs=6)
    # The mask tapers at its free ends: kept out.
    assert not analysis.usable[[0, -1]].any()


@pytest.mark.slow
def test_calibrated_lengths_are_millimetres_with_the_error(
    qtbot, viewer, panel, controller, settled
):
    record = {
        "pixel_size_mm": (0.2, 0.2),
        "pixel_size_source": "from a 6 F catheter",
        "pixel_size_error": 0.03,
    }
    image = angiogram(stenosed())
    viewer.add_image(image, scale=(0.2, 0.2), metadata={METADATA: record})
    settled(controller)
    measuring = Measuring(qtbot, viewer, panel)
    measuring.between()
    mm = 0.2 * measuring.measurement.analysis.narrowest.mld
    assert measuring.number("MLD") == f"{mm:.2f} ± {0.03 * mm:.2f} mm"
    assert " px" not in measuring.section.numbers.text()
    assert "from a 6 F catheter" in measuring.section.source.text()
    overlay = measuring.measurement.overlay.layer
    assert tuple(overlay.scale) == pytest.approx((0.05, 0.05))


@pytest.mark.slow
def test_calibrated_afterwards_lengths_and_overlay_are_of_the_new_size(measuring):
    measuring.between()
    state = measuring.panel.controller.active
    assert "minimum_diameter_mm" not in measurement_of(state, 0)["corrected"]
    calibration = CatheterCalibration(measuring.panel.controller)
    calibration.image_state = state
    calibration.width = CatheterWidth(10.0, 0.1, np.zeros((2, 2, 2)))
    calibration.apply()
    measuring.settle()
    measurement = measuring.measurement
    mld = measurement.analysis.narrowest.mld
    record = measurement_of(state, 0)["corrected"]
    assert record["minimum_diameter_mm"] == pytest.approx(0.2 * mld, abs=1e-3)
    assert measuring.number("MLD").startswith(f"{0.2 * mld:.2f} ±")
    overlay = measurement.overlay.layer
    assert tuple(overlay.scale) == pytest.approx((0.05, 0.05))
    rows, columns = np.nonzero(overlay.data)
    corner = overlay.data_to_world((rows.min(), columns.min()))
    assert corner == pytest.approx((0.2 * (ROW - 7), 0.2 * 20), abs=1.2)
    calibration.reset()
    measuring.settle()
    assert tuple(measurement.overlay.layer.scale) == pytest.approx((0.25, 0.25))
    assert " px" in measuring.number("MLD")


@pytest.mark.slow
def test_other_frames_of_a_cine_keep_their_numbers_in_the_new_size(
    qtbot, viewer, panel, controller, settled
):
    viewer.add_image(np.stack([angiogram(stenosed())] * 3), name="cine")
    settled(controller)
    measuring = Measuring(qtbot, viewer, panel)
    viewer.dims.set_point(0, 0)
    measuring.between()
    mld = measuring.measurement.analysis.narrowest.mld
    viewer.dims.set_point(0, 1)
    measuring.between()
    calibration = CatheterCalibration(controller)
    calibration.image_state = state = controller.active
    calibration.width = CatheterWidth(10.0, 0.1, np.zeros((2, 2, 2)))
    calibration.apply()
    measuring.settle()
    for frame in (0, 1):
        record = measurement_of(state, frame)["corrected"]
        assert record["minimum_diameter_mm"] == pytest.approx(0.2 * mld, abs=1e-3)
    calibration.reset()
    assert "minimum_diameter_mm" not in measurement_of(state, 0)["corrected"]


@pytest.mark.slow
def test_a_border_painted_in_by_two_pixels_shows_as_geometry_says(measuring):
    measuring.between()
    before = measuring.measurement.analysis
    state = measuring.panel.controller.active
    assert "→" not in measuring.section.numbers.text()
    at = before.narrowest.at + 20
    mask = state.mask_frame(0)
    columns = np.arange(at - 6, at + 7)
    tops = mask[:, columns].argmax(axis=0)
    rows = np.concatenate([tops, tops + 1])
    state.write(0, (rows, np.tile(columns, 2)), 0)
    measuring.settle()
    after = measuring.measurement.analysis
    # The border that was painted is the mask's now; the other one stays.
    edge = ROW - (tops[6] + 1.5)
    sides = after.borders.left[at - 20], after.borders.right[at - 20]
    assert min(sides) == pytest.approx(edge, abs=0.1)
    change = before.borders.diameter[at - 20] - after.borders.diameter[at - 20]
    former = min(before.borders.left[at - 20], before.borders.right[at - 20])
    assert change == pytest.approx(former - edge, abs=0.3)
    assert measuring.measurement.model.narrowest.mld == pytest.approx(
        before.narrowest.mld, abs=0.05
    )
    model, now = before.narrowest.percent_diameter, after.narrowest.percent_diameter
    assert now > model + 5
    assert measuring.number("%DS") == f"{model:.0f} % → <b>{now:.0f} %</b>"
    record = measurement_of(state, 0)
    assert record["model"]["diameter_stenosis_percent"] == round(model, 1)
    assert record["corrected"]["diameter_stenosis_percent"] == round(now, 1)
    state.undo()
    assert measurement_of(state, 0) is None
    measuring.settle()
    assert "→" not in measuring.section.numbers.text()


@pytest.mark.slow
def test_markers_are_dragged_and_found_again(measuring):
    measuring.between()
    plot, found = measuring.section.plot, measuring.measurement
    plot.resize(300, 140)
    automatic = found.analysis.narrowest

    def drag(name: str, points: int) -> None:
        start = plot.place(name).toPoint()
        step = round(points * plot._scale().box.width() / found.analysis.length)
        QTest.mousePress(plot, LEFT, NONE, start)
        QTest.mouseMove(plot, start + QPoint(step, 0))
        QTest.mouseRelease(plot, LEFT, NONE, start + QPoint(step, 0))

    drag("start", 8)
    assert found.analysis.narrowest.start == pytest.approx(automatic.start + 8, abs=1)
    assert found.analysis.narrowest.end == automatic.end
    at = found.analysis.narrowest.at + 4
    drag("at", 4)
    assert found.analysis.narrowest.at == pytest.approx(at, abs=1)
    drag("reference", -50)
    healthy = found.analysis.borders.diameter[found.markers.reference]
    assert found.analysis.narrowest.reference == pytest.approx(healthy, abs=0.2)
    measuring.settle()
    assert found.analysis.narrowest.at == pytest.approx(at, abs=1)
    assert measuring.section.reset.isEnabled()
    measuring.section.reset.click()
    measuring.settle()
    assert found.analysis.narrowest == automatic
    assert not measuring.section.reset.isEnabled()


def test_the_keyboard_moves_markers(measuring):
    measuring.between()
    plot, found = measuring.section.plot, measuring.measurement
    at = found.analysis.narrowest.at
    QTest.keyClick(plot, Qt.Key.Key_Right)
    assert found.analysis.narrowest.at == at + 1
    QTest.keyClick(plot, Qt.Key.Key_Down)
    assert plot.chosen == "end"
    end = found.analysis.narrowest.end
    QTest.keyClick(plot, Qt.Key.Key_Left, Qt.KeyboardModifier.ShiftModifier)
    assert found.analysis.narrowest.end == end - 5


@pytest.mark.slow
def test_points_that_the_mask_does_not_connect(measuring):
    state = measuring.panel.controller.active
    rows, columns = np.mgrid[0:SIZE, 60:64]
    state.write(0, (rows.ravel(), columns.ravel()), 0)
    measuring.between()
    assert measuring.measurement.analysis is None
    assert "does not connect" in measuring.section.message.text()
    state.undo()
    measuring.settle()
    assert measuring.measurement.analysis is not None
    assert not measuring.section.message.text()


@pytest.mark.slow
def test_it_belongs_to_its_image_and_frame(measuring, viewer, controller, settled):
    measuring.between()
    overlay = measuring.measurement.overlay.layer
    viewer.add_image(np.stack([angiogram(stenosed(share=0.3))] * 3), name="cine")
    settled(controller)
    measuring.settle()
    assert overlay not in viewer.layers
    assert measuring.measurement.analysis is None
    viewer.dims.set_point(0, 1)
    measuring.between()
    assert measuring.measurement.frame == 1
    overlay = measuring.measurement.overlay.layer
    assert overlay.data.shape[0] == 1
    assert overlay.data_to_world((0, 0, 0))[0] == 1
    measuring.panel.stop()
    assert overlay not in viewer.layers


def test_a_tool_of_another_kind_ends_the_choosing(measuring):
    measuring.section.points.click()
    measuring.panel.vessels.row.buttons["add"].click()
    assert measuring.measurement.picking is None
    measuring.section.branch.click()
    assert measuring.panel.vessels.tools.tool is None
    assert measuring.measurement.picking == "branch"
    measuring.panel.controller.active.mask.mode = "paint"
    assert measuring.measurement.picking is None
    assert not measuring.section.branch.isChecked()


def test_stenoses_are_found_and_flown_to(measuring, viewer):
    section = measuring.section
    assert section.places.isHidden()
    section.search.click()
    assert not section.search.isEnabled()
    measuring.qtbot.waitUntil(lambda: not section.finder.running)
    (place,) = section.finder.places
    assert place[0] == pytest.approx((ROW, 80), abs=2)
    assert section.places.count() == 2
    section.places.setCurrentIndex(1)
    section.places.activated.emit(1)
    measuring.settle()
    assert viewer.scene.camera.center[-2:] == pytest.approx((ROW, 80), abs=2)
    lesion = measuring.measurement.analysis.narrowest
    assert lesion.percent_diameter == pytest.approx(50, abs=6)
    assert (lesion.start, lesion.end) == (place[1].start, place[1].end)
    section.least.setValue(70)
    assert section.places.isHidden()
    section.search.click()
    measuring.qtbot.waitUntil(lambda: not section.finder.running)
    assert section.finder.places == []
    assert "No narrowing" in section.message.text()
    measuring.panel.controller.active.write(0, (np.array([2]), np.array([2])), 1)
    section.refresh()
    assert section.finder.places == []
    viewer.add_image(angiogram(stenosed(share=0.3)), name="other")
    measuring.qtbot.waitUntil(lambda: section.finder.places is None)


@pytest.mark.slow
def test_a_found_stenosis_is_measured_anew_on_a_branch_that_was_cut(measuring):
    section = measuring.section
    section.search.click()
    measuring.qtbot.waitUntil(lambda: not section.finder.running)
    rows, columns = np.mgrid[0:SIZE, 0:60]
    state = measuring.panel.controller.active
    state.write(0, (rows.ravel(), columns.ravel()), 0)
    section.places.activated.emit(1)
    measuring.settle()
    analysis = measuring.measurement.analysis
    assert analysis is not None, section.message.text()
    at = analysis.borders.centre[analysis.narrowest.at]
    assert at == pytest.approx((ROW, 80), abs=2)
    assert measuring.measurement.markers == Markers()
