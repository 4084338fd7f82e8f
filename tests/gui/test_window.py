"""Whole loops in a real window, with the mouse and the keys of a reader."""

from __future__ import annotations

import ctypes
import json
import sys

import numpy as np
import pytest
import tifffile
from napari._qt.dialogs.qt_notification import NapariQtNotification
from napari.qt import QtViewer
from napari.settings import get_settings
from napari.utils.notifications import Notification
from PIL import Image as PillowImage
from qtpy.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from qtpy.QtGui import QDragEnterEvent, QDropEvent, QOpenGLContext
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QFileDialog, QMessageBox
from skimage import io as skimage_io

from napari_cmunet.gui import controller as controller_module
from napari_cmunet.gui.canvas import canvas_of
from napari_cmunet.gui.panel import segment_arteries
from tests.gui.conftest import (
    CTRL,
    LEFT,
    NONE,
    SHIFT,
    FakeModel,
    Reader,
    cine,
    expected,
    frame,
)
from tests.io.dicom_making import write_dicom

pytestmark = pytest.mark.slow


def test_open_correct_threshold_export(window, qtbot, settled, monkeypatch, tmp_path):
    viewer, panel, _ = window
    controller = panel.controller
    image = frame(size=64)
    viewer.add_image(image, name="angio")
    settled(controller)
    viewer.reset_view()
    QApplication.processEvents()
    mask = controller.active.mask
    np.testing.assert_array_equal(mask.data, expected(image))
    reader = Reader(viewer, panel)

    # Paint, undo, redo.
    mask.brush_size = 5
    reader.key(Qt.Key.Key_P)
    reader.stroke((20, 10), (20, 30), (20, 50))
    painted = mask.data.copy()
    assert (painted[20, 10:50] == 1).all()
    assert (painted != expected(image)).any()
    reader.key(Qt.Key.Key_Z, CTRL)
    np.testing.assert_array_equal(mask.data, expected(image))
    reader.key(Qt.Key.Key_Z, CTRL | SHIFT)
    np.testing.assert_array_equal(mask.data, painted)

    # Erase.
    reader.key(Qt.Key.Key_E)
    assert mask.mode == "erase"
    reader.stroke((40, 10), (40, 50))
    erased = mask.data.copy()
    assert (erased[40, 10:50] == 0).all()
    qtbot.waitUntil(lambda: panel.tools.buttons["erase"].isChecked())

    # Threshold by the mouse; the corrections stay. One Ctrl+Z takes it back.
    qtbot.waitUntil(panel.threshold.isEnabled)
    slider = panel.threshold.slider
    middle = QPoint(slider.width() // 2, slider.height() // 2)
    reader.drag(
        slider,
        middle,
        QPoint(slider.width() * 2 // 3, middle.y()),
        QPoint(slider.width() // 4, middle.y()),
    )
    assert controller.active.threshold < 0.4
    moved = mask.data.copy()
    assert (moved != erased).any()
    assert (moved[20, 10:50] == 1).all()
    changed = erased != painted
    np.testing.assert_array_equal(moved[changed], erased[changed])
    reader.key(Qt.Key.Key_Z, CTRL)
    np.testing.assert_array_equal(mask.data, erased)
    qtbot.waitUntil(lambda: panel.threshold.value() == 0.5)
    reader.key(Qt.Key.Key_Z, CTRL)
    np.testing.assert_array_equal(mask.data, painted)
    reader.key(Qt.Key.Key_Z, CTRL | SHIFT)

    # Export over an existing file: asked first, then written.
    target = tmp_path / "angio.tif"
    target.write_bytes(b"precious")
    monkeypatch.setattr(
        QFileDialog, "getSaveFileName", lambda *a, **k: (str(tmp_path / "angio"), "")
    )
    asked = []
    monkeypatch.setattr(QMessageBox, "exec", lambda box: asked.append(box.text()) or 0)
    panel.exporting.button.click()
    assert asked == ["angio.tif exists already."]
    assert target.read_bytes() == b"precious"
    monkeypatch.setattr(
        QMessageBox,
        "clickedButton",
        lambda box: next(b for b in box.buttons() if b.text() == "Overwrite"),
    )
    panel.exporting.button.click()
    qtbot.waitUntil(lambda: "Exported angio.tif" in panel.status.text())
    for read in (
        tifffile.imread(target),
        np.asarray(PillowImage.open(target)),
        skimage_io.imread(target),
    ):
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, erased * 255)
    with tifffile.TiffFile(target) as tif:
        record = json.loads(tif.pages.first.description)
    assert record["model"] == "cmunet-artery"
    assert record["corrected"] is True


def test_cine_corrected_while_it_is_predicted(window, qtbot, settled):
    viewer, panel, model = window
    controller = panel.controller
    model.open.clear()
    image = cine(8, size=64)
    viewer.add_image(image, name="cine")
    viewer.dims.set_point(0, 3)
    viewer.reset_view()
    model.let_through(1)
    qtbot.waitUntil(lambda: bool(controller.active and controller.active.usable_mask))
    QApplication.processEvents()
    reader = Reader(viewer, panel)
    mask = controller.active.mask
    first = int(np.flatnonzero(controller.active.predicted)[0])
    viewer.dims.set_point(0, first)
    reader.key(Qt.Key.Key_P)
    mask.brush_size = 5
    reader.key(Qt.Key.Key_P)
    reader.stroke((20, 10), (20, 50))
    assert (mask.data[first, 20, 10:50] == 1).all()
    painted = mask.data[first].copy()
    model.open.set()
    settled(controller)
    np.testing.assert_array_equal(mask.data[first], painted)
    reader.key(Qt.Key.Key_Z, CTRL)
    np.testing.assert_array_equal(mask.data, expected(image))
    for step in range(8):
        viewer.dims.set_point(0, step)
    # Playing goes on while the slider is held.
    slider = panel.threshold.slider
    slider.setSliderDown(True)
    slider.setValue(70)
    viewer.dims.set_point(0, 2)
    slider.setValue(30)
    slider.setSliderDown(False)
    settled(controller)
    np.testing.assert_array_equal(mask.data, expected(image, 0.3))


def test_closing_the_dock_in_the_middle(window, qtbot, settled):
    viewer, panel, model = window
    model.open.clear()
    viewer.add_image(cine(6), name="cine")
    model.let_through(2)
    qtbot.waitUntil(lambda: panel.controller.queue.progress[0] == 2)
    mask = panel.controller.active.mask
    viewer.window.remove_dock_widget(panel)
    assert not panel.controller.connected
    model.open.set()
    assert panel.controller.queue.wait()
    assert mask in viewer.layers
    _, again = viewer.window.add_plugin_dock_widget("napari-cmunet", "CM-UNet")
    settled(again.controller)
    assert again.controller.active.mask is mask
    assert len(viewer.layers) == 3
    again.segment.click()
    settled(again.controller)
    assert again.controller.active.predicted.all()
    again.stop()
    assert again.controller.queue.wait()


def test_the_layer_menu_segments_the_selected_image(window, settled):
    viewer, panel, _ = window
    panel.controller.pre_segment = False
    images = [frame(0), frame(1)]
    for image in images:
        viewer.add_image(image)
    settled(panel.controller)
    viewer.layers.selection.active = viewer.layers[0]
    segment_arteries(viewer)
    settled(panel.controller)
    mask = panel.controller.active.mask
    np.testing.assert_array_equal(mask.data, expected(images[0]))
    assert len(viewer.layers) == 4


def test_closing_the_window_in_the_middle(make_napari_viewer_proxy, monkeypatch, qtbot):
    model = FakeModel()
    monkeypatch.setattr(controller_module, "load_engine", model)
    viewer = make_napari_viewer_proxy(show=True)
    _, panel = viewer.window.add_plugin_dock_widget("napari-cmunet", "CM-UNet")
    model.open.clear()
    viewer.add_image(cine(6), name="cine")
    model.let_through(2)
    runner = panel.controller.queue
    qtbot.waitUntil(lambda: runner.progress[0] == 2)
    viewer.close()
    model.open.set()
    assert runner.wait()


def test_two_windows(window, make_napari_viewer_proxy, settled):
    viewer, panel, _ = window
    other = make_napari_viewer_proxy(show=True)
    _, second = other.window.add_plugin_dock_widget("napari-cmunet", "CM-UNet")
    a, b = frame(0), frame(1)
    viewer.add_image(a)
    other.add_image(b)
    settled(panel.controller)
    settled(second.controller)
    np.testing.assert_array_equal(panel.controller.active.mask.data, expected(a))
    np.testing.assert_array_equal(second.controller.active.mask.data, expected(b))
    second.stop()
    assert second.controller.queue.wait()


def test_a_removed_layer_is_freed_in_the_context_of_the_canvas(window, qtbot):
    viewer, panel, _ = window
    layer = viewer.add_image(frame())
    canvas = Reader(viewer, panel).canvas
    qtbot.waitUntil(canvas.isValid)
    canvas.doneCurrent()
    viewer.layers.remove(layer)
    assert QOpenGLContext.currentContext() is not None
    assert canvas.context() is QOpenGLContext.currentContext()


def test_no_tool_acts_on_a_frame_that_a_cine_does_not_have(window, qtbot, settled):
    viewer, panel, _ = window
    viewer.add_image(cine(8, 64), name="long")
    settled(panel.controller)
    viewer.add_image(cine(4, 64), name="short")
    settled(panel.controller)
    mask = panel.controller.active.mask
    viewer.dims.set_current_step(0, 6)
    reader, before = Reader(viewer, panel), mask.data.copy()
    for key in (Qt.Key.Key_P, Qt.Key.Key_E, Qt.Key.Key_F):
        reader.key(key)
        reader.stroke((20, 10), (20, 30), (20, 50))
    for mode in ("paint", "erase", "fill", "polygon"):
        mask.mode = mode
        reader.stroke((20, 10), (20, 30), (20, 50))
    reader.key(Qt.Key.Key_Z, CTRL)
    np.testing.assert_array_equal(mask.data, before)
    viewer.dims.set_current_step(0, 2)
    reader.key(Qt.Key.Key_P)
    reader.stroke((20, 10), (20, 30), (20, 50))
    assert mask.data[2, 20, 20] == 1
    np.testing.assert_array_equal(np.delete(mask.data, 2, 0), np.delete(before, 2, 0))


def test_a_click_on_a_vanished_message_does_not_paint(window, qtbot, settled):
    viewer, panel, _ = window
    viewer.add_image(frame(size=64), name="angio")
    settled(panel.controller)
    mask, reader = panel.controller.active.mask, Reader(viewer, panel)
    viewer.window._qt_window.activateWindow()
    viewer.scene.camera.zoom *= 4  # the image lies behind the message
    reader.key(Qt.Key.Key_P)
    mask.brush_size = 3
    NapariQtNotification.show_notification(Notification("Cancelled.", "info"))
    qtbot.waitUntil(lambda: bool(reader.canvas.findChildren(NapariQtNotification)))
    message = reader.canvas.findChildren(NapariQtNotification)[0]
    qtbot.wait(400)  # it has slid in
    place = message.geometry().center()
    message.close_with_fade()
    gone: list[bool] = []
    message.destroyed.connect(lambda: gone.append(True))
    qtbot.waitUntil(lambda: bool(gone) or not message.isVisible())
    before = mask.data.copy()
    reader.drag(reader.canvas, place, place + QPoint(9, 0))
    np.testing.assert_array_equal(mask.data, before)
    qtbot.wait(1100)
    reader.drag(reader.canvas, place, place + QPoint(9, 0))
    assert (mask.data != before).any()


def drop(widget, *paths) -> None:
    """Drop files on what takes drops at a widget."""
    while not widget.acceptDrops():
        widget = widget.parentWidget()
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    copy, at = Qt.DropAction.CopyAction, QPointF(5, 5)
    # Qt hands a drop to the widget that was entered before.
    entered = QDragEnterEvent(at.toPoint(), copy, mime, LEFT, NONE)
    QApplication.sendEvent(widget, entered)
    QApplication.sendEvent(widget, QDropEvent(at, copy, mime, LEFT, NONE))


def test_dropped_dicom_files_and_folders_are_opened_by_our_reader(
    window, qtbot, settled, monkeypatch, tmp_path
):
    _, panel, _ = window
    images, folder = panel.controller.image_states, tmp_path / "folder"
    folder.mkdir()
    for path in (tmp_path / "IM000001", tmp_path / "a.dcm", folder / "b.IMA"):
        write_dicom(path, cine(3, 64))
    canvas = canvas_of(panel.window())
    drop(canvas, tmp_path / "IM000001", tmp_path / "a.dcm")
    qtbot.waitUntil(lambda: len(images) == 2)
    asked: list[str] = []
    monkeypatch.setattr(QMessageBox, "exec", lambda box: asked.append(box.text()) or 0)
    monkeypatch.setattr(
        QMessageBox,
        "clickedButton",
        lambda box: next(b for b in box.buttons() if b.text() == "Only open"),
    )
    drop(canvas, folder)
    qtbot.waitUntil(lambda: len(images) == 3)
    assert asked[0].startswith("folder is a folder.")
    assert [state.image.name for state in images] == ["IM000001", "a", "b"]
    settled(panel.controller)
    assert all(state.count == 3 for state in images)


def test_a_cine_that_plays_stops_where_it_is_painted_on(window, qtbot, settled):
    viewer, panel, _ = window
    viewer.add_image(cine(6, 64), name="cine")
    settled(panel.controller)
    mask, reader = panel.controller.active.mask, Reader(viewer, panel)
    before = mask.data.copy()
    (qt_viewer,) = panel.window().findChildren(QtViewer)
    qt_viewer.dims.play(0, 20)
    frames: set[int] = set()
    viewer.dims.events.current_step.connect(
        lambda: frames.add(viewer.dims.current_step[0])
    )
    qtbot.waitUntil(lambda: len(frames) > 2)
    reader.stroke((20, 10), (20, 20))  # no tool: it plays on
    assert qt_viewer.dims.is_playing
    mask.mode = "paint"
    reader.stroke((20, 10), (20, 20), (20, 30), (20, 40), (20, 50))
    assert not qt_viewer.dims.is_playing
    (changed,) = {int(f) for f in np.nonzero(mask.data != before)[0]}
    assert changed == viewer.dims.current_step[0]


class _ClientMessage(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("serial", ctypes.c_ulong),
        ("send_event", ctypes.c_int),
        ("display", ctypes.c_void_p),
        ("window", ctypes.c_ulong),
        ("message_type", ctypes.c_ulong),
        ("format", ctypes.c_int),
        ("data", ctypes.c_long * 5),
        ("_rest", ctypes.c_long * 12),  # XEvent is a union of larger ones
    ]


def click_on_the_cross(window) -> None:
    """Close a window as a window manager does."""
    x11 = ctypes.CDLL("libX11.so.6")
    x11.XOpenDisplay.restype = ctypes.c_void_p
    x11.XInternAtom.restype = ctypes.c_ulong
    display = ctypes.c_void_p(x11.XOpenDisplay(None))
    protocols = x11.XInternAtom(display, b"WM_PROTOCOLS", 0)
    delete = x11.XInternAtom(display, b"WM_DELETE_WINDOW", 0)
    number = int(window.winId())
    data = (ctypes.c_long * 5)(delete, 0)
    event = _ClientMessage(33, 0, 1, None, number, protocols, 32, data)
    x11.XSendEvent(display, ctypes.c_ulong(number), 0, 0, ctypes.byref(event))
    x11.XCloseDisplay(display)


def press_ctrl_w(window) -> None:
    """Close a window by the key of File > Close Window."""
    window.activateWindow()
    QTest.qWaitForWindowActive(window)
    QTest.keyClick(canvas_of(window), Qt.Key.Key_W, CTRL)


@pytest.mark.skipif(sys.platform != "linux", reason="asks by the X protocol")
@pytest.mark.parametrize("close", [click_on_the_cross, press_ctrl_w])
def test_closing_the_window_asks_where_corrections_would_be_lost(
    window, qtbot, settled, monkeypatch, close
):
    viewer, panel, _ = window
    viewer.add_image(frame(size=64), name="angio")
    settled(panel.controller)
    main = panel.window()
    asked: list[str] = []

    def cancel(box) -> int:
        asked.append(box.text())
        next(b for b in box.buttons() if b.text() == "Cancel").click()
        return 0

    monkeypatch.setattr(QMessageBox, "exec", cancel)
    monkeypatch.setattr(get_settings().application, "confirm_close_window", False)
    reader = Reader(viewer, panel)
    reader.key(Qt.Key.Key_P)
    reader.stroke((20, 10), (20, 30), (20, 50))
    close(main)
    qtbot.waitUntil(lambda: bool(asked))
    assert main.isVisible()
    (text,) = asked
    assert text.startswith("angio: Your corrections of this mask are not exported.")


def test_a_stroke_stays_in_its_frame(window, qtbot, settled):
    viewer, panel, _ = window
    viewer.add_image(cine(6, 64), name="cine")
    settled(panel.controller)
    mask, reader = panel.controller.active.mask, Reader(viewer, panel)
    viewer.dims.set_current_step(0, 2)
    reader.key(Qt.Key.Key_P)
    before = mask.data.copy()
    step = viewer.dims.set_current_step
    QTest.mousePress(reader.canvas, LEFT, NONE, reader.at(20, 10))
    for number, column in enumerate((20, 30, 40, 50)):
        step(0, number)
        reader.move(reader.canvas, reader.at(20, column))
    QTest.mouseRelease(reader.canvas, LEFT, NONE, reader.at(20, 50))
    assert mask.data[2, 20, 48] == 1
    np.testing.assert_array_equal(np.delete(mask.data, 2, 0), np.delete(before, 2, 0))
    step(0, 4)  # the slider is free again
    assert viewer.dims.current_step[0] == 4
    reader.key(Qt.Key.Key_Z, CTRL)
    np.testing.assert_array_equal(mask.data, before)
    assert viewer.dims.current_step[0] == 2


def test_the_panel_is_no_wider_than_it_needs(window, qtbot):
    _, panel, _ = window
    qtbot.waitUntil(lambda: panel.width() == panel.minimumSizeHint().width())
    assert panel.width() < 340
