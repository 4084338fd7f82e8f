"""Write COCO, nnU-Net and DICOM Segmentation; the table is in ``export.py``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from napari_cmunet.errors import CMUNetError, ReadError, WriteError
from napari_cmunet.io.exports import CocoFile
from napari_cmunet.io.images import read_angiogram
from napari_cmunet.project.export_tiff import Written, label_problem
from napari_cmunet.util.atomic import atomic_write, write_reason

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari_cmunet.project.export_tiff import ExportTask
    from napari_cmunet.project.patients import Side
    from napari_cmunet.project.training_labels import ProjectLabel

COCO = "coco.json"
NNUNET = "nnUNet_raw/Dataset001_CoronaryArteries"
_BACKGROUND, _ARTERY, _IGNORE = 0, 1, 2


def write_coco(task: ExportTask) -> Written:
    """Write ``coco.json``, and its pictures in ``coco_images``; raises WriteError."""
    pictures = _folder(task.folder / "coco_images")
    collected, count = CocoFile(), 0
    problems: list[str] = []
    for label in _with_pictures(task, problems):
        name = f"{_case(label)}.png"
        _write_png(pictures / name, _picture(label.frame))
        collected.add(name, label.mask, patient=label.patient, side=label.ref.side)
        count += 1
    collected.write(task.folder / COCO)
    return Written([COCO], problems, count, not task.should_stop())


def write_nnunet(task: ExportTask) -> Written:
    """Write an nnU-Net dataset with the project's own split by patients.

    The split is in ``splits_final.json``. Raises WriteError.
    """
    raw = task.folder / NNUNET
    images, labels = _folder(raw / "imagesTr"), _folder(raw / "labelsTr")
    problems: list[str] = []
    cases: list[tuple[str, Side]] = []
    ignored = False
    for label in _with_pictures(task, problems):
        case = _case(label)
        _write_png(images / f"{case}_0000.png", _picture(label.frame))
        classes = _classes(label)
        ignored |= bool((classes == _IGNORE).any())
        _write_png(labels / f"{case}.png", classes)
        cases.append((case, label.ref.side))
    _write_nnunet(raw, cases, ignored)
    files = [f"{NNUNET}/dataset.json"]
    return Written(files, problems, len(cases), not task.should_stop())


def write_dicom_seg(task: ExportTask) -> Written:
    """Write a DICOM Segmentation for each label of a single DICOM frame.

    Raises
    ------
    UsageError
        If highdicom is not installed.
    WriteError
    """
    # pydicom takes a moment to import.
    from napari_cmunet.io.dicom.segmentation import (
        require_highdicom,
        why_no_segmentation,
        write_segmentation,
    )

    require_highdicom()
    project = task.project
    files: list[str] = []
    problems: list[str] = []
    for number, ref in enumerate(task.refs):
        if task.should_stop():
            return Written(files, problems, len(files), complete=False)
        task.progress(number, len(task.refs))
        try:
            label = project.labels.get(ref.image, ref.frame)
            if label is None:
                continue
            path = project.images.found_path(ref.image)
            size = label.pixel_size_mm or read_angiogram(path).pixel_size_mm
            reason = why_no_segmentation(path, size)
            if label.provenance.source_sha256 != project.images.hash_of(ref.image):
                reason = "the image's file has changed since"
            if reason:
                raise ReadError(path, f"{reason}; no DICOM segmentation was written.")
            name = f"{ref.image}_seg.dcm"
            write_segmentation(
                _folder(task.folder) / name, path, label.mask, label.provenance, size
            )
            files.append(name)
        except CMUNetError as error:
            problems.append(label_problem((ref.image, ref.frame), error))
    task.progress(len(task.refs), len(task.refs))
    return Written(files, problems, len(files))


def _with_pictures(task: ExportTask, problems: list[str]) -> Iterator[ProjectLabel]:
    """Read labels whose pictures may go out with them."""
    total = len(task.refs)
    for number, label in enumerate(
        task.project.labels.read(task.refs, problems.append)
    ):
        if task.should_stop():
            return
        task.progress(number, total)
        if label.burned_in:
            problems.append(
                f"Label {label.name}: left out for other programs, since its picture "
                "may show text, such as a name. Its mask can be exported as TIFF."
            )
            continue
        yield label
    task.progress(total, total)


def _case(label: ProjectLabel) -> str:
    return f"{label.ref.image}_frame_{label.ref.frame:04d}"


def _write_nnunet(raw: Path, cases: list[tuple[str, Side]], ignored: bool) -> None:
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
    """Return the grey values in 8 or 16 bits; whole numbers are kept exactly."""
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
