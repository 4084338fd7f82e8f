"""How the pixels of a DICOM image are stored, according to its header."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydicom.pixels.common import PhotometricInterpretation as Photometric

from napari_cmunet.io.dicom.values import integer, text

if TYPE_CHECKING:
    from napari_cmunet.io.dicom.header import Header
    from napari_cmunet.io.sniffing import SniffedFile

_GREY = (
    Photometric.MONOCHROME1,
    Photometric.MONOCHROME2,
    Photometric.PALETTE_COLOR,
)
_COLOUR = (
    Photometric.RGB,
    Photometric.YBR_FULL,
    Photometric.YBR_FULL_422,
    Photometric.YBR_ICT,
    Photometric.YBR_RCT,
)


@dataclass(frozen=True)
class PixelFormat:
    """Size and type of stored pixels."""

    rows: int
    columns: int
    samples: int
    #: allocated, stored: bits of a sample.
    allocated: int
    stored: int
    shift: int  # bits below the stored ones, according to HighBit
    signed: bool
    photometric: str
    planar: int
    frames: int | None  # the declared number; None if there is none
    vr: str  # OB or OW
    notes: tuple[str, ...] = ()

    @property
    def frame_bytes(self) -> int:
        """Bytes of a frame without compression."""
        pixels = self.rows * self.columns * self.allocated // 8
        if self.samples == 3 and self.photometric == Photometric.YBR_FULL_422:
            return 2 * pixels
        return self.samples * pixels

    def decoder_options(self, frames: int) -> dict[str, Any]:
        """Return the options of pydicom's decoders."""
        options: dict[str, Any] = {
            "rows": self.rows,
            "columns": self.columns,
            "number_of_frames": frames,
            "samples_per_pixel": self.samples,
            "photometric_interpretation": self.photometric,
            "bits_allocated": self.allocated,
            "bits_stored": self.stored,
            "pixel_representation": int(self.signed),
            "pixel_keyword": "PixelData",
            "pixel_vr": self.vr,
        }
        if self.samples != 1:
            options["planar_configuration"] = self.planar
        return options


def pixel_format(file: SniffedFile, header: Header) -> PixelFormat:
    """Read the format from the header, with the usual defaults for what is missing.

    Raises
    ------
    ReadError
        If the format is not supported.
    """
    dataset = header.dataset
    notes: list[str] = []
    rows, columns = integer(dataset, "Rows"), integer(dataset, "Columns")
    if rows is None or columns is None:
        raise file.error(
            "its header does not say how many rows and columns it has. Export it again."
        )
    samples = integer(dataset, "SamplesPerPixel") or 1
    default = Photometric.MONOCHROME2 if samples == 1 else Photometric.RGB
    photometric = text(dataset, "PhotometricInterpretation")
    photometric = photometric.replace("MONOCHROME ", "MONOCHROME") or str(default)
    if samples not in (1, 3) or photometric not in _GREY + _COLOUR:
        raise file.error("its kind of colour is none that is read. Export it in grey.")
    if photometric not in (_GREY if samples == 1 else _COLOUR):
        photometric = str(default)
        notes.append("its header contradicts itself on the colours of a pixel")
    frames = integer(dataset, "NumberOfFrames")
    full = 3 * rows * columns * max(frames or 1, 1)
    if photometric == Photometric.YBR_FULL_422 and full == header.data_bytes:
        photometric = Photometric.YBR_FULL
    stored = integer(dataset, "BitsStored")
    allocated = integer(dataset, "BitsAllocated")
    if allocated is None and stored is not None:
        allocated = 8 if stored <= 8 else 16
    if allocated is None:
        raise file.error(
            "its header does not say how many bits a pixel has. Export it again."
        )
    if allocated not in (8, 16) or stored == 1:
        raise file.error(
            f"it stores {stored or allocated} of {allocated} bits for each pixel; an "
            f"angiogram has 8 to 16. Export it again."
        )
    high = integer(dataset, "HighBit")
    if stored is not None and not 2 <= stored <= allocated:
        notes.append("its header contradicts itself on the bits of a pixel")
        stored = high = None
    stored = allocated if stored is None else stored
    shift = 0 if high is None else high + 1 - stored
    if shift:
        notes.append("its header contradicts itself on the bits of a pixel (HighBit)")
    return PixelFormat(
        rows,
        columns,
        samples,
        allocated,
        stored,
        shift if 0 < shift <= allocated - stored else 0,
        integer(dataset, "PixelRepresentation") == 1,
        photometric,
        integer(dataset, "PlanarConfiguration") or 0,
        frames if frames is not None and frames > 0 else None,
        header.pixel_vr,
        tuple(notes),
    )
