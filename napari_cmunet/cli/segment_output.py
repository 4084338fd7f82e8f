"""What ``segment`` writes for one image, and whether it has been written before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_cmunet.cine.best_frame import best_filled_frame
from napari_cmunet.errors import ReadError, WriteError
from napari_cmunet.io.dicom.segmentation import why_no_segmentation, write_segmentation
from napari_cmunet.io.images import read_angiogram
from napari_cmunet.io.masks import (
    read_mask,
    read_provenance,
    write_mask,
    write_probability,
)
from napari_cmunet.io.overlay import write_overlay
from napari_cmunet.io.provenance import Provenance, program_version, write_record
from napari_cmunet.model.predictor import to_uint8
from napari_cmunet.model.threshold import mask_at
from napari_cmunet.util.atomic import write_reason

if TYPE_CHECKING:
    from pathlib import Path

    from napari_cmunet.io.images import Angiogram
    from napari_cmunet.model.predictor import Predictor

EXTRAS = ("probability", "probability_float32", "record", "overlay", "dicom_seg")
"""What can be had beside a mask, in the order in which it is written."""
_NAMES = {
    "probability": "{}_probability.tif",
    "probability_float32": "{}_probability_float32.tif",
    "record": "{}.json",
    "overlay": "{}_overlay.png",
    "dicom_seg": "{}_seg.dcm",
}


@dataclass(frozen=True)
class Outputs:
    """The files that belong to one image.

    Parameters
    ----------
    mask : Path
    extras : tuple of str
        Of ``EXTRAS``.
    """

    mask: Path
    extras: tuple[str, ...] = ()

    def path(self, extra: str) -> Path:
        """Where an extra goes."""
        return self.mask.with_name(_NAMES[extra].format(self.mask.stem))

    def all(self) -> list[Path]:
        """Every file; the mask last, since it shows that the others are written."""
        return [*(self.path(extra) for extra in self.extras), self.mask]


@dataclass(frozen=True)
class Segmented:
    """What is known of an image once it is segmented, for the summary."""

    facts: dict[str, object]
    notes: tuple[str, ...] = ()


def find_done(
    path: Path, outputs: Outputs, predictor: Predictor, threshold: float
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
            or made.model_sha256 != predictor.card.sha256
            or made.threshold != threshold
            or made.version != program_version()
        ):
            return None
        image = read_angiogram(path)
        if image.sha256 != made.source_sha256:
            return None
        mask = read_mask(outputs.mask)
    except ReadError:
        return None
    return Segmented(_facts(mask, made, image), tuple(image.notes))


def write_outputs(
    path: Path, outputs: Outputs, predictor: Predictor, threshold: float
) -> Segmented:
    """Read an image, segment it and write all that is wanted of it.

    Raises
    ------
    CMUNetError
    """
    image = read_angiogram(path)
    exact = "probability_float32" in outputs.extras
    probability = np.empty(image.frames.shape, np.float32 if exact else np.uint8)
    for frame in predictor.predict_frames(image.frames, exact=exact):
        probability[frame.index] = frame.probability
    steps = to_uint8(probability) if exact else probability
    masks = mask_at(steps, threshold)
    provenance = Provenance(
        model=predictor.card.name,
        model_sha256=predictor.card.sha256,
        threshold=threshold,
        device=predictor.device.type,
        source_sha256=image.sha256,
        frames=tuple(range(len(image.frames))),
    )
    size = image.pixel_size_mm
    make_folder(outputs.mask.parent)
    notes = list(image.notes)
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
            pixels_changed=0,
        )
    if "overlay" in outputs.extras:
        if image.burnt_in:  # a picture would show a name that may be there
            notes.append("no overlay was written")
        else:
            best = (best_filled_frame(image.frames) or 0) if image.is_cine else 0
            write_overlay(
                outputs.path("overlay"), image.frames[best], masks[best], image.window
            )
    if "dicom_seg" in outputs.extras:
        reason = why_no_segmentation(path, size)
        if reason:
            notes.append(f"no DICOM segmentation was written: {reason}")
        else:
            write_segmentation(outputs.path("dicom_seg"), path, mask, provenance, size)
    write_mask(outputs.mask, mask, provenance, size)
    return Segmented(_facts(mask, provenance, image), tuple(notes))


def make_folder(folder: Path) -> None:
    """Make a folder and those above it; raises WriteError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as exc:
        raise WriteError(
            folder, "a file is in the way of this folder. Choose another with -o."
        ) from exc
    except OSError as exc:
        raise WriteError(folder, write_reason(exc)) from exc


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
