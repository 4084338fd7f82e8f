"""Asks where masks go, and before anything is overwritten or left incomplete."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QFileDialog, QMessageBox, QWidget

from napari_cmunet.gui.export import (
    file_name,
    file_names,
    same_file,
    source_file,
    with_suffix,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_cmunet.gui.reading import Reading


def ask_where(
    readings: list[Reading],
    folder: str,
    parent: QWidget,
    images: Sequence[Reading] = (),
) -> list[tuple[Reading, Path]]:
    """Ask for the file of one mask, or the folder of several.

    No mask may replace the file of one of ``images``, nor of ``readings``.

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
            str(_suggestion(readings[0], Path(folder))),
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
    sources = [p for r in (*readings, *images) if (p := source_file(r)) is not None]
    lost = [t.name for t in targets if any(same_file(t, p) for p in sources)]
    if lost:
        _refuse(lost, parent)
        return []
    if existing and not _may_overwrite(existing, parent):
        return []
    return list(zip(readings, targets, strict=True)) if targets else []


def _suggestion(reading: Reading, folder: Path) -> Path:
    """A file for one mask; beside the image it must not have the image's own name."""
    path = folder / file_name(reading)
    own = source_file(reading)
    if own is not None and same_file(path, own):
        path = path.with_name(f"{path.stem}_mask{path.suffix}")
    return path


def _refuse(names: list[str], parent: QWidget) -> None:
    if len(names) == 1:
        text = f"{names[0]} is an open image. The mask would replace it. "
        text += "Choose another name or folder."
    else:
        text = f"{_listed(names)} are open images. The masks would replace them. "
        text += "Choose another folder."
    QMessageBox(
        QMessageBox.Icon.Warning,
        "Not exported",
        text,
        QMessageBox.StandardButton.Ok,
        parent,
    ).exec()


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
        text = f"{len(names)} files exist already: {_listed(names)}."
    return _ask(parent, "Overwrite?", text, "Overwrite")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


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
