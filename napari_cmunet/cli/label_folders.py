"""Labels from folders: images and masks paired by stem, checked before use."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from itertools import count, filterfalse
from typing import TYPE_CHECKING

import numpy as np

from napari_cmunet.errors import CMUNetError, ReadError, display_name
from napari_cmunet.io.discovery import find_images, stem_of
from napari_cmunet.io.images import read_angiogram
from napari_cmunet.io.masks.files import (
    LargeMaskError,
    LargeMasks,
    is_beside_mask,
    read_provenance,
)
from napari_cmunet.io.masks.foreign_masks import find_masks
from napari_cmunet.io.sniffing import SUFFIXES
from napari_cmunet.project.image_records import is_file
from napari_cmunet.project.labels.mask_matching import read_for_image
from napari_cmunet.project.patients import by_dicom, read_patients
from napari_cmunet.training.dataset import Label
from napari_cmunet.training.evaluation.validation import validates
from napari_cmunet.util.safe_files import is_folder
from napari_cmunet.util.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path


@dataclass(frozen=True)
class LabelFolders:
    """What was read, and what was wrong."""

    labels: list[Label]  # one for each frame; a cine with a mask stack gives several
    problems: list[str]  # one sentence for each file that could not be used
    notes: list[str]  # what was noticed and done about it


def read_label_folders(
    images: Sequence[Path],
    masks: Sequence[Path],
    patients: Path | None = None,
    large_masks: LargeMasks = "refuse",
) -> LabelFolders:
    """Read every mask that has an image of the same stem.

    An image without a mask is passed over: it is simply not labelled. A mask
    without an image, or of another size, is a problem. Of what ``segment`` and
    ``export`` write beside a mask, the reviewed area is read.

    Parameters
    ----------
    images, masks : sequences of Path
        Folders (walked) or files.
    patients : Path, optional
        CSV with the columns ``stem`` and ``patient``. Without it, each stem counts
        as a patient of its own, and a note says so.
    large_masks : {"refuse", "keep", "invert"}
        See :func:`napari_cmunet.io.masks.files.read_mask`.

    Raises
    ------
    ReadError
        If the CSV cannot be used, or ``images`` has a folder that is missing or empty.
    """
    by_stem: dict[str, list[Path]] = {}
    for file in find_images(images):
        if is_folder(file.path):
            raise ReadError(file.path, "there is no image in this folder.")
        if file.path in images and not is_file(file.path):
            what = "file" if file.path.suffix.lower() in SUFFIXES else "folder"
            raise ReadError(file.path, f"there is no such {what}.")
        by_stem.setdefault(stem_of(file.path), []).append(file.path)
    patient_of = read_patients(patients) if patients else {}
    found = LabelFolders([], [], [])
    seen: dict[str, str] = {}
    for file in find_images(masks):
        if file.path.stem not in by_stem and is_beside_mask(file.path):
            continue
        try:
            found.labels.extend(
                _read_one(
                    file.path, by_stem, patient_of, seen, found.notes, large_masks
                )
            )
        except LargeMaskError as exc:
            found.problems.append(
                f"{exc} --large-masks invert exchanges them, --large-masks keep takes "
                "the mask as it is."
            )
        except CMUNetError as exc:
            found.problems.append(str(exc))
    if patients is None and len(found.labels) > 1:
        found.notes.append(
            "no --patients CSV: every file counts as another patient. If several are "
            "of one patient, the figures may be too good."
        )
    if partly := sum(label.reviewed is not None for label in found.labels):
        found.notes.append(
            f"{counted(partly, 'label')} reviewed in part; the rest is left out."
        )
    missing = [x.name for x in found.labels if patients and x.name not in patient_of]
    if missing:
        found.notes.append(
            f"{counted(len(missing), 'label')} not in the patients CSV, each taken as "
            "another patient."
        )
    return found


def number_patients(labels: Iterable[Label]) -> list[Label]:
    """Return the labels with numbers in place of what may name their patients.

    A number is the next one on the patient's side of :func:`validates`, so that a
    patient who was once left out is so again, whoever else is there.
    """
    validating = filter(validates, map("patient-{}".format, count(1)))
    training = filterfalse(validates, map("patient-{}".format, count(1)))
    numbered: dict[str, str] = {}
    found = []
    for label in labels:
        if label.patient not in numbered:
            side = validating if validates(label.patient) else training
            numbered[label.patient] = next(side)
        found.append(replace(label, patient=numbered[label.patient]))
    return found


def _read_one(
    path: Path,
    by_stem: dict[str, list[Path]],
    patient_of: dict[str, str],
    seen: dict[str, str],
    notes: list[str],
    large_masks: LargeMasks,
) -> list[Label]:
    if is_folder(path):
        raise ReadError(path, "there is no mask in this folder.")
    if not path.is_file():
        raise ReadError(path, "there is no such file or folder.")
    candidates = by_stem.get(path.stem, [])
    if not candidates:
        raise ReadError(path, "no image has this stem.")
    if len(candidates) > 1:
        raise ReadError(path, f"{len(candidates)} images have this stem; keep one.")
    image = read_angiogram(candidates[0])
    made = read_provenance(path)  # refuses DICOM and JSON
    found = find_masks([path])
    if found.problems:
        raise CMUNetError(found.problems[0])
    fitted = read_for_image(found.masks[0], image, large_masks=large_masks)
    if made is not None and made.source_sha256 not in (None, image.sha256):
        notes.append(
            f"{display_name(path)}: made of another image file than "
            f"{display_name(candidates[0])}; do both show the same?"
        )
    if made is not None and made.inverted:
        image = image.inverted()
    name = display_name(path.stem)
    # What a DICOM file says of its patient; only to be compared, never written or sent.
    patient = patient_of.get(path.stem) or by_dicom(candidates[0]) or path.stem
    labels = []
    for index, artery in fitted.frames.items():
        frame = np.asarray(image.frames[index])
        digest = hashlib.sha256(frame.tobytes()).hexdigest()
        if digest in seen:
            notes.append(f"{name}: the same image as {seen[digest]}; left out.")
            continue
        seen[digest] = name
        labels.append(
            Label(
                frame,
                artery,
                fitted.reviewed[index],
                patient=patient,
                name=f"{name}#{index}" if image.is_cine else name,
            )
        )
    if empty := sum(not label.mask.any() for label in labels):
        notes.append(
            f"{name}: no artery in {counted(empty, 'label')}; counts as background."
        )
    return labels
