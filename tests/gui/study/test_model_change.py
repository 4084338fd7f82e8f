"""Another model takes over: what it finds is shown, the reader's mask stays."""

from __future__ import annotations

import numpy as np
import pytest

from napari_cmunet.gui.study.opening_job import NewStudy
from napari_cmunet.gui.study.section_state import describe_study
from tests.gui.conftest import cine, expected, frame
from tests.gui.study.conftest import name, stroke


@pytest.fixture
def promoted(study, ready, model, monkeypatch):
    """A better model takes over: it finds more."""

    def promote(offset: int = 60) -> None:
        model.offset = offset
        monkeypatch.setattr(
            "napari_cmunet.gui.study.reader.model_in_use", lambda _: ("tuned", "")
        )
        study.use_current_model()

    return promote


def test_the_mask_stays_and_the_difference_is_shown(study, ready, promoted, viewer):
    stroke(study)
    mine = study.browsing.current.mask(0)
    before = expected(frame(0))
    promoted()
    ready(study)
    study.browsing.update_change()
    np.testing.assert_array_equal(study.browsing.current.mask(0), mine)
    now = study.browsing.current.reading.found(0)
    layer = study.browsing.change.layer
    np.testing.assert_array_equal(layer.data == 1, now & (before == 0))
    assert not (layer.data == 2).any()
    assert not layer.editable
    found = int((now & (before == 0)).sum())
    text = describe_study(study).change
    assert f"tuned finds {found} pixels more (yellow) than cmunet-artery" in text
    assert viewer.layers.selection.active is study.browsing.current.reading.mask
    study.browsing.hide_change()
    assert layer not in viewer.layers
    assert describe_study(study).change == ""


def test_an_untouched_mask_stays_too(study, ready, promoted):
    before = study.browsing.current.mask(0)
    promoted()
    ready(study)
    np.testing.assert_array_equal(study.browsing.current.mask(0), before)
    assert "Your corrections" not in describe_study(study).label  # there are none


def test_taking_over_the_new_prediction_can_be_undone(study, ready, promoted):
    stroke(study)
    mine = study.browsing.current.mask(0)
    promoted()
    ready(study)
    study.browsing.update_change()
    study.browsing.take_over_prediction()
    now = study.browsing.current.reading.found(0)
    np.testing.assert_array_equal(study.browsing.current.mask(0), now)
    assert study.browsing.current.provenance(0).model == "tuned"
    study.browsing.current.reading.mask.undo()
    np.testing.assert_array_equal(study.browsing.current.mask(0), mine)


def test_what_is_accepted_names_the_model_it_began_with(study, ready, promoted):
    stroke(study)
    study.accepting.accept()
    ready(study)
    promoted()
    ready(study)
    stroke(study, 20, 20)
    study.accepting.accept()
    ready(study)
    label = study.study.labels.get(study.browsing.current.id, 0)
    assert label.provenance.model == "cmunet-artery"


def test_the_next_image_opens_with_the_new_model(study, ready, promoted, model):
    # It was predicted ahead by the old one.
    promoted()
    study.browsing.next()
    ready(study)
    assert name(study) == "p1"
    reading = study.browsing.current.reading
    assert reading.sources[0].model == "tuned"
    np.testing.assert_array_equal(study.browsing.current.mask(0), reading.found(0))
    wanted = np.clip(255 - frame(1).astype(int) + 60, 0, 255) >= 128
    np.testing.assert_array_equal(study.browsing.current.mask(0), wanted)


def test_back_to_the_older_model(study, ready, promoted, model):
    before = study.browsing.current.reading.probability[0].copy()
    promoted(60)
    ready(study)
    promoted(0)
    ready(study)
    np.testing.assert_array_equal(study.browsing.current.reading.probability[0], before)


def test_a_labelled_image_keeps_its_label(study, ready, promoted):
    image = study.browsing.current.id
    study.accepting.accept()
    label = study.browsing.current.mask(0)
    study.browsing.next()
    ready(study)
    promoted()
    ready(study)
    study.browsing.go(image)
    ready(study)
    np.testing.assert_array_equal(study.browsing.current.mask(0), label)
    assert describe_study(study).saved


def test_a_model_that_is_gone(study, ready, monkeypatch):
    monkeypatch.setattr(
        "napari_cmunet.gui.study.reader.model_in_use",
        lambda _: ("", "The model 'tuned' is not there any more."),
    )
    study.use_current_model()
    ready(study)
    assert "not there any more" in study.notice.text
    assert describe_study(study).can_accept


def test_a_cine(reader, mixed, tmp_path, ready, viewer, model, monkeypatch):
    reader.create(NewStudy(tmp_path / "study", (mixed,)))
    ready(reader)
    reader.browsing.next()
    ready(reader)
    before = reader.browsing.current.reading.mask.data.copy()
    np.testing.assert_array_equal(before, expected(cine(4)))
    model.offset = 60
    monkeypatch.setattr(
        "napari_cmunet.gui.study.reader.model_in_use", lambda _: ("tuned", "")
    )
    reader.use_current_model()
    ready(reader)
    for at in range(4):
        viewer.dims.set_point(0, at)
        reader.browsing.update_change()
        assert reader.browsing.change.difference(at).found > 0
    np.testing.assert_array_equal(reader.browsing.current.reading.mask.data, before)


def test_layers_that_go_meanwhile(study, ready, promoted, viewer):
    promoted()
    ready(study)
    study.browsing.update_change()
    viewer.layers.remove(study.browsing.change.layer)
    describe_study(study)
    study.browsing.next()
    ready(study)
    assert len(viewer.layers) == 3


def test_the_difference_does_not_lie_over_another_image(study, ready, promoted, viewer):
    other = viewer.add_image(np.zeros((64, 64), np.uint8), name="another")
    promoted()
    ready(study)
    study.browsing.update_change()
    layers = viewer.layers
    change, mask = study.browsing.change.layer, study.browsing.current.reading.mask
    assert layers.index(mask) < layers.index(change) < layers.index(other)
