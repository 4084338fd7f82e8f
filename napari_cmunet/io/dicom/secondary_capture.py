"""Write frames with burnt-in contours as DICOM Secondary Capture.

For viewers that show no segmentations. The grey values are no longer those of the
image: this is a picture to look at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw
from pydicom import uid
from pydicom.tag import Tag
from pydicom.valuerep import DSfloat
from scipy import ndimage

from napari_cmunet.io.dicom.derived import make_derived, read_source, save_derived
from napari_cmunet.io.pictures import COLOUR, draw_lesions, grey_levels

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_cmunet.io.dicom.derived import DicomSource
    from napari_cmunet.io.images import Angiogram
    from napari_cmunet.io.measured_lesion import MeasuredFrame
    from napari_cmunet.io.provenance import Provenance

_NOTICE = "CM-UNet: research only"
_USUAL_RATE = 15.0  # frames per second, where the image does not say


def write_secondary_capture(
    path: Path,
    source_path: Path,
    image: Angiogram,
    mask: np.ndarray,
    provenance: Provenance,
    pixel_size_mm: tuple[float, float] | None = None,
) -> None:
    """Write a picture or a cine in colour, with the outlines of the masks.

    Parameters
    ----------
    source_path : Path
        The DICOM file of the image.
    image : Angiogram
        What was read from it.
    mask : bool array (Y, X) or (T, Y, X)
        Pages belong to the frames of ``provenance.frames``; to all by default.
    pixel_size_mm : (y, x), optional
        In the patient.

    Raises
    ------
    ReadError
        If nothing can refer to the source, or a frame cannot be read.
    WriteError
    """
    pages = mask if mask.ndim == 3 else mask[np.newaxis]
    indices = provenance.frames or tuple(range(len(pages)))
    pixels = np.stack(
        [
            _picture(image.frames[index], page, image.window)
            for index, page in zip(indices, pages, strict=True)
        ]
    )
    rate = image.frames_per_second or _USUAL_RATE
    _write(
        path,
        read_source(source_path, max(indices)),
        indices,
        pixels,
        provenance,
        "contours of arteries found by CM-UNet",
        pixel_size_mm,
        rate,
    )


def write_measured_picture(
    path: Path, source_path: Path, measured: MeasuredFrame
) -> None:
    """Write a measured frame as a picture, twice as large, with its lesions.

    Raises
    ------
    ReadError, WriteError
    """
    source = read_source(source_path, measured.index)
    lesions = measured.lesions
    borders = [part.stretch.borders for part in lesions if part.stretch is not None]
    picture = draw_lesions(measured.pixels, measured.window, borders, lesions)
    ImageDraw.Draw(picture).text((4, 2), _NOTICE, fill=COLOUR)
    side = measured.calibration.mm and measured.calibration.mm / 2
    _write(
        path,
        source,
        (measured.index,),
        np.asarray(picture)[np.newaxis],
        measured.provenance,
        "measured lesions",
        (side, side) if side else None,
        _USUAL_RATE,
    )


def _write(
    path: Path,
    source: DicomSource,
    indices: Sequence[int],
    pixels: np.ndarray,
    provenance: Provenance,
    description: str,
    pixel_size_mm: tuple[float, float] | None,
    rate: float,
) -> None:
    """Write pictures (T, Y, X, 3)."""
    is_cine = len(pixels) > 1
    made = make_derived(
        source,
        provenance,
        uid.MultiFrameTrueColorSecondaryCaptureImageStorage
        if is_cine
        else uid.SecondaryCaptureImageStorage,
        "OT",
        description,
        pixel_size_mm,
    )
    made.ImageType = ["DERIVED", "SECONDARY"]
    made.ConversionType = "WSD"
    made.BurnedInAnnotation = "NO"  # nothing that identifies the patient
    made.DerivationDescription = f"Burnt in: {description}. {_NOTICE}"
    made.SourceImageSequence = [source.image_reference(index) for index in indices]
    if is_cine:
        made.NumberOfFrames = len(pixels)
        made.FrameIncrementPointer = Tag("FrameTime")
        made.FrameTime = DSfloat(1000 / rate, auto_format=True)
    made.SamplesPerPixel, made.PlanarConfiguration = 3, 0
    made.PhotometricInterpretation = "RGB"
    made.Rows, made.Columns = pixels.shape[1:3]
    made.BitsAllocated = made.BitsStored = 8
    made.HighBit, made.PixelRepresentation = 7, 0
    made.PixelData = pixels.tobytes() + bytes(pixels.size % 2)
    made["PixelData"].VR = "OB"
    save_derived(path, made)


def _picture(
    frame: np.ndarray, mask: np.ndarray, window: tuple[float, float] | None
) -> np.ndarray:
    """Return a frame in colour, (Y, X, 3) uint8."""
    colour = np.repeat(grey_levels(frame, window)[..., None], 3, axis=-1)
    colour[mask & ~ndimage.binary_erosion(mask)] = COLOUR
    picture = Image.fromarray(colour.round().astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    draw.fontmode = "1"  # sharp
    draw.text((4, 2), _NOTICE, fill=COLOUR)
    return np.asarray(picture)
