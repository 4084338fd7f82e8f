"""Import masks of other programs: pair them with images, check them, save them.

:func:`plan_import` reads everything and writes nothing; what it returns can be shown.
:func:`run_import` makes labels or drafts of it. A run that was interrupted is repeated:
what is there already stays.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_cmunet.errors import Cancelled, CMUNetError, ReadError
from napari_cmunet.io.images import read_angiogram
from napari_cmunet.io.masks.foreign_masks import find_masks
from napari_cmunet.io.masks.label_file import NAMES, names_to_json
from napari_cmunet.io.provenance import Provenance
from napari_cmunet.project.labels.as_labelled import known_of
from napari_cmunet.project.labels.mask_matching import (
    fit_to_image,
    index_images,
    mask_name,
    mask_problem,
    pair,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from napari_cmunet.io.images import Angiogram
    from napari_cmunet.io.masks.files import LargeMasks
    from napari_cmunet.io.masks.foreign_masks import ForeignMask
    from napari_cmunet.io.masks.label_file import Label
    from napari_cmunet.project.labels.mask_matching import FittedMask
    from napari_cmunet.project.project import Project


@dataclass(frozen=True)
class ImportOptions:
    """How masks are imported."""

    drafts: bool = False  # drafts to look at, not labels
    replace: bool = False  # labels, which are kept as older, and drafts, which are not
    large_masks: LargeMasks = "refuse"
    any_orientation: bool = False  # also masks that seem to be mirrored or turned
    artery: tuple[str, ...] = ()  # categories of a file that has several


@dataclass(frozen=True)
class MaskPair:
    """A mask, and the frames of an image that it is for."""

    mask: ForeignMask
    image: str  # id
    image_name: str  # to be shown
    frames: tuple[int, ...]  # that get a label or draft
    known: tuple[int, ...] = ()  # that have this very mask already
    empty: tuple[int, ...] = ()  # frames of it that have no artery
    widened: tuple[int, ...] = ()  # of which a part was reviewed, and now all is

    def __str__(self) -> str:
        there = "" if self.frames else " (there already)"
        text = f"{mask_name(self.mask)} -> {self.image_name}, "
        text += f"{_frames(self.frames or self.known)}{there}"
        notes = [
            f"{note}{self._where(numbers)}"
            for note, numbers in (
                ("no artery is marked", self.empty),
                ("all counts as reviewed, no longer a part", self.widened),
            )
            if numbers
        ]
        return f"{text}: {'; '.join(notes)}" if notes else text

    def _where(self, numbers: Sequence[int]) -> str:
        """Names frames, unless they are all."""
        some = {*self.frames, *self.known} - {*numbers}
        return f" in {_frames(numbers)}" if some else ""


def _frames(numbers: Sequence[int]) -> str:
    some = "frame" if len(numbers) == 1 else "frames"
    return f"{some} {', '.join(map(str, numbers))}"


@dataclass(frozen=True)
class ImportPlan:
    """What would be imported, and what cannot be."""

    pairs: tuple[MaskPair, ...]
    problems: tuple[str, ...]  # one sentence for each mask

    @property
    def new(self) -> int:
        """Number of labels or drafts to be made."""
        return sum(len(pair.frames) for pair in self.pairs)


@dataclass(frozen=True)
class ImportResult:
    """What was imported."""

    saved: int = 0  # labels or drafts
    problems: tuple[str, ...] = ()
    complete: bool = True  # False if it was stopped


def plan_import(
    project: Project,
    inputs: Sequence[Path],
    options: ImportOptions,
    progress: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> ImportPlan:
    """Pair masks with the images of a project, and check each; slow.

    Parameters
    ----------
    inputs : sequence of Path
        Files and folders.
    progress : callable
        Called with the number of masks done and of all masks.
    should_stop : callable
        Called between masks.

    Raises
    ------
    Cancelled
    """
    found = find_masks(inputs, options.artery)
    problems = list(found.problems)
    index = index_images(project, with_uids=any(m.source_uid for m in found.masks))
    chosen: dict[tuple[str, int | None], list[tuple[ForeignMask, str]]]
    chosen = defaultdict(list)
    for mask in found.masks:
        try:
            image, mask = pair(index, mask)
        except ReadError as error:
            problems.append(str(error))
            continue
        for frame in mask.frames or (None,):
            chosen[image, frame].append((mask, image))
    pairs: list[MaskPair] = []
    double = {
        id(m): [mask_name(o) for o, _ in same if o is not m]
        for same in chosen.values()
        if len(same) > 1
        for m, _ in same
    }
    unique = {id(m): (m, image) for same in chosen.values() for m, image in same}
    for number, (mask, image) in enumerate(unique.values()):
        if should_stop():
            raise Cancelled
        progress(number, len(unique))
        try:
            if id(mask) in double:
                raise ReadError(
                    mask.path,
                    f"{double[id(mask)][0]} is for the same image. Keep one of them.",
                    mask_name(mask),
                )
            loaded = _load(project, mask, image, options)
            pairs.append(_compared(project, mask, image, loaded, options))
        except CMUNetError as error:
            problems.append(mask_problem(mask, error))
    progress(len(unique), len(unique))
    return ImportPlan(tuple(pairs), tuple(problems))


def run_import(
    project: Project,
    plan: ImportPlan,
    options: ImportOptions,
    progress: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> ImportResult:
    """Make labels or drafts of what was planned; slow.

    Every file is read and checked once more.

    Raises
    ------
    ProjectError, WriteError
        If nothing can be written to the project.
    """
    saved, problems = 0, list(plan.problems)
    hashes: dict[Path, str] = {}
    known: dict[str, tuple[Angiogram, bool]] = {}
    for number, planned in enumerate(plan.pairs):
        if should_stop():
            return ImportResult(saved, tuple(problems), complete=False)
        progress(number, len(plan.pairs))
        mask = planned.mask
        try:
            loaded = _load(project, mask, planned.image, options)
            checked = _compared(project, mask, planned.image, loaded, options)
            if mask.path not in hashes:
                hashes[mask.path] = mask.sha256()
            if planned.image not in known:
                known[planned.image] = known_of(project, planned.image, loaded.image)
        except (ReadError, OSError, _AlreadyLabelledError) as error:
            problems.append(mask_problem(mask, error))
            continue
        for frame in checked.frames:
            sized, inverted = known[planned.image]
            made = _provenance(checked, frame, loaded, hashes[mask.path], inverted)
            _save(project, checked, frame, loaded, made, sized, drafts=options.drafts)
            saved += 1
    progress(len(plan.pairs), len(plan.pairs))
    if saved:
        what = "drafts_imported" if options.drafts else "masks_imported"
        project.note(what, saved)
    return ImportResult(saved, tuple(problems))


# -- checks ------------------------------------------------------------------------


class _AlreadyLabelledError(CMUNetError):
    """A frame has another label or draft already."""


def _load(
    project: Project, mask: ForeignMask, image: str, options: ImportOptions
) -> FittedMask:
    angiogram = read_angiogram(project.images.found_path(image))
    return fit_to_image(
        mask,
        angiogram,
        large_masks=options.large_masks,
        any_orientation=options.any_orientation,
    )


def _compared(
    project: Project,
    mask: ForeignMask,
    image: str,
    loaded: FittedMask,
    options: ImportOptions,
) -> MaskPair:
    """Compare with what the project has; raises _AlreadyLabelledError."""
    known: list[int] = []
    new: list[int] = []
    other: list[int] = []
    widened: list[int] = []
    for frame, pixels in loaded.frames.items():
        label = project.labels.get(image, frame)
        draft = project.drafts.load(image, frame)
        there = (draft or label) if options.drafts else label
        seen = loaded.reviewed[frame]
        if there and _same(there, pixels, seen):
            known.append(frame)
        elif options.replace or all(
            _same(x, pixels, seen) for x in (label, draft) if x
        ):
            new.append(frame)
            if seen is None and not options.drafts:
                if any(x.reviewed is not None for x in (label, draft) if x):
                    widened.append(frame)
        else:
            other.append(frame)
    if other:
        raise _AlreadyLabelledError(
            f"frame {other[0]} of its image has another mask in the project already."
        )
    return MaskPair(
        mask,
        image,
        _image_name(project, image),
        tuple(new),
        tuple(known),
        tuple(frame for frame, pixels in loaded.frames.items() if not pixels.any()),
        tuple(widened),
    )


def _image_name(project: Project, image: str) -> str:
    # Deferred: importing pydicom is slow.
    from napari_cmunet.io.dicom.identity import safe_name

    return safe_name(project.images.path(image))


def _same(label: Label, mask: np.ndarray, reviewed: np.ndarray | None) -> bool:
    """Whether a label says what a mask does, which may not say what was reviewed."""
    if not np.array_equal(label.mask, mask):
        return False
    return reviewed is None or (
        label.reviewed is not None and np.array_equal(label.reviewed, reviewed)
    )


# -- labels ------------------------------------------------------------------------


def _provenance(
    pair: MaskPair, frame: int, loaded: FittedMask, sha256: str, inverted: bool
) -> Provenance:
    return replace(
        loaded.pages.provenance or Provenance(inverted=inverted),
        source_sha256=loaded.image.sha256,
        frames=(frame,),
        imported_from=pair.mask.kind,
        imported_sha256=sha256,
    )


def _save(
    project: Project,
    pair: MaskPair,
    frame: int,
    loaded: FittedMask,
    provenance: Provenance,
    sized: Angiogram,
    *,
    drafts: bool,
) -> None:
    pixels, reviewed = loaded.frames[frame], loaded.reviewed[frame]
    project.images.learn(pair.image, loaded.image)
    # The mask may not say what was reviewed, and names no vessels.
    before = project.drafts.load(pair.image, frame)
    before = before or project.labels.get(pair.image, frame)
    names = before.names if before else ()  # they follow the tree
    if drafts:
        if reviewed is None and before:
            reviewed = before.reviewed
        project.drafts.save(
            pair.image,
            frame,
            pixels,
            reviewed,
            provenance=provenance,
            note={NAMES: names_to_json(names)},
        )
        return
    as_predicted = provenance.model is not None and not provenance.corrected
    project.labels.accept(
        pair.image,
        frame,
        pixels,
        reviewed,
        provenance=provenance,
        pixel_size_mm=sized.pixel_size_mm,
        pixel_size_source=sized.pixel_size_source,
        pixel_size_error=sized.pixel_size_error,
        pixels_changed=0 if as_predicted else None,
        names=names,
    )
