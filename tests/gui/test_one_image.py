"""One image at a time, nothing armed, and true words about what was found."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from napari.layers._source import layer_source
from napari_builtins.io import napari_get_reader
from PIL import Image as PillowImage
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QComboBox, QMessageBox, QSlider

from napari_cmunet.gui.export import source_file
from napari_cmunet.gui.open_files import OpenDialog
from napari_cmunet.gui.panel_state import EMPTY, FOUND, PENDING, REFUSED, describe
from napari_cmunet.io.sniffing import SUFFIXES
from tests.gui.conftest import Reader, cine, expected, frame

pytestmark = pytest.mark.slow


def visible(viewer) -> list[str]:
    return [layer.name for layer in viewer.layers if layer.visible]


def camera(viewer) -> tuple[float, ...]:
    return (*viewer.scene.camera.center[-2:], viewer.scene.camera.zoom)


# -- one image ----------------------------------------------------------------


def test_opening_an_image_hides_the_others(viewer, controller, settled):
    viewer.add_image(frame(0), name="a")
    settled(controller)
    viewer.add_image(frame(1), name="b")
    settled(controller)
    assert visible(viewer) == ["b", "b prediction", "b mask"]
    controller.show_image(controller.image_states[0])
    assert visible(viewer) == ["a", "a prediction", "a mask"]


def test_the_mask_of_an_image_that_is_hidden_meanwhile_is_hidden(
    viewer, controller, settled, model, qtbot
):
    model.open.clear()
    viewer.add_image(frame(0), name="a")
    qtbot.waitUntil(lambda: controller.queue.current is not None)
    viewer.add_image(frame(1), name="b")
    qtbot.waitUntil(lambda: len(controller.image_states) == 2)
    model.open.set()
    settled(controller)
    assert visible(viewer) == ["b", "b prediction", "b mask"]
    controller.show_image(controller.image_states[0])
    assert visible(viewer) == ["a", "a prediction", "a mask"]


def test_a_hidden_image_that_is_selected_is_shown(viewer, controller, settled):
    first = viewer.add_image(frame(0), name="a")
    settled(controller)
    viewer.add_image(frame(1), name="b")
    settled(controller)
    viewer.layers.selection.active = first
    assert visible(viewer) == ["a", "a prediction", "a mask"]


def test_the_view_fits_the_image_on_opening_home_and_resizing(
    viewer, controller, settled
):
    viewer.canvas.size = (400, 600)
    viewer.add_image(frame(0, 512), name="large")
    settled(controller)
    viewer.add_image(frame(1, 64), name="small", scale=(0.1, 0.1))
    settled(controller)
    fitted = camera(viewer)
    assert fitted[2] == pytest.approx(0.95 * 400 / 6.4)
    viewer.scene.camera.zoom = 1
    viewer.reset_view()
    assert camera(viewer) == pytest.approx(fitted)
    viewer.canvas.size = (200, 600)
    assert camera(viewer)[2] == pytest.approx(fitted[2] / 2)
    # A view that the user has chosen stays.
    viewer.scene.camera.zoom = 3
    viewer.canvas.size = (300, 600)
    assert viewer.scene.camera.zoom == 3


def test_a_cine_and_a_frame_of_other_units_agree(viewer, controller, settled):
    viewer.add_image(frame(0), name="a")
    settled(controller)
    one = viewer.add_image(
        frame(1), name="b", scale=(0.2, 0.2), units=("mm", "mm"), metadata={}
    )
    assert viewer.layers.extent.units is not None
    settled(controller)
    assert viewer.layers.extent.units is not None
    assert one.metadata["napari_cmunet"]["pixel_size_mm"] == (0.2, 0.2)
    controller.close_image(controller.image_states[0])
    assert {str(u) for u in one.units} == {"millimeter"}
    assert viewer.layers.extent.units is not None


def test_nothing_acts_on_a_frame_that_a_cine_does_not_have(viewer, controller, settled):
    viewer.add_image(cine(8), name="long")
    settled(controller)
    viewer.add_image(cine(4), name="short")
    settled(controller)
    short = controller.active
    short.mask.mode = "paint"
    viewer.dims.set_current_step(0, 6)
    before = short.mask.data.copy()
    shown = describe(controller)
    assert not shown.can_correct
    assert shown.status.startswith("This cine has no frame 6")
    controller.editor.move_threshold(0.1)
    controller.editor.reset_frame()
    np.testing.assert_array_equal(short.mask.data, before)
    # Shown again, it is at a frame that it has.
    controller.show_image(short)
    assert controller.images.has_shown_frame(short)
    assert describe(controller).can_correct


def test_files_are_opened_and_closed_in_the_panel(
    qtbot, panel, controller, viewer, settled, tmp_path
):
    path = tmp_path / "angio.png"
    PillowImage.fromarray(frame(size=64)).save(path)
    panel.opening.open_paths([path])
    qtbot.waitUntil(lambda: controller.active is not None)
    settled(controller)
    assert controller.active.file == path
    np.testing.assert_array_equal(controller.active.mask.data, expected(frame(size=64)))
    panel.opening.close_image.click()
    assert not viewer.layers
    assert controller.active is None


def test_closing_asks_only_where_something_would_be_lost(
    panel, controller, opened, viewer, monkeypatch
):
    asked = []

    def no(box):
        asked.append(box.text())
        return 0

    monkeypatch.setattr(QMessageBox, "exec", no)
    controller.active.mask.data_setitem(
        (np.array([3]), np.array([4])), 1 - controller.active.mask.data[3, 4]
    )
    panel.opening.ask_to_close()
    assert len(asked) == 1
    assert "not exported" in asked[0]
    assert len(viewer.layers) == 3
    controller.active.mask.undo()
    panel.opening.ask_to_close()
    assert len(asked) == 1
    assert not viewer.layers


def test_the_dialog_takes_files_and_folders(qtbot, panel, tmp_path):
    (tmp_path / "cines").mkdir()
    dialog = OpenDialog(panel, str(tmp_path))
    qtbot.addWidget(dialog)
    dialog.selectFile(str(tmp_path / "cines"))
    dialog.accept()
    assert dialog.result()
    assert dialog.selectedFiles() == [str(tmp_path / "cines")]


def test_a_typed_path_does_not_choose_the_folders_above_it(
    qtbot, panel, tmp_path, monkeypatch
):
    # What Qt answers at the first dialog of a session, while it still reads folders.
    file = tmp_path / "left.npy"
    np.save(file, frame(0))
    dialog = OpenDialog(panel, str(tmp_path))
    qtbot.addWidget(dialog)
    selected = ["/", *map(str, reversed(tmp_path.parents[:-1])), str(file)]
    monkeypatch.setattr(dialog, "selectedFiles", lambda: selected)
    dialog.accept()
    assert dialog.result()
    assert dialog.chosen() == [file]


# -- the pixels of File > Open --------------------------------------------------


def open_as_napari_does(viewer, path):
    """File > Open with napari's own reader."""
    ((data, *_),) = napari_get_reader(str(path))(str(path))
    with layer_source(path=str(path), reader_plugin="napari"):
        return viewer.add_image(data, rgb=data.ndim == 3 and data.shape[-1] in (3, 4))


def white_is_zero(path, image):
    tifffile.imwrite(path, 255 - image, photometric="miniswhite")


def grey_and_alpha(path, image):
    grey = PillowImage.fromarray(image)
    alpha = PillowImage.new("L", grey.size, 255)
    PillowImage.merge("LA", (grey, alpha)).save(path)


def palette(path, image):
    picture = PillowImage.fromarray(image[::-1]).convert("P")
    picture.putdata(255 - image.ravel())
    picture.putpalette([255 - n // 3 for n in range(768)])
    picture.save(path)


@pytest.mark.parametrize(
    ("name", "write"),
    [("a.tif", white_is_zero), ("a.png", grey_and_alpha), ("b.png", palette)],
)
def test_an_image_of_napari_s_reader_gets_the_right_pixels(
    name, write, viewer, controller, settled, tmp_path
):
    image = frame(size=64)
    write(tmp_path / name, image)
    open_as_napari_does(viewer, tmp_path / name)
    settled(controller)
    state = controller.active
    assert state.shape == (1, 64, 64)
    assert source_file(state) == tmp_path / name
    np.testing.assert_array_equal(state.mask.data, expected(image))
    assert len(viewer.layers) == 3


def test_an_image_that_napari_reads_rightly_is_left_alone(
    viewer, controller, settled, tmp_path
):
    PillowImage.fromarray(frame(size=64)).save(tmp_path / "a.png")
    layer = open_as_napari_does(viewer, tmp_path / "a.png")
    settled(controller)
    assert controller.active.image is layer


# -- nothing is armed ---------------------------------------------------------


def test_tool_and_brush_are_set_anew_for_each_image(viewer, controller, settled):
    viewer.add_image(frame(0, 512), name="large")
    settled(controller)
    assert controller.active.mask.mode == "pan_zoom"
    large = controller.active.mask.brush_size
    controller.active.mask.mode = "paint"
    viewer.add_image(frame(1, 64), name="small")
    settled(controller)
    assert controller.active.mask.mode == "pan_zoom"
    assert controller.active.mask.brush_size < large


def test_keys_work_after_a_slider_and_a_box_were_used(window, qtbot, settled):
    viewer, panel, _ = window
    viewer.add_image(frame(size=64), name="angio")
    settled(panel.controller)
    mask = panel.controller.active.mask
    viewer.window._qt_window.activateWindow()
    reader = Reader(viewer, panel)
    docks = viewer.window._qt_viewer.dockLayerControls
    slider = next(s for s in docks.findChildren(QSlider) if s.isVisible())
    QTest.mouseClick(slider, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: not slider.hasFocus())
    panel.threshold.number.setFocus()
    qtbot.waitUntil(panel.threshold.number.hasFocus)
    QTest.keyClick(panel.threshold.number, Qt.Key.Key_E)
    qtbot.waitUntil(lambda: mask.mode == "erase")
    assert reader.canvas.hasFocus()
    assert not any(box.hasFocus() for box in panel.findChildren(QComboBox))


# -- true words ---------------------------------------------------------------


def test_a_model_that_knows_no_contrast_has_found_no_artery(
    viewer, make_controller, settled, model
):
    model.tells_contrast = False
    controller = make_controller()
    bright = np.full((3, 40, 40), 255, np.uint8)
    bright[:, ::2] = 250
    viewer.add_image(bright[0], name="frame")
    settled(controller)
    assert describe(controller).kind == EMPTY
    assert describe(controller).status.startswith("No artery in this frame. Lower")
    viewer.add_image(bright, name="cine")
    settled(controller)
    assert describe(controller).status == "No artery found in any frame of this cine."


def test_four_states_are_told_apart(viewer, make_controller, settled, model):
    controller = make_controller(pre_segment=False)
    viewer.add_image(frame(0), name="a")
    settled(controller)
    assert describe(controller).kind == PENDING
    assert describe(controller).status.startswith("Not segmented yet")
    controller.segment()
    settled(controller)
    assert describe(controller).kind == FOUND
    viewer.add_image(np.full((40, 40), 255, np.uint8), name="flat")
    settled(controller)
    controller.segment()
    settled(controller)
    assert describe(controller).kind == REFUSED
    assert describe(controller).status.startswith("No contrast")
    bright = np.full((40, 40), 255, np.uint8)
    bright[::2] = 250
    viewer.add_image(bright, name="bright")
    settled(controller)
    controller.segment()
    settled(controller)
    assert describe(controller).kind == EMPTY
    assert describe(controller).status.startswith("No contrast in this frame.")
    controller.active.mask.data_setitem((np.array([3]), np.array([4])), 1)
    assert describe(controller).kind == EMPTY
    viewer.add_image(np.zeros((20, 40), np.uint8), name="small")
    settled(controller)
    assert describe(controller).kind == REFUSED
    assert describe(controller).status.startswith("Too small")


def test_the_colours_have_a_legend(panel):
    for text in ("mask", "prediction", "to&nbsp;be&nbsp;removed", "uncertain"):
        assert text in panel.legend.text()


def test_the_dialog_offers_the_formats_that_are_read(panel, tmp_path):
    filters = OpenDialog(panel, str(tmp_path)).nameFilters()
    assert filters[0] == "All files (*)"  # DICOM files may lack a suffix
    for suffix in SUFFIXES:
        assert sum(f"*{suffix} " in f or f"*{suffix})" in f for f in filters) == 1
