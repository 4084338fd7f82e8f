"""Export accepted labels as measurements: a report, or DICOM Structured Reports."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from napari_cmunet.errors import CMUNetError, ReadError
from napari_cmunet.io.images import read_angiogram
from napari_cmunet.io.masks.label_file import MEASUREMENT
from napari_cmunet.io.measured_lesion import (
    MeasuredFrame,
    recorded_lesion,
    reported,
    tree_lesions,
)
from napari_cmunet.io.pictures import Agreement
from napari_cmunet.io.report import (
    REPORT,
    FrameSections,
    agreement_section,
    frame_facts,
    frame_section,
    overview_row,
    overview_section,
    write_report,
)
from napari_cmunet.project.export.task import (
    Written,
    label_problem,
    labels_of,
    pixels_changed,
)
from napari_cmunet.project.labels.as_labelled import (
    agreements,
    as_labelled,
    pairs_of,
    read_changes,
)
from napari_cmunet.util.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_cmunet.io.images import Angiogram
    from napari_cmunet.io.masks.label_file import Label
    from napari_cmunet.project.export.task import ExportTask
    from napari_cmunet.project.project import Project
    from napari_cmunet.project.training.labels import LabelRef

_COMPARED = (
    ("minimum_diameter_mm", "Minimum lumen diameter", "mm"),
    ("minimum_diameter_px", "Minimum lumen diameter", "px"),
    ("diameter_stenosis_percent", "Diameter stenosis", "%"),
)


def write_project_report(task: ExportTask) -> Written:
    """Write ``report.html`` of all labels; raises WriteError."""
    with FrameSections(task.options.folder) as sections:
        return _write_report(task, sections)


def _write_report(task: ExportTask, sections: FrameSections) -> Written:
    project, named = task.project, task.options.original_names
    problems: list[str] = []
    changes = pixels_changed(project)
    rows: list[str] = []
    for ref, label, measured in _measured_frames(task, problems):
        status = project.status(ref.image)
        changed, added = changes.get((ref.image, ref.frame), (None, None))
        reviewed = 1.0 if label.reviewed is None else float(label.reviewed.mean())
        facts = frame_facts(measured, changed=changed, added=added, reviewed=reviewed)
        if status.flagged:
            facts.append(("Flagged", "for a second look"))
        if named and status.comment:  # as the names of images, it may name people
            facts.append(("Comment", status.comment))
        title, anchor = _title(project, ref, named=named), f"{ref.image}-{ref.frame}"
        sections.add(frame_section(measured, title, facts, anchor))
        rows.append(overview_row(measured, title, anchor))
    complete = not task.should_stop()
    if not rows or not complete:
        return Written([], problems, 0, complete)
    patients = len({ref.patient for ref in task.refs})
    about = f"{counted(len(rows), 'frame')} of {counted(patients, 'patient')}"
    first = []
    if len(rows) > 1:
        first = [agreement_section(_agreements(task)), overview_section(rows)]
    write_report(task.options.folder / REPORT, about, chain(first, sections))
    return Written([REPORT], problems, len(rows))


def write_dicom_sr(task: ExportTask) -> Written:
    """Write a Structured Report and a picture for each label; raises WriteError."""
    # pydicom takes a moment to import.
    from napari_cmunet.io.dicom.structured_report import write_measurements

    problems: list[str] = []
    files: list[str] = []
    done = 0
    for ref, _, measured in _measured_frames(task, problems):
        stem = f"{ref.image}_frame_{ref.frame:04d}"
        try:
            path = task.project.images.found_path(ref.image)
            files += write_measurements(task.options.folder, stem, path, measured)
        except CMUNetError as error:
            problems.append(label_problem((ref.image, ref.frame), error))
        else:
            done += 1
    return Written(files, problems, done, not task.should_stop())


def _measured_frames(
    task: ExportTask, problems: list[str]
) -> Iterator[tuple[LabelRef, Label, MeasuredFrame]]:
    """Read and measure labels one by one; slow."""
    from napari_cmunet.vessels.qca import Calibration, analyse_tree

    opened: tuple[str, Angiogram, str] | None = None
    for number, ref in enumerate(task.refs):
        if task.should_stop():
            return
        task.progress(number, len(task.refs))
        key = (ref.image, ref.frame)
        label = labels_of(task.project, [key], problems).get(key)
        if label is None:
            continue
        try:
            path = task.project.images.found_path(ref.image)
            if opened is None or opened[0] != ref.image:
                opened = (
                    ref.image,
                    read_angiogram(path, hashed=False),
                    task.project.images.hash_of(ref.image),
                )
            _, image, sha256 = opened
            if label.provenance.source_sha256 != sha256:
                raise ReadError(path, "the image's file has changed since.")
            if label.mask.shape != image.shape[-2:] or ref.frame >= len(image.frames):
                raise ReadError(path, "its label is of another size.")
            image = image.inverted() if label.provenance.inverted else image
            pixels = np.array(image.frames[ref.frame])
        except CMUNetError as error:
            problems.append(label_problem(key, error))
            continue
        record = label.note.get(MEASUREMENT)
        sized = as_labelled(image, [label])
        calibration = Calibration.of(
            sized.pixel_size_mm, sized.pixel_size_error, sized.pixel_size_source
        )
        names = label.names
        found = tree_lesions(analyse_tree(pixels, label.mask), calibration, names)
        lesions = reported(recorded_lesion(record, names), found)
        yield (
            ref,
            label,
            MeasuredFrame(
                ref.frame,
                pixels,
                image.window,
                image.burned_in,
                label.mask,
                lesions,
                calibration,
                label.provenance,
            ),
        )
    task.progress(len(task.refs), len(task.refs))


def _agreements(task: ExportTask) -> list[Agreement]:
    """Readers against the model; in pixels where not all have millimetres."""
    rows = read_changes(task.project, lambda problem: None, task.refs)
    limits = agreements(rows)
    in_mm, in_pixels, share = _COMPARED
    counts = [limits[n].count if n in limits else 0 for n, _, _ in (in_mm, in_pixels)]
    chosen = (in_mm, share) if counts[0] == counts[1] else _COMPARED
    return [
        Agreement(
            title, unit, pairs_of(rows, number), found.low, found.bias, found.high
        )
        for number, title, unit in chosen
        if (found := limits.get(number)) is not None
    ]


def _title(project: Project, ref: LabelRef, *, named: bool) -> str:
    record = project.images[ref.image]
    name = (record.path if named else None) or f"Image {ref.image}"
    return f"{name}, frame {ref.frame}" if (record.frames or 1) > 1 else name
