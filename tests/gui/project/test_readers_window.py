"""Two readers and a reviewer in a real window, by mouse and keyboard."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QInputDialog

from napari_cmunet.gui.project.readers import review
from napari_cmunet.gui.project.readers.reader_menu import AgreementDialog
from napari_cmunet.gui.project.readers.review import LAYER
from napari_cmunet.gui.project.workspace import model_in_use
from napari_cmunet.project.project import Project
from napari_cmunet.project.readers.readers import REVIEWER
from tests.gui.conftest import LEFT, Reader
from tests.gui.project.conftest import name
from tests.gui.project.test_label_versions import loop, picture
from tests.project.project_making import save_model_folder

pytestmark = pytest.mark.slow
__all__ = ["loop"]


@pytest.fixture
def make_model_for():
    return save_model_folder


def become(panel, session, ready, text: str) -> None:
    """Choose a reader in the menu."""
    menu = panel.project_section.readers
    menu.fill()
    (action,) = [a for a in menu.actions() if a.text() == text]
    action.trigger()
    ready(session)
    panel.refresh()


def test_two_readers_and_a_decision(loop, ready, monkeypatch, tmp_path):
    viewer, panel, session, hand = loop
    page = panel.project_section.page
    assert page.title.text() == "project"
    assert not page.review.isVisible()
    menu = panel.project_section.readers
    menu.fill()
    assert [a.text() for a in menu.actions() if a.text()] == [
        "First reader",
        "Another reader…",
        "Reviewer",
        "Name of the first reader…",
    ]

    # The first reader paints a bar and accepts both images.
    image = session.navigator.current.id
    hand.key(Qt.Key.Key_P)
    session.navigator.current.image_state.mask.brush_size = 5
    hand.stroke((20, 10), (20, 50))
    mine = session.navigator.current.mask(0)
    hand.key(Qt.Key.Key_D)
    ready(session)
    hand.key(Qt.Key.Key_K)
    ready(session)

    # The second one sees neither the labels nor the mask, and no model that has
    # learned from them.
    monkeypatch.setattr(QInputDialog, "getText", lambda *a: ("Dr Beta", True))
    become(panel, session, ready, "Another reader…")
    assert page.title.text() == "project · Dr Beta"
    assert page.progress.text() == "0 of 2 labelled"
    assert name(session) == "q0"
    assert session.training.session is None
    assert not panel.finetune_fold.isVisible()
    assert len(viewer.layers) == 3
    seen = session.navigator.current.mask(0)
    assert not np.array_equal(seen, mine)
    assert not session.navigator.current.labels
    hand = Reader(viewer, panel)
    hand.key(Qt.Key.Key_P)
    session.navigator.current.image_state.mask.brush_size = 5
    hand.stroke((45, 10), (45, 50))
    theirs = session.navigator.current.mask(0)
    hand.key(Qt.Key.Key_K)
    ready(session)
    assert page.progress.text() == "1 of 2 labelled"
    assert len(session.project.reference.waiting()) == 1

    # The reviewer: first the image where the two differ.
    become(panel, session, ready, "Reviewer")
    assert name(session) == "q0"
    box = page.review
    assert box.isVisible()
    assert box.text.text().startswith("Dice 0.")
    assert [b.text() for b in box.use.values()] == ["&1 first reader", "&2 Dr Beta"]
    opened = session.navigator.current
    np.testing.assert_array_equal(opened.mask(0), mine)
    layer = viewer.layers[LAYER]
    np.testing.assert_array_equal(layer.data == 1, mine & ~theirs)
    np.testing.assert_array_equal(layer.data == 2, theirs & ~mine)
    picture(panel.window(), "reviewer")
    for press, mask in (
        (box.use[session.project.reader_code("Dr Beta")], theirs),
        (box.common, mine & theirs),
        (box.all, mine | theirs),
    ):
        QTest.mouseClick(press, LEFT)
        np.testing.assert_array_equal(opened.mask(0), mask)
    # By the keyboard: 1 is the first reader; undo brings the merged mask back.
    box.use[""].setFocus()
    QTest.keyClick(box.use[""], Qt.Key.Key_Space)
    np.testing.assert_array_equal(opened.mask(0), mine)
    opened.image_state.undo()
    np.testing.assert_array_equal(opened.mask(0), mine | theirs)
    hand.key(Qt.Key.Key_K)
    ready(session)
    assert page.progress.text() == "1 of 2 decided"
    with Project.open(tmp_path / "project", read_only=True) as project:
        assert project.reference.waiting() == set()
        np.testing.assert_array_equal(
            project.reference.get(image, 0).mask, mine | theirs
        )
        np.testing.assert_array_equal(project.labels.get(image, 0).mask, mine)

    menu.fill()
    (action,) = [a for a in menu.actions() if a.text() == "Agreement of readers…"]
    action.trigger()
    ready(session)
    (dialog,) = panel.findChildren(AgreementDialog)
    table = dialog.table.toPlainText()
    assert table.splitlines()[0] == "first reader and Dr Beta"
    assert table.splitlines()[2].split()[:2] == ["q0", "0"]
    assert table.splitlines()[2].endswith("decided")
    picture(dialog, "agreement")
    QTest.mouseClick(dialog.close_button, LEFT)

    # The other image has one label: it is rejected with a reason.
    hand.key(Qt.Key.Key_N)
    ready(session)
    assert name(session) == "q1"
    assert box.text.text().startswith("Label of first reader.")
    assert not box.common.isVisible()
    assert LAYER not in viewer.layers
    monkeypatch.setattr(review, "ask_text", lambda *a: ("a catheter", True))
    QTest.mouseClick(box.reject[""], LEFT)
    ready(session)
    panel.refresh()
    assert not box.isVisible()
    become(panel, session, ready, "First reader")
    assert page.title.text() == "project"
    assert not page.review.isVisible()
    assert page.progress.text() == "1 of 2 labelled"
    assert name(session) == "q1"
    assert page.label.text() == (
        "Rejected by the reviewer: a catheter. Mend it and accept it again."
    )
    picture(panel.window(), "rejected")
    hand.key(Qt.Key.Key_K)
    ready(session)
    assert page.label.text().startswith("Accepted")


def test_who_read_last_goes_on(loop, ready, monkeypatch, tmp_path):
    _, panel, session, _ = loop
    monkeypatch.setattr(QInputDialog, "getText", lambda *a: ("B&B", True))
    become(panel, session, ready, "Another reader…")
    folder, code = session.project.folder, session.project.reader
    session.close()
    ready(session)
    session.open(folder)
    ready(session)
    assert session.project.reader == code
    menu = panel.project_section.readers
    menu.fill()
    assert [a.text() for a in menu.actions() if a.isChecked()] == ["B&&B"]
    # Without a name nothing happens.
    monkeypatch.setattr(QInputDialog, "getText", lambda *a: (" ", True))
    become(panel, session, ready, "Another reader…")
    assert session.project.reader == code
    become(panel, session, ready, "Reviewer")
    assert session.project.reader == REVIEWER


def test_a_second_reader_gets_no_model_that_learned_from_the_first(
    project, make_model_for
):
    made = project.project
    assert model_in_use(made) == ("cmunet-artery", "")
    make_model_for(made, "tuned-001")
    made.models.promote("tuned-001")
    assert model_in_use(made)[0].endswith("tuned-001")
    folder = made.folder
    made.close()
    for reader, used in (("01234567", "cmunet-artery"), (REVIEWER, "tuned-001")):
        with Project.open(folder, reader=reader) as made:
            assert model_in_use(made)[0].rpartition("/")[2] == used


def test_the_first_reader_has_a_name_on_this_computer(loop, ready, monkeypatch):
    _, panel, session, _ = loop
    monkeypatch.setattr(QInputDialog, "getText", lambda *a: ("Dr Alpha", True))
    become(panel, session, ready, "Name of the first reader…")
    menu = panel.project_section.readers
    menu.fill()
    assert menu.actions()[0].text() == "Dr Alpha"
    assert panel.project_section.page.title.text() == "project"
    assert not [
        p
        for p in session.project.folder.rglob("*")
        if p.is_file() and p.name != "lock" and b"Alpha" in p.read_bytes()
    ]
