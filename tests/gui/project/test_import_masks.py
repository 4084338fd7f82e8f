"""Masks of other programs come into the open project."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from napari_cmunet.gui.open_files import OpenRow
from napari_cmunet.gui.project.actions import ProjectActions
from napari_cmunet.gui.project.import_masks import (
    ImportMasksDialog,
    LabelsMenu,
    import_masks,
)
from napari_cmunet.gui.project.reviewed_area import BOX
from napari_cmunet.vessels.naming import SegmentName
from tests.gui.conftest import frame

MASK = np.zeros((32, 32), bool)
MASK[5:9, 3:25] = True


@pytest.fixture
def masks(tmp_path):
    folder = tmp_path / "foreign"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(MASK).save(folder / f"p{number}_mask.png")
    Image.fromarray(MASK).save(folder / "nobody.png")
    return folder


@pytest.fixture
def dialog(project, masks, qtbot):
    made = ImportMasksDialog(project, [masks], None)
    qtbot.addWidget(made)
    # Noise has no orientation.
    made.turned.setChecked(True)
    qtbot.waitUntil(lambda: made.ok.isEnabled())
    return made


def test_pairs_are_shown_and_imported(project, dialog, ready):
    texts = [dialog.pairs.item(n).text() for n in range(dialog.pairs.count())]
    assert texts == [f"p{n}_mask.png -> p{n}.npy, frame 0" for n in range(3)]
    (problem,) = (
        dialog.problems.item(n).text() for n in range(dialog.problems.count())
    )
    assert problem == "nobody.png: no image of the project has this name."
    assert dialog.summary.text() == "3 new labels of 3 masks. 1 mask cannot be used."
    import_masks(project, dialog.plan, dialog.options())
    ready(project)
    assert project.messages.text == "3 labels imported. 1 mask left out."
    assert project.overview.progress.labelled == 3
    opened = project.navigator.current
    assert np.array_equal(opened.mask(0), MASK)
    assert opened.labels[0].provenance.imported_from == "PNG"
    assert project.annotation.is_unchanged(opened, 0)


def test_an_import_can_be_undone_in_the_mask(project, dialog, ready):
    opened = project.navigator.current
    before = opened.mask(0)
    import_masks(project, dialog.plan, dialog.options())
    ready(project)
    opened.image_state.undo()
    assert np.array_equal(opened.mask(0), before)


def open_row(session, viewer, paths, qtbot):
    row = OpenRow(session.controller)
    qtbot.addWidget(row)
    row.open_paths(paths)


def open_napari(session, viewer, paths, qtbot):
    viewer.open(paths, plugin="napari")


@pytest.mark.parametrize("open_by", [open_row, open_napari])
@pytest.mark.slow
def test_a_mask_that_is_opened_as_an_image_is_offered(
    project, masks, viewer, qtbot, open_by, napari_reader
):
    actions = ProjectActions(project, None, list)
    actions.connect()
    Image.fromarray(frame(7)).save(masks / "angiogram.png")
    paths = [masks / "p1_mask.png", masks / "angiogram.png"]
    open_by(project, viewer, paths, qtbot)
    qtbot.waitUntil(lambda: project.messages.alert is not None)
    actions.disconnect()
    alert = project.messages.alert
    assert alert.text == "p1_mask: two grey values, as a mask has and no angiogram."
    assert [a.text for a in alert.actions] == ["Import as mask…", "Leave it"]


@pytest.mark.slow
def test_a_labels_layer_becomes_the_mask(project, ready, qtbot):
    viewer, opened = project.controller.viewer, project.navigator.current
    before = opened.mask(0)
    layer = viewer.add_labels(MASK.astype(int) * 3, name="mine")
    viewer.add_labels(np.zeros((9, 9), int), name="other")
    project.controller.show_image(opened.image_state)
    menu = LabelsMenu(project, None)
    qtbot.addWidget(menu)
    menu.fill()
    assert [(a.text(), a.isEnabled()) for a in menu.actions()] == [
        ("mine", True),
        ("other", False),
    ]
    names = (SegmentName("6", ((7, 5), (7, 20))),)
    opened.image_state.history.set_names(0, names)
    menu.actions()[0].trigger()
    assert np.array_equal(opened.mask(0), MASK)
    assert opened.image_state.names[0] == names  # they follow the mask
    assert layer in viewer.layers
    opened.image_state.undo()
    assert np.array_equal(opened.mask(0), before)
    menu.actions()[0].trigger()
    project.annotation.accept()
    ready(project)
    made = project.project.labels.get(opened.id, 0).provenance
    assert made.imported_from == "Labels layer"


def test_drafts_keep_where_they_come_from(project, dialog, ready, qtbot):
    dialog.drafts.setChecked(True)
    qtbot.waitUntil(lambda: dialog.ok.isEnabled())
    assert dialog.summary.text().startswith("3 new drafts")
    import_masks(project, dialog.plan, dialog.options())
    ready(project)
    assert project.overview.progress.labelled == 0
    opened = project.navigator.current
    assert np.array_equal(opened.mask(0), MASK)
    project.annotation.accept()
    ready(project)
    made = project.project.labels.get(opened.id, 0).provenance
    assert (made.imported_from, made.model) == ("PNG", None)


def test_a_draft_keeps_the_reviewed_area(project, dialog, ready, qtbot):
    area, opened = project.navigator.area, project.navigator.current
    area.draw(BOX)
    area.layer.add_rectangles([[2, 2], [2, 28], [20, 28], [20, 2]])
    for box in (dialog.drafts, dialog.replace):
        box.setChecked(True)
    qtbot.waitUntil(lambda: dialog.ok.isEnabled())
    import_masks(project, dialog.plan, dialog.options())
    ready(project)
    assert np.array_equal(opened.mask(0), MASK)
    reviewed = area.reviewed(0, MASK)
    assert reviewed[15, 15] and not reviewed[28, 15]
    project.annotation.accept()
    ready(project)
    label = project.project.labels.get(opened.id, 0)
    assert np.array_equal(label.reviewed, reviewed)
