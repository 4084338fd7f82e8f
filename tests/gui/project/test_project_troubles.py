"""What goes wrong is said with a way out, and no stroke is lost in silence."""

from __future__ import annotations

import errno
import os
import shutil

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image

from napari_cmunet.errors import WriteError
from napari_cmunet.gui.project.actions import ProjectActions
from napari_cmunet.gui.project.section_state import describe_project
from napari_cmunet.gui.project.workspace import NewProject
from napari_cmunet.project.project import Project
from tests.gui.conftest import frame
from tests.gui.project.conftest import name, stroke


def way(session, text: str):
    """Press one of a alert's buttons."""
    actions = {w.text: w for w in session.messages.alert.actions}
    actions[text].act()


@pytest.fixture
def elsewhere(project, ready, make_controller, make_session):
    """The same project, open in another window."""
    window = ViewerModel()
    other = make_session(make_controller(window))
    other.open(project.project.folder)
    ready(other)
    yield other
    assert window is other.controller.viewer


@pytest.mark.slow
def test_a_locked_project_can_be_read(project, elsewhere, ready):
    assert elsewhere.project is None
    assert "is open in a program on this computer" in elsewhere.messages.alert.text
    way(elsewhere, "Open for reading")
    ready(elsewhere)
    state = describe_project(elsewhere)
    assert state.progress == "0 of 5 labelled (read only)"
    assert not state.can_accept
    assert not state.can_flag
    assert "not kept" in state.label
    elsewhere.annotation.accept()
    ready(elsewhere)
    assert elsewhere.messages.text == "The project is open for reading only."
    elsewhere.navigator.next()
    ready(elsewhere)
    assert name(elsewhere) == "p1"


def test_a_project_on_a_disk_that_can_only_be_read(project, ready, monkeypatch):
    """The only way out was to close the alert."""
    folder = project.project.folder
    project.close()
    ready(project)
    real = os.open

    def refuse(path, flags, *args, **kwargs):
        if flags & (os.O_WRONLY | os.O_RDWR) and str(path).startswith(str(folder)):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    project.open(folder)
    ready(project)
    assert project.project is None
    assert "the disk is read-only" in project.messages.alert.text
    way(project, "Open for reading")
    ready(project)
    assert project.project.read_only
    assert project.messages.alert is None


@pytest.mark.slow
def test_strokes_in_a_project_that_is_only_read_are_not_dropped_in_silence(
    project, elsewhere, ready
):
    way(elsewhere, "Open for reading")
    ready(elsewhere)
    stroke(elsewhere)
    mine = elsewhere.navigator.current.mask(0)
    elsewhere.navigator.next()
    ready(elsewhere)
    assert name(elsewhere) == "p0"
    assert "cannot be saved" in elsewhere.messages.alert.text
    np.testing.assert_array_equal(elsewhere.navigator.current.mask(0), mine)
    way(elsewhere, "Leave without them")
    ready(elsewhere)
    assert name(elsewhere) == "p1"
    assert elsewhere.messages.alert is None


@pytest.mark.slow
def test_taking_over(project, elsewhere, ready):
    way(elsewhere, "Take over")
    ready(elsewhere)
    elsewhere.annotation.accept()
    ready(elsewhere)
    assert elsewhere.overview.progress.labelled == 1
    # The first window writes no more, says so, and keeps what was drawn there.
    stroke(project)
    mine = project.navigator.current.mask(0)
    project.annotation.accept()
    ready(project)
    assert "was taken over" in project.messages.alert.text
    np.testing.assert_array_equal(project.navigator.current.mask(0), mine)
    project.navigator.next()
    ready(project)
    assert name(project) == "p0"
    assert "cannot be saved" in project.messages.alert.text
    with Project.open(elsewhere.project.folder, read_only=True) as seen:
        assert seen.progress().labelled == 1


def full(*_args, **_options):
    raise WriteError("frame_0000.tif", "the disk is full. Free some space.")


@pytest.mark.slow
def test_a_full_disk(project, ready, monkeypatch):
    stroke(project)
    mine = project.navigator.current.mask(0)
    with monkeypatch.context() as patched:
        patched.setattr(project.project.labels, "accept", full)
        patched.setattr(project.project.drafts, "save", full)
        project.annotation.accept()
        ready(project)
        assert "Not accepted" in project.messages.alert.text
        assert "the disk is full" in project.messages.alert.text
        assert not describe_project(project).saved
        project.navigator.next()
        ready(project)
        assert name(project) == "p0"
        project.close()
        ready(project)
        assert project.project is not None
        assert "disk is full" in describe_project(project).label
    np.testing.assert_array_equal(project.navigator.current.mask(0), mine)
    project.annotation.accept()
    ready(project)
    assert describe_project(project).saved
    assert project.messages.alert is None
    project.navigator.next()
    ready(project)
    assert name(project) == "p1"


def test_trying_again_to_save_goes_on(project, ready, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(project.project.drafts, "save", full)
        stroke(project)
        project.navigator.next()
        ready(project)
        assert name(project) == "p0"
    way(project, "Try again")
    ready(project)
    assert name(project) == "p1"
    assert len(project.project.drafts.keys()) == 1


@pytest.mark.slow
def test_images_that_lie_elsewhere_are_asked_for(project, ready, pictures, tmp_path):
    stroke(project)
    project.annotation.accept()
    project.navigator.next()
    ready(project)
    project.close()
    ready(project)
    pictures.rename(tmp_path / "moved")
    project.open(tmp_path / "project")
    ready(project)
    assert (
        "5 of 5 images" in project.messages.alert.text
        or "p1 is not" in project.messages.alert.text
    )
    asked = []
    project.images_wanted.connect(lambda: asked.append(True))
    project.navigator.go(project.overview.ids[1])
    ready(project)
    way(project, "Show the folder…")
    assert asked
    project.relink(tmp_path)
    ready(project)
    assert project.messages.alert is None
    assert "All images are there again" in project.messages.text
    assert name(project) == "p1"


@pytest.mark.slow
def test_a_folder_without_the_images(project, ready, pictures, tmp_path):
    project.close()
    ready(project)
    pictures.rename(tmp_path / "moved")
    (tmp_path / "nothing").mkdir()
    project.open(tmp_path / "project")
    ready(project)
    project.relink(tmp_path / "nothing")
    ready(project)
    assert "images are not where the project looks" in project.messages.alert.text
    shutil.move(tmp_path / "moved", pictures)
    project.navigator.retry()
    ready(project)
    assert name(project) == "p0"


@pytest.mark.slow
def test_one_bad_image_does_not_stop_the_others(
    session, pictures, tmp_path, ready, qtbot
):
    (pictures / "p1.npy").write_bytes(b"\x93NUMPY nonsense")
    session.create(NewProject(tmp_path / "project", (pictures,)))
    ready(session)
    session.annotation.accept()
    session.navigator.next()
    ready(session)
    assert "p1 cannot be opened" in session.messages.alert.text
    assert name(session) == "p0"
    way(session, "Next image")
    ready(session)
    assert name(session) == "p2"
    assert session.messages.alert is None


@pytest.mark.slow
def test_an_image_that_cannot_be_opened_can_be_skipped(
    session, pictures, tmp_path, ready
):
    (pictures / "p1.npy").write_bytes(b"\x93NUMPY nonsense")
    session.create(NewProject(tmp_path / "project", (pictures,)))
    ready(session)
    session.navigator.next()
    ready(session)
    way(session, "Skip it")
    ready(session)
    states = {
        session.overview.name(i): session.overview.status(i).state
        for i in session.overview.ids
    }
    assert states["p1"] == "skipped"
    assert states["p0"] == "unseen"  # that was open all the time
    assert name(session) == "p2"


@pytest.mark.slow
def test_a_damaged_project_can_be_saved(project, ready, tmp_path):
    project.annotation.accept()
    ready(project)
    project.close()
    ready(project)
    (tmp_path / "project" / "images.jsonl").write_bytes(b"{nonsense\n")
    project.open(tmp_path / "project")
    ready(project)
    assert project.project is None
    way(project, "Save what can be saved")
    ready(project)
    assert project.project is not None
    assert project.overview.progress.labelled == 1


def test_no_project(session, ready, tmp_path):
    (tmp_path / "empty").mkdir()
    session.open(tmp_path / "empty")
    ready(session)
    assert "is not a project" in session.messages.alert.text
    way(session, "Close")
    assert session.messages.alert is None


def test_the_project_s_folder_is_gone(project, ready, tmp_path):
    stroke(project)
    shutil.move(tmp_path / "project", tmp_path / "away")
    project.annotation.accept()
    ready(project)
    assert "Not accepted" in project.messages.alert.text
    shutil.move(tmp_path / "away", tmp_path / "project")
    way(project, "Try again")
    ready(project)
    assert describe_project(project).saved


@pytest.mark.slow
def test_closing_the_panel_keeps_the_project_and_its_strokes(
    project, controller, viewer, make_controller, make_session, ready, qtbot
):
    image = project.navigator.current.id
    stroke(project)
    project.disconnect_panel()
    controller.disconnect()
    # Without a panel, strokes are saved all the same.
    stroke(project, 20, 20)
    mine = project.navigator.current.mask(0)
    qtbot.waitUntil(
        lambda: project.navigator.draft_saver.saved and project.workspace.writer.idle
    )
    np.testing.assert_array_equal(project.project.drafts.load(image, 0).mask, mine)
    other = make_controller()
    again = make_session(other)
    assert again is project
    ready(again)
    assert other.active is again.navigator.current.image_state
    assert describe_project(again).can_accept
    again.annotation.accept()
    again.navigator.next()
    ready(again)
    assert name(again) == "p1"
    assert len(viewer.layers) == 3


@pytest.mark.slow
def test_layers_that_go_while_the_panel_is_closed(
    project, controller, viewer, make_controller, make_session, ready, qtbot
):
    stroke(project)
    image, mine = project.navigator.current.id, project.navigator.current.mask(0)
    project.disconnect_panel()
    controller.disconnect()
    viewer.layers.clear()
    again = make_session(make_controller())
    ready(again)
    assert "was closed" in describe_project(again).label
    again.navigator.go(image)
    ready(again)
    np.testing.assert_array_equal(again.navigator.current.mask(0), mine)


@pytest.mark.slow
def test_closing_the_panel_while_an_image_is_opened(
    project, controller, viewer, make_controller, make_session, ready, qtbot
):
    project.annotation.accept()
    project.navigator.next()
    project.disconnect_panel()
    controller.disconnect()
    qtbot.wait(200)
    again = make_session(make_controller())
    ready(again)
    assert again.overview.progress.labelled == 1
    again.navigator.next()
    ready(again)
    assert len(viewer.layers) == 3


def test_shutting_writes_what_is_left(project, tmp_path):
    stroke(project)
    image, mine = project.navigator.current.id, project.navigator.current.mask(0)
    project.close_window()
    project.close_window()
    with Project.open(tmp_path / "project") as again:
        np.testing.assert_array_equal(again.drafts.load(image, 0).mask, mine)


def test_cancelling_a_new_project(session, pictures, tmp_path, ready):
    session.create(NewProject(tmp_path / "project", (pictures,)))
    session.job.cancel()
    ready(session)
    assert session.project is None or len(session.overview.ids) == 5


def test_what_was_to_follow_comes_after_a_question(project, elsewhere, ready):
    done = []
    elsewhere.open(project.project.folder, lambda: done.append(elsewhere.project))
    ready(elsewhere)
    assert not done
    way(elsewhere, "Take over")
    ready(elsewhere)
    assert done == [elsewhere.project]


def test_an_image_of_no_project_can_be_added(project, ready, tmp_path):
    file = tmp_path / "other.npy"
    np.save(file, frame(8))
    project.controller.images.add([(file, Image(frame(8), name="other"))])
    ready(project)
    state = describe_project(project)
    assert state.other_is_selected
    assert state.label == (
        "other is selected, not the project's image p0. Go back, or add it."
    )
    project.annotation.accept()
    assert project.messages.text == state.label
    project.annotation.go_back()
    assert not describe_project(project).other_is_selected
    project.controller.show_image(project.controller.image_states[-1])
    mine = project.controller.active
    mine.mask.paint((9, 9), 1)
    drawn = mine.mask.data.copy()
    for _ in range(2):  # the second time it is in the project already
        ProjectActions(project, None, list).add_selected()
        ready(project)
        assert len(project.overview.ids) == 6
        assert name(project) == "other"
        assert describe_project(project).can_accept
        assert project.controller.active is mine
        np.testing.assert_array_equal(mine.mask.data, drawn)


def test_an_image_of_no_file_cannot_be_added(project, ready, viewer):
    viewer.add_image(frame(8), name="made")
    ready(project)
    ProjectActions(project, None, list).add_selected()
    assert "come from no file" in project.messages.alert.text
    assert len(project.overview.ids) == 5
