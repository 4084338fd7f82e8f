"""Accepted labels for other programs' trainings: COCO, and the folders of nnU-Net."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from napari_cmunet.errors import WriteError
from napari_cmunet.io.exports import CocoFile
from napari_cmunet.util.atomic import atomic_write, write_reason

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_cmunet.project.project import Project
    from napari_cmunet.project.training_labels import ProjectLabel

COCO = "coco.json"
NNUNET = "nnUNet_raw/Dataset001_CoronaryArteries"
_BACKGROUND, _ARTERY, _IGNORE = 0, 1, 2


def export_for_tools(
    project: Project,
    folder: Path,
    *,
    coco: bool = False,
    nnunet: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[str], list[str]]:
    """Write all accepted labels, with their frames, into an export's folder.

    Parameters
    ----------
    coco : bool
        ``coco.json``, and its pictures in ``coco_images``.
    nnunet : bool
        ``nnUNet_raw/Dataset001_CoronaryArteries``, with the project's own split by
        patients in ``splits_final.json``.

    Returns
    -------
    files : list of str
        The JSON files written, relative to the folder.
    problems : list of str
        A sentence for each label that was left out: its image could not be read, or
        text may be burnt into it, and pictures go out with the labels.

    Raises
    ------
    WriteError
    """
    problems: list[str] = []
    refs = project.labels.refs()
    collected, cases = CocoFile(), []
    pictures = _folder(folder / "coco_images") if coco else None
    raw = folder / NNUNET
    if nnunet:
        images, labels = _folder(raw / "imagesTr"), _folder(raw / "labelsTr")
    ignored = False
    for number, label in enumerate(project.labels.read(refs, problems.append)):
        progress(number, len(refs))
        if label.burned_in:
            problems.append(
                f"Label {label.name}: left out for other programs, since its picture "
                "may show text, such as a name. Its mask TIFF is written."
            )
            continue
        case = f"{label.ref.image}_frame_{label.ref.frame:04d}"
        frame = _picture(label.frame)
        if pictures is not None:
            _write_png(pictures / f"{case}.png", frame)
            collected.add(
                f"{case}.png", label.mask, patient=label.patient, side=label.ref.side
            )
        if nnunet:
            _write_png(images / f"{case}_0000.png", frame)
            classes = _classes(label)
            ignored |= bool((classes == _IGNORE).any())
            _write_png(labels / f"{case}.png", classes)
            cases.append((case, label.ref.side))
    files = []
    if coco:
        collected.write(folder / COCO)
        files.append(COCO)
    if nnunet:
        _write_nnunet(raw, cases, ignored)
        files.append(f"{NNUNET}/dataset.json")
    progress(len(refs), len(refs))
    return files, problems


def _write_nnunet(raw: Path, cases: list[tuple[str, str]], ignored: bool) -> None:
    names = {"background": _BACKGROUND, "artery": _ARTERY}
    if ignored:
        names["ignore"] = _IGNORE
    _write_json(
        raw / "dataset.json",
        {
            "channel_names": {"0": "XA"},
            "labels": names,
            "numTraining": len(cases),
            "file_ending": ".png",
            "overwrite_image_reader_writer": "NaturalImage2DIO",
        },
    )
    # nnU-Net would split by frames, and frames of one patient would lie on both sides.
    split = {
        "train": [case for case, side in cases if side != "validation"],
        "val": [case for case, side in cases if side == "validation"],
    }
    _write_json(raw / "splits_final.json", [split])


def _classes(label: ProjectLabel) -> np.ndarray:
    classes = label.mask.astype(np.uint8) * np.uint8(_ARTERY)
    if label.reviewed is not None:  # unknown is not background
        classes[~label.reviewed] = _IGNORE
    return classes


def _picture(frame: np.ndarray) -> np.ndarray:
    """The frame's grey values in 8 or 16 bits, none lost where they are whole."""
    if frame.dtype in (np.uint8, np.uint16):
        return frame
    low, high = float(frame.min()), float(frame.max())
    whole = frame.dtype.kind in "iu" and high - low < 2**16
    scale = 1.0 if whole or high == low else 65535 / (high - low)
    return np.rint((frame.astype(np.float64) - low) * scale).astype(np.uint16)


def _write_png(path: Path, pixels: np.ndarray) -> None:
    with atomic_write(path) as handle:
        Image.fromarray(pixels).save(handle, "PNG")


def _write_json(path: Path, content: object) -> None:
    with atomic_write(path, "w") as file:
        json.dump(content, file, indent=1)


def _folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(path, write_reason(error)) from error
    return path
