"""The pixel size of an image, measured on its catheter."""

from __future__ import annotations

import json

import numpy as np
import pytest

from napari_cmunet.gui.export import prepare, write_masks
from napari_cmunet.gui.images.layers import METADATA, pixel_size_mm
from tests.cine.test_catheter import tube

DIAMETER = 9.5
TUBE, START, END = tube(DIAMETER)


@pytest.fixture(params=["frame", "cine"])
def measured(request, viewer, controller, panel, settled, qtbot):
    """An image with a catheter, along which a line has been drawn."""
    data = TUBE if request.param == "frame" else np.stack([TUBE] * 3)
    record = {"pixel_size_mm": None, "pixel_size_source": "unknown (nothing said)"}
    viewer.add_image(data, name="a", metadata={METADATA: record})
    settled(controller)
    row = panel.cine.pixel_size
    row.start.click()
    layer = row.calibration.layer
    line = np.array([START, END])
    if data.ndim == 3:
        line = np.concatenate([[[1], [1]], line], axis=1)
    layer.add_lines([line])
    qtbot.waitUntil(lambda: row.calibration.width is not None)
    return row


def test_it_is_told_before_it_is_used(measured, viewer, controller):
    text = measured.message.text()
    assert "px between the white lines" in text
    assert len(measured.calibration.layer.data) == 3  # the line, and two edges
    assert pixel_size_mm(controller.active.image) is None
    before = measured.calibration.width.pixel_size_mm(6)
    measured.french.setCurrentIndex(1)
    measured.french.activated.emit(1)
    assert measured.french.currentData() == 5
    assert measured.message.text() != text
    assert measured.calibration.width.pixel_size_mm(5) < before


def test_the_size_is_the_scale_and_goes_into_exports(
    measured, viewer, controller, tmp_path
):
    image_state = controller.active
    zoom = viewer.scene.camera.zoom
    measured.apply.click()
    side = 2 / DIAMETER
    assert pixel_size_mm(image_state.image) == pytest.approx((side, side), rel=0.04)
    for layer in image_state.layers():
        assert layer.scale[-2:] == pytest.approx((side, side), rel=0.04)
        assert [str(unit) for unit in layer.units[-2:]] == ["millimeter"] * 2
    if image_state.is_cine:
        assert image_state.image.scale[0] == 1
    assert "from a 6 F catheter, measured 9." in measured.text.text()
    assert prepare(image_state, tmp_path / "m.tif").pixel_size_mm == pixel_size_mm(
        image_state.image
    )
    job = prepare(image_state, tmp_path / "m.tif", record=True)
    (done,) = write_masks([job])
    assert done.problem == ""
    made = json.loads((tmp_path / "m.json").read_text())
    assert made["pixel_size_mm"] == list(pixel_size_mm(image_state.image))
    assert made["pixel_size_source"].startswith("from a 6 F catheter, measured 9.")
    assert made["pixels_changed_by_reader"] == 0
    assert viewer.scene.camera.zoom == pytest.approx(zoom / side, rel=0.04)
    names = [layer.name for layer in viewer.layers]
    assert names == ["a", "a prediction", "a mask"]


def test_it_can_be_taken_back(measured, viewer, controller):
    image_state = controller.active
    zoom = viewer.scene.camera.zoom
    measured.apply.click()
    measured.reset.click()
    assert pixel_size_mm(image_state.image) is None
    assert measured.text.text() == "Pixel: size unknown (nothing said)"
    assert measured.reset.isHidden()
    for layer in image_state.layers():
        assert tuple(layer.scale[-2:]) == (1, 1)
        assert [str(unit) for unit in layer.units[-2:]] == ["pixel"] * 2
    assert viewer.scene.camera.zoom == pytest.approx(zoom)


def test_a_second_line_replaces_the_first(measured, qtbot):
    line = measured.calibration.layer.data[0].copy()
    line[:, -2:] += 0.5
    measured.calibration.layer.add_lines([line])
    qtbot.waitUntil(lambda: measured.calibration.width is not None)
    assert len(measured.calibration.layer.data) == 3
    assert np.allclose(measured.calibration.layer.data[0], line)


def test_cancel_leaves_everything_as_it_was(measured, viewer, controller):
    measured.cancel.click()
    assert pixel_size_mm(controller.active.image) is None
    assert [layer.name for layer in viewer.layers] == ["a", "a prediction", "a mask"]
    assert viewer.layers.selection.active is controller.active.mask
    assert measured.measuring.isHidden()


def test_where_no_catheter_is_it_is_said(viewer, controller, panel, settled, qtbot):
    noise = np.random.default_rng(0).normal(100, 5, (160, 160))
    viewer.add_image(noise, name="n")
    settled(controller)
    row = panel.cine.pixel_size
    row.start.click()
    row.calibration.layer.add_lines([np.array([(60, 50), (70, 110)])])
    qtbot.waitUntil(lambda: row.message.text() not in ("", "Measuring…"))
    qtbot.waitUntil(lambda: "atheter" in row.message.text())
    assert not row.apply.isEnabled()


def test_no_mask_hides_the_edges_meanwhile(viewer, controller, panel, settled):
    viewer.add_image(TUBE, name="a")
    settled(controller)
    image_state, row = controller.active, panel.cine.pixel_size
    shown = [layer for layer in image_state.overlays() if layer.visible]
    assert image_state.mask in shown
    row.start.click()
    assert not any(layer.visible for layer in image_state.overlays())
    row.calibration.cancel()
    assert [layer for layer in image_state.overlays() if layer.visible] == shown
