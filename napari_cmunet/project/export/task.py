"""What every export format is given, reads and returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cmunet.errors import CMUNetError, FileError, ProjectError
from napari_cmunet.io.masks.label_file import Label
from napari_cmunet.io.provenance import Provenance
from napari_cmunet.vessels.naming import NamedTree
from napari_cmunet.vessels.tree import build_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from napari_cmunet.project.files import FrameKey
    from napari_cmunet.project.project import Project
    from napari_cmunet.project.training.labels import LabelRef, ProjectLabel


@dataclass(frozen=True)
class ExportOptions:
    """What is to be exported, as window and command line ask for it."""

    folder: Path  # created if it is missing
    which: Collection[FrameKey] | None = None  # all labels by default
    #: Names of :data:`napari_cmunet.project.export.formats.FORMATS`.
    formats: Sequence[str] = ("tiff",)
    #: Name files as the images are named. Such names may name patients.
    original_names: bool = False
    #: Write into a folder that already holds files, replacing those of the same
    #: name. Ask first.
    overwrite: bool = False
    values: tuple[int, int] = (0, 255)  # {(0, 255), (0, 1)}
    stacks: bool = False  # one file for each cine
    records: bool = False  # also write ``NAME.json`` beside each mask
    #: SYNTAX segments: beside each mask ``NAME_segments.tif``, in other formats as
    #: categories, classes and segments.
    segments: bool = False


@dataclass(frozen=True)
class ExportTask:
    """What a format's function writes, and whom it tells how far it is."""

    project: Project
    refs: list[LabelRef]
    options: ExportOptions
    progress: Callable[[int, int], None]
    should_stop: Callable[[], bool]


@dataclass(frozen=True)
class Written:
    """What a format's function wrote."""

    files: list[str]  # relative to the folder, with ``/``
    problems: list[str]  # one sentence for each label that was left out
    labels: int  # labels written
    complete: bool = True  # False if it was stopped


def labels_of(
    project: Project, keys: list[FrameKey], problems: list[str]
) -> dict[FrameKey, Label]:
    """Read these labels; those that cannot be read are listed in ``problems``."""
    labels = {}
    for key in keys:
        try:
            label = project.reference.get(*key)
        except CMUNetError as error:
            problems.append(label_problem(key, error))
            continue
        if label is not None:
            labels[key] = label
    return labels


def label_problem(key: FrameKey, error: CMUNetError) -> str:
    """Return a sentence on a label that could not be exported."""
    reason = error.reason if isinstance(error, FileError) else str(error)
    return f"Label {key[0]}#{key[1]}: {reason}"


def stack_labels(labels: Mapping[FrameKey, Label]) -> Label:
    """Stack the labels of one image, in their order; a single one stays as it is.

    A model, threshold or pixel size that differs between them is left out.

    Returns
    -------
    Label
        Mask and reviewed part are (T, Y, X), a page for each label.

    Raises
    ------
    ProjectError
        If their sizes differ.
    """
    parts = list(labels.values())
    if len(parts) == 1:
        return parts[0]
    if len({part.mask.shape for part in parts}) > 1:
        raise ProjectError(
            "the masks of this cine are not of one size; export its frames as files of "
            "their own."
        )
    reviewed = None
    if any(part.reviewed is not None for part in parts):
        reviewed = np.stack(
            [
                np.ones_like(part.mask) if part.reviewed is None else part.reviewed
                for part in parts
            ]
        )
    origins = [part.provenance for part in parts]
    return Label(
        np.stack([part.mask for part in parts]),
        reviewed,
        Provenance(
            **{
                name: _common(getattr(origin, name) for origin in origins)
                for name in (
                    "model",
                    "model_sha256",
                    "threshold",
                    "device",
                    "source_sha256",
                )
            },
            frames=tuple(frame for _, frame in labels),
            corrected=any(origin.corrected for origin in origins),
            inverted=any(origin.inverted for origin in origins),
            created=max(origin.created for origin in origins),
        ),
        _common(part.pixel_size_mm for part in parts),
        {
            "pixel_size_source": _common(
                part.note.get("pixel_size_source") for part in parts
            )
        },
    )


def _common(values: Iterable[Any]) -> Any:
    """Return the common value, None if they differ."""
    found = list(dict.fromkeys(values))
    return found[0] if len(found) == 1 else None


def segment_values(labels: Iterable[Label | ProjectLabel]) -> np.ndarray:
    """Maps of the values of segments, uint8: (T, Y, X), (Y, X) of a single label."""
    pages = [NamedTree(build_tree(x.mask), x.names).values() for x in labels]
    return pages[0] if len(pages) == 1 else np.stack(pages)


def pixels_changed(project: Project) -> dict[FrameKey, tuple[int, int | None]]:
    """Return how many pixels the user changed in each label, as the journal knows.

    And how many of them are added ones; None in journals of earlier versions.
    """
    changed: dict[FrameKey, tuple[int, int | None]] = {}
    for entry in project.journal():
        if entry.what != "accepted" or entry.image is None or entry.frame is None:
            continue
        key = (entry.image, entry.frame)
        count, added = (
            entry.details.get(name) for name in ("pixels_changed", "pixels_added")
        )
        source = project.reference.source(*key)
        if source is None or source.reader != entry.reader:
            continue
        # The latest counts, also where it says nothing.
        changed.pop(key, None)
        same = entry.details.get("sha256") == source.hash(*key)
        if same and type(count) is int:
            changed[key] = count, added if type(added) is int else None
    return changed
