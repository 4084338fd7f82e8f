"""Export accepted labels: the table of formats, for the window and the command line.

To add a format, write a function that takes an :class:`ExportTask` and add it to
:data:`FORMATS`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_cmunet.errors import ProjectError, WriteError, display_name
from napari_cmunet.project.export_tiff import (
    ExportTask,
    Written,
    target_names,
    write_tiff,
)
from napari_cmunet.project.export_writers import (
    write_coco,
    write_dicom_seg,
    write_nnunet,
)
from napari_cmunet.project.files import DRAFTS, LABELS, MODELS
from napari_cmunet.util.atomic import write_reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from napari_cmunet.project.files import FrameKey
    from napari_cmunet.project.project import Project


@dataclass(frozen=True)
class ExportFormat:
    """An export format.

    Parameters
    ----------
    name : str
        On the command line.
    title : str
        In the window.
    write : callable
        Writes the labels of an :class:`ExportTask`.
    needs_images : bool
        Whether the files of the images are read.
    package : str
        An optional package that it needs; empty if none.
    """

    name: str
    title: str
    write: Callable[[ExportTask], Written]
    needs_images: bool = False
    package: str = ""


FORMATS = (
    ExportFormat("tiff", "Masks as TIFF, with an index.csv", write_tiff),
    ExportFormat("coco", "COCO: coco.json with its pictures", write_coco, True),
    ExportFormat("nnunet", "nnU-Net: a dataset, split by patients", write_nnunet, True),
    ExportFormat(
        "dicom-seg",
        "DICOM Segmentation, for single DICOM frames",
        write_dicom_seg,
        True,
        "highdicom",
    ),
)
"""All formats, in the order shown."""


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
    """The result of an export.

    Parameters
    ----------
    folder : Path
    files : tuple of str
        Files written, relative to the folder, with ``/``.
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
    formats: Sequence[str] = ("tiff",),
    original_names: bool = False,
    overwrite: bool = False,
    values: tuple[int, int] = (0, 255),
    stacks: bool = False,
    records: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> ExportResult:
    """Write accepted labels in one or several formats.

    Parameters
    ----------
    project : Project
        May be read-only.
    folder : Path
        Created if it is missing.
    which : iterable of (image, frame), optional
        All labels by default.
    formats : sequence of str
        Names of :data:`FORMATS`.
    original_names, values, stacks, records : optional
        See :class:`ExportTask`.
    overwrite : bool
        Write into a folder that already holds files, replacing those of the same
        name. Ask first.
    progress : callable
        Called with the number of labels done and of all labels.
    should_stop : callable

    Raises
    ------
    ExportConflictError
        If the folder holds files and ``overwrite`` is False.
    ProjectError
        If there is nothing to export, or the folder cannot be one for exports.
    UsageError
        If a format needs a package that is not installed.
    WriteError
        If the folder cannot be created, or an index not written.
    """
    folder = Path(folder).absolute()
    chosen = None if which is None else set(which)
    refs = project.labels.refs()
    refs = [r for r in refs if chosen is None or (r.image, r.frame) in chosen]
    if not refs:
        raise ProjectError("There is no accepted label to export yet.")
    task = ExportTask(
        project,
        folder,
        refs,
        original_names,
        values,
        stacks,
        records,
        progress,
        should_stop,
    )
    targets = target_names(task) if "tiff" in formats else []
    _check_folder(project, folder, targets, overwrite)
    done = [f.write(task) for f in FORMATS if f.name in formats]
    labels = max((w.labels for w in done), default=0)
    project.note_export(labels)
    return ExportResult(
        folder,
        tuple(file for w in done for file in w.files),
        tuple(dict.fromkeys(problem for w in done for problem in w.problems)),
        all(w.complete for w in done),
        labels,
    )


def _check_folder(
    project: Project, folder: Path, targets: list[str], overwrite: bool
) -> None:
    own = project.folder
    inner = [own / name for name in (LABELS, DRAFTS, MODELS)]
    if folder == own or any(
        (folder / name).is_relative_to(part) for name in targets for part in inner
    ):
        raise ProjectError(
            "The masks cannot be exported over the project itself. Choose another "
            "folder."
        )
    if not folder.exists():
        return
    if not folder.is_dir():
        raise WriteError(folder, "this is a file, not a folder. Choose another name.")
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
