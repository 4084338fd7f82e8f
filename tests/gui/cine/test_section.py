"""What the panel says of a DICOM cine, and the way to its best-filled frame."""

from __future__ import annotations

import numpy as np
import pytest
from napari.settings import get_settings

from napari_cmunet.reader import read_layers
from napari_cmunet.synthetic import PhantomConfig, make_cine
from tests.io.dicom_making import IDENTITY, write_dicom

CINE = make_cine(PhantomConfig(frames=8, size=96, seed=3, bits=12))


@pytest.fixture
def dicom_cine(tmp_path, viewer, controller, settled, model):
    model.offset = int(np.median(CINE.frames)) - 255  # it takes half for artery
    path = write_dicom(
        tmp_path / "Mustermann_1.dcm",
        CINE.frames,
        bits=12,
        ImagerPixelSpacing=[0.28, 0.28],
        DistanceSourceToDetector="1050",
        DistanceSourceToPatient="750",
        CineRate=15,
    )
    ((data, options, _),) = read_layers(str(path))
    layer = viewer.add_image(data, **options)
    settled(controller)
    return layer


def test_a_lazy_cine_is_segmented_and_lies_on_its_pixels(
    dicom_cine, controller, viewer
):
    image_state = controller.active
    assert image_state.predicted.all()
    assert image_state.mask.data.shape == CINE.frames.shape
    assert np.allclose(image_state.mask.scale, (1, 0.2, 0.2))
    for layer in viewer.layers:
        for value in IDENTITY.values():
            for part in value.split("^"):
                assert part not in layer.name


def test_pixel_size_is_shown_with_its_source(dicom_cine, panel):
    panel.refresh()
    text = panel.cine.pixel_size.text.text()
    assert "0.2 mm" in text
    assert "/ 1.40 (magnification" in text


def test_the_best_filled_frame_is_proposed(dicom_cine, panel, viewer, qtbot):
    panel.refresh()
    qtbot.waitUntil(lambda: not panel.cine.best.isHidden())
    area = CINE.masks.sum(axis=(1, 2))
    frame = int(panel.cine.best.text().split(": ")[1])
    empty = next(i for i in range(8) if i != frame)
    panel.controller.active.mask_frame(empty)[...] = 0
    viewer.dims.set_point(0, empty)
    panel.refresh()
    best = f"Go to the best frame ({frame})."
    assert panel.status.text() == f"No artery in this frame. {best}"
    assert area[frame] > 0.7 * area.max()
    viewer.dims.set_point(0, 0)
    panel.cine.best.click()
    assert viewer.dims.current_step[0] == frame


def test_the_cine_plays_at_its_own_rate(dicom_cine, panel):
    get_settings().application.playback_fps = 3
    panel.cine.show_image_state(None)
    panel.refresh()
    assert get_settings().application.playback_fps == 15


def test_a_single_image_has_no_frames_to_go_to(opened, panel):
    panel.refresh()
    assert panel.cine.best.isHidden()
    assert panel.cine.propagation.isHidden()
    assert panel.cine.pixel_size.text.text() == "Pixel: size unknown"


def test_no_best_frame_of_a_cine_without_contrast(dicom_cine, panel, viewer, qtbot):
    panel.refresh()
    qtbot.waitUntil(lambda: not panel.cine.best.isHidden())
    image_state = panel.controller.active
    frame = int(panel.cine.best.text().split(": ")[1])
    viewer.dims.set_point(0, frame)
    image_state.probability[:] = 0
    image_state.mask.data[:] = 0
    panel.refresh()
    assert panel.cine.best.isHidden()
    assert panel.status.text().startswith("No contrast in this cine")
    other = (frame + 1) % image_state.count
    image_state.probability[other] = 255
    panel.refresh()
    assert panel.status.text().startswith("No contrast in this frame")
