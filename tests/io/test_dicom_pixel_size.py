"""Pixel size of DICOM: in the patient, or unknown; and always where it comes from."""

from __future__ import annotations

import pytest
from pydicom import Dataset

from napari_cmunet.io.pixel_size import pixel_size_of_dicom


def header(**elements: object) -> Dataset:
    made = Dataset()
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


DISTANCES = {"DistanceSourceToDetector": "1050", "DistanceSourceToPatient": "750"}


@pytest.mark.parametrize(
    ("elements", "size", "words"),
    [
        ({}, None, "unknown"),
        ({"PixelSpacing": [0.3, 0.25]}, (0.3, 0.25), "not said"),
        (
            {"PixelSpacing": [0.3, 0.3], "PixelSpacingCalibrationType": "FIDUCIAL"},
            (0.3, 0.3),
            "object of known size",
        ),
        (
            {
                "PixelSpacing": [0.2, 0.2],
                "ImagerPixelSpacing": [0.2, 0.2],
                "PixelSpacingCalibrationType": "GEOMETRY",
            },
            (0.2, 0.2),
            "corrected for magnification by the system",
        ),
        # Of the detector, written twice: no calibration.
        (
            {"PixelSpacing": [0.2, 0.2], "ImagerPixelSpacing": [0.2, 0.2]},
            None,
            "unknown in the patient",
        ),
        ({"ImagerPixelSpacing": [0.2, 0.2]}, None, "0.2 mm at the detector"),
        (
            {"ImagerPixelSpacing": [0.28, 0.14], **DISTANCES},
            (0.2, 0.1),
            "ImagerPixelSpacing / 1.40 (magnification, from dist",
        ),
        (
            {
                "ImagerPixelSpacing": [0.3, 0.3],
                "EstimatedRadiographicMagnificationFactor": "1.5",
            },
            (0.2, 0.2),
            "as estimated by the system",
        ),
        # Distances that no system has.
        (
            {
                "ImagerPixelSpacing": [0.3, 0.3],
                "DistanceSourceToDetector": "700",
                "DistanceSourceToPatient": "1000",
            },
            None,
            "unknown in the patient",
        ),
        ({"ImagerPixelSpacing": [0.3, 0.3], "DistanceSourceToDetector": "0"}, None, ""),
        ({"PixelSpacing": [0, 0]}, None, "unknown"),
        ({"PixelSpacing": [500, 500]}, None, "out of range"),
        ({"PixelSpacing": None}, None, "unknown"),
    ],
)
def test_size_and_source(elements, size, words):
    found = pixel_size_of_dicom(header(**elements))
    assert words in found.source
    if size is None:
        assert found.mm is None
        assert found.source.startswith("unknown")
    else:
        assert found.mm == pytest.approx(size)


def test_enhanced_objects_say_it_for_all_frames():
    groups = header(
        FramePixelDataPropertiesSequence=[header(ImagerPixelSpacing=[0.28, 0.28])],
        XRayGeometrySequence=[
            header(DistanceSourceToDetector=1050.0, DistanceSourceToIsocenter=750.0)
        ],
    )
    found = pixel_size_of_dicom(header(SharedFunctionalGroupsSequence=[groups]))
    assert found.mm == pytest.approx((0.2, 0.2))
