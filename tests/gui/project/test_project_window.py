"""A project in a real window, with the keys and the mouse of a session."""

from __future__ import annotations

import time

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QAbstractButton, QApplication, QWidget

from napari_cmunet.gui.project import annotation as annotation
from napari_cmunet.gui.project.workspace import NewProject
from napari_cmunet.project.project import Project
from tests.gui.conftest import CTRL, LEFT, SHIFT, Reader, frame
from tests.gui.project.conftest import name

pytestmark = pytest.mark.slow


@pytest.fixture
def large(tmp_path):
    """Four frames large enough for a mouse."""
    folder = tmp_path / "large"
    folder.mkdir()
    for number in range(4):
        np.save(folder / f"q{number}.npy", frame(number, size=64))
    return folder


@pytest.fixture
def loop(window, large, tmp_path, ready):
    """The window with a project, and a hand."""
    viewer, panel, _ = window
    session = panel.project
    session.create(NewProject(tmp_path / "project", (large,)))
    ready(session)
    yield viewer, panel, session, Reader(viewer, panel)
    session.close_window()


def test_the_loop_by_keys(loop, ready, monkeypatch, tmp_path):
    viewer, panel, session, hand = loop
    monkeypatch.setattr(annotation, "WAIT_SECONDS", 5)
    assert name(session) == "q0"
    mask = session.navigator.current.image_state.mask
    hand.key(Qt.Key.Key_P)
    mask.brush_size = 5
    hand.stroke((20, 10), (20, 50))
    assert (mask.data[20, 10:50] == 1).all()

    # Accept: on the disk while the key is still down.
    QTest.keyPress(hand.canvas, Qt.Key.Key_K)
    image = session.navigator.current.id
    with Project.open(tmp_path / "project", read_only=True) as seen:
        np.testing.assert_array_equal(seen.labels.get(image, 0).mask, mask.data != 0)
    QTest.keyRelease(hand.canvas, Qt.Key.Key_K)
    ready(session)
    assert panel.project_section.page.progress.text() == "1 of 4 labelled"

    # Next; a box by the mouse; the part is accepted.
    hand.key(Qt.Key.Key_N)
    ready(session)
    assert name(session) == "q1"
    assert len(viewer.layers) == 3
    hand.key(Qt.Key.Key_R)
    chosen = session.controller.viewer.layers.selection
    assert chosen.active is session.navigator.area.layer
    # A click by mistake is no box; the next drag is.
    QTest.mouseClick(hand.canvas, LEFT, pos=hand.at(30, 30))
    QApplication.processEvents()
    assert not session.navigator.area.is_part(0)
    hand.stroke((10, 10), (25, 25), (40, 40))
    assert chosen.active is session.navigator.current.image_state.mask
    hand.key(Qt.Key.Key_K)
    ready(session)
    label = session.project.labels.get(session.navigator.current.id, 0)
    assert label.reviewed[12:38, 12:38].all()
    assert not label.reviewed[45:].any()

    # Unsure, back, without.
    hand.key(Qt.Key.Key_U)
    ready(session)
    assert session.overview.progress.flagged == 1
    hand.key(Qt.Key.Key_N, SHIFT)
    ready(session)
    assert name(session) == "q0"
    hand.key(Qt.Key.Key_K, SHIFT)
    ready(session)
    assert session.overview.progress.labelled == 1
    hand.key(Qt.Key.Key_W)
    ready(session)
    assert session.overview.status(image).state == "skipped"
    assert name(session) == "q2"
    assert str(session.overview.progress) == "1 of 4, 1 skipped, 1 flagged"


def test_the_panel_is_closed_and_opened_at_any_moment(loop, ready, qtbot):
    viewer, panel, session, hand = loop
    mask = session.navigator.current.image_state.mask
    mask.brush_size = 5
    hand.stroke((20, 10), (20, 50))
    mine = mask.data != 0
    viewer.window.remove_dock_widget(panel)
    assert session.project is not None
    qtbot.waitUntil(
        lambda: session.navigator.draft_saver.saved and session.workspace.writer.idle
    )
    _, again = viewer.window.add_plugin_dock_widget("napari-cmunet", "CM-UNet")
    assert again.project is session
    ready(session)
    np.testing.assert_array_equal(session.navigator.current.mask(0), mine)
    hand = Reader(viewer, again)
    hand.key(Qt.Key.Key_K)
    hand.key(Qt.Key.Key_N)
    ready(session)
    assert name(session) == "q1"
    # While the next image is opened.
    hand.key(Qt.Key.Key_N)
    viewer.window.remove_dock_widget(again)
    qtbot.wait(100)
    _, third = viewer.window.add_plugin_dock_widget("napari-cmunet", "CM-UNet")
    ready(session)
    third.project.navigator.next()
    ready(session)
    assert len(viewer.layers) == 3
    third.stop()
    assert third.controller.queue.wait()


def test_closing_the_window_saves_and_lets_go(
    make_napari_viewer_proxy, monkeypatch, ready, large, tmp_path, qtbot
):
    from napari_cmunet.gui import controller as controller_module
    from tests.gui.conftest import FakeModel

    monkeypatch.setattr(controller_module, "load_engine", FakeModel())
    viewer = make_napari_viewer_proxy(show=True)
    _, panel = viewer.window.add_plugin_dock_widget("napari-cmunet", "CM-UNet")
    session = panel.project
    session.create(NewProject(tmp_path / "project", (large,)))
    ready(session)
    image = session.navigator.current.id
    mask = session.navigator.current.image_state.mask
    with mask.block_history():
        mask.paint((30, 30), 1)
    mine = mask.data != 0
    runner = panel.controller.queue
    viewer.close()
    QApplication.processEvents()
    assert runner.wait()
    qtbot.waitUntil(lambda: session.project is None)
    # Another window may open it at once, and finds the strokes.
    with Project.open(tmp_path / "project") as again:
        np.testing.assert_array_equal(again.drafts.load(image, 0).mask, mine)


def test_one_key_accepts_and_goes_on_and_arrow_keys_walk_the_list(loop, ready, qtbot):
    viewer, panel, session, hand = loop
    hand.key(Qt.Key.Key_D)
    ready(session)
    assert session.overview.progress.labelled == 1
    assert name(session) == "q1"
    # An empty mask asks first, and stays.
    mask = session.navigator.current.image_state.mask
    mask.data_setitem(np.nonzero(mask.data), 0)
    hand.key(Qt.Key.Key_D)
    ready(session)
    assert name(session) == "q1"
    assert "no artery" in session.messages.alert.text
    session.messages.dismiss("accept")

    viewer.window._qt_window.activateWindow()
    images = panel.project_section.page.list
    place = images.visualRect(images.model().index(2, 0)).center()
    QTest.mouseClick(images.viewport(), LEFT, pos=place)
    ready(session)
    assert name(session) == "q2"
    qtbot.waitUntil(images.hasFocus)
    QTest.keyClick(images, Qt.Key.Key_Down)
    qtbot.waitUntil(lambda: name(session) == "q3")
    ready(session)
    # Letters are the canvas's all the same.
    QTest.keyClick(images, Qt.Key.Key_P)
    mask = session.navigator.current.image_state.mask
    qtbot.waitUntil(lambda: mask.mode == "paint")


def places(panel) -> list[tuple[str, int]]:
    """Height of every visible widget of the panel's column."""
    inside = panel.status.parentWidget()
    return sorted(
        (type(widget).__name__, widget.mapTo(panel, QPoint(0, 0)).y())
        for widget in inside.findChildren(QWidget)
        if widget.isVisible()
    )


@pytest.mark.parametrize("width", [300, 460])
def test_no_message_moves_the_panel(loop, qtbot, width):
    viewer, panel, session, _ = loop
    viewer.window.resize(1300, 950)
    panel.setFixedWidth(width)
    qtbot.wait(50)
    where, messages = places(panel), session.messages
    assert len(where) > 50

    def shown(widget, text: str = "") -> None:
        qtbot.waitUntil(widget.isVisible)
        qtbot.wait(20)
        assert text in widget.text()
        assert places(panel) == where

    section, long = panel.project_section, "What went wrong, at some length. " * 9
    messages.show("1 image was added. 3 were in it already.")
    shown(section.message, "1 image was added")
    buttons = [(f"Answer {number}", "", None) for number in range(3)]
    messages.ask("Your corrections cannot be saved.", *buttons, about="draft")
    shown(section.alert.text, "cannot be saved")
    answer = section.alert.findChildren(QAbstractButton)[0]
    QTest.mouseClick(answer, LEFT)
    qtbot.waitUntil(section.alert.isHidden)
    panel.controller.show_message(long)
    shown(panel.status.whole, long)
    panel.controller.show_message("")
    qtbot.waitUntil(panel.status.whole.isHidden)
    assert session.run("Looking for the images", lambda *_: time.sleep(0.5), print)
    shown(section.work_text, "Looking for the images")
    qtbot.waitUntil(lambda: not session.busy)
    qtbot.waitUntil(section.work_text.isHidden)
    assert places(panel) == where


def test_fine_tune_is_one_click_away_at_1000_pixels(loop, qtbot):
    viewer, panel, _, _ = loop
    viewer.window.resize(1300, 1000)
    qtbot.wait(50)
    go, start = panel.project_section.page.to_training, panel.finetune.start
    assert not go.visibleRegion().isEmpty()
    QTest.mouseClick(go, LEFT)
    qtbot.waitUntil(lambda: start.visibleRegion().boundingRect() == start.rect())


def test_a_model_takes_over_during_a_stroke(loop, window, ready, qtbot, monkeypatch):
    viewer, panel, session, hand = loop
    model = window[2]
    state = session.navigator.current.image_state
    mask, before = state.mask, state.mask.data.copy()
    hand.key(Qt.Key.Key_P)
    mask.brush_size = 5
    canvas, points = hand.canvas, [hand.at(20, column) for column in (10, 30, 50)]
    QTest.mouseMove(canvas, points[0])
    QTest.mousePress(canvas, LEFT, pos=points[0])
    hand.move(canvas, points[1])
    model.offset = 60
    use = ("tuned", "")
    monkeypatch.setattr("napari_cmunet.gui.project.session.model_in_use", lambda _: use)
    session.use_current_model()
    ready(session)
    qtbot.waitUntil(lambda: "found now, gone now" in viewer.layers)
    hand.move(canvas, points[2])
    QTest.mouseRelease(canvas, LEFT, pos=points[2])
    QApplication.processEvents()
    drawn = mask.data.copy()
    assert (drawn[20, 10:51] == 1).all()
    changed = before != drawn
    assert not changed[:17].any()
    assert not changed[24:].any()
    assert "tuned finds" in panel.project_section.page.change.text()
    assert session.controller.viewer.layers.selection.active is mask
    assert mask.mode == "paint"
    hand.key(Qt.Key.Key_Z, CTRL)
    np.testing.assert_array_equal(mask.data, before)
    hand.key(Qt.Key.Key_Z, CTRL | SHIFT)
    np.testing.assert_array_equal(mask.data, drawn)
    # The draft on the disk is the whole stroke, of the model that the mask began with.
    session.navigator.draft_saver.flush()
    ready(session)
    (key,) = session.project.drafts.keys()
    draft = session.project.drafts.load(*key)
    np.testing.assert_array_equal(draft.mask, drawn != 0)
    assert draft.provenance.model == "cmunet-artery"
    hand.key(Qt.Key.Key_K)
    ready(session)
    np.testing.assert_array_equal(session.project.labels.get(*key).mask, drawn != 0)
