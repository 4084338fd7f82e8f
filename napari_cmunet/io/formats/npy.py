"""Decode NPY arrays. Pickled objects are refused."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from numpy.lib import format as npy_format

from napari_cmunet.io.formats.decoded import (
    Declared,
    DecodedImage,
    ReadLimits,
    shape_words,
)

if TYPE_CHECKING:
    import numpy as np

    from napari_cmunet.io.sniffing import SniffedFile

# Warned of for headers written by Python 2, and for broken ones.
warnings.filterwarnings("ignore", message=r"Reading `\.npy`")
_MOST_HEADER_BYTES = 2**16
_HEADER_READERS = {
    (1, 0): npy_format.read_array_header_1_0,
    (2, 0): npy_format.read_array_header_2_0,
}


def decode_npy(file: SniffedFile, limits: ReadLimits) -> DecodedImage:
    """Read one array: ``(Y, X)``, ``(T, Y, X)``, ``(Y, X, 3|4)``, ``(T, Y, X, 3|4)``.

    Axes of length 1 before the rows are dropped, such as in ``(T, 1, Y, X)``.
    """
    handle = file.handle
    version = npy_format.read_magic(handle)
    if version not in _HEADER_READERS:
        raise file.error(
            f"it is an NPY file of version {version[0]}.{version[1]}, which only "
            f"tables need. Save the image as a plain array with numpy.save."
        )
    # NumPy allocates as much as the header claims.
    length = file.header[8:10] if version == (1, 0) else file.header[8:12]
    if int.from_bytes(length, "little") > _MOST_HEADER_BYTES:
        raise file.error("its header is damaged. Copy or export it again.")
    shape, _fortran, dtype = _HEADER_READERS[version](handle)
    _check_type(file, dtype)
    axes_shape, is_cine = _axes(file, shape)
    frames, height, width, samples = axes_shape
    Declared(frames, height, width, samples * dtype.itemsize).check(file, limits)
    missing = handle.tell() + frames * height * width * samples * dtype.itemsize
    if missing > file.size:
        raise file.error(
            f"the file is cut short: {shape_words(shape)} values are declared and not "
            f"all of them are there. Copy or export it again."
        )
    handle.seek(0)
    array = npy_format.read_array(handle, allow_pickle=False)
    return DecodedImage(array.reshape(axes_shape), is_cine)


def _check_type(file: SniffedFile, dtype: np.dtype) -> None:
    if dtype.hasobject:
        raise file.error(
            "it holds Python objects, which could run a foreign program when read. "
            "Save the image as a plain array with numpy.save."
        )
    if dtype.kind not in "biuf":
        kind = {"c": "complex numbers", "V": "a table"}.get(dtype.kind, "no numbers")
        raise file.error(
            f"it holds {kind}, not grey values. Save the image as a plain array with "
            f"numpy.save."
        )


def _axes(
    file: SniffedFile, shape: tuple[int, ...]
) -> tuple[tuple[int, int, int, int], bool]:
    """Return the shape as (T, Y, X, S), and whether it is a cine."""
    short = tuple(shape)
    while len(short) > 2 and short[0] == 1:
        short = short[1:]
    samples = 1
    # A last axis of 3 or 4 is colour: no frame is so narrow.
    if len(short) in (3, 4) and short[-1] in (1, 3, 4):
        samples, short = short[-1], short[:-1]
    if samples == 1 and len(short) > 3:
        short = (*(n for n in short[:-2] if n > 1), *short[-2:])
    if len(short) == 2:
        return (1, *short, samples), False
    if len(short) == 3:
        return (*short, samples), True
    raise file.error(
        f"its shape is {shape_words(shape)}; a frame has 2 axes (rows, columns) and a "
        f"cine 3 (frames, rows, columns). Save one frame or cine a file."
    )
