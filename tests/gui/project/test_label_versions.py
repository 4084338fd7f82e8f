"""Versions of a label, looked at, compared and restored in a real window."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_cmunet.gui.project.readers.label_versions import LabelVersionsDialog
from napari_cmunet.gui.project.workspace import NewProject
from napari_cmunet.io.provenance import Provenance
from tests.gui.conftest import LEFT, Reader, frame
from tests.gui.project.conftest import stroke

pytestmark = pytest.mark.slow


@pytest.fixture
def loop(window, tmp_path, ready):
    """The window with a project of two frames, and a hand."""
    viewer, panel, _ = window
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(2):
        np.save(folder / f"q{number}.npy", frame(number, size=64))
    session = panel.project
    session.create(NewProject(tmp_path / "project", (folder,)))
    ready(session)
    yield viewer, panel, session, Reader(viewer, panel)
    session.close_window()


def picture(widget, name: str) -> None:
    """Save a picture where the environment asks for it."""
    if folder := os.environ.get("CMUNET_TEST_PICTURES"):
        QApplication.processEvents()
        widget.grab().save(str(Path(folder) / f"{name}.png"))


def open_dialog(panel) -> LabelVersionsDialog:
    """Choose the entry of the menu and return the dialog."""
    page = panel.project_section.page
    (action,) = [a for a in page.menu_items.actions() if "Versions" in a.text()]
    action.trigger()
    (dialog,) = panel.findChildren(LabelVersionsDialog)
    return dialog


def test_a_version_is_compared_and_restored_by_keys(loop, ready, tmp_path):
    viewer, panel, session, hand = loop
    opened = session.navigator.current
    file = session.project.labels.path(opened.id, 0)
    hand.key(Qt.Key.Key_K)
    ready(session)
    first, mask = file.read_bytes(), opened.mask(0)
    opened.image_state.mask.brush_size = 9
    hand.key(Qt.Key.Key_P)
    hand.stroke((20, 10), (20, 50))
    hand.key(Qt.Key.Key_K)
    ready(session)
    changed = int((opened.mask(0) != mask).sum())
    assert changed > 50

    dialog = open_dialog(panel)
    ready(session)
    texts = [dialog.list.item(i).text() for i in range(dialog.list.count())]
    assert [t.split(",")[0] for t in texts] == ["Version 2", "Version 1"]
    assert texts[0].endswith("in use")
    assert not dialog.restore.isEnabled()
    assert dialog.comparison.text() == "The mask in the viewer is this version."
    QTest.keyClick(dialog.list, Qt.Key.Key_Down)
    ready(session)
    assert dialog.comparison.text() == (
        "0 pixels are in this version alone (yellow), "
        f"{changed} in the mask in the viewer alone (violet)."
    )
    assert viewer.layers["this version, the mask"].data.max() == 2
    history = dialog.history.toPlainText()
    assert "accepted (version 2), in place of version 1" in history
    picture(dialog, "versions")
    picture(panel.window(), "versions-window")
    QTest.keyClick(dialog.list, Qt.Key.Key_Return)
    ready(session)
    assert file.read_bytes() == first
    np.testing.assert_array_equal(opened.mask(0), mask)
    assert dialog.history.toPlainText().count("restored (version 1)") == 1
    assert session.annotation.is_unchanged(opened, 0)

    # The mask can be undone; the label is still the restored one.
    opened.image_state.undo()
    assert int((opened.mask(0) != mask).sum()) == changed
    QTest.mouseClick(dialog.close_button, LEFT)
    assert [layer.name for layer in viewer.layers if "version" in layer.name] == []
    ready(session)
    assert file.read_bytes() == first


def test_the_dialog_goes_with_its_image(loop, ready):
    viewer, panel, session, hand = loop
    hand.key(Qt.Key.Key_K)
    ready(session)
    stroke(session)
    dialog = open_dialog(panel)
    ready(session)
    assert "version, the mask" in str([layer.name for layer in viewer.layers])
    # Its figures follow the brush.
    before = dialog.comparison.text()
    stroke(session, row=40, column=40)
    assert dialog.comparison.text() != before
    hand.key(Qt.Key.Key_N)
    ready(session)
    QApplication.processEvents()
    assert not panel.findChildren(LabelVersionsDialog)
    assert not [layer for layer in viewer.layers if "version" in layer.name]
    # Taking the restored label back brings the one before.
    dialog = open_dialog(panel)
    ready(session)
    assert dialog.comparison.text() == "This frame has never had a label."


def test_a_damaged_version_does_not_hide_the_others(loop, ready):
    _, panel, session, hand = loop
    opened, labels = session.navigator.current, session.project.labels
    for row in (10, 20, 30):
        stroke(session, row=row)
        hand.key(Qt.Key.Key_K)
        ready(session)
    oldest, _ = labels.older(opened.id, 0)
    oldest.path.write_bytes(b"damaged")
    dialog = open_dialog(panel)
    ready(session)
    texts = [dialog.list.item(i).text() for i in range(dialog.list.count())]
    assert len(texts) == 3
    assert texts[-1] == "Version 1, cannot be read"
    assert "cannot" not in "".join(texts[:-1])
    dialog.list.setCurrentRow(len(texts) - 1)
    ready(session)
    assert str(oldest.path.name) in dialog.comparison.text()
    assert not dialog.restore.isEnabled()
    # What is read after the window is closed finds nothing to show it in.
    dialog._load()
    dialog.close()
    ready(session)
    assert not panel.findChildren(LabelVersionsDialog)


def test_a_version_of_another_file_is_not_restored(loop, ready):
    _, panel, session, hand = loop
    opened, labels = session.navigator.current, session.project.labels
    for size, sha256 in (((40, 40), "0" * 64), ((64, 64), "1" * 64)):
        labels.accept(
            opened.id,
            0,
            np.eye(*size, dtype=bool),
            provenance=Provenance(source_sha256=sha256),
        )
    hand.key(Qt.Key.Key_K)
    ready(session)
    file = labels.path(opened.id, 0)
    label, mask = file.read_bytes(), opened.mask(0)
    for older in labels.older(opened.id, 0):
        session.annotation.restore(older)
        ready(session)
        assert "does not fit the image any more" in session.messages.alert.text
        assert file.read_bytes() == label
        np.testing.assert_array_equal(opened.mask(0), mask)
    # Once its file is there again it can be tried again.
    dialog = open_dialog(panel)
    ready(session)
    dialog.list.setCurrentRow(1)
    ready(session)
    dialog.restore.click()
    ready(session)
    assert file.read_bytes() == label
    assert dialog.restore.isEnabled()


def test_taking_back_does_not_restore_a_label_of_another_file(loop, ready):
    _, _, session, hand = loop
    opened, labels = session.navigator.current, session.project.labels
    other = Provenance(source_sha256="0" * 64)
    labels.accept(opened.id, 0, np.eye(40, dtype=bool), provenance=other)
    stroke(session)
    hand.key(Qt.Key.Key_K)
    ready(session)
    mask = opened.mask(0)
    hand.key(Qt.Key.Key_K, Qt.KeyboardModifier.ShiftModifier)
    ready(session)
    assert labels.get(opened.id, 0) is None
    assert 0 not in opened.labels
    assert "withdrawn" in session.messages.text
    assert len(labels.older(opened.id, 0)) == 2
    np.testing.assert_array_equal(opened.mask(0), mask)
