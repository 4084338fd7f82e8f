"""Export of masks: file names, provenance, and the writing in a worker."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_cmunet.errors import CMUNetError
from napari_cmunet.gui.images.corrections import fingerprints
from napari_cmunet.gui.images.layers import (
    METADATA,
    is_inverted,
    pixel_size_mm,
    record_of,
)
from napari_cmunet.io.masks.files import write_mask
from napari_cmunet.io.provenance import Provenance, record_path, write_record
from napari_cmunet.util.safe_files import hash_file, make_folder, safe_name
from napari_cmunet.util.text import some_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import numpy as np

    from napari_cmunet.gui.images.image_state import ImageState

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MaskToWrite:
    """A copy of one mask and what is written with it.

    ``source`` is the image's own file, hashed when the mask is written.
    ``pixels_changed`` has the frames that the user corrected.
    """

    image_state: ImageState
    path: Path
    mask: np.ndarray
    threshold: float
    provenance: Provenance
    pixel_size_mm: tuple[float, float] | None
    source: Path | None
    pixel_size_source: str | None = None
    pixels_changed: Mapping[int, int] = field(default_factory=dict)
    record: bool = False  # also write a JSON record


@dataclass(frozen=True)
class Written:
    """The result of one mask: ``problem`` is empty if it was written."""

    job: MaskToWrite
    problem: str = ""
    prints: Mapping[int, int] = field(default_factory=dict)


def start_folder(image_state: ImageState | None, working_folder: str) -> str:
    """Initial folder of an export dialog: the working folder, or the image's own."""
    if working_folder:
        return working_folder
    source = source_file(image_state) if image_state is not None else None
    return str(source.parent) if source is not None else str(Path.home())


def note(results: Iterable[Written]) -> None:
    """Note in the images which masks were written. On the GUI thread."""
    for result in results:
        if not result.problem:
            job = result.job
            job.image_state.corrections.note_export(result.prints, job.threshold)


def file_name(image_state: ImageState) -> str:
    """Return a file name for the mask, made of the image's name."""
    return f"{safe_name(image_state.image.name, 'mask')}.tif"


def file_names(image_states: Iterable[ImageState]) -> list[str]:
    """Return different file names for several masks."""
    names: list[str] = []
    taken: set[str] = set()
    for image_state in image_states:
        stem = Path(file_name(image_state)).stem
        name, number = f"{stem}.tif", 2
        # File names are case-insensitive on Windows and macOS.
        while name.lower() in taken:
            name, number = f"{stem}-{number}.tif", number + 1
        taken.add(name.lower())
        names.append(name)
    return names


def source_file(image_state: ImageState) -> Path | None:
    """The file that the image was opened from; None if it was not."""
    if image_state.file is not None:
        return image_state.file
    path = image_state.image.source.path
    return Path(path) if path else None


def same_file(one: Path, other: Path) -> bool:
    """Whether two paths are the same existing file, despite links and case."""
    try:
        return one.samefile(other)
    except OSError:
        return False


def origin(image_state: ImageState) -> Provenance:
    """Return the provenance of the mask as it is now."""
    origins = image_state.origins
    loaded = {x.imported_from for x in origins.values() if x.imported_from}
    made_by = {(x.model, x.model_sha256, x.device) for x in origins.values()}
    made_by |= {
        (source.model, source.sha256 or None, source.device)
        for frame, source in image_state.sources.items()
        if frame not in origins
    }
    # A cine with frames of two models names neither.
    one = made_by.pop() if len(made_by) == 1 and not loaded else (None, None, None)
    return Provenance(
        imported_from=loaded.pop() if len(loaded) == 1 else None,
        model=one[0],
        model_sha256=one[1],
        device=one[2],
        threshold=image_state.threshold if image_state.sources else None,
        source_sha256=record_of(image_state.image).get("source_sha256"),
        inverted=is_inverted(image_state.image),
        corrected=any(
            map(image_state.is_corrected, image_state.corrections.in_history)
        ),
    )


def note_origin(image_state: ImageState) -> None:
    """Put the provenance into the mask's metadata, for napari's own File > Save."""
    if image_state.usable_mask and image_state.mask is not None:
        image_state.mask.metadata[METADATA] = {
            "role": "mask",
            "pixel_size_mm": pixel_size_mm(image_state.image),
            **origin(image_state).to_dict(),
        }


def prepare(
    image_state: ImageState, path: Path, *, record: bool = False
) -> MaskToWrite:
    """Copy what will be written. On the GUI thread."""
    return MaskToWrite(
        image_state=image_state,
        path=path,
        mask=image_state.snapshot(),
        threshold=image_state.threshold,
        provenance=origin(image_state),
        pixel_size_mm=pixel_size_mm(image_state.image),
        source=source_file(image_state),
        pixel_size_source=record_of(image_state.image).get("pixel_size_source"),
        pixels_changed=pixels_changed(image_state),
        record=record,
    )


def pixels_changed(image_state: ImageState) -> dict[int, int]:
    """Count the pixels of corrected frames that differ from the prediction."""
    changed = {}
    corrected = image_state.corrections.in_history | image_state.own_masks.keys()
    for frame in sorted(corrected):
        mask = image_state.mask_frame(frame) != 0
        if image_state.has_prediction(frame):
            mask = mask != image_state.thresholded(frame)
        if mask.any():
            changed[frame] = int(mask.sum())
    return changed


def write_masks(jobs: Iterable[MaskToWrite]) -> list[Written]:
    """Write masks one by one; one that fails does not stop the others."""
    return [_write(job) for job in jobs]


def _write(job: MaskToWrite) -> Written:
    try:
        provenance = job.provenance
        if provenance.source_sha256 is None and job.source is not None:
            with suppress(OSError):
                provenance = replace(provenance, source_sha256=hash_file(job.source))
        make_folder(job.path.parent)
        write_mask(job.path, job.mask, provenance, job.pixel_size_mm)
        if job.record:
            write_record(
                record_path(job.path),
                job.mask,
                provenance,
                pixel_size_mm=job.pixel_size_mm,
                pixel_size_source=job.pixel_size_source,
                pixels_changed=job.pixels_changed,
            )
    except CMUNetError as exc:
        return Written(job, str(exc))
    except Exception as exc:
        logger.exception("Export failed")
        return Written(job, f"{job.path.name} could not be written: {exc}.")
    return Written(job, prints=fingerprints(job.mask))


def short(folder: Path) -> str:
    """Shorten a folder's path for a narrow panel."""
    end = f"…/{folder.parent.name}/{folder.name}"
    return str(folder) if len(folder.parts) <= 3 else end


def summary(
    results: list[Written], name: Callable[[Path], str] = str
) -> tuple[str, bool]:
    """Return a message about an export, and whether all of it succeeded.

    Parameters
    ----------
    name : callable
        Returns how a folder is shown.
    """
    done = [r for r in results if not r.problem]
    problems = [r.problem for r in results if r.problem]
    if not problems:
        if len(done) == 1:
            job = done[0].job
            text = f"Exported {job.path.name} to {name(job.path.parent)}."
            return text + _corrected(job), True
        return f"Exported {len(done)} masks to {name(done[0].job.path.parent)}.", True
    text = some_of(problems)
    if done:
        text = f"{len(done)} of {len(results)} masks were exported. {text}"
    return text, False


def _corrected(job: MaskToWrite) -> str:
    """Say which frames of a cine the user has corrected."""
    if job.mask.ndim == 2:
        return ""
    frames = [str(frame) for frame in job.pixels_changed]
    if not frames:
        return " No frame was corrected."
    which = ", ".join(frames[:10]) + (", …" if len(frames) > 10 else "")
    return f" {len(frames)} of {len(job.mask)} frames were corrected: {which}."
