"""Segment one image: its mask, and what else is wanted of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from napari_cmunet.cine.best_frame import find_best_frame
from napari_cmunet.cine.subtraction import subtract, suppressed
from napari_cmunet.errors import CMUNetError, ReadError
from napari_cmunet.io.dicom.derived import why_not
from napari_cmunet.io.dicom.secondary_capture import write_secondary_capture
from napari_cmunet.io.dicom.segmentation import write_segmentation
from napari_cmunet.io.images import read_angiogram
from napari_cmunet.io.masks.files import (
    BESIDE_MASK,
    read_mask,
    read_provenance,
    write_mask,
    write_probability,
)
from napari_cmunet.io.pictures import write_overlay
from napari_cmunet.io.polarity import BRIGHT_NOTE
from napari_cmunet.io.provenance import Provenance, program_version, write_record
from napari_cmunet.model.predictor import to_uint8
from napari_cmunet.model.threshold import mask_at, threshold_byte
from napari_cmunet.util.safe_files import make_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_cmunet.io.discovery import InputFile
    from napari_cmunet.io.images import Angiogram
    from napari_cmunet.model.card import ModelCard
    from napari_cmunet.model.predictor import Predictor

EXTRAS = (
    "probability",
    "probability_float32",
    "record",
    "overlay",
    "dicom_seg",
    "dicom_sc",
)
"""What can be had beside a mask, in the order in which it is written."""
_DICOM = {"dicom_seg": "DICOM segmentation", "dicom_sc": "Secondary Capture"}


@dataclass(frozen=True)
class How:
    """How images become masks, beside the model."""

    threshold: float
    invert: bool = False

    def read(self, path: Path) -> Angiogram:
        """Read an image as it is to be segmented."""
        image = read_angiogram(path)
        return image.inverted() if self.invert else image


@dataclass(frozen=True)
class Outputs:
    """The files that belong to one image."""

    mask: Path
    extras: tuple[str, ...] = ()  # of ``EXTRAS``

    def path(self, extra: str) -> Path:
        """Where an extra goes."""
        return self.mask.with_name(BESIDE_MASK[extra].format(self.mask.stem))

    def all(self) -> list[Path]:
        """Every file; the mask last, since it shows that the others are written."""
        return [*(self.path(extra) for extra in self.extras), self.mask]


def outputs_for(mask: Path, extras: tuple[str, ...]) -> Outputs:
    """What is written for an image.

    What an earlier run wrote beside its mask is written anew, wanted or not: it would
    tell of another mask, or of another model.
    """
    try:
        before = mask.is_file() and read_provenance(mask) is not None
    except ReadError:
        before = False
    if before:
        there = Outputs(mask)
        extras = tuple(x for x in EXTRAS if x in extras or there.path(x).is_file())
    return Outputs(mask, extras)


@dataclass(frozen=True)
class Job:
    """An image that is to be segmented."""

    number: int
    file: InputFile
    outputs: Outputs
    shown: str  # what messages call it


@dataclass(frozen=True)
class Segmented:
    """What is known of an image once it is segmented, for the summary."""

    facts: dict[str, object]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What became of one image."""

    made: Segmented | None = None  # None if it failed
    reason: str = ""  # why it failed
    named: bool = True  # the reason says which file it is about, or is about none
    fresh: bool = True  # it was not there already
    seconds: float = 0.0
    notices: tuple[str, ...] = ()  # what the predictor had to change


def attempt(segment: Callable[[], Segmented | None]) -> Outcome:
    """Segment, and tell a failure of this image alone by its reason."""
    began = time.monotonic()
    made, reason, named = None, "", False
    try:
        made = segment()
    except ReadError as error:
        reason = error.reason
    except CMUNetError as error:
        reason, named = str(error), True
    except MemoryError:
        reason = "not enough memory for a frame this large."
    return Outcome(made, reason, named, seconds=round(time.monotonic() - began, 2))


def find_done(
    path: Path, outputs: Outputs, card: ModelCard, how: How
) -> Segmented | None:
    """Return what an earlier run has made of the same image in the same way, if it has.

    The image is known by its hash, and a mask is whole if it is there at all.
    """
    if not all(file.is_file() for file in outputs.all()):
        return None
    try:
        made = read_provenance(outputs.mask)
        if (
            made is None
            or made.corrected
            or made.model_sha256 != card.sha256
            or made.threshold != how.threshold
            or made.inverted != how.invert
            or made.version != program_version()
        ):
            return None
        image = how.read(path)
        if image.sha256 != made.source_sha256:
            return None
        mask = read_mask(outputs.mask)
    except ReadError:
        return None
    return Segmented(_facts(mask, made, image), tuple(_notes(image)))


def write_outputs(
    path: Path, outputs: Outputs, predictor: Predictor, how: How
) -> Segmented:
    """Segment an image and write all that is wanted of it; raises CMUNetError."""
    image = how.read(path)
    frames = cast("np.ndarray", image.frames)  # or lazy, which reads like an array
    exact = "probability_float32" in outputs.extras
    probability = np.empty(image.frames.shape, np.float32 if exact else np.uint8)
    for frame in predictor.predict_frames(frames, exact=exact):
        probability[frame.index] = frame.probability
    steps = to_uint8(probability) if exact else probability
    if predictor.card.postprocessing is not None:
        byte = threshold_byte(predictor.card.threshold)
        for index, found in subtract(frames, steps, byte):
            if found is None:
                continue
            steps[index] = suppressed(steps[index], found)
            if exact:
                probability[index] = suppressed(probability[index], found)
    masks = mask_at(steps, how.threshold)
    provenance = Provenance(
        model=predictor.card.name,
        model_sha256=predictor.card.sha256,
        threshold=how.threshold,
        device=predictor.device.type,
        source_sha256=image.sha256,
        frames=tuple(range(len(image.frames))),
        inverted=how.invert,
    )
    size = image.pixel_size_mm
    make_folder(outputs.mask.parent)
    notes = _notes(image)
    if not image.is_cine:
        probability, steps = probability[0], steps[0]
    mask = masks if image.is_cine else masks[0]
    if "probability" in outputs.extras:
        write_probability(outputs.path("probability"), steps, provenance, size)
    if exact:
        path_32 = outputs.path("probability_float32")
        write_probability(path_32, probability, provenance, size)
    if "record" in outputs.extras:
        write_record(
            outputs.path("record"),
            mask,
            provenance,
            pixel_size_mm=size,
            pixel_size_source=image.pixel_size_source,
            pixels_changed={},
        )
    if "overlay" in outputs.extras:
        if image.burned_in:  # a picture would show a name that may be there
            notes.append("no overlay was written")
        else:
            best = (find_best_frame(frames) or 0) if image.is_cine else 0
            write_overlay(
                outputs.path("overlay"), image.frames[best], masks[best], image.window
            )
    for extra, what in _DICOM.items():
        if extra not in outputs.extras:
            continue
        reason = why_not(path, len(image.frames) - 1)
        if not reason and extra == "dicom_sc" and image.burned_in:
            reason = "its picture may show text, such as a name"
        if reason:
            notes.append(f"no {what} was written: {reason}")
        elif extra == "dicom_seg":
            write_segmentation(outputs.path(extra), path, mask, provenance, size)
        else:
            write_secondary_capture(
                outputs.path(extra), path, image, mask, provenance, size
            )
    write_mask(outputs.mask, mask, provenance, size)
    return Segmented(_facts(mask, provenance, image), tuple(notes))


def _notes(image: Angiogram) -> list[str]:
    return [*image.notes, *([BRIGHT_NOTE] if image.has_bright_vessels() else [])]


def _facts(mask: np.ndarray, made: Provenance, image: Angiogram) -> dict[str, object]:
    size = image.pixel_size_mm or ("", "")
    return {
        "frames": len(mask) if mask.ndim == 3 else 1,
        "height": mask.shape[-2],
        "width": mask.shape[-1],
        "artery_share": round(float(mask.mean()), 5),
        "pixel_height_mm": size[0],
        "pixel_width_mm": size[1],
        "pixel_size_source": image.pixel_size_source,
        "source_sha256": made.source_sha256,
        "model": made.model,
        "model_sha256": made.model_sha256,
        "threshold": made.threshold,
    }
