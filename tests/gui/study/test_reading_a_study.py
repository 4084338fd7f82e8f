"""The loop: open, correct, accept, next, previous, skip, flag, take back, reopen."""

from __future__ import annotations

import time

import numpy as np
import pytest

from napari_cmunet.gui.study import accepting
from napari_cmunet.gui.study import clock as clock_module
from napari_cmunet.gui.study.opening_job import NewStudy
from napari_cmunet.gui.study.section_state import describe_study
from napari_cmunet.io.labels import read_label
from napari_cmunet.study.effort import Effort
from napari_cmunet.study.study import Study
from tests.gui.conftest import cine, expected, frame
from tests.gui.study.conftest import name, stroke


def label_of(reader, image: str, at: int = 0):
    return read_label(reader.study.folder / "labels" / image / f"frame_{at:04d}.tif")


def journal(reader) -> list[str]:
    return [entry.what for entry in reader.study.journal()]


def test_a_new_study_opens_its_first_image_pre_segmented(study, viewer):
    assert name(study) == "p0"
    assert [layer.name for layer in viewer.layers] == ["p0", "p0 prediction", "p0 mask"]
    np.testing.assert_array_equal(viewer.layers[0].data, frame(0))
    np.testing.assert_array_equal(viewer.layers[2].data, expected(frame(0)))
    state = describe_study(study)
    assert state.progress == "0 of 5 labelled"
    assert state.place == "Image 1 of 5"
    assert state.can_accept


def test_accepting_writes_what_is_seen_before_the_key_comes_up(study, monkeypatch):
    # Some milliseconds, but this machine may be busy.
    monkeypatch.setattr(accepting, "WAIT_SECONDS", 5)
    stroke(study)
    opened = study.browsing.current
    mask = opened.reading.mask.data != 0
    accepted = []
    study.accepted.connect(accepted.append)
    study.accepting.accept()
    # No event was processed since: the key is still down.
    label = label_of(study, opened.id)
    np.testing.assert_array_equal(label.mask, mask)
    assert label.reviewed is None
    assert label.provenance.model == "cmunet-artery"
    assert label.provenance.source_sha256 == opened.sha256
    assert accepted == []


def test_after_accepting(study, ready):
    stroke(study)
    accepted = []
    study.accepted.connect(accepted.append)
    study.accepting.accept()
    assert describe_study(study).label == "Saving…"
    assert not describe_study(study).can_accept
    ready(study)
    assert accepted == [(study.browsing.current.id, 0)]
    state = describe_study(study)
    assert state.saved
    assert state.label.startswith("Accepted at")
    assert state.progress == "1 of 5 labelled"
    entry = list(study.study.journal())[-2]
    assert entry.what == "accepted"
    assert entry.details["pixels_changed"] == int(
        (study.browsing.current.mask(0) != (expected(frame(0)) != 0)).sum()
    )
    assert 0 <= entry.details["seconds"] < 60
    assert study.accepting.seconds < 1


def test_next_opens_the_next_image_without_a_label(study, ready, viewer):
    study.accepting.accept()
    study.browsing.next()
    ready(study)
    assert name(study) == "p1"
    assert [layer.name for layer in viewer.layers] == ["p1", "p1 prediction", "p1 mask"]
    np.testing.assert_array_equal(viewer.layers[2].data, expected(frame(1)))
    study.browsing.previous()
    ready(study)
    assert name(study) == "p0"
    # From p0, which has a label, the next one without.
    study.browsing.next()
    ready(study)
    assert name(study) == "p1"


def test_the_next_image_is_predicted_ahead(study, ready, model):
    seen = len(model.seen)
    assert seen == 2  # the first and, ahead, the second
    study.browsing.next()
    assert study.browsing.opening is None or study.browsing.current is not None
    ready(study)
    assert name(study) == "p1"
    assert len(model.seen) == 3


def test_every_layer_is_the_same_from_image_to_image(study, ready, viewer):
    layers = list(viewer.layers)
    stroke(study)
    study.accepting.accept()
    study.browsing.next()
    ready(study)
    assert list(viewer.layers) == layers
    mask = study.browsing.current.reading.mask
    assert mask.mode == "paint"
    assert not study.browsing.current.reading.prediction.editable
    # The strokes in the former image are not undone into this one.
    mask.undo()
    np.testing.assert_array_equal(mask.data, expected(frame(1)))
    stroke(study)
    mask.undo()
    np.testing.assert_array_equal(mask.data, expected(frame(1)))


def test_all_round(study, ready):
    for number in range(5):
        assert name(study) == f"p{number}"
        study.accepting.accept()
        study.browsing.next()
        ready(study)
    assert "Every image has a label" in study.message
    assert describe_study(study).progress == "5 of 5 labelled"


def test_the_last_one_without_a_label(study, ready):
    for _ in range(4):
        study.accepting.accept()
        study.browsing.next()
        ready(study)
    study.browsing.next()
    ready(study)
    assert name(study) == "p4"
    assert study.message == "No other image is left without a label."


def test_a_label_is_shown_again_and_can_be_edited(study, ready):
    stroke(study)
    image = study.browsing.current.id
    mine = study.browsing.current.mask(0)
    study.accepting.accept()
    study.browsing.next()
    ready(study)
    study.browsing.go(image)
    ready(study)
    np.testing.assert_array_equal(study.browsing.current.mask(0), mine)
    assert describe_study(study).saved
    stroke(study, 20, 20)
    assert "has changed since" in describe_study(study).label
    changed = study.browsing.current.mask(0)
    study.accepting.accept()
    ready(study)
    np.testing.assert_array_equal(label_of(study, image).mask, changed)
    assert len(study.study.labels.older(image, 0)) == 1


def test_strokes_that_are_not_accepted_come_back(study, ready, tmp_path):
    stroke(study)
    mine = study.browsing.current.mask(0)
    image = study.browsing.current.id
    study.browsing.next()
    ready(study)
    assert name(study) == "p1"
    assert study.study.drafts.keys() == [(image, 0)]
    study.browsing.go(image)
    ready(study)
    np.testing.assert_array_equal(study.browsing.current.mask(0), mine)
    assert "kept as a draft" in describe_study(study).label
    # Also from another program, after this one has gone.
    stroke(study, 20, 20)
    mine = study.browsing.current.mask(0)
    study.shut()
    with Study.open(tmp_path / "study") as again:
        np.testing.assert_array_equal(again.drafts.load(image, 0).mask, mine)


def test_strokes_that_are_undone_leave_no_draft(study, qtbot, ready):
    stroke(study)
    qtbot.waitUntil(lambda: bool(study.study.drafts.keys()))
    study.browsing.current.reading.mask.undo()
    qtbot.waitUntil(lambda: not study.study.drafts.keys())


def test_a_moved_threshold_is_kept_as_a_draft(study, ready):
    study.controller.correct.move_threshold(0.3)
    image = study.browsing.current.id
    study.browsing.next()
    ready(study)
    study.browsing.go(image)
    ready(study)
    np.testing.assert_array_equal(
        study.browsing.current.mask(0), expected(frame(0), 0.3) != 0
    )
    assert describe_study(study).label.endswith("kept as a draft.")


def test_taking_back(study, ready):
    image = study.browsing.current.id
    stroke(study)
    mine = study.browsing.current.mask(0)
    study.accepting.accept()
    ready(study)
    study.accepting.take_back()
    ready(study)
    assert study.study.labels.get(image, 0) is None
    assert journal(study)[-1] == "withdrawn"
    np.testing.assert_array_equal(study.browsing.current.mask(0), mine)
    state = describe_study(study)
    assert state.progress == "0 of 5 labelled"
    assert not state.can_take_back
    # The mask is not lost with the label.
    study.browsing.next()
    ready(study)
    study.browsing.go(image)
    ready(study)
    np.testing.assert_array_equal(study.browsing.current.mask(0), mine)


def test_taking_back_gives_the_label_before(study, ready):
    image = study.browsing.current.id
    stroke(study)
    first = study.browsing.current.mask(0)
    study.accepting.accept()
    stroke(study, 20, 20)
    study.accepting.accept()
    ready(study)
    study.accepting.take_back()
    ready(study)
    np.testing.assert_array_equal(label_of(study, image).mask, first)
    assert "has changed since" in describe_study(study).label


def test_an_image_with_a_label_is_not_skipped_in_silence(study, ready):
    image = study.browsing.current.id
    study.accepting.accept()
    ready(study)
    study.accepting.skip()
    ready(study)
    assert name(study) == "p0"
    assert "Shift+K" in study.message
    study.accepting.take_back()
    ready(study)
    assert study.overview.status(image).state == "unseen"


def test_skip_flag_and_comment(study, ready):
    image = study.browsing.current.id
    study.accepting.comment(image, "catheter only")
    study.accepting.flag()
    study.accepting.skip()
    ready(study)
    assert name(study) == "p1"
    status = study.overview.status(image)
    assert (status.state, status.flagged) == ("skipped", True)
    assert status.comment == "catheter only"
    assert describe_study(study).progress == "0 of 5 labelled, 1 skipped, 1 flagged"
    study.browsing.go(image)
    ready(study)
    assert describe_study(study).skipped
    study.accepting.skip()
    study.accepting.flag()
    ready(study)
    assert study.overview.status(image).state == "unseen"
    assert name(study) == "p0"


def test_an_empty_mask_is_asked_about(study, ready):
    mask = study.browsing.current.reading.mask
    mask.data_setitem(np.nonzero(mask.data), 0)
    study.accepting.accept()
    ready(study)
    assert describe_study(study).progress == "0 of 5 labelled"
    assert "no artery" in study.notice.text
    study.notice.ways[0].act()
    ready(study)
    assert describe_study(study).progress == "1 of 5 labelled"
    assert study.notice is None


def test_nothing_is_accepted_before_it_is_segmented(
    reader, model, pictures, tmp_path, qtbot, ready
):
    model.open.clear()
    reader.create(NewStudy(tmp_path / "study", (pictures,)))
    qtbot.waitUntil(lambda: reader.browsing.current is not None)
    qtbot.waitUntil(lambda: reader.writer.idle)
    assert not describe_study(reader).can_accept
    reader.accepting.accept()
    assert reader.overview.progress.labelled == 0
    assert "not segmented yet" in reader.message
    model.open.set()
    ready(reader)
    assert describe_study(reader).can_accept


def test_reopening_goes_on_where_one_left_off(
    study, ready, make_controller, make_reader, viewer, tmp_path
):
    study.accepting.accept()
    study.browsing.next()
    ready(study)
    study.browsing.next()
    ready(study)
    assert name(study) == "p2"
    study.close()
    ready(study)
    assert study.study is None
    # Its image stays, and gives way when the study is opened again.
    assert [layer.name for layer in viewer.layers] == ["p2", "p2 prediction", "p2 mask"]
    study.open(tmp_path / "study")
    ready(study)
    assert name(study) == "p2"
    assert describe_study(study).progress == "1 of 5 labelled"


def test_cines_and_other_sizes(reader, mixed, tmp_path, ready, viewer):
    reader.create(NewStudy(tmp_path / "study", (mixed,)))
    ready(reader)
    reader.browsing.next()
    ready(reader)
    assert name(reader) == "b"
    assert [layer.ndim for layer in viewer.layers] == [3, 3, 3]
    np.testing.assert_array_equal(
        reader.browsing.current.reading.mask.data, expected(cine(4))
    )
    # A label belongs to the shown frame.
    viewer.dims.set_point(0, 3)
    reader.accepting.accept()
    ready(reader)
    image = reader.browsing.current.id
    assert reader.study.labels.frames(image) == (3,)
    assert reader.study.images[image].frames == 4
    viewer.dims.set_point(0, 0)
    assert "1 other frame has one" in describe_study(reader).label
    reader.browsing.next()
    ready(reader)
    assert name(reader) == "c"
    assert [layer.data.shape for layer in viewer.layers] == [(48, 48)] * 3
    reader.browsing.go(image)
    ready(reader)
    assert reader.browsing.frame == 3
    assert describe_study(reader).saved


def test_the_threshold_leaves_accepted_frames_alone(
    reader, mixed, tmp_path, ready, viewer
):
    reader.create(NewStudy(tmp_path / "study", (mixed,)))
    ready(reader)
    reader.browsing.next()
    ready(reader)
    viewer.dims.set_point(0, 3)
    reader.accepting.accept()
    ready(reader)
    label = reader.browsing.current.mask(3)
    viewer.dims.set_point(0, 1)
    reader.controller.correct.move_threshold(0.2)
    ready(reader)
    viewer.dims.set_point(0, 3)
    np.testing.assert_array_equal(reader.browsing.current.mask(3), label)
    assert describe_study(reader).saved


def test_an_image_that_is_open_is_taken_up_with_its_corrections(
    reader, controller, viewer, pictures, tmp_path, ready, settled
):
    layer = viewer.add_image(frame(0), name="p0")
    settled(controller)
    controller.active.file = pictures / "p0.npy"
    mask = controller.active.mask
    mask.brush_size = 3
    with mask.block_history():
        mask.paint((4, 4), 1)
    mine = mask.data.copy()
    reader.create(NewStudy(tmp_path / "study", (pictures,)))
    ready(reader)
    assert reader.browsing.current.reading.mask is mask
    np.testing.assert_array_equal(mask.data, mine)
    reader.browsing.next()
    ready(reader)
    # What the reader has opened is hidden, never taken away.
    assert layer in viewer.layers
    assert not layer.visible
    assert name(reader) == "p1"
    reader.browsing.previous()
    ready(reader)
    assert reader.browsing.current.reading.mask is mask
    assert layer.visible
    np.testing.assert_array_equal(mask.data, mine)


def test_layers_of_the_reader_s_own_stay(study, ready, viewer):
    points = viewer.add_points([[1, 1]], name="stenosis")
    other = viewer.add_labels(np.zeros((32, 32), int), name="mine")
    ready(study)
    study.browsing.next()
    ready(study)
    assert points in viewer.layers
    assert other in viewer.layers
    assert name(study) == "p1"
    study.close()
    ready(study)
    assert points in viewer.layers
    assert other in viewer.layers


def test_another_image_in_hand(study, ready, viewer, controller):
    other = viewer.add_image(frame(9), name="other")
    ready(study)
    assert controller.active.image is other
    assert not describe_study(study).can_accept
    study.accepting.accept()
    ready(study)
    assert study.overview.progress.labelled == 0
    study.browsing.go(study.browsing.current.id)
    ready(study)
    assert describe_study(study).can_accept
    assert controller.active is study.browsing.current.reading


def test_impatient_keys(study, ready, viewer, qtbot):
    for _ in range(3):
        study.accepting.accept()
        study.browsing.next()
        study.browsing.next()
        study.browsing.previous()
        study.accepting.accept()
        study.accepting.skip()
        study.accepting.take_back()
        qtbot.wait(1)
    ready(study)
    assert len(viewer.layers) == 3
    with Study.open(study.study.folder, read_only=True) as seen:
        assert seen.progress() == study.overview.progress


def test_a_slow_disk_does_not_hold_the_window(study, ready, monkeypatch):
    labels = study.study.labels
    accept = labels.accept

    def slowly(*args, **options):
        time.sleep(2)
        return accept(*args, **options)

    monkeypatch.setattr(labels, "accept", slowly)
    started = time.perf_counter()
    study.accepting.accept()
    assert time.perf_counter() - started < 1
    assert describe_study(study).label == "Saving…"
    # Next waits its turn: the image is labelled by then.
    study.browsing.next()
    ready(study)
    assert name(study) == "p1"
    assert study.overview.progress.labelled == 1


@pytest.mark.parametrize("what", ["mask", "prediction", "image"])
def test_a_removed_layer_costs_nothing(study, ready, viewer, what):
    stroke(study)
    mine = study.browsing.current.mask(0)
    image = study.browsing.current.id
    viewer.layers.remove(getattr(study.browsing.current.reading, what))
    ready(study)
    describe_study(study)
    study.accepting.accept()
    study.browsing.next()
    ready(study)
    assert name(study) == "p1"
    assert len(viewer.layers) == 3
    study.browsing.go(image)
    ready(study)
    np.testing.assert_array_equal(study.browsing.current.mask(0), mine)


def test_a_mask_that_is_made_again_has_the_strokes(study, ready, viewer, controller):
    stroke(study)
    mine = study.browsing.current.mask(0)
    viewer.layers.remove(study.browsing.current.reading.mask)
    assert not describe_study(study).can_accept
    controller.show.make_mask_again()
    np.testing.assert_array_equal(study.browsing.current.mask(0), mine)
    study.accepting.accept()
    ready(study)
    np.testing.assert_array_equal(label_of(study, study.browsing.current.id).mask, mine)


def test_renamed_and_moved_layers(study, ready, viewer):
    for layer in viewer.layers:
        layer.name = "x"
    viewer.layers.move(2, 0)
    stroke(study)
    study.accepting.accept()
    study.browsing.next()
    ready(study)
    assert name(study) == "p1"
    assert sorted(la.name for la in viewer.layers) == ["p1", "p1 mask", "p1 prediction"]


def test_clearing_all_layers(study, ready, viewer):
    stroke(study)
    image, mine = study.browsing.current.id, study.browsing.current.mask(0)
    viewer.layers.clear()
    ready(study)
    assert "was closed" in describe_study(study).label
    study.accepting.accept()
    study.browsing.go(image)
    ready(study)
    np.testing.assert_array_equal(study.browsing.current.mask(0), mine)


def test_other_pixels_in_the_image_layer_are_not_accepted(study, ready):
    reading = study.browsing.current.reading
    reading.image.data = frame(77)
    ready(study)
    assert not describe_study(study).can_accept
    study.accepting.accept()
    ready(study)
    assert study.overview.progress.labelled == 0
    study.browsing.next()
    ready(study)
    assert describe_study(study).can_accept


def test_what_is_painted_after_the_study_was_closed_is_not_taken_away(
    study, ready, viewer, tmp_path
):
    mask = study.browsing.current.reading.mask
    study.close()
    ready(study)
    assert mask in viewer.layers
    mask.paint((5, 5), 1)
    painted = mask.data.copy()
    study.open(tmp_path / "study")
    ready(study)
    assert mask in viewer.layers
    np.testing.assert_array_equal(mask.data, painted)


def test_an_image_that_a_closed_study_left_gives_way(study, ready, viewer, tmp_path):
    study.close()
    ready(study)
    study.open(tmp_path / "study")
    ready(study)
    assert len(viewer.layers) == 3
    study.browsing.next()
    ready(study)
    assert len(viewer.layers) == 3


def test_seconds_are_those_of_attention(study, ready, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(clock_module, "monotonic", lambda: now[0])
    first = study.browsing.current
    first.clock.restart()
    mouse = study.controller.viewer.mouse_move_callbacks[-1]
    for pause in (2, 3, 600):  # they went for a coffee
        now[0] += pause
        mouse(study.controller.viewer, None)
    assert first.clock.seconds == 2 + 3 + clock_module.PAUSE_SECONDS
    study.browsing.next()
    ready(study)
    now[0] += 50
    # The next one was made ready long ago, and the first one goes on where it was.
    assert study.browsing.current.clock.seconds == clock_module.PAUSE_SECONDS
    study.browsing.go(first.id)
    ready(study)
    assert study.browsing.current.clock.seconds == 2 + 3 + clock_module.PAUSE_SECONDS
    now[0] += 4
    study.accepting.accept()
    ready(study)
    entry = [e for e in study.study.journal() if e.what == "accepted"][-1]
    assert entry.details["seconds"] == 9 + clock_module.PAUSE_SECONDS
    assert study.overview.effort.labels[-1][1] == entry.details["seconds"]
    callbacks = study.controller.viewer.mouse_move_callbacks
    assert mouse in callbacks
    study.close()
    ready(study)
    assert mouse not in callbacks


def test_the_trend_is_shown(study):
    effort = Effort()
    for number in range(10):
        effort = effort.with_label((f"{number:012x}", 0), 62 if number < 5 else 18)
    study.note_effort(effort)
    assert describe_study(study).effort == "62 s → 18 s a frame"
    for number in range(10, 15):
        effort = effort.with_label((f"{number:012x}", 0), 19)
    for _ in range(2):
        effort = effort.with_training(4, -0.01)
    study.note_effort(effort)
    state = describe_study(study)
    assert state.effort == "62 s → 19 s a frame; more may not pay"
    assert "not better beyond chance" in state.effort_tip
