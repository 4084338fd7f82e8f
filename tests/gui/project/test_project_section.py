"""The project's part of the panel: what is shown, and what its buttons do."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QAbstractButton, QFileDialog, QLabel, QLineEdit, QScrollArea

from napari_cmunet.gui.images.layers import is_inverted
from napari_cmunet.gui.panel import CMUNetPanel
from napari_cmunet.gui.project.images.image_list import ImageModel, draw_icon
from napari_cmunet.gui.project.new_project_dialog import (
    NewProjectDialog,
    free_folder,
    suggested_folder,
)
from napari_cmunet.gui.project.workspace import NewProject
from napari_cmunet.io.masks.files import write_mask
from napari_cmunet.io.provenance import Provenance
from napari_cmunet.project.project import Project
from tests.gui.conftest import frame
from tests.gui.project.conftest import name, stroke

LEFT = Qt.MouseButton.LeftButton


@pytest.fixture
def panel(qtbot, viewer, controller, session) -> CMUNetPanel:
    made = CMUNetPanel(viewer, controller=controller)
    qtbot.addWidget(made)
    assert made.project is session
    return made


@pytest.fixture
def page(panel, project):
    panel.refresh()
    return panel.project_section.page


def folders(monkeypatch, *answers):
    """Answer the folder dialogs, one after the other."""
    left = [str(answer) for answer in answers]
    monkeypatch.setattr(
        QFileDialog, "getExistingDirectory", lambda *a, **k: left.pop(0)
    )


def test_at_first_it_offers_a_folder(panel):
    section = panel.project_section
    assert not section.start.isHidden()
    assert section.page.isHidden()
    assert section.start.new.isEnabled()
    assert not section.start.these.isEnabled()


@pytest.mark.slow
def test_from_a_folder_to_the_first_label(
    qtbot, panel, session, ready, pictures, monkeypatch, tmp_path
):
    folders(monkeypatch, pictures)
    dialogs = []

    def answer(dialog):
        dialogs.append(dialog)
        qtbot.waitUntil(dialog.ok.isEnabled)
        return True

    monkeypatch.setattr(NewProjectDialog, "exec", answer)
    qtbot.mouseClick(panel.project_section.start.new, LEFT)
    ready(session)
    (dialog,) = dialogs
    assert dialog.images.text() == "5 in pictures"
    assert session.project.folder == tmp_path / "pictures project"
    panel.refresh()
    page = panel.project_section.page
    assert not page.isHidden()
    assert page.accept.text() == "&Accept the mask   [K]"
    qtbot.mouseClick(page.accept, LEFT)
    ready(session)
    panel.refresh()
    assert page.progress.text() == "1 of 5 labelled"
    assert "N opens the next image" in panel.status.text()
    # Not the default of the command line: so the project says it.
    assert session.project.settings.start == "cmunet-artery"
    assert page.label.text().startswith("Accepted at")
    assert page.bar.value() == 1
    assert panel.status.text() == "This mask is a label now. N opens the next image."
    qtbot.mouseClick(page.next, LEFT)
    ready(session)
    panel.refresh()
    assert page.name.text() == "Image 2 of 5 · p1"
    # The same folder again: its project is offered.
    session.close()
    ready(session)
    folders(monkeypatch, pictures)
    qtbot.mouseClick(panel.project_section.start.new, LEFT)
    panel.refresh()
    box = panel.project_section.alert
    assert "a project of this folder already" in box.text.text()
    buttons = {b.text(): b for b in box.findChildren(QAbstractButton)}
    qtbot.mouseClick(buttons["Open it"], LEFT)
    ready(session)
    assert name(session) == "p1"
    panel.refresh()
    assert box.isHidden()


@pytest.mark.slow
def test_a_project_of_the_images_that_are_open(
    qtbot, panel, session, controller, viewer, settled, ready, pictures, monkeypatch
):
    viewer.add_image(frame(0), name="p0")
    viewer.add_image(frame(1), name="from memory")
    settled(controller)
    panel.refresh()
    monkeypatch.setattr(
        NewProjectDialog,
        "exec",
        lambda dialog: qtbot.waitUntil(dialog.ok.isEnabled) or True,
    )
    qtbot.mouseClick(panel.project_section.start.these, LEFT)
    panel.refresh()
    assert "come from no file" in panel.project_section.alert.text.text()
    session.messages.dismiss()
    controller.image_states[0].file = pictures / "p0.npy"
    qtbot.mouseClick(panel.project_section.start.these, LEFT)
    ready(session)
    assert session.overview.progress.images == 1
    assert name(session) == "p0"
    assert len(viewer.layers) == 6


@pytest.mark.slow
def test_the_list_goes_anywhere(qtbot, page, project, ready, panel):
    panel.show()
    qtbot.waitExposed(panel)
    index = page.list.model().index(3)
    page.list.scrollTo(index)
    at = page.list.visualRect(index).center()
    qtbot.mouseClick(page.list.viewport(), LEFT, pos=at)
    ready(project)
    assert name(project) == "p3"
    project.annotation.flag()
    project.annotation.comment(project.navigator.current.id, "two views")
    project.annotation.accept()
    ready(project)
    panel.refresh()
    assert page.list.currentIndex().row() == 3
    assert index.data() == "4  p3  (two views)"
    assert index.data(Qt.ItemDataRole.ToolTipRole) == (
        "Has a label, flagged: two views"
    )
    assert not page.list.hasFocus()


def test_the_states_have_icons_that_differ(qapp):
    pictures = {
        (state, flagged): draw_icon(state, flagged, QColor("white"))
        .pixmap(32, 16)
        .toImage()
        for state in ("labelled", "skipped", "unseen")
        for flagged in (False, True)
    }
    images = list(pictures.values())
    assert all(a != b for n, a in enumerate(images) for b in images[:n])


@pytest.mark.slow
def test_the_icons_take_the_colour_of_another_theme_at_once(qtbot, panel, page):
    panel.show()
    qtbot.waitExposed(panel)

    def lightness() -> float:
        image = page.list.model().index(0).data(Qt.ItemDataRole.DecorationRole)
        drawn = image.pixmap(32, 16).toImage()
        pixels = [drawn.pixelColor(x, y) for x in range(32) for y in range(16)]
        return np.mean([p.lightness() for p in pixels if p.alpha() > 64])

    panel.setStyleSheet("QWidget { color: #f0f1f2; }")
    assert lightness() > 200
    drawn_again = []
    page.list.model().dataChanged.connect(lambda *_: drawn_again.append(1))
    panel.setStyleSheet("QWidget { color: #3b3a39; }")
    assert drawn_again
    assert lightness() < 80


def test_a_list_of_many_images_is_quick(qtbot):
    from time import perf_counter

    from napari_cmunet.gui.project.workspace import Change, Overview
    from napari_cmunet.project.flags import ImageStatus, ProjectProgress

    ids = tuple(f"{n:012x}" for n in range(5000))
    overview = Overview(ids, {i: i for i in ids}, {}, ProjectProgress(5000, 0, 0, 0))
    model = ImageModel(QColor("white"))
    model.show(overview)
    change = Change(
        ids[7], ImageStatus("labelled", (0,), False, ""), ProjectProgress(5000, 1, 0, 0)
    )
    told = []
    model.dataChanged.connect(lambda first, last: told.append(first.row()))
    started = perf_counter()
    model.show(overview.after(change))
    assert perf_counter() - started < 0.1
    assert told == [7]


@pytest.mark.slow
def test_a_comment_belongs_to_the_image_it_was_written_for(
    qtbot, page, project, ready, panel
):
    image = project.navigator.current.id
    page.comment.setFocus()
    qtbot.keyClicks(page.comment, "calcified")
    # The next image is opened before Return was pressed.
    project.navigator.next()
    ready(project)
    panel.refresh()
    ready(project)
    assert project.overview.status(image).comment == "calcified"
    assert page.comment.text() == ""
    assert project.overview.status(project.navigator.current.id).comment == ""


@pytest.mark.slow
def test_the_keys_go_back_to_the_canvas_after_a_comment(
    qtbot, page, project, ready, panel
):
    panel.show()
    qtbot.waitExposed(panel)
    page.accept.setFocus()
    page.comment.setFocus()
    qtbot.keyClicks(page.comment, "lad")
    qtbot.keyClick(page.comment, Qt.Key.Key_Return)
    ready(project)
    assert project.overview.status(project.navigator.current.id).comment == "lad"
    qtbot.waitUntil(lambda: not page.comment.hasFocus())
    page.comment.setFocus()
    qtbot.keyClicks(page.comment, " no")
    qtbot.keyClick(page.comment, Qt.Key.Key_Escape)
    assert page.comment.text() == "lad"
    qtbot.waitUntil(lambda: not page.comment.hasFocus())


@pytest.mark.slow
def test_images_of_one_name_are_told_by_their_folders(
    qtbot, session, ready, tmp_path, panel
):
    for patient in ("a", "b"):
        (tmp_path / "p" / patient).mkdir(parents=True)
        np.save(tmp_path / "p" / patient / "view.npy", frame(ord(patient)))
    session.create(NewProject(tmp_path / "s", (tmp_path / "p",)))
    ready(session)
    assert list(session.overview.names.values()) == ["a/view", "b/view"]


@pytest.mark.slow
def test_marks_by_buttons(qtbot, page, project, ready, panel):
    qtbot.mouseClick(page.flag, LEFT)
    ready(project)
    panel.refresh()
    assert page.flag.isChecked()
    assert page.progress.text() == "0 of 5 labelled, 1 flagged"
    qtbot.mouseClick(page.skip, LEFT)
    ready(project)
    panel.refresh()
    assert page.name.text() == "Image 2 of 5 · p1"
    qtbot.mouseClick(page.previous, LEFT)
    ready(project)
    panel.refresh()
    assert page.skip.isChecked()


@pytest.mark.slow
def test_taking_back_by_button(qtbot, page, project, ready, panel):
    assert not page.back.isEnabled()
    qtbot.mouseClick(page.accept, LEFT)
    ready(project)
    panel.refresh()
    qtbot.mouseClick(page.back, LEFT)
    ready(project)
    panel.refresh()
    assert page.progress.text() == "0 of 5 labelled"


@pytest.mark.slow
def test_a_notice_s_buttons(qtbot, panel, project, ready, monkeypatch):
    def full(*_, **__):
        from napari_cmunet.errors import WriteError

        raise WriteError("draft.tif", "the disk is full.")

    with monkeypatch.context() as patched:
        patched.setattr(project.project.drafts, "save", full)
        stroke(project)
        project.navigator.next()
        ready(project)
    panel.refresh()
    box = panel.project_section.alert
    assert not box.isHidden()
    (again,) = [b for b in box.findChildren(QAbstractButton) if b.text() == "Try again"]
    assert again.toolTip()
    qtbot.mouseClick(again, LEFT)
    ready(project)
    panel.refresh()
    assert box.isHidden()
    assert name(project) == "p1"


def test_in_a_project_the_panel_speaks_of_accepting(panel, page, project):
    assert panel.status.text() == ("Arteries found. Correct the mask, then accept it.")
    assert panel.exporting.saved.isHidden()
    assert panel.image.isHidden()
    assert panel.on_opening.isHidden()


def test_no_flag_for_an_image_that_is_not_looked_at(page, project, ready, panel):
    panel.refresh()
    assert page.flag.isEnabled()
    other = project.controller.viewer.add_image(frame(), name="other")
    ready(project)
    panel.refresh()
    assert project.controller.active.image is other
    assert not page.flag.isEnabled()
    assert not page.skip.isEnabled()
    project.annotation.flag()  # by their keys
    project.annotation.skip()
    ready(project)
    image = project.navigator.current.id
    assert not project.overview.status(image).flagged
    assert project.overview.status(image).state != "skipped"


@pytest.mark.slow
def test_the_list_shows_one_kind(page, project, ready):
    project.annotation.accept()
    ready(project)
    project.navigator.next()
    ready(project)
    project.annotation.flag()
    ready(project)

    def listed(which: str) -> list[int]:
        index = page.filter.findData(which)
        page.filter.setCurrentIndex(index)
        page.filter.activated.emit(index)
        rows = range(len(project.overview.ids))
        return [row for row in rows if not page.list.isRowHidden(row)]

    assert listed("flagged") == [1]
    assert listed("no label") == list(range(1, len(project.overview.ids)))
    assert listed("skipped") == []
    assert listed("all images") == list(range(len(project.overview.ids)))
    assert page.list.height() >= 12 * page.list.sizeHintForRow(0)


@pytest.mark.parametrize("width", [300, 320])
def test_nothing_is_cut(qtbot, panel, page, project, ready, width):
    project.annotation.accept()
    project.annotation.flag()
    project.use_current_model()
    ready(project)
    panel.resize(width, 900)
    panel.show()
    qtbot.waitExposed(panel)
    panel.refresh()
    scroll = panel.findChild(QScrollArea)
    qtbot.waitUntil(lambda: scroll.widget().width() <= scroll.viewport().width())
    qtbot.wait(50)
    for kind in (QAbstractButton, QLabel):
        for widget in panel.project_section.findChildren(kind):
            if not widget.isVisible() or not widget.text():
                continue
            right = widget.mapTo(panel, QPoint(widget.width(), 0)).x()
            assert right <= panel.width(), widget.text()
            if isinstance(widget, QLabel) and widget.wordWrap():
                assert widget.heightForWidth(widget.width()) <= widget.height()


def test_every_control_has_a_tooltip(panel, page):
    for kind in (QAbstractButton, QLineEdit):
        for widget in panel.project_section.findChildren(kind):
            assert widget.toolTip(), widget.objectName() or widget


def test_recent_projects(qtbot, panel, project, ready, tmp_path):
    project.close()
    ready(project)
    menu = panel.project_section.start.recent
    panel.project_section.commands.fill_recent(menu)
    qtbot.waitUntil(lambda: len(menu.actions()) == 3)
    first, _, other = menu.actions()
    assert first.text() == "project"
    assert other.text() == "Another one…"
    first.trigger()
    ready(project)
    assert project.project.folder == tmp_path / "project"


@pytest.mark.slow
def test_further_images(qtbot, panel, project, ready, monkeypatch, tmp_path):
    more = tmp_path / "more"
    more.mkdir()
    np.save(more / "q.npy", frame(20))
    folders(monkeypatch, more)
    panel.project_section.commands.add_images()
    ready(project)
    assert len(project.overview.ids) == 6
    assert project.messages.text == "1 image was added."


def test_what_is_in_use_is_said_in_one_place(panel, project, ready):
    ready(project)
    panel.refresh()
    assert panel.model.model.isHidden()
    assert panel.finetune.version.currentText() == "cmunet-artery"
    project.close()
    ready(project)
    panel.refresh()
    assert not panel.model.model.isHidden()


# -- the form of a new project --------------------------------------------------


@pytest.fixture
def form(qtbot, pictures, tmp_path):
    made = NewProjectDialog([pictures], tmp_path / "s", "cmunet-artery", None)
    qtbot.addWidget(made)
    qtbot.waitUntil(lambda: "Looking" not in made.images.text())
    return made


def test_the_form(form, pictures, tmp_path):
    assert form.ok.isEnabled()
    new = form.new_project()
    assert new == NewProject(tmp_path / "s", (pictures,), None, "cmunet-artery")
    assert form.summary.text() == "5 patients in 5 files."


def test_the_form_counts_no_exported_mask(qtbot, pictures, tmp_path):
    mask = np.zeros((64, 64), bool)
    write_mask(pictures / "mask.tif", mask, Provenance(model="mine"))
    made = NewProjectDialog([pictures], tmp_path / "s", "cmunet-artery", None)
    qtbot.addWidget(made)
    qtbot.waitUntil(lambda: "Looking" not in made.images.text())
    assert made.images.text() == f"5 in {pictures.name}"


def test_the_form_refuses_a_folder_that_cannot_be(form, tmp_path):
    form.folder.setText("")
    assert not form.ok.isEnabled()
    form.folder.setText("relative")
    assert not form.ok.isEnabled()
    Project.create(tmp_path / "there").close()
    form.folder.setText(str(tmp_path / "there"))
    assert not form.ok.isEnabled()
    assert "a project in this folder already" in form.problem.text()
    (tmp_path / "file").write_text("x")
    form.folder.setText(str(tmp_path / "file" / "s"))
    assert not form.ok.isEnabled()
    form.folder.setText(str(tmp_path / "new" / "s"))
    assert form.ok.isEnabled()


def test_the_form_takes_a_list_of_patients(form, tmp_path, monkeypatch):
    table = tmp_path / "patients.csv"
    table.write_text("stem,patient\np0,a\np1,a\np2,b\n")
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *a: (str(table), ""))
    form.patients.setCurrentIndex(form.patients.count() - 1)
    form.patients.activated.emit(form.patients.count() - 1)
    assert form.patients.currentText() == "As in patients.csv"
    assert form.summary.text().startswith("4 patients in 5 files; for instance “a”")
    table.write_text("nonsense")
    form.patients.setCurrentIndex(form.patients.count() - 1)
    form.patients.activated.emit(form.patients.count() - 1)
    assert form.patients.currentIndex() == 0
    assert "patients.csv" in form.summary.text()


def test_a_folder_without_angiograms(qtbot, tmp_path):
    (tmp_path / "empty").mkdir()
    made = NewProjectDialog([tmp_path / "empty"], tmp_path / "s", "m", None)
    qtbot.addWidget(made)
    qtbot.waitUntil(lambda: "No angiogram" in made.images.text())
    assert not made.ok.isEnabled()


def test_where_a_project_is_kept(pictures, tmp_path):
    assert suggested_folder([pictures], "") == tmp_path / "pictures project"
    assert suggested_folder([pictures / "p0.npy"], "") == tmp_path / "pictures project"
    elsewhere = str(tmp_path / "w")
    assert suggested_folder([pictures], elsewhere) == (
        tmp_path / "w" / "pictures project"
    )
    (tmp_path / "x").mkdir()
    assert free_folder(tmp_path / "x") == tmp_path / "x 2"


@pytest.mark.slow
def test_after_the_last_image_nothing_next_is_promised(panel, page, project, ready):
    for _ in range(4):
        project.annotation.skip()
        ready(project)
    project.annotation.accept()
    ready(project)
    panel.refresh()
    assert "no image is left" in panel.status.text()
    assert "N opens" not in panel.status.text()


@pytest.mark.slow
def test_the_review_ends_with_the_acceptance_and_the_next_image_is_seen_whole(
    qtbot, panel, project, ready
):
    camera, review = project.controller.viewer.scene.camera, panel.vessels.review
    whole = camera.zoom
    review.confirm()
    assert review.text
    qtbot.waitUntil(lambda: not review.text.startswith("Looking"), timeout=60_000)
    camera.zoom = 9 * whole
    project.annotation.accept()
    qtbot.waitUntil(lambda: not review.text, timeout=60_000)
    assert camera.zoom == 9 * whole
    project.navigator.next()
    ready(project)
    assert camera.zoom == pytest.approx(whole)


@pytest.mark.slow
def test_an_inversion_is_kept_without_label_or_draft(panel, project, ready):
    panel.refresh()
    image = project.navigator.current.id
    panel.invert.click()
    ready(project)
    assert project.project.is_inverted(image)
    assert not project.project.drafts.keys()
    project.navigator.next()
    ready(project)
    assert not is_inverted(project.navigator.current.image_state.image)
    project.navigator.go(image)
    ready(project)
    assert is_inverted(project.navigator.current.image_state.image)
    panel.refresh()
    panel.invert.click()
    ready(project)
    assert project.project.is_inverted(image) is False
