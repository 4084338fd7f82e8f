"""The loop: open, correct, accept, next, previous, skip, flag, take back, reopen."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from napari_cmunet.gui.project import annotation as annotation
from napari_cmunet.gui.project.images import open_image as clock_module
from napari_cmunet.gui.project.reviewed_area import BOX
from napari_cmunet.gui.project.section_state import describe_project
from napari_cmunet.gui.project.workspace import NewProject
from napari_cmunet.io.masks.files import is_large
from napari_cmunet.io.masks.label_file import read_label
from napari_cmunet.project.annotation_time import AnnotationTime
from napari_cmunet.project.project import Project
from napari_cmunet.vessels.naming import SegmentName
from tests.gui.conftest import cine, expected, frame
from tests.gui.project.conftest import name, stroke


def label_of(session, image: str, at: int = 0):
    return read_label(session.project.folder / "labels" / image / f"frame_{at:04d}.tif")


def journal(session) -> list[str]:
    return [entry.what for entry in session.project.journal()]


def test_a_new_project_opens_its_first_image_pre_segmented(project, viewer):
    assert name(project) == "p0"
    assert [layer.name for layer in viewer.layers] == ["p0", "p0 prediction", "p0 mask"]
    np.testing.assert_array_equal(viewer.layers[0].data, frame(0))
    np.testing.assert_array_equal(viewer.layers[2].data, expected(frame(0)))
    state = describe_project(project)
    assert state.progress == "0 of 5 labelled"
    assert state.place == "Image 1 of 5"
    assert state.can_accept


def test_accepting_writes_what_is_seen_before_the_key_comes_up(project, monkeypatch):
    # Some milliseconds, but this machine may be busy.
    monkeypatch.setattr(annotation, "WAIT_SECONDS", 5)
    stroke(project)
    opened = project.navigator.current
    mask = opened.image_state.mask.data != 0
    accepted = []
    project.annotation.accepted.connect(accepted.append)
    project.annotation.accept()
    # No event was processed since: the key is still down.
    label = label_of(project, opened.id)
    np.testing.assert_array_equal(label.mask, mask)
    assert label.reviewed is None
    assert label.provenance.model == "cmunet-artery"
    assert label.provenance.source_sha256 == opened.sha256
    assert accepted == []


def test_after_accepting(project, ready):
    stroke(project)
    accepted = []
    project.annotation.accepted.connect(accepted.append)
    project.annotation.accept()
    assert describe_project(project).label == "Saving…"
    assert not describe_project(project).can_accept
    ready(project)
    assert accepted == [(project.navigator.current.id, 0)]
    state = describe_project(project)
    assert state.saved
    assert state.label.startswith("Accepted at")
    assert state.progress == "1 of 5 labelled"
    entry = list(project.project.journal())[-2]
    assert entry.what == "accepted"
    assert entry.details["pixels_changed"] == int(
        (project.navigator.current.mask(0) != (expected(frame(0)) != 0)).sum()
    )
    assert 0 <= entry.details["seconds"] < 60
    assert project.annotation.seconds < 1


@pytest.mark.slow
def test_next_opens_the_next_image_without_a_label(project, ready, viewer):
    project.annotation.accept()
    project.navigator.next()
    ready(project)
    assert name(project) == "p1"
    assert [layer.name for layer in viewer.layers] == ["p1", "p1 prediction", "p1 mask"]
    np.testing.assert_array_equal(viewer.layers[2].data, expected(frame(1)))
    project.navigator.previous()
    ready(project)
    assert name(project) == "p0"
    # From p0, which has a label, the next one without.
    project.navigator.next()
    ready(project)
    assert name(project) == "p1"


def test_the_next_image_is_predicted_ahead(project, ready, model, qtbot):
    # The first and, ahead, the second.
    qtbot.waitUntil(lambda: len(model.seen) == 2)
    project.navigator.next()
    assert project.navigator.opening is None or project.navigator.current is not None
    ready(project)
    assert name(project) == "p1"
    qtbot.waitUntil(lambda: len(model.seen) == 3)


def test_every_layer_is_the_same_from_image_to_image(project, ready, viewer):
    layers = list(viewer.layers)
    stroke(project)
    project.annotation.accept()
    project.navigator.next()
    ready(project)
    assert list(viewer.layers) == layers
    mask = project.navigator.current.image_state.mask
    assert mask.mode == "pan_zoom"
    assert not project.navigator.current.image_state.prediction.editable
    # The strokes in the former image are not undone into this one.
    mask.undo()
    np.testing.assert_array_equal(mask.data, expected(frame(1)))
    stroke(project)
    mask.undo()
    np.testing.assert_array_equal(mask.data, expected(frame(1)))


@pytest.mark.slow
def test_all_round(project, ready):
    for number in range(5):
        assert name(project) == f"p{number}"
        project.annotation.accept()
        project.navigator.next()
        ready(project)
    assert "Every image has a label" in project.messages.text
    assert describe_project(project).progress == "5 of 5 labelled"


@pytest.mark.slow
def test_the_last_one_without_a_label(project, ready):
    for _ in range(4):
        project.annotation.accept()
        project.navigator.next()
        ready(project)
    project.navigator.next()
    ready(project)
    assert name(project) == "p4"
    assert project.messages.text == "No other image is left without a label."


def test_a_label_is_shown_again_and_can_be_edited(project, ready):
    stroke(project)
    image = project.navigator.current.id
    mine = project.navigator.current.mask(0)
    project.annotation.accept()
    project.navigator.next()
    ready(project)
    project.navigator.go(image)
    ready(project)
    np.testing.assert_array_equal(project.navigator.current.mask(0), mine)
    assert describe_project(project).saved
    stroke(project, 20, 20)
    assert "has changed since" in describe_project(project).label
    changed = project.navigator.current.mask(0)
    project.annotation.accept()
    ready(project)
    np.testing.assert_array_equal(label_of(project, image).mask, changed)
    assert len(project.project.labels.older(image, 0)) == 1


def test_strokes_that_are_not_accepted_come_back(project, ready, tmp_path):
    stroke(project)
    mine = project.navigator.current.mask(0)
    image = project.navigator.current.id
    project.navigator.next()
    ready(project)
    assert name(project) == "p1"
    assert project.project.drafts.keys() == [(image, 0)]
    project.navigator.go(image)
    ready(project)
    np.testing.assert_array_equal(project.navigator.current.mask(0), mine)
    assert "kept as a draft" in describe_project(project).label
    # Also from another program, after this one has gone.
    stroke(project, 20, 20)
    mine = project.navigator.current.mask(0)
    project.close_window()
    with Project.open(tmp_path / "project") as again:
        np.testing.assert_array_equal(again.drafts.load(image, 0).mask, mine)


@pytest.mark.slow
def test_strokes_that_are_undone_leave_no_draft(project, qtbot, ready):
    stroke(project)
    qtbot.waitUntil(lambda: bool(project.project.drafts.keys()))
    project.navigator.current.image_state.mask.undo()
    qtbot.waitUntil(lambda: not project.project.drafts.keys())


@pytest.mark.slow
def test_a_moved_threshold_is_kept_as_a_draft(project, ready):
    project.controller.editor.move_threshold(0.3)
    image = project.navigator.current.id
    project.navigator.next()
    ready(project)
    project.navigator.go(image)
    ready(project)
    np.testing.assert_array_equal(
        project.navigator.current.mask(0), expected(frame(0), 0.3) != 0
    )
    assert describe_project(project).label.endswith("kept as a draft.")


@pytest.mark.slow
def test_taking_back(project, ready):
    image = project.navigator.current.id
    stroke(project)
    mine = project.navigator.current.mask(0)
    project.annotation.accept()
    ready(project)
    project.annotation.take_back()
    ready(project)
    assert project.project.labels.get(image, 0) is None
    assert journal(project)[-1] == "withdrawn"
    np.testing.assert_array_equal(project.navigator.current.mask(0), mine)
    state = describe_project(project)
    assert state.progress == "0 of 5 labelled"
    assert not state.can_take_back
    # The mask is not lost with the label.
    project.navigator.next()
    ready(project)
    project.navigator.go(image)
    ready(project)
    np.testing.assert_array_equal(project.navigator.current.mask(0), mine)


def test_taking_back_gives_the_label_before(project, ready):
    image = project.navigator.current.id
    stroke(project)
    first = project.navigator.current.mask(0)
    project.annotation.accept()
    stroke(project, 20, 20)
    project.annotation.accept()
    ready(project)
    project.annotation.take_back()
    ready(project)
    np.testing.assert_array_equal(label_of(project, image).mask, first)
    assert "has changed since" in describe_project(project).label


@pytest.mark.slow
def test_an_image_with_a_label_is_not_skipped_in_silence(project, ready):
    image = project.navigator.current.id
    project.annotation.accept()
    ready(project)
    project.annotation.skip()
    ready(project)
    assert name(project) == "p0"
    assert "Shift+K" in project.messages.text
    project.annotation.take_back()
    ready(project)
    assert project.overview.status(image).state == "unseen"


@pytest.mark.slow
def test_skip_flag_and_comment(project, ready):
    image = project.navigator.current.id
    project.annotation.comment(image, "catheter only")
    project.annotation.flag()
    project.annotation.skip()
    ready(project)
    assert name(project) == "p1"
    status = project.overview.status(image)
    assert (status.state, status.flagged) == ("skipped", True)
    assert status.comment == "catheter only"
    assert describe_project(project).progress == "0 of 5 labelled, 1 skipped, 1 flagged"
    project.navigator.go(image)
    ready(project)
    assert describe_project(project).skipped
    project.annotation.skip()
    project.annotation.flag()
    ready(project)
    assert project.overview.status(image).state == "unseen"
    assert name(project) == "p0"


def test_an_empty_mask_is_asked_about(project, ready):
    mask = project.navigator.current.image_state.mask
    mask.data_setitem(np.nonzero(mask.data), 0)
    project.annotation.accept()
    ready(project)
    assert describe_project(project).progress == "0 of 5 labelled"
    assert "no artery" in project.messages.alert.text
    project.messages.alert.actions[0].act()
    ready(project)
    assert describe_project(project).progress == "1 of 5 labelled"
    assert project.messages.alert is None


def test_a_mask_that_is_mostly_artery_is_asked_about(project, ready, monkeypatch):
    monkeypatch.setattr("napari_cmunet.gui.project.annotation.is_large", is_large)
    mask = project.navigator.current.image_state.mask
    mask.data_setitem(np.nonzero(mask.data == 0), 1)
    project.annotation.accept()
    ready(project)
    assert describe_project(project).progress == "0 of 5 labelled"
    assert "100 % of this frame" in project.messages.alert.text
    project.messages.alert.actions[1].act()
    ready(project)
    assert describe_project(project).progress == "1 of 5 labelled"
    assert project.messages.alert is None


def test_nothing_is_accepted_before_it_is_segmented(
    session, model, pictures, tmp_path, qtbot, ready
):
    model.open.clear()
    session.create(NewProject(tmp_path / "project", (pictures,)))
    qtbot.waitUntil(lambda: session.navigator.current is not None)
    qtbot.waitUntil(lambda: session.workspace.writer.idle)
    assert not describe_project(session).can_accept
    session.annotation.accept()
    assert session.overview.progress.labelled == 0
    assert "not segmented yet" in session.messages.text
    model.open.set()
    ready(session)
    assert describe_project(session).can_accept


@pytest.mark.slow
def test_reopening_goes_on_where_one_left_off(
    project, ready, make_controller, make_session, viewer, tmp_path
):
    project.annotation.accept()
    project.navigator.next()
    ready(project)
    project.navigator.next()
    ready(project)
    assert name(project) == "p2"
    project.close()
    ready(project)
    assert project.project is None
    # Its image stays, and gives way when the project is opened again.
    assert [layer.name for layer in viewer.layers] == ["p2", "p2 prediction", "p2 mask"]
    project.open(tmp_path / "project")
    ready(project)
    assert name(project) == "p2"
    assert describe_project(project).progress == "1 of 5 labelled"


@pytest.mark.slow
def test_cines_and_other_sizes(session, mixed, tmp_path, ready, viewer):
    session.create(NewProject(tmp_path / "project", (mixed,)))
    ready(session)
    session.navigator.next()
    ready(session)
    assert name(session) == "b"
    assert [layer.ndim for layer in viewer.layers] == [3, 3, 3]
    np.testing.assert_array_equal(
        session.navigator.current.image_state.mask.data, expected(cine(4))
    )
    # A label belongs to the shown frame.
    viewer.dims.set_point(0, 3)
    session.annotation.accept()
    ready(session)
    image = session.navigator.current.id
    assert session.project.labels.frames(image) == (3,)
    assert session.project.images[image].frames == 4
    viewer.dims.set_point(0, 0)
    assert "1 other frame has one" in describe_project(session).label
    session.navigator.next()
    ready(session)
    assert name(session) == "c"
    assert [layer.data.shape for layer in viewer.layers] == [(48, 48)] * 3
    session.navigator.go(image)
    ready(session)
    assert session.navigator.frame == 3
    assert describe_project(session).saved


@pytest.mark.slow
def test_accept_and_next_stays_where_the_mask_is_refused(
    session, mixed, tmp_path, ready, viewer
):
    session.create(NewProject(tmp_path / "project", (mixed,)))
    ready(session)
    session.navigator.next()
    ready(session)
    disk = threading.Event()  # slow: the label of frame 3 waits for it
    session.workspace.writer.submit(lambda: disk.wait(60))
    viewer.dims.set_point(0, 3)
    session.annotation.accept()
    viewer.dims.set_point(0, 0)
    session.annotation.draw_area(BOX)
    session.accept_and_next()
    disk.set()
    assert session.messages.text.startswith("Draw the box or lasso first")
    ready(session)
    assert name(session) == "b"
    assert session.project.labels.frames(session.navigator.current.id) == (3,)
    viewer.dims.set_point(0, 0)
    session.annotation.review_all()
    session.accept_and_next()
    ready(session)
    assert name(session) != "b"


@pytest.mark.slow
def test_the_threshold_leaves_accepted_frames_alone(
    session, mixed, tmp_path, ready, viewer
):
    session.create(NewProject(tmp_path / "project", (mixed,)))
    ready(session)
    session.navigator.next()
    ready(session)
    viewer.dims.set_point(0, 3)
    session.annotation.accept()
    ready(session)
    label = session.navigator.current.mask(3)
    viewer.dims.set_point(0, 1)
    session.controller.editor.move_threshold(0.2)
    ready(session)
    viewer.dims.set_point(0, 3)
    np.testing.assert_array_equal(session.navigator.current.mask(3), label)
    assert describe_project(session).saved


def test_an_image_that_is_open_is_taken_up_with_its_corrections(
    session, controller, viewer, pictures, tmp_path, ready, settled
):
    layer = viewer.add_image(frame(0), name="p0")
    settled(controller)
    controller.active.file = pictures / "p0.npy"
    mask = controller.active.mask
    mask.brush_size = 3
    with mask.block_history():
        mask.paint((4, 4), 1)
    mine = mask.data.copy()
    session.create(NewProject(tmp_path / "project", (pictures,)))
    ready(session)
    assert session.navigator.current.image_state.mask is mask
    np.testing.assert_array_equal(mask.data, mine)
    session.navigator.next()
    ready(session)
    # What the reader has opened is hidden, never taken away.
    assert layer in viewer.layers
    assert not layer.visible
    assert name(session) == "p1"
    session.navigator.previous()
    ready(session)
    assert session.navigator.current.image_state.mask is mask
    assert layer.visible
    np.testing.assert_array_equal(mask.data, mine)


@pytest.mark.slow
def test_layers_of_the_reader_s_own_stay(project, ready, viewer):
    points = viewer.add_points([[1, 1]], name="stenosis")
    other = viewer.add_labels(np.zeros((32, 32), int), name="mine")
    ready(project)
    project.navigator.next()
    ready(project)
    assert points in viewer.layers
    assert other in viewer.layers
    assert name(project) == "p1"
    project.close()
    ready(project)
    assert points in viewer.layers
    assert other in viewer.layers


def test_another_image_in_hand(project, ready, viewer, controller):
    other = viewer.add_image(frame(9), name="other")
    ready(project)
    assert controller.active.image is other
    assert not describe_project(project).can_accept
    project.annotation.accept()
    ready(project)
    assert project.overview.progress.labelled == 0
    project.navigator.go(project.navigator.current.id)
    ready(project)
    assert describe_project(project).can_accept
    assert controller.active is project.navigator.current.image_state


def test_impatient_keys(project, ready, viewer, qtbot):
    for _ in range(3):
        project.annotation.accept()
        project.navigator.next()
        project.navigator.next()
        project.navigator.previous()
        project.annotation.accept()
        project.annotation.skip()
        project.annotation.take_back()
        qtbot.wait(1)
    ready(project)
    assert len(viewer.layers) == 3
    with Project.open(project.project.folder, read_only=True) as seen:
        assert seen.progress() == project.overview.progress


@pytest.mark.slow
def test_a_slow_disk_does_not_hold_the_window(project, ready, monkeypatch):
    labels = project.project.labels
    accept = labels.accept

    def slowly(*args, **options):
        time.sleep(2)
        return accept(*args, **options)

    monkeypatch.setattr(labels, "accept", slowly)
    started = time.perf_counter()
    project.annotation.accept()
    assert time.perf_counter() - started < 1
    assert describe_project(project).label == "Saving…"
    # Next waits its turn: the image is labelled by then.
    project.navigator.next()
    ready(project)
    assert name(project) == "p1"
    assert project.overview.progress.labelled == 1


@pytest.mark.parametrize("what", ["mask", "prediction", "image"])
@pytest.mark.slow
def test_a_removed_layer_costs_nothing(project, ready, viewer, what):
    stroke(project)
    mine = project.navigator.current.mask(0)
    image = project.navigator.current.id
    viewer.layers.remove(getattr(project.navigator.current.image_state, what))
    ready(project)
    describe_project(project)
    project.annotation.accept()
    project.navigator.next()
    ready(project)
    assert name(project) == "p1"
    assert len(viewer.layers) == 3
    project.navigator.go(image)
    ready(project)
    np.testing.assert_array_equal(project.navigator.current.mask(0), mine)


def test_a_mask_that_is_made_again_has_the_strokes(project, ready, viewer, controller):
    stroke(project)
    mine = project.navigator.current.mask(0)
    viewer.layers.remove(project.navigator.current.image_state.mask)
    assert not describe_project(project).can_accept
    controller.remake_mask()
    np.testing.assert_array_equal(project.navigator.current.mask(0), mine)
    project.annotation.accept()
    ready(project)
    np.testing.assert_array_equal(
        label_of(project, project.navigator.current.id).mask, mine
    )


def test_renamed_and_moved_layers(project, ready, viewer):
    for layer in viewer.layers:
        layer.name = "x"
    viewer.layers.move(2, 0)
    stroke(project)
    project.annotation.accept()
    project.navigator.next()
    ready(project)
    assert name(project) == "p1"
    assert sorted(la.name for la in viewer.layers) == ["p1", "p1 mask", "p1 prediction"]


def test_clearing_all_layers(project, ready, viewer):
    stroke(project)
    image, mine = project.navigator.current.id, project.navigator.current.mask(0)
    viewer.layers.clear()
    ready(project)
    assert "was closed" in describe_project(project).label
    project.annotation.accept()
    project.navigator.go(image)
    ready(project)
    np.testing.assert_array_equal(project.navigator.current.mask(0), mine)


@pytest.mark.slow
def test_other_pixels_in_the_image_layer_are_not_accepted(project, ready):
    image_state = project.navigator.current.image_state
    image_state.image.data = frame(77)
    ready(project)
    assert not describe_project(project).can_accept
    project.annotation.accept()
    ready(project)
    assert project.overview.progress.labelled == 0
    project.navigator.next()
    ready(project)
    assert describe_project(project).can_accept


def test_what_is_painted_after_the_project_was_closed_is_not_taken_away(
    project, ready, viewer, tmp_path
):
    mask = project.navigator.current.image_state.mask
    project.close()
    ready(project)
    assert mask in viewer.layers
    mask.paint((5, 5), 1)
    painted = mask.data.copy()
    project.open(tmp_path / "project")
    ready(project)
    assert mask in viewer.layers
    np.testing.assert_array_equal(mask.data, painted)


@pytest.mark.slow
def test_an_image_that_a_closed_project_left_gives_way(
    project, ready, viewer, tmp_path
):
    project.close()
    ready(project)
    project.open(tmp_path / "project")
    ready(project)
    assert len(viewer.layers) == 3
    project.navigator.next()
    ready(project)
    assert len(viewer.layers) == 3


@pytest.mark.slow
def test_seconds_are_those_of_attention(project, ready, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(clock_module, "monotonic", lambda: now[0])
    first = project.navigator.current
    first.clock.restart()
    mouse = project.controller.viewer.mouse_move_callbacks[-1]
    for pause in (2, 3, 600):  # they went for a coffee
        now[0] += pause
        mouse(project.controller.viewer, None)
    assert first.clock.seconds == 2 + 3 + clock_module.PAUSE_SECONDS
    project.navigator.next()
    ready(project)
    now[0] += 50
    # The next one was made ready long ago, and the first one goes on where it was.
    assert project.navigator.current.clock.seconds == clock_module.PAUSE_SECONDS
    project.navigator.go(first.id)
    ready(project)
    assert project.navigator.current.clock.seconds == 2 + 3 + clock_module.PAUSE_SECONDS
    now[0] += 4
    project.annotation.accept()
    ready(project)
    entry = [e for e in project.project.journal() if e.what == "accepted"][-1]
    assert entry.details["seconds"] == 9 + clock_module.PAUSE_SECONDS
    assert project.overview.annotation_time.labels[-1][1] == entry.details["seconds"]
    callbacks = project.controller.viewer.mouse_move_callbacks
    assert mouse in callbacks
    project.close()
    ready(project)
    assert mouse not in callbacks


def test_the_trend_is_shown(project):
    effort = AnnotationTime()
    for number in range(10):
        effort = effort.with_label((f"{number:012x}", 0), 62 if number < 5 else 18)
    project.workspace.set_annotation_time(effort)
    assert describe_project(project).annotation_time == "62 s → 18 s a frame"
    for number in range(10, 15):
        effort = effort.with_label((f"{number:012x}", 0), 19)
    for _ in range(2):
        effort = effort.with_training(4, -0.01)
    project.workspace.set_annotation_time(effort)
    state = describe_project(project)
    assert state.annotation_time == "62 s → 19 s a frame; more may not pay"
    assert "not better beyond chance" in state.annotation_time_tip


def test_names_alone_are_said_to_have_changed(project, ready):
    proposed = (SegmentName("6", ((7, 5), (7, 20)), doubt=0.3),)
    history = project.navigator.current.image_state.history
    history.set_names(0, proposed)
    project.annotation.accept()
    ready(project)
    assert describe_project(project).saved
    history.set_names(0, (replace(proposed[0], doubt=0.0),))
    assert describe_project(project).label == (
        "Vessel names have changed since the mask was accepted. Accept it again."
    )
    stroke(project)
    assert describe_project(project).label == (
        "This image has changed since it was accepted. Accept it again."
    )
