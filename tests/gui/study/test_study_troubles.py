"""What goes wrong is said with a way out, and no stroke is lost in silence."""

from __future__ import annotations

import errno
import os
import shutil

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_cmunet.errors import WriteError
from napari_cmunet.gui.study.opening_job import NewStudy
from napari_cmunet.gui.study.section_state import describe_study
from napari_cmunet.study.study import Study
from tests.gui.study.conftest import name, stroke


def way(reader, text: str):
    """Press one of a notice's buttons."""
    ways = {w.text: w for w in reader.notice.ways}
    ways[text].act()


@pytest.fixture
def elsewhere(study, ready, make_controller, make_reader):
    """The same study, open in another window."""
    window = ViewerModel()
    other = make_reader(make_controller(window))
    other.open(study.study.folder)
    ready(other)
    yield other
    assert window is other.controller.viewer


def test_a_locked_study_can_be_read(study, elsewhere, ready):
    assert elsewhere.study is None
    assert "is open in a program on this computer" in elsewhere.notice.text
    way(elsewhere, "Open for reading")
    ready(elsewhere)
    state = describe_study(elsewhere)
    assert state.progress == "0 of 5 labelled (read only)"
    assert not state.can_accept
    assert not state.can_mark
    assert "not kept" in state.label
    elsewhere.accepting.accept()
    ready(elsewhere)
    assert elsewhere.message == "The study is open for reading only."
    elsewhere.browsing.next()
    ready(elsewhere)
    assert name(elsewhere) == "p1"


def test_a_study_on_a_disk_that_can_only_be_read(study, ready, monkeypatch):
    """The only way out was to close the notice."""
    folder = study.study.folder
    study.close()
    ready(study)
    real = os.open

    def refuse(path, flags, *args, **kwargs):
        if flags & (os.O_WRONLY | os.O_RDWR) and str(path).startswith(str(folder)):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    study.open(folder)
    ready(study)
    assert study.study is None
    assert "the disk is read-only" in study.notice.text
    way(study, "Open for reading")
    ready(study)
    assert study.study.read_only
    assert study.notice is None


def test_strokes_in_a_study_that_is_only_read_are_not_dropped_in_silence(
    study, elsewhere, ready
):
    way(elsewhere, "Open for reading")
    ready(elsewhere)
    stroke(elsewhere)
    mine = elsewhere.browsing.current.mask(0)
    elsewhere.browsing.next()
    ready(elsewhere)
    assert name(elsewhere) == "p0"
    assert "cannot be saved" in elsewhere.notice.text
    np.testing.assert_array_equal(elsewhere.browsing.current.mask(0), mine)
    way(elsewhere, "Leave without them")
    ready(elsewhere)
    assert name(elsewhere) == "p1"
    assert elsewhere.notice is None


def test_taking_over(study, elsewhere, ready):
    way(elsewhere, "Take over")
    ready(elsewhere)
    elsewhere.accepting.accept()
    ready(elsewhere)
    assert elsewhere.overview.progress.labelled == 1
    # The first window writes no more, says so, and keeps what was drawn there.
    stroke(study)
    mine = study.browsing.current.mask(0)
    study.accepting.accept()
    ready(study)
    assert "was taken over" in study.notice.text
    np.testing.assert_array_equal(study.browsing.current.mask(0), mine)
    study.browsing.next()
    ready(study)
    assert name(study) == "p0"
    assert "cannot be saved" in study.notice.text
    with Study.open(elsewhere.study.folder, read_only=True) as seen:
        assert seen.progress().labelled == 1


def full(*_args, **_options):
    raise WriteError("frame_0000.tif", "the disk is full. Free some space.")


def test_a_full_disk(study, ready, monkeypatch):
    stroke(study)
    mine = study.browsing.current.mask(0)
    with monkeypatch.context() as patched:
        patched.setattr(study.study.labels, "accept", full)
        patched.setattr(study.study.drafts, "save", full)
        study.accepting.accept()
        ready(study)
        assert "Not accepted" in study.notice.text
        assert "the disk is full" in study.notice.text
        assert not describe_study(study).saved
        study.browsing.next()
        ready(study)
        assert name(study) == "p0"
        study.close()
        ready(study)
        assert study.study is not None
        assert "disk is full" in describe_study(study).label
    np.testing.assert_array_equal(study.browsing.current.mask(0), mine)
    study.accepting.accept()
    ready(study)
    assert describe_study(study).saved
    assert study.notice is None
    study.browsing.next()
    ready(study)
    assert name(study) == "p1"


def test_trying_again_to_save_goes_on(study, ready, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(study.study.drafts, "save", full)
        stroke(study)
        study.browsing.next()
        ready(study)
        assert name(study) == "p0"
    way(study, "Try again")
    ready(study)
    assert name(study) == "p1"
    assert len(study.study.drafts.keys()) == 1


def test_images_that_lie_elsewhere_are_asked_for(study, ready, pictures, tmp_path):
    stroke(study)
    study.accepting.accept()
    study.browsing.next()
    ready(study)
    study.close()
    ready(study)
    pictures.rename(tmp_path / "moved")
    study.open(tmp_path / "study")
    ready(study)
    assert "5 of 5 images" in study.notice.text or "p1 is not" in study.notice.text
    asked = []
    study.images_wanted.connect(lambda: asked.append(True))
    study.browsing.go(study.overview.ids[1])
    ready(study)
    way(study, "Show the folder…")
    assert asked
    study.relink(tmp_path)
    ready(study)
    assert study.notice is None
    assert "All images are there again" in study.message
    assert name(study) == "p1"


def test_a_folder_without_the_images(study, ready, pictures, tmp_path):
    study.close()
    ready(study)
    pictures.rename(tmp_path / "moved")
    (tmp_path / "nothing").mkdir()
    study.open(tmp_path / "study")
    ready(study)
    study.relink(tmp_path / "nothing")
    ready(study)
    assert "images are not where the study looks" in study.notice.text
    shutil.move(tmp_path / "moved", pictures)
    study.browsing.retry()
    ready(study)
    assert name(study) == "p0"


def test_one_bad_image_does_not_stop_the_others(
    reader, pictures, tmp_path, ready, qtbot
):
    (pictures / "p1.npy").write_bytes(b"\x93NUMPY nonsense")
    reader.create(NewStudy(tmp_path / "study", (pictures,)))
    ready(reader)
    reader.accepting.accept()
    reader.browsing.next()
    ready(reader)
    assert "p1 cannot be opened" in reader.notice.text
    assert name(reader) == "p0"
    way(reader, "Next image")
    ready(reader)
    assert name(reader) == "p2"
    assert reader.notice is None


def test_an_image_that_cannot_be_opened_can_be_skipped(
    reader, pictures, tmp_path, ready
):
    (pictures / "p1.npy").write_bytes(b"\x93NUMPY nonsense")
    reader.create(NewStudy(tmp_path / "study", (pictures,)))
    ready(reader)
    reader.browsing.next()
    ready(reader)
    way(reader, "Skip it")
    ready(reader)
    states = {
        reader.overview.name(i): reader.overview.status(i).state
        for i in reader.overview.ids
    }
    assert states["p1"] == "skipped"
    assert states["p0"] == "unseen"  # that was open all the time
    assert name(reader) == "p2"


def test_a_damaged_study_can_be_saved(study, ready, tmp_path):
    study.accepting.accept()
    ready(study)
    study.close()
    ready(study)
    (tmp_path / "study" / "images.jsonl").write_bytes(b"{nonsense\n")
    study.open(tmp_path / "study")
    ready(study)
    assert study.study is None
    way(study, "Save what can be saved")
    ready(study)
    assert study.study is not None
    assert study.overview.progress.labelled == 1


def test_no_study(reader, ready, tmp_path):
    (tmp_path / "empty").mkdir()
    reader.open(tmp_path / "empty")
    ready(reader)
    assert "is no study" in reader.notice.text
    way(reader, "Close")
    assert reader.notice is None


def test_the_study_s_folder_is_gone(study, ready, tmp_path):
    stroke(study)
    shutil.move(tmp_path / "study", tmp_path / "away")
    study.accepting.accept()
    ready(study)
    assert "Not accepted" in study.notice.text
    shutil.move(tmp_path / "away", tmp_path / "study")
    way(study, "Try again")
    ready(study)
    assert describe_study(study).saved


def test_closing_the_panel_keeps_the_study_and_its_strokes(
    study, controller, viewer, make_controller, make_reader, ready, qtbot
):
    image = study.browsing.current.id
    stroke(study)
    study.detach()
    controller.detach()
    # Without a panel, strokes are saved all the same.
    stroke(study, 20, 20)
    mine = study.browsing.current.mask(0)
    qtbot.waitUntil(lambda: study.browsing.keeper.saved and study.writer.idle)
    np.testing.assert_array_equal(study.study.drafts.load(image, 0).mask, mine)
    other = make_controller()
    again = make_reader(other)
    assert again is study
    ready(again)
    assert other.active is again.browsing.current.reading
    assert describe_study(again).can_accept
    again.accepting.accept()
    again.browsing.next()
    ready(again)
    assert name(again) == "p1"
    assert len(viewer.layers) == 3


def test_layers_that_go_while_the_panel_is_closed(
    study, controller, viewer, make_controller, make_reader, ready, qtbot
):
    stroke(study)
    image, mine = study.browsing.current.id, study.browsing.current.mask(0)
    study.detach()
    controller.detach()
    viewer.layers.clear()
    again = make_reader(make_controller())
    ready(again)
    assert "was closed" in describe_study(again).label
    again.browsing.go(image)
    ready(again)
    np.testing.assert_array_equal(again.browsing.current.mask(0), mine)


def test_closing_the_panel_while_an_image_is_opened(
    study, controller, viewer, make_controller, make_reader, ready, qtbot
):
    study.accepting.accept()
    study.browsing.next()
    study.detach()
    controller.detach()
    qtbot.wait(200)
    again = make_reader(make_controller())
    ready(again)
    assert again.overview.progress.labelled == 1
    again.browsing.next()
    ready(again)
    assert len(viewer.layers) == 3


def test_shutting_writes_what_is_left(study, tmp_path):
    stroke(study)
    image, mine = study.browsing.current.id, study.browsing.current.mask(0)
    study.shut()
    study.shut()
    with Study.open(tmp_path / "study") as again:
        np.testing.assert_array_equal(again.drafts.load(image, 0).mask, mine)


def test_cancelling_a_new_study(reader, pictures, tmp_path, ready):
    reader.create(NewStudy(tmp_path / "study", (pictures,)))
    reader.job.cancel()
    ready(reader)
    assert reader.study is None or len(reader.overview.ids) == 5
