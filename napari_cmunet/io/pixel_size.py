"""Pixel size from the metadata of a TIFF or DICOM file, and where it comes from.

A printing density, or a size that no angiogram can have, is reported as unknown: a
wrong size is worse than none. So is the size at the detector of a DICOM file
(``ImagerPixelSpacing``) without the magnification: the heart is nearer to the tube.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_cmunet.io.formats.decoded import UNKNOWN_PIXEL_SIZE

if TYPE_CHECKING:
    import tifffile
    from pydicom import Dataset

# Millimetres a unit, by the names that ImageJ and OME give to units.
_MILLIMETRES = {
    "mm": 1.0,
    "millimeter": 1.0,
    "millimetre": 1.0,
    "cm": 10.0,
    "centimeter": 10.0,
    "m": 1000.0,
    "µm": 1e-3,  # micro sign
    "\u03bcm": 1e-3,  # Greek letter mu
    "um": 1e-3,
    "micron": 1e-3,
    "microns": 1e-3,
    "nm": 1e-6,
    "inch": 25.4,
    "in": 25.4,
}
# TIFF's ResolutionUnit; 4 and 5 are widespread additions.
_UNIT_OF_TAG = {2: "inch", 3: "cm", 4: "mm", 5: "µm"}
# Dots an inch that printing and screens use, met in any image that passed an editor.
_PRINT_DENSITIES = (72, 75, 90, 96, 100, 120, 150, 180, 200, 240, 300, 360, 400)
_PRINT_DENSITIES_HIGH = (600, 720, 1200, 1440, 2400)
# A detector's pixel is 0.1 to 0.4 mm; an image may be scaled down or magnified.
_SMALLEST_MM, _LARGEST_MM = 0.01, 10.0
_CALIBRATIONS = {
    "GEOMETRY": "corrected for magnification by the system",
    "FIDUCIAL": "calibrated on an object of known size",
}
# The patient lies between tube and detector, and no system magnifies more.
_LEAST_MAGNIFICATION, _MOST_MAGNIFICATION = 1.0, 3.0


@dataclass(frozen=True)
class PixelSize:
    """A pixel's height and width in millimetres, None if unknown, and its source."""

    mm: tuple[float, float] | None
    source: str


def pixel_size_of_tiff(
    tif: tifffile.TiffFile, page: tifffile.TiffPage, description: str
) -> PixelSize:
    """Look where TIFF writers put the pixel size, the most explicit place first."""
    own = _own(description)
    if own is not None:
        return checked_pixel_size(*own, "napari-cmunet's record in the file")
    if tif.is_ome:
        found = _ome(tif.ome_metadata or "")
        if found is not None:
            return checked_pixel_size(*found, "OME metadata")
    resolution = _resolution(page)
    if resolution is None:
        return PixelSize(None, UNKNOWN_PIXEL_SIZE)
    if tif.is_imagej:
        unit = str((tif.imagej_metadata or {}).get("unit", "")).strip()
        unit = unit.replace("\\u00B5", "µ")
        if unit.lower() in _MILLIMETRES:
            mm = _MILLIMETRES[unit.lower()]
            return checked_pixel_size(
                mm / resolution[0], mm / resolution[1], f"ImageJ calibration ({unit})"
            )
        return PixelSize(None, UNKNOWN_PIXEL_SIZE)
    return _from_tags(page, resolution)


def _own(description: str) -> tuple[float, float] | None:
    """Size written by this program, exact where the tags are rounded fractions."""
    if not description.startswith("{") or "napari-cmunet" not in description:
        return None
    try:
        height, width = json.loads(description)["pixel_size_mm"]
        return float(height), float(width)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _ome(xml: str) -> tuple[float, float] | None:
    # Two attributes of one element: not worth handing foreign XML to a parser.
    pixels = re.search(r"<(?:\w+:)?Pixels\b[^>]*>", xml)
    if pixels is None:
        return None
    sizes = []
    for axis in "YX":
        size = re.search(rf'\bPhysicalSize{axis}="([^"]+)"', pixels[0])
        unit = re.search(rf'\bPhysicalSize{axis}Unit="([^"]+)"', pixels[0])
        name = unit[1] if unit else "µm"
        if size is None or name not in _MILLIMETRES:
            return None
        try:
            sizes.append(float(size[1]) * _MILLIMETRES[name])
        except ValueError:
            return None
    return sizes[0], sizes[1]


def _resolution(page: tifffile.TiffPage) -> tuple[float, float] | None:
    """Pixels a unit as (y, x), from the resolution tags."""
    values = []
    for name in ("YResolution", "XResolution"):
        tag = page.tags.get(name)
        value: Any = tag.value if tag is not None else None
        if not isinstance(value, tuple) or len(value) != 2:
            return None
        numerator, denominator = value
        if not numerator or not denominator:
            return None
        values.append(numerator / denominator)
    return values[0], values[1]


def _from_tags(page: tifffile.TiffPage, resolution: tuple[float, float]) -> PixelSize:
    tag = page.tags.get("ResolutionUnit")
    unit = _UNIT_OF_TAG.get(int(tag.value)) if tag is not None else "inch"
    if unit is None:
        return PixelSize(None, UNKNOWN_PIXEL_SIZE)
    mm = _MILLIMETRES[unit]
    per_inch = [25.4 * value / mm for value in resolution]
    for density in _PRINT_DENSITIES + _PRINT_DENSITIES_HIGH:
        if all(abs(value - density) < 5e-4 * density for value in per_inch):
            return PixelSize(
                None, f"unknown ({density} dots per inch is a printing density)"
            )
    return checked_pixel_size(
        mm / resolution[0], mm / resolution[1], f"resolution tags (per {unit})"
    )


def checked_pixel_size(height: float, width: float, source: str) -> PixelSize:
    """Return a size (y, x) in millimetres, unknown where no angiogram can have it."""
    if all(_SMALLEST_MM <= value <= _LARGEST_MM for value in (height, width)):
        return PixelSize((height, width), source)
    return PixelSize(None, f"unknown ({source} is out of range)")


def pixel_size_of_dicom(dataset: Dataset) -> PixelSize:
    """Find the pixel size (y, x) in millimetres in the patient.

    Parameters
    ----------
    dataset : Dataset
        A header, of an enhanced multi-frame object too.

    Notes
    -----
    DICOM PS3.3, 10.7 (Basic Pixel Spacing Calibration) and C.8.7.5 (XA positioner).
    """
    from napari_cmunet.io.dicom.header import text

    spacing = _pair(_shared(dataset, "PixelMeasuresSequence"), "PixelSpacing")
    properties = _shared(dataset, "FramePixelDataPropertiesSequence")
    imager = _pair(properties, "ImagerPixelSpacing")
    kind = text(dataset, "PixelSpacingCalibrationType")
    if spacing is not None and (kind in _CALIBRATIONS or spacing != imager):
        how = _CALIBRATIONS.get(kind, "how it was measured is not said")
        return checked_pixel_size(*spacing, f"PixelSpacing ({how})")
    calibration = _shared(dataset, "ProjectionPixelCalibrationSequence")
    at_object = _pair(calibration, "ObjectPixelSpacingInCenterOfBeam")
    if at_object is not None:
        return checked_pixel_size(
            *at_object, "ObjectPixelSpacingInCenterOfBeam (by the system's geometry)"
        )
    if imager is None:
        return PixelSize(None, UNKNOWN_PIXEL_SIZE)
    factor, how = _magnification(dataset)
    if factor is None:
        return PixelSize(
            None,
            f"unknown in the patient (ImagerPixelSpacing, {imager[0]:g} mm at the "
            f"detector; the magnification is not known)",
        )
    return checked_pixel_size(
        imager[0] / factor,
        imager[1] / factor,
        f"ImagerPixelSpacing / {factor:.2f} (magnification, {how})",
    )


def _magnification(dataset: Dataset) -> tuple[float | None, str]:
    geometry = _shared(dataset, "XRayGeometrySequence")
    factor: float | None
    to_detector = _positive(geometry, "DistanceSourceToDetector")
    to_patient = _positive(geometry, "DistanceSourceToPatient")
    if to_patient is None:
        to_patient = _positive(geometry, "DistanceSourceToIsocenter")
    if to_detector is not None and to_patient is not None:
        factor = to_detector / to_patient
        how = "from distances"
    else:
        factor = _positive(dataset, "EstimatedRadiographicMagnificationFactor")
        how = "as estimated by the system"
    if factor is None or not _LEAST_MAGNIFICATION <= factor <= _MOST_MAGNIFICATION:
        return None, ""
    return factor, how


def _shared(dataset: Dataset, keyword: str) -> Dataset:
    """What all frames of an enhanced object share; the header itself otherwise."""
    from napari_cmunet.io.dicom.header import items

    for groups in items(dataset, "SharedFunctionalGroupsSequence"):
        for item in items(groups, keyword):
            return item
    return dataset


def _pair(dataset: Dataset, keyword: str) -> tuple[float, float] | None:
    """Return two positive sizes: height of a row, width of a column."""
    from napari_cmunet.io.dicom.header import numbers  # deferred: pydicom is slow

    found = [n for n in numbers(dataset, keyword) if n is not None and n > 0]
    both = len(found) == 2 == len(numbers(dataset, keyword))
    return (found[0], found[1]) if both else None


def _positive(dataset: Dataset, keyword: str) -> float | None:
    from napari_cmunet.io.dicom.header import number

    found = number(dataset, keyword)
    return found if found is not None and found > 0 else None
