"""Export accepted labels as DICOM, one object for each DICOM image."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from napari_cmunet.errors import CMUNetError, ReadError
from napari_cmunet.io.images import read_angiogram
from napari_cmunet.project.export.task import (
    Written,
    label_problem,
    labels_of,
    segment_values,
    stack_labels,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_cmunet.io.images import Angiogram
    from napari_cmunet.io.masks.label_file import Label
    from napari_cmunet.project.export.task import ExportTask
    from napari_cmunet.project.files import FrameKey


def write_dicom_seg(task: ExportTask) -> Written:
    """Write a DICOM Segmentation for each DICOM image; raises WriteError."""
    # pydicom takes a moment to import.
    from napari_cmunet.io.dicom.segmentation import write_segmentation

    def write(
        path: Path, source: Path, image: Angiogram, label: Label, pages: list[Label]
    ) -> None:
        size = label.pixel_size_mm or image.pixel_size_mm
        values = segment_values(pages) if task.options.segments else None
        write_segmentation(
            path, source, label.mask, label.provenance, size, label.reviewed, values
        )

    return _write_dicom(task, "seg", write)


def write_dicom_sc(task: ExportTask) -> Written:
    """Write a Secondary Capture for each DICOM image; raises WriteError."""
    from napari_cmunet.io.dicom.secondary_capture import write_secondary_capture

    def write(
        path: Path, source: Path, image: Angiogram, label: Label, pages: list[Label]
    ) -> None:
        if image.burned_in:
            raise ReadError(source, "left out, since its picture may show text.")
        size = label.pixel_size_mm or image.pixel_size_mm
        write_secondary_capture(path, source, image, label.mask, label.provenance, size)

    return _write_dicom(task, "sc", write)


def _write_dicom(
    task: ExportTask,
    ending: str,
    write: Callable[[Path, Path, Angiogram, Label, list[Label]], None],
) -> Written:
    """Write one object for each image, of all its labels."""
    project, total = task.project, len(task.refs)
    keys: dict[str, list[FrameKey]] = {}
    for ref in task.refs:
        keys.setdefault(ref.image, []).append((ref.image, ref.frame))
    files: list[str] = []
    problems: list[str] = []
    done = 0
    for image, own in keys.items():
        if task.should_stop():
            return Written(files, problems, done, complete=False)
        task.progress(done, total)
        labels = labels_of(project, sorted(own), problems)
        if not labels:
            continue
        try:
            path = project.images.found_path(image)
            hashed = project.images.hash_of(image)
            if any(x.provenance.source_sha256 != hashed for x in labels.values()):
                raise ReadError(path, "the image's file has changed since.")
            whole = stack_labels(labels)
            frames = tuple(frame for _, frame in labels)
            whole = replace(whole, provenance=replace(whole.provenance, frames=frames))
            name = f"{image}_{ending}.dcm"
            source = read_angiogram(path, hashed=False)
            pages = list(labels.values())
            write(task.options.folder / name, path, source, whole, pages)
        except CMUNetError as error:
            problems += [label_problem(key, error) for key in labels]
        else:
            files.append(name)
            done += len(labels)
    task.progress(total, total)
    return Written(files, problems, done)
