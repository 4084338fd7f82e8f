"""Export accepted labels: the table of formats, for the window and the command line.

To add a format, write a function that takes an :class:`ExportTask` and add it to
:data:`FORMATS`.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from napari_cmunet.errors import CMUNetError, ProjectError, WriteError, display_name
from napari_cmunet.io.masks.coco import CocoFile
from napari_cmunet.io.sniffing import open_sniffed
from napari_cmunet.project.export.dicom import write_dicom_sc, write_dicom_seg
from napari_cmunet.project.export.report import write_dicom_sr, write_project_report
from napari_cmunet.project.export.task import (
    ExportOptions,
    ExportTask,
    Written,
    segment_values,
)
from napari_cmunet.project.export.tiff import target_names, write_tiff
from napari_cmunet.project.files import DRAFTS, LABELS, MODELS
from napari_cmunet.util.safe_files import (
    atomic_write,
    make_folder,
    write_json,
    write_reason,
)
from napari_cmunet.util.text import counted
from napari_cmunet.vessels.segments import UNNAMED, VALUES, vessel_title

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from napari_cmunet.project.files import FrameKey
    from napari_cmunet.project.patients import Side
    from napari_cmunet.project.project import Project
    from napari_cmunet.project.training.labels import ProjectLabel

COCO = "coco.json"
NNUNET = "nnUNet_raw/Dataset001_CoronaryArteries"
_ARTERY = 1


def write_coco(task: ExportTask) -> Written:
    """Write ``coco.json``, and its pictures in ``coco_images``; raises WriteError."""
    pictures = task.options.folder / "coco_images"
    named = task.options.segments
    collected, count = CocoFile(named=named), 0
    problems: list[str] = []
    for label in _with_pictures(task, problems):
        name = f"{_case(label)}.png"
        _write_png(make_folder(pictures) / name, _picture(label.frame))
        collected.add(
            name,
            label.mask,
            label.reviewed,
            segment_values([label]) if named else None,
            patient=label.patient,
            side=label.ref.side,
        )
        count += 1
    if count:
        collected.write(task.options.folder / COCO)
    return Written([COCO] if count else [], problems, count, not task.should_stop())


def write_nnunet(task: ExportTask) -> Written:
    """Write an nnU-Net dataset with the project's own split by patients.

    The split is in ``splits_final.json``. Raises WriteError.
    """
    raw = task.options.folder / NNUNET
    problems: list[str] = []
    cases: list[tuple[str, Side]] = []
    ignored = False
    for label in _with_pictures(task, problems):
        case = _case(label)
        images, labels = make_folder(raw / "imagesTr"), make_folder(raw / "labelsTr")
        _write_png(images / f"{case}_0000.png", _picture(label.frame))
        classes = _classes(label, named=task.options.segments)
        ignored |= label.reviewed is not None
        _write_png(labels / f"{case}.png", classes)
        cases.append((case, label.ref.side))
    if cases:
        _write_nnunet(raw, cases, ignored, task.options.segments)
    files = [f"{NNUNET}/dataset.json"] if cases else []
    return Written(files, problems, len(cases), not task.should_stop())


def _with_pictures(task: ExportTask, problems: list[str]) -> Iterator[ProjectLabel]:
    """Read labels whose pictures may go out with them."""
    total = len(task.refs)
    for number, label in enumerate(
        task.project.reference.read(task.refs, problems.append)
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


def _write_nnunet(
    raw: Path, cases: list[tuple[str, Side]], ignored: bool, named: bool
) -> None:
    names = {"background": 0}
    if named:
        names |= {vessel_title(v): v for v in (*VALUES.values(), UNNAMED)}
    else:
        names["artery"] = _ARTERY
    if ignored:
        names["ignore"] = len(names)  # nnU-Net wants it to be the last
    write_json(
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
    write_json(raw / "splits_final.json", [split])


def _classes(label: ProjectLabel, *, named: bool) -> np.ndarray:
    if named:
        classes = segment_values([label])
    else:
        classes = label.mask.astype(np.uint8) * np.uint8(_ARTERY)
    if label.reviewed is not None:  # unknown is not background
        classes[~label.reviewed] = (UNNAMED if named else _ARTERY) + 1
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


@dataclass(frozen=True)
class ExportFormat:
    """An export format."""

    name: str  # on the command line
    called: str  # in messages
    title: str  # in the window
    #: Writes the labels of an :class:`ExportTask`.
    write: Callable[[ExportTask], Written]
    needs_dicom: bool = False  # only of images that are DICOM files


FORMATS = (
    ExportFormat("tiff", "TIFF", "Masks as TIFF, with an index.csv", write_tiff),
    ExportFormat("coco", "COCO", "COCO: coco.json with its pictures", write_coco),
    ExportFormat(
        "nnunet", "nnU-Net", "nnU-Net: a dataset, split by patients", write_nnunet
    ),
    ExportFormat(
        "dicom-seg",
        "DICOM Segmentation",
        "DICOM Segmentation, of DICOM frames and cines",
        write_dicom_seg,
        needs_dicom=True,
    ),
    ExportFormat(
        "dicom-sc",
        "DICOM Secondary Capture",
        "DICOM Secondary Capture: frames with burnt-in contours",
        write_dicom_sc,
        needs_dicom=True,
    ),
    ExportFormat(
        "dicom-sr",
        "DICOM Structured Report",
        "DICOM Structured Report: measured lesions, with their pictures",
        write_dicom_sr,
        needs_dicom=True,
    ),
    ExportFormat(
        "report",
        "report",
        "Report of measurements, one HTML file to read or print",
        write_project_report,
    ),
)
"""All formats, in the order shown."""


class ExportConflictError(ProjectError):
    """The chosen folder holds other files; ask before writing there.

    Parameters
    ----------
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
    """The result of an export."""

    folder: Path
    files: tuple[str, ...]  # files written, relative to the folder, with ``/``
    #: Sentences on formats in which nothing was written, then on each label left out.
    problems: tuple[str, ...]
    complete: bool = True  # False if it was stopped
    labels: int = 0  # labels written; several in the file of a cine
    formats: tuple[str, ...] = ()  # names of the formats that any was written in


def export_masks(
    project: Project,
    folder: Path,
    which: Collection[FrameKey] | None = None,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
    **options: Any,
) -> ExportResult:
    """Write accepted labels in one or several formats.

    Parameters
    ----------
    project : Project
        May be read-only.
    folder, which, options
        Fields of :class:`ExportOptions`.
    progress : callable
        Called with the number of labels done and of all labels.

    Raises
    ------
    ExportConflictError
        If the folder holds files and ``overwrite`` is False.
    ProjectError
        If there is nothing to export, or the folder cannot be one for exports.
    WriteError
        If the folder cannot be created, or an index not written.
    """
    folder = Path(folder).absolute()
    chosen = ExportOptions(folder, which, **options)
    refs = project.reference.refs()
    if which is not None:
        refs = [r for r in refs if (r.image, r.frame) in which]
    if not refs:
        waiting = project.reference.waiting_notice()
        raise ProjectError(waiting or "There is no accepted label to export yet.")
    task = ExportTask(project, refs, chosen, progress, should_stop)
    targets = target_names(task) if "tiff" in chosen.formats else []
    _check_folder(project, folder, targets, chosen.overwrite)
    is_new = not folder.exists()
    make_folder(folder)
    done = {
        f: (f.needs_dicom and _nothing_of_dicom(task)) or f.write(task)
        for f in FORMATS
        if f.name in chosen.formats
    }
    labels = max((w.labels for w in done.values()), default=0)
    if labels:
        project.note("exported", labels)
    elif is_new:
        with contextlib.suppress(OSError):  # not empty
            folder.rmdir()
    return ExportResult(
        folder,
        tuple(file for w in done.values() for file in w.files),
        tuple(_problems(done)),
        all(w.complete for w in done.values()),
        labels,
        tuple(f.name for f, w in done.items() if w.labels),
    )


def _nothing_of_dicom(task: ExportTask) -> Written | None:
    """Why nothing can be written where no image is DICOM; None where it may be."""
    images = list(dict.fromkeys(ref.image for ref in task.refs))
    if len(images) == 1:
        return None  # the format names it
    try:
        for image in images:
            with open_sniffed(task.project.images.found_path(image)) as file:
                if file.kind == "DICOM":
                    return None
    except CMUNetError:
        return None  # the format tells of it
    return Written([], [f"none of the {len(images)} images is a DICOM file."], 0)


def _problems(done: dict[ExportFormat, Written]) -> list[str]:
    """Return what was left out: first the formats that nothing was written in."""
    nothing: dict[str, list[str]] = {}
    single: dict[str, list[str]] = {}
    for kind, written in done.items():
        problems = [text.removesuffix(".") + "." for text in written.problems]
        if written.complete and not written.labels:
            why = "it can hold none of these labels."
            reasons = {text.partition(": ")[2] or text for text in problems}
            if len(reasons) == 1:
                (why,) = reasons if len(problems) > 1 else problems
                problems = []
            nothing.setdefault(why, []).append(kind.called)
        for text in problems:
            single.setdefault(text, []).append(kind.called)
    sentences = [
        f"Nothing was written as {' or '.join(formats)}: {why}"
        for why, formats in nothing.items()
    ]
    for text, formats in single.items():
        # Of all formats: there is no need to name them.
        kinds = "" if len(formats) == len(done) else f" as {' or '.join(formats)}"
        sentences.append(text.replace(": ", f"{kinds}: ", 1))
    return sentences


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
            f"The folder '{display_name(folder)}' already holds "
            f"{counted(there, 'item')}; {len(replaced) or 'none'} would be replaced. "
            "Choose another folder, or allow files to be overwritten.",
            replaced,
        )
