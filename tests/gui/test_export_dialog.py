"""What is asked before masks are written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from napari.layers._source import layer_source
from qtpy.QtWidgets import QFileDialog, QMessageBox

from napari_cmunet.gui.dialogs import with_suffix
from napari_cmunet.gui.export import prepare, summary, write_masks
from napari_cmunet.gui.export_section import ask_where
from napari_cmunet.gui.panel_state import describe
from tests.gui.conftest import cine, frame


@pytest.fixture
def dialogs(monkeypatch):
    """Answer the dialogs: ``asked`` holds the questions, ``say`` the buttons."""

    class Dialogs:
        def __init__(self) -> None:
            self.asked: list[str] = []
            self.say: str | None = None

        def file(self, path) -> None:
            monkeypatch.setattr(
                QFileDialog, "getSaveFileName", lambda *a, **k: (str(path), "")
            )

        def folder(self, path) -> None:
            monkeypatch.setattr(
                QFileDialog, "getExistingDirectory", lambda *a, **k: str(path)
            )

    made = Dialogs()
    monkeypatch.setattr(
        QMessageBox, "exec", lambda box: made.asked.append(box.text()) or 0
    )
    monkeypatch.setattr(
        QMessageBox,
        "clickedButton",
        lambda box: next((b for b in box.buttons() if b.text() == made.say), None),
    )
    return made


@pytest.mark.parametrize(
    ("chosen", "meant"),
    [("a", "a.tif"), ("a.tif", "a.tif"), ("a.TIFF", "a.TIFF"), ("a.b", "a.b.tif")],
)
def test_the_suffix_is_tiff(chosen, meant):
    assert with_suffix(Path(chosen), ".tif", ".tiff").name == meant


def test_a_new_file_is_not_asked_about(panel, controller, opened, dialogs, tmp_path):
    dialogs.file(tmp_path / "new")
    image_state = controller.active
    assert ask_where([image_state], "", panel) == [(image_state, tmp_path / "new.tif")]
    assert dialogs.asked == []


def test_cancelling_the_file_dialog(panel, controller, opened, dialogs):
    dialogs.file("")
    assert ask_where([controller.active], "", panel) == []


def test_existing_files_are_asked_about(
    panel, controller, viewer, settled, dialogs, tmp_path
):
    viewer.add_image(frame(0), name="a")
    viewer.add_image(frame(1), name="b")
    settled(controller)
    (tmp_path / "a.tif").write_bytes(b"x")
    dialogs.folder(tmp_path)
    assert ask_where(controller.image_states, "", panel) == []
    assert dialogs.asked == ["a.tif exists already."]
    dialogs.say = "Overwrite"
    paths = [path for _, path in ask_where(controller.image_states, "", panel)]
    assert paths == [tmp_path / "a.tif", tmp_path / "b.tif"]


def test_an_open_image_is_never_replaced(
    panel, controller, viewer, settled, dialogs, tmp_path, monkeypatch
):
    suggested = []
    files = [tmp_path / "a.tif", tmp_path / "b.tif"]
    for number, file in enumerate(files):
        tifffile.imwrite(file, frame(number))
        with layer_source(path=str(file)):
            viewer.add_image(frame(number), name=file.stem)
    settled(controller)
    a, b = controller.image_states
    dialogs.say = "Overwrite"

    def save_as(parent, title, path, *args, **kwargs):
        suggested.append(path)
        return str(files[1]), ""

    monkeypatch.setattr(QFileDialog, "getSaveFileName", save_as)
    assert ask_where([a], str(tmp_path), panel, [a, b]) == []
    assert suggested == [str(tmp_path / "a_mask.tif")]
    dialogs.folder(tmp_path)
    assert ask_where([a, b], str(tmp_path), panel) == []
    assert dialogs.asked == [
        "b.tif is an open image. The mask would replace it. "
        "Choose another name or folder.",
        "a.tif, b.tif are open images. The masks would replace them. "
        "Choose another folder.",
    ]
    dialogs.folder(tmp_path / "masks")
    assert len(ask_where([a, b], str(tmp_path), panel)) == 2


def test_unsegmented_frames_are_told(
    qtbot, panel, controller, viewer, model, dialogs, tmp_path
):
    model.open.clear()
    viewer.add_image(cine(4))
    model.let_through(1)
    qtbot.waitUntil(lambda: controller.queue.progress[0] == 1)
    dialogs.file(tmp_path / "c.tif")
    assert ask_where([controller.active], "", panel) == []
    assert dialogs.asked == [
        "3 frames are not segmented yet and would be exported without arteries."
    ]
    dialogs.say = "Export all the same"
    assert len(ask_where([controller.active], "", panel)) == 1
    assert describe(controller).masks


def test_exporting_a_cine_says_which_frames_were_corrected(
    opened_cine, controller, tmp_path
):
    image_state = controller.active
    job = prepare(image_state, tmp_path / "c.tif")
    text, _ = summary(write_masks([job]))
    assert text == f"Exported c.tif to {tmp_path}. No frame was corrected."
    for number in (3, 1):
        rows, columns = np.nonzero(image_state.mask_frame(number) == 0)
        image_state.write(number, (rows[:1], columns[:1]), 1)
    text, _ = summary(write_masks([prepare(image_state, tmp_path / "c.tif")]))
    assert text.endswith("2 of 5 frames were corrected: 1, 3.")
