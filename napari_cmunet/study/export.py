"""The accepted masks of a study as TIFF for other programs, with an ``index.csv``.

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

from napari_cmunet.atomic import write_reason
from napari_cmunet.errors import CMUNetError, FileError, WriteError, display_name
from napari_cmunet.file_names import is_device
from napari_cmunet.io.find import InputFile, output_paths
from napari_cmunet.io.masks import write_mask
from napari_cmunet.io.table import write_table
from napari_cmunet.study.errors import ExportConflictError, StudyError
from napari_cmunet.study.layout import DRAFTS, LABELS, MODELS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from napari_cmunet.io.labels import Label
    from napari_cmunet.study.labels import Key
    from napari_cmunet.study.study import Study
    from napari_cmunet.study.training_labels import LabelRef

INDEX = "index.csv"
COLUMNS = (
    "file",
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


@dataclass(frozen=True)
class Exported:
    """What an export came to.

    Parameters
    ----------
    folder : Path
    files : tuple of str
        Masks written, relative to the folder, with ``/``.
    problems : tuple of str
        One sentence for each label that could not be exported.
    complete : bool
        False if it was stopped.
    """

    folder: Path
    files: tuple[str, ...]
    problems: tuple[str, ...]
    complete: bool = True


def export_masks(
    study: Study,
    folder: Path,
    which: Iterable[Key] | None = None,
    *,
    original_names: bool = False,
    overwrite: bool = False,
    values: tuple[int, int] = (0, 255),
    progress: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Exported:
    """Write accepted masks, one TIFF for each frame, and ``index.csv``.

    A label of which only a part was reviewed gets a second file, ``…_reviewed.tif``.
    The images themselves are not needed.

    Parameters
    ----------
    study : Study
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
    progress : callable
        Told how many are done, of how many.
    should_stop : callable

    Raises
    ------
    ExportConflictError
        If the folder holds files and ``overwrite`` was not said.
    StudyError
        If there is nothing to export, or the folder cannot be one for exports.
    WriteError
        If the folder cannot be made, or the index not written.
    """
    folder = Path(folder).absolute()
    chosen = None if which is None else set(which)
    refs = [r for r in study.labels.refs() if chosen is None or _key(r) in chosen]
    if not refs:
        raise StudyError("There is no accepted label to export yet.")
    keys = [(r.image, r.frame) for r in refs]
    names = _names(study, keys, original_names)
    _check_folder(study, folder, names, overwrite)
    patients = {r.image: r.patient for r in refs}
    rows, problems = [], []
    complete = True
    for number, (key, name) in enumerate(zip(keys, names, strict=True)):
        if should_stop():
            complete = False
            break
        progress(number, len(keys))
        try:
            label = study.labels.get(*key)
            if label is not None:
                rows.append(_export(folder, key, name, patients[key[0]], label, values))
        except CMUNetError as error:
            reason = error.reason if isinstance(error, FileError) else str(error)
            problems.append(f"Label {key[0]}#{key[1]}: {reason}")
    _write_index(folder, rows)
    progress(len(keys), len(keys))
    study.note_export(len(rows))
    return Exported(
        folder, tuple(str(row["file"]) for row in rows), tuple(problems), complete
    )


def _key(ref: LabelRef) -> Key:
    return ref.image, ref.frame


def _names(study: Study, keys: list[Key], original: bool) -> list[PurePosixPath]:
    """A file name for each label, no two alike."""
    images = list(dict.fromkeys(image for image, _ in keys))
    stems: dict[str, PurePosixPath] = {}
    if original:
        files = []
        for image in images:
            path = study.images[image].path or image
            safe = PurePosixPath(*(_safe(part) for part in path.split("/")))
            files.append(InputFile(Path(safe), Path(safe)))
        for image, path in zip(images, output_paths(files), strict=True):
            stems[image] = PurePosixPath(path.with_suffix("").as_posix())
    else:
        stems = {image: PurePosixPath(image) for image in images}
    cines = {image for image, frame in keys if frame}
    cines |= {image for image in images if (study.images[image].frames or 1) > 1}
    return [
        stems[image].with_name(
            f"{stems[image].name}_frame_{frame:04d}.tif"
            if image in cines
            else f"{stems[image].name}.tif"
        )
        for image, frame in keys
    ]


def _safe(part: str) -> str:
    """A name that any system takes, and no spreadsheet takes for a formula."""
    name = "".join(c if c.isprintable() else "_" for c in _UNSAFE.sub("_", part))
    name = name.strip(" .")[:150] or "image"
    if name[0] in "=+-@" or is_device(name):
        name = f"_{name}"
    return name


def _check_folder(
    study: Study, folder: Path, names: list[PurePosixPath], overwrite: bool
) -> None:
    own = study.folder
    inner = [own / name for name in (LABELS, DRAFTS, MODELS)]
    if folder == own or any(
        (folder / name).is_relative_to(part) for name in names for part in inner
    ):
        raise StudyError(
            "The masks cannot be exported over the study itself. Choose another folder."
        )
    if not folder.exists():
        return
    if not folder.is_dir():
        raise WriteError(folder, "this is a file, not a folder. Choose another name.")
    targets = [*(str(name) for name in names), INDEX]
    targets += [str(_reviewed(name)) for name in names]
    images = {os.path.normcase(os.path.realpath(p)) for p in study.images.files()}
    for name in targets:
        if os.path.normcase(os.path.realpath(folder / name)) in images:
            raise ExportConflictError(
                "The folder holds an image of this study that a mask of the same name "
                "would replace. Choose another folder."
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
    key: Key,
    name: PurePosixPath,
    patient: str,
    label: Label,
    values: tuple[int, int],
) -> dict[str, object]:
    path = folder / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(path.parent, write_reason(error)) from error
    size = label.pixel_size_mm
    write_mask(path, label.mask, label.provenance, size, values)
    beside, share = "", 1.0
    if label.reviewed is not None:
        second = folder / _reviewed(name)
        write_mask(second, label.reviewed, label.provenance, size, values)
        beside, share = str(_reviewed(name)), float(label.reviewed.mean())
    height, width = label.mask.shape
    return {
        "file": str(name),
        "reviewed_file": beside,
        "image": key[0],
        "frame": key[1],
        "patient": patient,
        "source_sha256": label.provenance.source_sha256 or "",
        "mask_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "height": height,
        "width": width,
        "artery_pixels": int(label.mask.sum()),
        "reviewed_share": round(share, 4),
        "model": label.provenance.model or "",
        "accepted": label.provenance.created,
    }


def _write_index(folder: Path, rows: list[dict[str, object]]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(folder, write_reason(error)) from error
    write_table(folder / INDEX, COLUMNS, rows)
