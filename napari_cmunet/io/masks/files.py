"""Write mask TIFFs that any program can read, and read masks.

``uint8``, 0 background and 255 (or 1) artery, ``(Y, X)`` or one page a frame, deflate
without loss, pixels per centimetre in the resolution tags where the size is known, and
one JSON object in ImageDescription: the provenance, the axes and the pixel size.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile

from napari_cmunet.errors import ReadError, WriteError
from napari_cmunet.io.formats.decoded import DecodedImage, ReadLimits, to_grey
from napari_cmunet.io.images import decode
from napari_cmunet.io.provenance import Provenance
from napari_cmunet.io.sniffing import open_sniffed
from napari_cmunet.util.safe_files import atomic_write

MAX_ARTERY_SHARE = 1 / 3
"""Of a frame; more of it is hardly ever artery, but often a mask with white around."""

LargeMasks = Literal["refuse", "keep", "invert"]
"""What to do with a mask in which more than this is artery."""

BESIDE_MASK = {
    "probability": "{}_probability.tif",
    "probability_float32": "{}_probability_float32.tif",
    "record": "{}.json",
    "overlay": "{}_overlay.png",
    "dicom_seg": "{}_seg.dcm",
    "dicom_sc": "{}_sc.dcm",
    "reviewed": "{}_reviewed.tif",
    "segments": "{}_segments.tif",
}
"""Names of the files that are written beside a mask, by its stem."""

# Masks may be of any size.
_LIMITS = ReadLimits(min_side=1)
# Above this, the 32-bit offsets of classic TIFF may overflow.
_BIG_TIFF_BYTES = 2**32 - 2**26


def is_beside_mask(path: Path) -> bool:
    """Whether a file was written beside a mask, by its name and the mask's."""
    endings = [name.removeprefix("{}") for name in BESIDE_MASK.values()]
    return any(
        path.name.endswith(ending)
        and path.with_name(path.name.removesuffix(ending) + ".tif").is_file()
        for ending in endings
    )


def write_mask(
    path: Path | str,
    mask: np.ndarray,
    provenance: Provenance,
    pixel_size_mm: tuple[float, float] | None = None,
    values: tuple[int, int] = (0, 255),
) -> None:
    """Write a mask as TIFF, atomically, and verify it by reading back.

    Parameters
    ----------
    path : Path or str
        An existing file is replaced after the new one was verified.
    mask : np.ndarray
        bool ``(Y, X)`` or ``(T, Y, X)``; a single frame ``(1, Y, X)`` is written as
        ``(Y, X)``.
    provenance : Provenance
        Written to ImageDescription.
    pixel_size_mm : tuple of float, optional
        (y, x) in millimetres, only where it is known.
    values : {(0, 255), (0, 1)}
        Values of background and artery.

    Raises
    ------
    WriteError
        If writing or verification failed; an existing file is left untouched.
    """
    if mask.dtype != bool:
        raise TypeError(f"a mask is bool, not {mask.dtype}")
    if tuple(values) not in ((0, 255), (0, 1)):
        raise ValueError(f"values must be (0, 255) or (0, 1), not {values}")
    pixels = mask.view(np.uint8) * np.uint8(values[1])
    meaning = {"content": "artery mask", "background": 0, "artery": values[1]}
    write_pixels(Path(path), pixels, meaning, provenance, pixel_size_mm)


def write_probability(
    path: Path | str,
    probability: np.ndarray,
    provenance: Provenance,
    pixel_size_mm: tuple[float, float] | None = None,
) -> None:
    """Write an artery probability as ``write_mask`` does.

    It is uint8, 0..255 for 0..1, or float32, 0..1.
    """
    if probability.dtype not in (np.uint8, np.float32):
        raise TypeError(
            f"a probability map is uint8 or float32, not {probability.dtype}"
        )
    certain = 255 if probability.dtype == np.uint8 else 1
    meaning = {"content": "artery probability", "certain": certain}
    write_pixels(Path(path), probability, meaning, provenance, pixel_size_mm)


class LargeMaskError(ReadError):
    """More of a mask is artery than can be right; ask before learning from it."""


def is_large(mask: np.ndarray) -> bool:
    """Whether more of a frame is artery than can be right."""
    return bool((mask.mean(axis=(-2, -1)) > MAX_ARTERY_SHARE).any())


def looks_like_mask(frame: np.ndarray) -> bool:
    """Whether a frame has two values, as no angiogram does, and the lower one is 0."""
    low, high = frame.min(), frame.max()
    return bool(low == 0 < high and ((frame == low) | (frame == high)).all())


def read_mask(path: Path | str, *, large: LargeMasks = "refuse") -> np.ndarray:
    """Read a mask as bool ``(Y, X)`` or ``(T, Y, X)``.

    Zero is background and the one other value or colour, whichever it is, artery. The
    stored values count, whatever the file says about their display: ImageJ writes masks
    with an inverting look-up table. What is transparent is background.

    Parameters
    ----------
    path : Path or str
    large : {"refuse", "keep", "invert"}
        If more than a third of a frame is artery, although this program did not write
        the file: raise, take the mask as it is, or exchange artery and background.

    Raises
    ------
    LargeMaskError
    ReadError
        If the file cannot be read or holds more than one value beside zero.
    """
    path = Path(path)
    decoded = read_pixels(path)
    mask = _artery(path, decoded)
    return mask if _is_own(decoded.description) else _settle_large(path, mask, large)


def read_mask_for(
    path: Path | str, shape: tuple[int, ...], *, large: LargeMasks = "refuse"
) -> np.ndarray:
    """Read the mask of an image of this shape, as :func:`read_mask` does.

    Raises
    ------
    LargeMaskError, ReadError
        Also as :func:`fit_mask` does.
    """
    path = Path(path)
    decoded = read_pixels(path)
    own = _is_own(decoded.description)
    return fit_mask(path, _artery(path, decoded), shape, large="keep" if own else large)


def fit_mask(
    path: Path, mask: np.ndarray, shape: tuple[int, ...], *, large: LargeMasks
) -> np.ndarray:
    """Check a mask against the shape of its image.

    Raises
    ------
    LargeMaskError
        Only of a mask that fits.
    ReadError
        If the mask is of another shape, or nothing but artery.
    """
    if mask.shape != shape:
        turned = mask.shape == (*shape[:-2], shape[-1], shape[-2])
        raise ReadError(
            path,
            f"the mask is {_size(mask.shape)}, its image {_size(shape)}. "
            + ("Rows and columns seem to be exchanged. " if turned else "")
            + "Export the mask on the image's own grid.",
        )
    if large == "invert":
        mask, large = _settle_large(path, mask, large), "keep"
    if mask.all(axis=(-2, -1)).any():
        raise ReadError(path, "all of it is artery: that is no label.")
    return _settle_large(path, mask, large)


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _settle_large(path: Path, mask: np.ndarray, large: LargeMasks) -> np.ndarray:
    if large == "keep" or not is_large(mask):
        return mask
    if large == "invert":
        return ~mask
    percent = round(100 * float(mask.mean(axis=(-2, -1)).max()))
    raise LargeMaskError(
        path,
        f"{percent} % of it is artery, more than a third of a frame. Perhaps artery "
        "and background are exchanged, as in a mask drawn black on white. Look at it.",
    )


def record_of(description: str) -> dict[str, Any]:
    """Return the JSON object of an ImageDescription, empty if it is none."""
    try:
        record = json.loads(description)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def is_own_mask(path: Path) -> bool:
    """Whether a TIFF is a mask or a probability that this program wrote.

    Only its first bytes are read, where the description is.
    """
    if path.suffix.lower() not in (".tif", ".tiff"):
        return False
    try:
        with open_sniffed(path) as file:
            return b'"content": "artery ' in file.header
    except ReadError:
        return False


def _is_own(description: str) -> bool:
    """Whether an ImageDescription is of this program's own masks."""
    return record_of(description).get("content") == "artery mask"


def _artery(path: Path, decoded: DecodedImage) -> np.ndarray:
    pixels = _drawn_in_one_colour(np.asarray(decoded.array))
    array, _ = to_grey(path, pixels, allow_tint=False)
    artery: np.ndarray = array != 0
    marked = array[artery]
    if marked.size and not (marked == marked[0]).all():
        values = np.unique(marked)
        advice = (
            "JPEG changes the values of a mask; export it as PNG or TIFF."
            if path.suffix.lower() in (".jpg", ".jpeg")
            else "Export it with two values, without smoothing and with one label."
        )
        shown = ", ".join(str(v) for v in values[:3])
        more = " …" if len(values) > 3 else ""
        raise ReadError(
            path,
            f"it is not a mask of two values: it holds 0 and {shown}{more}. {advice}",
        )
    if marked.size and not marked[0] > 0:
        raise ReadError(path, "its values are negative or no numbers. Export it again.")
    return artery if decoded.is_cine else artery[0]


def _drawn_in_one_colour(array: np.ndarray) -> np.ndarray:
    """Reduce (T, Y, X, S) of black and one colour to 0 and 1; leave anything else.

    What is wholly transparent is black.
    """
    if array.shape[-1] in (2, 4) and array[..., -1].any():
        array = np.where(array[..., -1:] > 0, array, np.zeros((), array.dtype))
    if array.shape[-1] < 3:
        return array
    drawn = np.asarray(array[..., :3].any(axis=-1))
    colours = array[drawn][:, :3]
    if colours.size and (colours == colours[0]).all():
        return drawn[..., np.newaxis].astype(np.uint8)
    return array


def read_provenance(path: Path | str) -> Provenance | None:
    """Read the provenance of a mask; None if another program wrote it.

    Raises
    ------
    ReadError
        If the file cannot be read, or its record is damaged or newer than this program.
    """
    path = Path(path)
    record = record_of(read_pixels(path).description)
    return provenance_of(path, record) if "program" in record else None


def provenance_of(path: Path, record: dict[str, Any]) -> Provenance:
    """Return the provenance in the record of a mask; raises ReadError."""
    try:
        return Provenance.from_dict(record)
    except ValueError as error:
        raise ReadError(
            path, f"its record of origin cannot be used: {error}."
        ) from error


def read_pixels(path: Path, limits: ReadLimits = _LIMITS) -> DecodedImage:
    """Read the stored values of a mask and its description."""
    with open_sniffed(path) as file:
        return decode(file, limits, keep_indices=True)


def write_pixels(
    path: Path,
    pixels: np.ndarray,
    meaning: dict[str, Any],
    provenance: Provenance,
    pixel_size_mm: tuple[float, float] | None,
) -> None:
    """Write pixels with their record; ``meaning`` describes the values."""
    if pixels.ndim == 3 and pixels.shape[0] == 1:
        pixels = pixels[0]
    if pixels.ndim not in (2, 3) or 0 in pixels.shape:
        raise WriteError(
            path,
            f"a mask has rows and columns, and frames for a cine; this one has the "
            f"shape {pixels.shape}.",
        )
    pixels = np.ascontiguousarray(pixels)
    record: dict[str, Any] = {
        # tifffile reads the axes from these two keys.
        "shape": list(pixels.shape),
        "axes": "YX" if pixels.ndim == 2 else "TYX",
        **meaning,
        "pixel_size_mm": None if pixel_size_mm is None else list(pixel_size_mm),
        **provenance.to_dict(),
    }
    description = json.dumps(record)  # ASCII, as the tag demands
    options: dict[str, Any] = {}
    if pixel_size_mm is not None:
        height, width = pixel_size_mm
        options["resolution"] = (10 / width, 10 / height)
        options["resolutionunit"] = "CENTIMETER"

    def verify(temporary: Path) -> None:
        if not _holds(temporary, pixels, description):
            raise WriteError(
                path,
                "what was read back is not what was written. The disk or network may "
                "be faulty; choose another folder.",
            )

    with (
        atomic_write(path, verify=verify) as handle,
        tifffile.TiffWriter(handle, bigtiff=pixels.nbytes > _BIG_TIFF_BYTES) as tif,
    ):
        tif.write(
            pixels,
            photometric="minisblack",
            compression="zlib",
            description=description,
            metadata=None,  # avoid a second description
            software=f"{provenance.program} {provenance.version}",
            **options,
        )


def _holds(path: Path, pixels: np.ndarray, description: str) -> bool:
    """Whether a file holds exactly these pixels and this description."""
    try:
        with tifffile.TiffFile(path) as tif:
            found = tif.series[0].asarray(maxworkers=1)
            return (
                tif.pages.first.description == description
                and found.dtype == pixels.dtype
                and np.array_equal(found, pixels)
            )
    except (tifffile.TiffFileError, ValueError, KeyError, IndexError, RuntimeError):
        return False
