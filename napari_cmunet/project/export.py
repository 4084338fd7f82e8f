"""The accepted masks of a project as TIFF for other programs, with an ``index.csv``.

Files are named by the images' ids, since an image's own name may name a patient;
``index.csv`` tells an image by the hash of its file. Own names are for who asks.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from napari_cmunet.errors import (
    CMUNetError,
    FileError,
    ProjectError,
    WriteError,
    display_name,
)
from napari_cmunet.io.discovery import InputFile, output_paths
from napari_cmunet.io.exports import write_table
from napari_cmunet.io.masks import write_mask
from napari_cmunet.io.provenance import record_path, write_record
from napari_cmunet.project.export_stack import pixels_changed, stack_labels
from napari_cmunet.project.files import DRAFTS, LABELS, MODELS
from napari_cmunet.util.atomic import write_reason
from napari_cmunet.util.safe_files import is_device

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from napari_cmunet.io.label_file import Label
    from napari_cmunet.project.files import FrameKey
    from napari_cmunet.project.project import Project
    from napari_cmunet.project.training_labels import LabelRef

INDEX = "index.csv"
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
    "reviewed_share",
    "model",
    "accepted",
)
_UNSAFE = re.compile(r'[<>:"/\\|?*\x00-\x1f]')


class ExportConflictError(ProjectError):
    """The chosen folder holds other files; ask before writing there.

    Parameters
    ----------
    message : str
    replaced : tuple of str
        Names of files that the export would replace.
    may_overwrite : bool
        Whether the user may confirm.
    """

    def __init__(
        self,
        message: str,
        replaced: tuple[str, ...] = (),
        *,
        may_overwrite: bool = True,
    ) -> None:
        super().__init__(message)
        self.replaced, self.may_overwrite = replaced, may_overwrite


@dataclass(frozen=True)
class ExportResult:
    """What an export came to.

    Parameters
    ----------
    folder : Path
    files : tuple of str
        Mask files written, relative to the folder, with ``/``.
    problems : tuple of str
        One sentence for each label that could not be exported.
    complete : bool
        False if it was stopped.
    labels : int
        Labels written; several in the file of a cine.
    """

    folder: Path
    files: tuple[str, ...]
    problems: tuple[str, ...]
    complete: bool = True
    labels: int = 0


def export_masks(
    project: Project,
    folder: Path,
    which: Iterable[FrameKey] | None = None,
    *,
    original_names: bool = False,
    overwrite: bool = False,
    values: tuple[int, int] = (0, 255),
    stacks: bool = False,
    records: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> ExportResult:
    """Write accepted masks, one TIFF for each frame or cine, and ``index.csv``.

    A label of which only a part was reviewed gets a second file, ``…_reviewed.tif``.
    The images themselves are not needed.

    Parameters
    ----------
    project : Project
        May be open for reading only.
    folder : Path
        Made if it is not there.
    which : iterable of (image, frame), optional
        All labels by default.
    original_names : bool
        Name files as the images are named. Such names may name patients.
    overwrite : bool
        Write into a folder that already holds files, replacing those of the same
        name. Ask first.
    values : {(0, 255), (0, 1)}
    stacks : bool
        One file for each cine: a page for each frame that has a label, in their order;
        ``index.csv`` and the file's own record say which.
    records : bool
        Also write ``NAME.json`` beside each mask.
    progress : callable
        Told how many are done, of how many.
    should_stop : callable

    Raises
    ------
    ExportConflictError
        If the folder holds files and ``overwrite`` was not said.
    ProjectError
        If there is nothing to export, or the folder cannot be one for exports.
    WriteError
        If the folder cannot be made, or the index not written.
    """
    folder = Path(folder).absolute()
    chosen = None if which is None else set(which)
    refs = [r for r in project.labels.refs() if chosen is None or _key(r) in chosen]
    if not refs:
        raise ProjectError("There is no accepted label to export yet.")
    groups = _groups(project, [_key(r) for r in refs], stacks)
    names = _names(project, groups, original_names)
    _check_folder(project, folder, names, overwrite)
    patients = {r.image: r.patient for r in refs}
    changed = pixels_changed(project) if records else None
    rows, problems = [], []
    complete, done = True, 0
    for keys, name in zip(groups, names, strict=True):
        if should_stop():
            complete = False
            break
        progress(done, len(refs))
        done += len(keys)
        labels = _read(project, keys, problems)
        if not labels:
            continue
        try:
            rows += _export(folder, name, labels, patients[keys[0][0]], values, changed)
        except CMUNetError as error:
            problems += [_problem(key, error) for key in labels]
    _write_index(folder, rows)
    progress(len(refs), len(refs))
    project.note_export(len(rows))
    files = tuple(dict.fromkeys(str(row["file"]) for row in rows))
    return ExportResult(folder, files, tuple(problems), complete, len(rows))


def _groups(
    project: Project, keys: list[FrameKey], stacks: bool
) -> list[list[FrameKey]]:
    """Which labels share a file: those of a cine if wanted, in the frames' order."""
    groups: dict[object, list[FrameKey]] = {}
    for image, frame in keys:
        whole = stacks and (frame or (project.images[image].frames or 1) > 1)
        groups.setdefault(image if whole else (image, frame), []).append((image, frame))
    return [sorted(group) for group in groups.values()]


def _read(
    project: Project, keys: list[FrameKey], problems: list[str]
) -> dict[FrameKey, Label]:
    labels = {}
    for key in keys:
        try:
            label = project.labels.get(*key)
        except CMUNetError as error:
            problems.append(_problem(key, error))
            continue
        if label is not None:
            labels[key] = label
    return labels


def _problem(key: FrameKey, error: CMUNetError) -> str:
    reason = error.reason if isinstance(error, FileError) else str(error)
    return f"Label {key[0]}#{key[1]}: {reason}"


def _key(ref: LabelRef) -> FrameKey:
    return ref.image, ref.frame


def _names(
    project: Project, groups: list[list[FrameKey]], original: bool
) -> list[PurePosixPath]:
    """A file name for each group of labels, no two alike."""
    keys = [key for group in groups for key in group]
    images = list(dict.fromkeys(image for image, _ in keys))
    stems: dict[str, PurePosixPath] = {}
    if original:
        files = []
        for image in images:
            path = project.images[image].path or image
            safe = PurePosixPath(*(_safe(part) for part in path.split("/")))
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


def _safe(part: str) -> str:
    """A name that any system takes, and no spreadsheet takes for a formula."""
    name = "".join(c if c.isprintable() else "_" for c in _UNSAFE.sub("_", part))
    name = name.strip(" .")[:150] or "image"
    if name[0] in "=+-@" or is_device(name):
        name = f"_{name}"
    return name


def _check_folder(
    project: Project, folder: Path, names: list[PurePosixPath], overwrite: bool
) -> None:
    own = project.folder
    inner = [own / name for name in (LABELS, DRAFTS, MODELS)]
    if folder == own or any(
        (folder / name).is_relative_to(part) for name in names for part in inner
    ):
        raise ProjectError(
            "The masks cannot be exported over the project itself. Choose another folder."
        )
    if not folder.exists():
        return
    if not folder.is_dir():
        raise WriteError(folder, "this is a file, not a folder. Choose another name.")
    targets = [*(str(name) for name in names), INDEX]
    targets += [str(_reviewed(name)) for name in names]
    targets += [str(name.with_suffix(".json")) for name in names]
    images = {os.path.normcase(os.path.realpath(p)) for p in project.images.files()}
    for name in targets:
        if os.path.normcase(os.path.realpath(folder / name)) in images:
            raise ExportConflictError(
                "The folder holds an image of this project that a mask of the same "
                "name would replace. Choose another folder.",
                may_overwrite=False,
            )
    if overwrite:
        return
    try:
        there = len(os.listdir(folder))  # noqa: PTH208
    except OSError as error:
        raise WriteError(folder, write_reason(error)) from error
    if there:
        replaced = tuple(name for name in targets if (folder / name).exists())
        raise ExportConflictError(
            f"The folder '{display_name(folder)}' already holds {there} file(s) or "
            f"folder(s); {len(replaced) or 'none'} would be replaced. Choose another "
            "folder, or say that files may be overwritten.",
            replaced,
        )


def _reviewed(name: PurePosixPath) -> PurePosixPath:
    return name.with_name(f"{name.stem}_reviewed.tif")


def _export(
    folder: Path,
    name: PurePosixPath,
    labels: dict[FrameKey, Label],
    patient: str,
    values: tuple[int, int],
    changed: dict[FrameKey, int] | None,
) -> list[dict[str, object]]:
    """Write the labels of one file; ``changed`` is None where no record is wanted."""
    path = folder / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(path.parent, write_reason(error)) from error
    whole = stack_labels(labels)
    size = whole.pixel_size_mm
    write_mask(path, whole.mask, whole.provenance, size, values)
    beside = ""
    if whole.reviewed is not None:
        second = folder / _reviewed(name)
        write_mask(second, whole.reviewed, whole.provenance, size, values)
        beside = str(_reviewed(name))
    if changed is not None:
        known = [changed.get(key) for key in labels]
        write_record(
            record_path(path),
            whole.mask,
            whole.provenance,
            pixel_size_mm=size,
            pixel_size_source=whole.note.get("pixel_size_source"),
            reviewed=1.0 if whole.reviewed is None else float(whole.reviewed.mean()),
            pixels_changed=None if None in known else sum(known),
        )
    mask_sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    rows = []
    for page, ((image, frame), label) in enumerate(labels.items()):
        height, width = label.mask.shape
        share = 1.0 if label.reviewed is None else float(label.reviewed.mean())
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
                "artery_pixels": int(label.mask.sum()),
                "reviewed_share": round(share, 4),
                "model": label.provenance.model or "",
                "accepted": label.provenance.created,
            }
        )
    return rows


def _write_index(folder: Path, rows: list[dict[str, object]]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(folder, write_reason(error)) from error
    write_table(folder / INDEX, COLUMNS, rows)
