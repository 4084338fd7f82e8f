"""Pixel size in the plane of the heart, from a DICOM header, and where it comes from.

What ``ImagerPixelSpacing`` says holds at the detector. The heart is nearer to the tube,
so it is magnified there, by a third as a rule; a size that was not corrected for this
would make every artery too wide, and so counts as unknown.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from napari_cmunet.io.formats.decoded import UNKNOWN_PIXEL_SIZE
from napari_cmunet.io.pixel_size import PixelSize, checked_pixel_size

if TYPE_CHECKING:
    from pydicom import Dataset

_CALIBRATIONS = {
    "GEOMETRY": "corrected for magnification by the system",
    "FIDUCIAL": "calibrated on an object of known size",
}
# The patient lies between tube and detector, and no system magnifies more.
_LEAST_MAGNIFICATION, _MOST_MAGNIFICATION = 1.0, 3.0


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
    spacing = _pair(_measures(dataset).get("PixelSpacing"))
    properties = _shared(dataset, "FramePixelDataPropertiesSequence")
    imager = _pair(properties.get("ImagerPixelSpacing"))
    kind = str(dataset.get("PixelSpacingCalibrationType") or "").upper()
    if spacing is not None and (kind in _CALIBRATIONS or spacing != imager):
        how = _CALIBRATIONS.get(kind, "how it was measured is not said")
        return checked_pixel_size(*spacing, f"PixelSpacing ({how})")
    calibration = _shared(dataset, "ProjectionPixelCalibrationSequence")
    at_object = _pair(calibration.get("ObjectPixelSpacingInCenterOfBeam"))
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
    to_detector = _number(geometry.get("DistanceSourceToDetector"))
    to_patient = _number(geometry.get("DistanceSourceToPatient"))
    if to_patient is None:
        to_patient = _number(geometry.get("DistanceSourceToIsocenter"))
    if to_detector is not None and to_patient is not None:
        factor = to_detector / to_patient
        how = "from distances"
    else:
        factor = _number(dataset.get("EstimatedRadiographicMagnificationFactor"))
        how = "as estimated by the system"
    if factor is None or not _LEAST_MAGNIFICATION <= factor <= _MOST_MAGNIFICATION:
        return None, ""
    return factor, how


def _measures(dataset: Dataset) -> Dataset:
    return _shared(dataset, "PixelMeasuresSequence")


def _shared(dataset: Dataset, keyword: str) -> Dataset:
    """What all frames of an enhanced object share; the header itself otherwise."""
    for groups in dataset.get("SharedFunctionalGroupsSequence") or ():
        for item in groups.get(keyword) or ():
            return item
    return dataset


def _pair(value: object) -> tuple[float, float] | None:
    """Two sizes above zero: of a row's height, then of a column's width."""
    if isinstance(value, str) or not hasattr(value, "__len__") or len(value) != 2:
        return None
    pair = _number(value[0]), _number(value[1])
    return None if None in pair else pair


def _number(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if number > 0 and math.isfinite(number) else None
