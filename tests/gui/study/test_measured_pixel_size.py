"""A pixel size that was measured on a catheter, in a study."""

from __future__ import annotations

import numpy as np
import pytest

from napari_cmunet.core.catheter import CatheterWidth
from napari_cmunet.gui.calibrating import Calibrating, is_calibrated
from napari_cmunet.gui.export import pixel_size_mm
from napari_cmunet.study.export import export_masks
from tests.gui.study.conftest import stroke


def test_it_goes_into_the_label_and_comes_back_with_the_image(study, ready, tmp_path):
    reader = study
    calibrating = Calibrating(reader.controller)
    calibrating.reading = reader.browsing.current.reading
    calibrating.width = CatheterWidth(10.0, 0.1, np.zeros((2, 2, 2)))
    calibrating.use()
    image = reader.browsing.current.id
    stroke(reader)
    reader.accepting.accept()
    ready(reader)
    label = reader.study.labels.get(image, 0)
    assert label.pixel_size_mm == pytest.approx((0.2, 0.2))
    source = "from a 6 F catheter, measured 10.0 px"
    assert label.note == {"pixel_size_source": source}
    made = export_masks(reader.study, tmp_path / "out", records=True)
    assert source in (made.folder / f"{image}.json").read_text()

    reader.browsing.next()
    ready(reader)
    assert pixel_size_mm(reader.browsing.current.reading) is None
    reader.browsing.go(image)
    ready(reader)
    reading = reader.browsing.current.reading
    assert pixel_size_mm(reading) == pytest.approx((0.2, 0.2))
    assert tuple(reading.mask.scale) == pytest.approx((0.2, 0.2))
    assert is_calibrated(reading)
    calibrating.take_back()
    assert pixel_size_mm(reading) is None
    assert tuple(reading.mask.scale) == (1, 1)
