"""DICOM files made of phantom frames, in every form that is to be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import imagecodecs
import pydicom
from pydicom import Dataset, FileDataset, FileMetaDataset, uid
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.pixels import get_encoder

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

SYNTAXES = {
    "implicit": uid.ImplicitVRLittleEndian,
    "explicit": uid.ExplicitVRLittleEndian,
    "big endian": uid.ExplicitVRBigEndian,
    "RLE": uid.RLELossless,
    "JPEG baseline": uid.JPEGBaseline8Bit,
    "JPEG extended": uid.JPEGExtended12Bit,
    "JPEG lossless": uid.JPEGLossless,
    "JPEG lossless SV1": uid.JPEGLosslessSV1,
    "JPEG-LS": uid.JPEGLSLossless,
    "JPEG-LS near": uid.JPEGLSNearLossless,
    "JPEG 2000 lossless": uid.JPEG2000Lossless,
    "JPEG 2000": uid.JPEG2000,
}
LOSSY = ("JPEG baseline", "JPEG extended", "JPEG-LS near", "JPEG 2000")

IDENTITY = {
    "PatientName": "Mustermann^Ottilie",
    "PatientID": "PID-4711-08",
    "PatientBirthDate": "19470323",
    "OtherPatientIDs": "KH998877",
    "AccessionNumber": "ACC20260017",
    "InstitutionName": "Herzzentrum Musterstadt",
    "InstitutionAddress": "Musterweg 12, Musterstadt",
    "DeviceSerialNumber": "SN55301",
    "StationName": "CATHLAB7",
    "ReferringPhysicianName": "Zuweiser^Karl",
    "PerformingPhysicianName": "Stecher^Anna",
    "OperatorsName": "Technik^Bodo",
    "StudyID": "STUDY0815",
}
"""What is in every file made here and may be in nothing that is written."""


def make_dataset(
    frames: np.ndarray,
    syntax: str = "explicit",
    *,
    bits: int | None = None,
    **elements: object,
) -> FileDataset:
    """An XA object of frames ``(T, Y, X)`` or ``(Y, X)``, of 8 or 16 bits allocated.

    Further elements, by keyword, are set last; None takes one away.
    """
    stack = frames if frames.ndim == 3 else frames[None]
    transfer = SYNTAXES[syntax]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = uid.XRayAngiographicImageStorage
    meta.MediaStorageSOPInstanceUID = uid.generate_uid()
    meta.TransferSyntaxUID = transfer
    made = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    made.SOPClassUID = meta.MediaStorageSOPClassUID
    made.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    made.StudyInstanceUID = uid.generate_uid(entropy_srcs=["study"])
    made.SeriesInstanceUID = uid.generate_uid(entropy_srcs=["series"])
    made.Modality = "XA"
    for keyword, value in IDENTITY.items():
        setattr(made, keyword, value)
    made.SamplesPerPixel = 1
    made.PhotometricInterpretation = "MONOCHROME2"
    made.Rows, made.Columns = stack.shape[1:]
    if len(stack) > 1:
        made.NumberOfFrames = len(stack)
        made.FrameTime = "66.67"
        made.FrameIncrementPointer = 0x00181063
    made.BitsAllocated = 8 * stack.dtype.itemsize
    made.BitsStored = bits or made.BitsAllocated
    made.HighBit = made.BitsStored - 1
    made.PixelRepresentation = int(stack.dtype.kind == "i")
    _set_pixels(made, stack, transfer)
    for keyword, value in elements.items():
        if value is None:
            if keyword in made:
                delattr(made, keyword)
        else:
            setattr(made, keyword, value)
    return made


def _set_pixels(made: Dataset, stack: np.ndarray, transfer: uid.UID) -> None:
    if not transfer.is_encapsulated:
        order = ">" if transfer == uid.ExplicitVRBigEndian else "<"
        data = stack.astype(stack.dtype.newbyteorder(order)).tobytes()
        made.PixelData = data + bytes(len(data) % 2)
        made["PixelData"].VR = "OW"
        if transfer == uid.ExplicitVRBigEndian and stack.dtype.itemsize == 1:
            made["PixelData"].VR = "OB"
        return
    made.PixelData = encapsulate([encode(f, transfer, made) for f in stack])
    made["PixelData"].VR = "OB"
    made["PixelData"].is_undefined_length = True


def encode(frame: np.ndarray, transfer: uid.UID, made: Dataset) -> bytes:
    """Encode one frame with public codecs."""
    bits = made.BitsStored
    unsigned = frame.view(frame.dtype.str.replace("i", "u"))
    if frame.dtype.kind == "i":
        unsigned = unsigned & (2**bits - 1)
    if transfer == uid.RLELossless:
        return get_encoder(transfer).encode(
            frame.tobytes(),
            rows=made.Rows,
            columns=made.Columns,
            number_of_frames=1,
            samples_per_pixel=1,
            photometric_interpretation="MONOCHROME2",
            bits_allocated=made.BitsAllocated,
            bits_stored=made.BitsStored,
            pixel_representation=made.PixelRepresentation,
        )
    if transfer == uid.JPEGBaseline8Bit:
        return imagecodecs.jpeg8_encode(unsigned, level=95)
    if transfer == uid.JPEGExtended12Bit:
        return imagecodecs.jpeg8_encode(unsigned, level=98, bitspersample=bits)
    if transfer in (uid.JPEGLossless, uid.JPEGLosslessSV1):
        predictor = 1 if transfer == uid.JPEGLosslessSV1 else 6
        return imagecodecs.jpeg8_encode(
            unsigned, lossless=True, predictor=predictor, bitspersample=bits
        )
    if transfer in (uid.JPEGLSLossless, uid.JPEGLSNearLossless):
        level = 0 if transfer == uid.JPEGLSLossless else 2
        return imagecodecs.jpegls_encode(unsigned, level=level)
    return imagecodecs.jpeg2k_encode(
        frame,
        codecformat="J2K",
        bitspersample=bits,
        reversible=transfer == uid.JPEG2000Lossless,
        level=0 if transfer == uid.JPEG2000Lossless else 60,
    )


def write_dicom(path: Path, frames: np.ndarray, *args, **options) -> Path:
    """Write what :func:`make_dataset` makes; returns the path."""
    pydicom.dcmwrite(
        path, make_dataset(frames, *args, **options), enforce_file_format=True
    )
    return path


def without_preamble(path: Path) -> Path:
    """Take the preamble and the file meta information away, in place."""
    content = path.read_bytes()
    length = int.from_bytes(content[140:144], "little")
    path.write_bytes(content[144 + length :])
    return path


def with_extended_offsets(made: FileDataset, codestreams: list[bytes]) -> None:
    """Let a dataset say by an Extended Offset Table where its frames begin."""
    data, offsets, lengths = encapsulate_extended(codestreams)
    made.PixelData = data
    made.ExtendedOffsetTable, made.ExtendedOffsetTableLengths = offsets, lengths
