"""Another model takes over: what it finds is shown, the session's mask stays."""

from __future__ import annotations

import numpy as np
import pytest

from napari_cmunet.gui.project.section_state import describe_project
from napari_cmunet.gui.project.workspace import NewProject
from tests.gui.conftest import cine, expected, frame
from tests.gui.project.conftest import name, stroke


@pytest.fixture
def promoted(project, ready, model, monkeypatch):
    """A better model takes over: it finds more."""

    def promote(offset: int = 60, name: str = "tuned") -> None:
        model.offset = offset
        monkeypatch.setattr(
            "napari_cmunet.gui.project.session.model_in_use", lambda _: (name, "")
        )
        project.use_current_model()

    return promote


def test_the_mask_stays_and_the_difference_is_shown(project, ready, promoted, viewer):
    stroke(project)
    mine = project.navigator.current.mask(0)
    before = expected(frame(0))
    promoted()
    ready(project)
    project.preview.update()
    np.testing.assert_array_equal(project.navigator.current.mask(0), mine)
    now = project.navigator.current.image_state.found(0)
    layer = project.preview.change.layer
    np.testing.assert_array_equal(layer.data == 1, now & (before == 0))
    assert not (layer.data == 2).any()
    assert not layer.editable
    found = int((now & (before == 0)).sum())
    text = describe_project(project).change
    assert f"tuned finds {found} pixels more (yellow) than cmunet-artery" in text
    assert viewer.layers.selection.active is project.navigator.current.image_state.mask
    project.preview.hide_change()
    assert layer not in viewer.layers
    assert describe_project(project).change == ""


def test_an_untouched_mask_stays_too(project, ready, promoted):
    before = project.navigator.current.mask(0)
    promoted()
    ready(project)
    np.testing.assert_array_equal(project.navigator.current.mask(0), before)
    assert "Your corrections" not in describe_project(project).label  # there are none


def test_taking_over_the_new_prediction_can_be_undone(project, ready, promoted):
    stroke(project)
    mine = project.navigator.current.mask(0)
    promoted()
    ready(project)
    project.preview.update()
    project.preview.use_new_prediction()
    now = project.navigator.current.image_state.found(0)
    np.testing.assert_array_equal(project.navigator.current.mask(0), now)
    assert project.navigator.current.provenance(0).model == "tuned"
    project.navigator.current.image_state.mask.undo()
    np.testing.assert_array_equal(project.navigator.current.mask(0), mine)
    stroke(project, 20, 20)
    assert project.navigator.current.provenance(0).model == "cmunet-artery"


def test_a_reset_mask_is_of_the_model_in_use(project, ready, promoted):
    stroke(project)
    promoted()
    ready(project)
    project.controller.editor.reset_frame()
    stroke(project, 20, 20)
    assert project.navigator.current.provenance(0).model == "tuned"


@pytest.mark.slow
def test_what_is_accepted_names_the_model_it_began_with(project, ready, promoted):
    stroke(project)
    project.annotation.accept()
    ready(project)
    promoted()
    ready(project)
    stroke(project, 20, 20)
    project.annotation.accept()
    ready(project)
    label = project.project.labels.get(project.navigator.current.id, 0)
    assert label.provenance.model == "cmunet-artery"


def test_the_next_image_opens_with_the_new_model(project, ready, promoted, model):
    # It was predicted ahead by the old one.
    promoted()
    project.navigator.next()
    ready(project)
    assert name(project) == "p1"
    image_state = project.navigator.current.image_state
    assert image_state.sources[0].model == "tuned"
    np.testing.assert_array_equal(
        project.navigator.current.mask(0), image_state.found(0)
    )
    wanted = np.clip(255 - frame(1).astype(int) + 60, 0, 255) >= 128
    np.testing.assert_array_equal(project.navigator.current.mask(0), wanted)


def test_back_to_the_older_model(project, ready, promoted, model):
    before = project.navigator.current.image_state.probability[0].copy()
    promoted(60)
    ready(project)
    promoted(0)
    ready(project)
    np.testing.assert_array_equal(
        project.navigator.current.image_state.probability[0], before
    )


def test_a_labelled_image_keeps_its_label(project, ready, promoted):
    image = project.navigator.current.id
    project.annotation.accept()
    label = project.navigator.current.mask(0)
    project.navigator.next()
    ready(project)
    promoted()
    ready(project)
    project.navigator.go(image)
    ready(project)
    np.testing.assert_array_equal(project.navigator.current.mask(0), label)
    assert describe_project(project).saved


def test_a_model_that_is_gone(project, ready, monkeypatch):
    monkeypatch.setattr(
        "napari_cmunet.gui.project.session.model_in_use",
        lambda _: ("", "The model 'tuned' is not there any more."),
    )
    project.use_current_model()
    ready(project)
    assert "not there any more" in project.messages.alert.text
    assert describe_project(project).can_accept


@pytest.mark.slow
def test_a_cine(session, mixed, tmp_path, ready, viewer, model, monkeypatch):
    session.create(NewProject(tmp_path / "project", (mixed,)))
    ready(session)
    session.navigator.next()
    ready(session)
    before = session.navigator.current.image_state.mask.data.copy()
    np.testing.assert_array_equal(before, expected(cine(4)))
    model.offset = 60
    monkeypatch.setattr(
        "napari_cmunet.gui.project.session.model_in_use", lambda _: ("tuned", "")
    )
    session.use_current_model()
    ready(session)
    for at in range(4):
        viewer.dims.set_point(0, at)
        session.preview.update()
        assert session.preview.change.difference(at).found > 0
    np.testing.assert_array_equal(
        session.navigator.current.image_state.mask.data, before
    )


def test_layers_that_go_meanwhile(project, ready, promoted, viewer):
    promoted()
    ready(project)
    project.preview.update()
    viewer.layers.remove(project.preview.change.layer)
    describe_project(project)
    project.navigator.next()
    ready(project)
    assert len(viewer.layers) == 3


def test_the_difference_does_not_lie_over_another_image(
    project, ready, promoted, viewer
):
    other = viewer.add_image(np.zeros((64, 64), np.uint8), name="another")
    promoted()
    ready(project)
    project.preview.update()
    layers = viewer.layers
    change, mask = (
        project.preview.change.layer,
        project.navigator.current.image_state.mask,
    )
    assert layers.index(mask) < layers.index(change) < layers.index(other)


def test_going_back_leaves_no_difference(project, ready, promoted, viewer):
    promoted()
    ready(project)
    project.preview.update()
    assert project.preview.change.layer in viewer.layers
    promoted(0, name="cmunet-artery")
    ready(project)
    project.preview.update()
    assert not describe_project(project).change
    assert "found now, gone now" not in viewer.layers


def test_a_taken_prediction_is_what_the_next_model_is_compared_with(
    project, ready, promoted
):
    promoted()
    ready(project)
    project.preview.update()
    project.preview.use_new_prediction()
    promoted(0, name="cmunet-artery")
    ready(project)
    project.preview.update()
    difference = project.preview.change.difference(0)
    assert (difference.before, difference.now) == ("tuned", "cmunet-artery")
    assert difference.gone > 0


def test_the_difference_is_hidden_with_its_image(project, ready, promoted, viewer):
    other = viewer.add_image(frame(7), name="another")
    ready(project)
    project.controller.show_image(project.navigator.current.image_state)
    promoted()
    ready(project)
    project.preview.update()
    layer = project.preview.change.layer
    project.controller.show_image(project.controller.images.of(other))
    assert not layer.visible
    project.controller.show_image(project.navigator.current.image_state)
    assert layer.visible
    project.controller.close_image(project.navigator.current.image_state)
    project.preview.update()
    assert layer not in viewer.layers
