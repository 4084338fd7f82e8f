"""Accepted masks leave the project as TIFF, over nobody else's files."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from napari_cmunet.gui.export_section import ExportLabelsDialog
from napari_cmunet.gui.project.actions import ProjectActions, export_labels
from napari_cmunet.io.masks.files import read_mask
from napari_cmunet.project.export.formats import FORMATS, ExportOptions


@pytest.fixture
def labelled(project, ready):
    """Two of five images have a label."""
    for _ in range(2):
        project.annotation.accept()
        project.navigator.next()
        ready(project)
    return project


def export(session, folder, **options):
    """Export; returns the lists that further questions and the results go to."""
    asked, shown = [], []
    export_labels(
        session,
        ExportOptions(folder, **options),
        lambda: asked.append(True),
        lambda text, tip: shown.append((text, tip)),
    )
    return asked, shown


@pytest.mark.slow
def test_all(labelled, ready, tmp_path):
    folder = tmp_path / "masks"
    _, shown = export(labelled, folder)
    ready(labelled)
    rows = list(csv.DictReader((folder / "index.csv").open()))
    assert len(rows) == 2
    for row in rows:
        label = labelled.project.labels.get(row["image"], 0)
        np.testing.assert_array_equal(read_mask(folder / row["file"]), label.mask)
    begin = "Exported 2 masks and index.csv to "
    assert shown == [(f"{begin}…/{tmp_path.name}/masks.", f"{begin}{folder}.")]
    labelled.messages.show("Something else.", "a tip")
    labelled.messages.show("Another line.")
    assert labelled.messages.tip == ""
    assert "exported" in [entry.what for entry in labelled.project.journal()]


def test_chosen_ones_by_their_names(labelled, ready, tmp_path):
    key = (labelled.overview.ids[1], 0)
    export(labelled, tmp_path / "m", which=frozenset([key]), original_names=True)
    ready(labelled)
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == ["index.csv", "p1.tif"]


@pytest.mark.slow
def test_other_files_are_asked_about(labelled, ready, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "index.csv").write_text("precious")
    asked, _ = export(labelled, folder)
    ready(labelled)
    assert (folder / "index.csv").read_text() == "precious"
    assert len(list(folder.iterdir())) == 1
    actions = {way.text: way for way in labelled.messages.alert.actions}
    assert list(actions) == [
        "Overwrite 1 file",
        "Choose another folder…",
        "Do not export",
    ]
    actions["Choose another folder…"].act()
    assert asked
    actions["Overwrite 1 file"].act()
    ready(labelled)
    assert (folder / "index.csv").read_text() != "precious"
    assert labelled.messages.alert is None


def test_an_image_of_the_project_is_never_replaced(labelled, ready, pictures):
    image = labelled.overview.ids[0]
    # An image that has the name of its mask.
    (pictures / f"{image}.tif").write_bytes((pictures / "p0.npy").read_bytes())
    labelled.project.images.add([pictures])
    export(labelled, pictures)
    ready(labelled)
    assert "image of this project" in labelled.messages.alert.text
    assert not any("Overwrite" in way.text for way in labelled.messages.alert.actions)


def test_a_folder_that_cannot_be_made(labelled, ready, tmp_path):
    (tmp_path / "file").write_text("x")
    export(labelled, tmp_path / "file" / "masks")
    ready(labelled)
    assert "Not exported" in labelled.messages.alert.text


@pytest.mark.slow
def test_the_dialog(qtbot, labelled, ready, tmp_path, monkeypatch):
    wanted = list(labelled.overview.ids[:2])
    seen = []

    def answer(dialog):
        seen.append((dialog.all.text(), dialog.some.text(), dialog.folder.text()))
        dialog.some.setChecked(True)
        dialog.names.setChecked(True)
        return True

    monkeypatch.setattr(ExportLabelsDialog, "exec", answer)
    ProjectActions(labelled, None, lambda: wanted).export()
    ready(labelled)
    assert seen == [
        (
            "All accepted masks (2)",
            "Those of the chosen images (2)",
            str(tmp_path / "masks"),
        )
    ]
    names = sorted(p.name for p in (tmp_path / "masks").iterdir())
    assert names == ["index.csv", "p0.tif", "p1.tif"]


def test_nothing_to_export(project, ready):
    ProjectActions(project, None, list).export()
    assert project.messages.text == "There is no accepted mask to export yet."


def test_the_dialog_shows_every_format_of_the_table(qtbot, tmp_path):
    dialog = ExportLabelsDialog(2, frozenset(), tmp_path, None)
    qtbot.addWidget(dialog)
    assert [box.text() for box in dialog.formats.values()] == [f.title for f in FORMATS]
    assert dialog.options().formats == ("tiff",)
    dialog.formats["coco"].click()
    dialog.formats["tiff"].click()
    assert dialog.options().formats == ("coco",)
    assert not dialog.stacks.isEnabled()
    assert not dialog.names.isEnabled()
    dialog.formats["report"].click()
    assert dialog.names.isEnabled()  # its headings can be the images' names
    dialog.formats["report"].click()
    dialog.formats["coco"].click()
    assert not dialog.ok.isEnabled()  # nothing to write


@pytest.mark.slow
def test_in_two_formats(labelled, ready, tmp_path):
    folder = tmp_path / "masks"
    _, shown = export(labelled, folder, formats=("tiff", "coco"))
    ready(labelled)
    assert (folder / "coco.json").is_file()
    assert (folder / "index.csv").is_file()
    assert "Exported 2 masks in 2 formats to" in shown[0][0]


@pytest.mark.slow
def test_a_format_that_wrote_nothing_is_not_counted(labelled, ready, tmp_path):
    folder = tmp_path / "masks"
    _, shown = export(labelled, folder, formats=("tiff", "dicom-seg"))
    ready(labelled)
    text, _ = shown[0]
    assert text.startswith("Exported 2 masks and index.csv to")
    assert "formats" not in text
    assert text.endswith(
        " Nothing was written as DICOM Segmentation: none of the 2 images is "
        "a DICOM file."
    )


def test_nothing_that_can_be_exported(labelled, ready, tmp_path):
    folder = tmp_path / "masks"
    _, shown = export(labelled, folder, formats=("dicom-seg",))
    ready(labelled)
    assert shown[0][0].startswith("Nothing was exported. Nothing was written as ")
    assert not folder.exists()
