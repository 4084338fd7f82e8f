"""Asks where masks go, and before anything is overwritten or left incomplete."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QFileDialog, QMessageBox, QWidget

from napari_cmunet.gui.export import file_name, file_names, with_suffix

if TYPE_CHECKING:
    from napari_cmunet.gui.reading import Reading


def ask_where(
    readings: list[Reading], folder: str, parent: QWidget
) -> list[tuple[Reading, Path]]:
    """Ask for the file of one mask, or the folder of several.

    Returns
    -------
    list of (Reading, Path)
        Empty if the user thought better of it.
    """
    if not _finished_enough(readings, parent):
        return []
    if len(readings) == 1:
        # The suffix may still be added, so the question comes after, and is ours.
        chosen, _ = QFileDialog.getSaveFileName(
            parent,
            "Export mask",
            str(Path(folder) / file_name(readings[0])),
            "Mask (*.tif *.tiff)",
            options=QFileDialog.Option.DontConfirmOverwrite,
        )
        targets = [with_suffix(chosen)] if chosen else []
    else:
        chosen = QFileDialog.getExistingDirectory(
            parent, f"Folder for {len(readings)} masks", folder
        )
        targets = [Path(chosen) / n for n in file_names(readings)] if chosen else []
    existing = [path.name for path in targets if path.exists()]
    if existing and not _may_overwrite(existing, parent):
        return []
    return list(zip(readings, targets, strict=True)) if targets else []


def _finished_enough(readings: list[Reading], parent: QWidget) -> bool:
    missing = sum(
        1
        for reading in readings
        for frame in reading.waiting_frames()
        if not reading.has_prediction(frame) and not reading.is_corrected(frame)
    )
    if not missing:
        return True
    frames = "1 frame is" if missing == 1 else f"{missing} frames are"
    return _ask(
        parent,
        "Not all frames are segmented",
        f"{frames} not segmented yet and would be exported without arteries.",
        "Export all the same",
    )


def _may_overwrite(names: list[str], parent: QWidget) -> bool:
    if len(names) == 1:
        text = f"{names[0]} exists already."
    else:
        shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
        text = f"{len(names)} files exist already: {shown}."
    return _ask(parent, "Overwrite?", text, "Overwrite")


def _ask(parent: QWidget, title: str, text: str, yes: str) -> bool:
    box = QMessageBox(
        QMessageBox.Icon.Question,
        title,
        text,
        QMessageBox.StandardButton.Cancel,
        parent,
    )
    accept = box.addButton(yes, QMessageBox.ButtonRole.AcceptRole)
    box.setDefaultButton(QMessageBox.StandardButton.Cancel)
    box.exec()
    return box.clickedButton() is accept
