"""Export accepted masks as TIFF, with an ``index.csv``.

Files are named by the images' ids, since an image's own name may name a patient;
``index.csv`` identifies an image by the hash of its file.
"""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from napari_cmunet.errors import CMUNetError
from napari_cmunet.io.discovery import InputFile, output_paths
from napari_cmunet.io.masks.files import BESIDE_MASK, write_mask, write_pixels
from napari_cmunet.io.provenance import record_path, write_record
from napari_cmunet.project.export.task import (
    ExportOptions,
    ExportTask,
    Written,
    label_problem,
    labels_of,
    pixels_changed,
    segment_values,
    stack_labels,
)
from napari_cmunet.util.safe_files import make_folder, safe_name, write_table
from napari_cmunet.vessels.segments import UNNAMED, VALUES, vessel_code, vessel_title

if TYPE_CHECKING:
    from napari_cmunet.io.masks.label_file import Label
    from napari_cmunet.project.files import FrameKey
    from napari_cmunet.project.project import Project

INDEX = "index.csv"
SEGMENTS = "segments.csv"
COLUMNS = (
    "file",
    "page",
    "reviewed_file",
    "image",
    "frame",
    "patient",
    "source_sha256",
    "mask_sha256",
    "height",
    "width",
    "artery_pixels",
    "artery_mm2",
    "pixel_height_mm",
    "pixel_width_mm",
    "pixels_changed",
    "flagged",
    "comment",
    "reviewed_share",
    "model",
    "accepted",
)


def target_names(task: ExportTask) -> list[str]:
    """Return the names of all files that the masks may be written to."""
    _, names = _files(task)
    targets = [*(str(name) for name in names), INDEX]
    targets += [str(_beside(name, "reviewed")) for name in names]
    targets += [str(_beside(name, "segments")) for name in names]
    return targets + [str(name.with_suffix(".json")) for name in names]


def write_tiff(task: ExportTask) -> Written:
    """Write one TIFF for each frame or cine, and ``index.csv``.

    A label that was reviewed in part gets a second file, ``…_reviewed.tif``. The
    images are not needed.
    """
    groups, names = _files(task)
    patients = {r.image: r.patient for r in task.refs}
    changed = pixels_changed(task.project)
    rows: list[dict[str, object]] = []
    problems: list[str] = []
    complete, done = True, 0
    for keys, name in zip(groups, names, strict=True):
        if task.should_stop():
            complete = False
            break
        task.progress(done, len(task.refs))
        done += len(keys)
        labels = labels_of(task.project, keys, problems)
        if not labels:
            continue
        patient = patients[keys[0][0]]
        try:
            made = _export(task.options, name, labels, patient, changed)
        except CMUNetError as error:
            problems += [label_problem(key, error) for key in labels]
            continue
        status = task.project.status(keys[0][0])
        for row in made:
            row["flagged"] = int(status.flagged)
            # As the names of images, a comment may name people.
            row["comment"] = status.comment if task.options.original_names else ""
        rows += made
    if rows:
        write_table(task.options.folder / INDEX, COLUMNS, rows)
        if task.options.segments:
            write_segment_table(task.options.folder)
    task.progress(len(task.refs), len(task.refs))
    files = list(dict.fromkeys(str(row["file"]) for row in rows))
    return Written(files, problems, len(rows), complete)


def _files(task: ExportTask) -> tuple[list[list[FrameKey]], list[PurePosixPath]]:
    keys = [(ref.image, ref.frame) for ref in task.refs]
    groups = _groups(task.project, keys, task.options.stacks)
    return groups, _names(task.project, groups, task.options.original_names)


def _groups(
    project: Project, keys: list[FrameKey], stacks: bool
) -> list[list[FrameKey]]:
    """Group labels by file: those of a cine share one if ``stacks``."""
    groups: dict[object, list[FrameKey]] = {}
    for image, frame in keys:
        whole = stacks and (frame or (project.images[image].frames or 1) > 1)
        groups.setdefault(image if whole else (image, frame), []).append((image, frame))
    return [sorted(group) for group in groups.values()]


def _names(
    project: Project, groups: list[list[FrameKey]], original: bool
) -> list[PurePosixPath]:
    """Return a unique file name for each group of labels."""
    keys = [key for group in groups for key in group]
    images = list(dict.fromkeys(image for image, _ in keys))
    stems: dict[str, PurePosixPath] = {}
    if original:
        files = []
        for image in images:
            path = project.images[image].path or image
            safe = PurePosixPath(*(safe_name(part) for part in path.split("/")))
            files.append(InputFile(Path(safe), Path(safe)))
        for image, path in zip(images, output_paths(files), strict=True):
            stems[image] = PurePosixPath(path.with_suffix("").as_posix())
    else:
        stems = {image: PurePosixPath(image) for image in images}
    cines = {image for image, frame in keys if frame}
    cines |= {image for image in images if (project.images[image].frames or 1) > 1}
    names = []
    for group in groups:
        image, frame = group[0]
        stem = stems[image]
        # A stack, or a frame of a cine, or a single image.
        end = "_frames" if len(group) > 1 else ""
        if image in cines and not end:
            end = f"_frame_{frame:04d}"
        names.append(stem.with_name(f"{stem.name}{end}.tif"))
    return names


def _beside(name: PurePosixPath, what: str) -> PurePosixPath:
    return name.with_name(BESIDE_MASK[what].format(name.stem))


def _export(
    options: ExportOptions,
    name: PurePosixPath,
    labels: dict[FrameKey, Label],
    patient: str,
    changed: dict[FrameKey, tuple[int, int | None]],
) -> list[dict[str, object]]:
    """Write the labels of one file, and return their rows of the index."""
    path = options.folder / name
    make_folder(path.parent)
    whole = stack_labels(labels)
    size = whole.pixel_size_mm
    write_mask(path, whole.mask, whole.provenance, size, options.values)
    beside = ""
    if whole.reviewed is not None:
        second = options.folder / _beside(name, "reviewed")
        write_mask(second, whole.reviewed, whole.provenance, size, options.values)
        beside = str(_beside(name, "reviewed"))
    if options.segments:
        write_pixels(
            options.folder / _beside(name, "segments"),
            segment_values(labels.values()),
            {"content": "SYNTAX segments", "table": SEGMENTS},
            whole.provenance,
            size,
        )
    if options.records:
        known = {key[1]: changed[key][0] for key in labels if key in changed}
        write_record(
            record_path(path),
            whole.mask,
            whole.provenance,
            pixel_size_mm=size,
            pixel_size_source=whole.note.get("pixel_size_source"),
            reviewed=1.0 if whole.reviewed is None else float(whole.reviewed.mean()),
            pixels_changed=known if len(known) == len(labels) else None,
        )
    mask_sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    rows = []
    for page, ((image, frame), label) in enumerate(labels.items()):
        height, width = label.mask.shape
        share = 1.0 if label.reviewed is None else float(label.reviewed.mean())
        pixels, side = int(label.mask.sum()), label.pixel_size_mm
        rows.append(
            {
                "file": str(name),
                "page": page,
                "reviewed_file": beside,
                "image": image,
                "frame": frame,
                "patient": patient,
                "source_sha256": label.provenance.source_sha256 or "",
                "mask_sha256": mask_sha256,
                "height": height,
                "width": width,
                "artery_pixels": pixels,
                "artery_mm2": round(pixels * side[0] * side[1], 3) if side else "",
                "pixel_height_mm": side[0] if side else "",
                "pixel_width_mm": side[1] if side else "",
                "pixels_changed": changed.get((image, frame), ("",))[0],
                "reviewed_share": round(share, 4),
                "model": label.provenance.model or "",
                "accepted": label.provenance.created,
            }
        )
    return rows


def write_segment_table(folder: Path) -> str:
    """Write what each value means; return the file's name. Raises WriteError."""
    rows: list[dict[str, object]] = [{"value": 0, "name": "background"}]
    for value in (*VALUES.values(), UNNAMED):
        code, meaning = vessel_code(value)
        name = vessel_title(value)
        rows.append(
            {"value": value, "name": name, "snomed_ct": code, "meaning": meaning}
        )
    write_table(folder / SEGMENTS, ("value", "name", "snomed_ct", "meaning"), rows)
    return SEGMENTS
