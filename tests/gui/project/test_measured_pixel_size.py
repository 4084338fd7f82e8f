"""A pixel size that was measured on a catheter, in a project."""

from __future__ import annotations

import numpy as np
import pytest

from napari_cmunet.cine.catheter import CatheterWidth
from napari_cmunet.gui.cine.calibration import CatheterCalibration, is_calibrated
from napari_cmunet.gui.images.layers import pixel_size_mm
from napari_cmunet.gui.measurement.measurement import calibration_of
from napari_cmunet.project.export.formats import export_masks
from tests.gui.project.conftest import stroke


@pytest.mark.slow
def test_it_goes_into_the_label_and_comes_back_with_the_image(project, ready, tmp_path):
    session = project
    calibration = CatheterCalibration(session.controller)
    calibration.image_state = session.navigator.current.image_state
    calibration.width = CatheterWidth(10.0, 0.1, np.zeros((2, 2, 2)))
    calibration.apply()
    image = session.navigator.current.id
    stroke(session)
    session.annotation.accept()
    ready(session)
    label = session.project.labels.get(image, 0)
    assert label.pixel_size_mm == pytest.approx((0.2, 0.2))
    source = "from a 6 F catheter, measured 10.0 px"
    # The mask fills much of this small frame, and was accepted in the window.
    assert label.note == {
        "pixel_size_source": source,
        "pixel_size_error": pytest.approx(0.01),
        "large_on_purpose": True,
    }
    made = export_masks(session.project, tmp_path / "out", records=True)
    assert source in (made.folder / f"{image}.json").read_text()

    session.navigator.next()
    ready(session)
    assert pixel_size_mm(session.navigator.current.image_state.image) is None
    session.navigator.go(image)
    ready(session)
    image_state = session.navigator.current.image_state
    assert pixel_size_mm(image_state.image) == pytest.approx((0.2, 0.2))
    assert tuple(image_state.mask.scale) == pytest.approx((0.2, 0.2))
    assert is_calibrated(image_state)
    assert calibration_of(image_state).error == pytest.approx(0.01)
    calibration.reset()
    assert pixel_size_mm(image_state.image) is None
    assert calibration_of(image_state).error is None
    assert tuple(image_state.mask.scale) == (1, 1)
