"""Decoding of compressed DICOM frames by imagecodecs, as a plug-in of pydicom.

Every codec that it brings (libjpeg-turbo, CharLS, OpenJPEG) is under a licence like
this program's own; pylibjpeg-libjpeg, which pydicom suggests, is under the GPL.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import imagecodecs
import numpy as np
from pydicom import uid
from pydicom.pixels import get_decoder

from napari_cmunet.io.formats.raster import jpeg2000_size, jpeg_header

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydicom.pixels.decoders.base import Decoder, DecodeRunner

PLUGIN = "imagecodecs"
_JPEG = uid.JPEGTransferSyntaxes
_JPEG_LS = uid.JPEGLSTransferSyntaxes
_JPEG_2000 = uid.JPEG2000TransferSyntaxes
_HTJ2K = (uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K)
SYNTAXES = (*_JPEG, *_JPEG_LS, *_JPEG_2000, uid.RLELossless)
_plugging = threading.Lock()
# pydicom asks a plug-in's module for these two names.
DECODER_DEPENDENCIES = dict.fromkeys(SYNTAXES, ("imagecodecs>=2024.6",))


def is_available(syntax: str) -> bool:
    """Whether frames of a transfer syntax can be decoded."""
    return syntax in SYNTAXES


def decoder_for(syntax: uid.UID) -> Decoder | None:
    """Return pydicom's decoder for a transfer syntax, with ours plugged in."""
    if syntax.is_private or (syntax.is_compressed and not is_available(syntax)):
        return None
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        return None
    with _plugging:  # pydicom does not guard this itself
        if decoder.is_encapsulated and PLUGIN not in decoder.available_plugins:
            decoder.add_plugin(PLUGIN, (__name__, "decode_frame"))
    return decoder


def check_size(src: bytes, syntax: uid.UID, shape: tuple[int, int]) -> None:
    """Hold a codestream's own size (rows, columns) against the declared one.

    Before any memory is taken, since either may be absurd; raises ValueError.
    """
    if syntax == uid.RLELossless:
        # Two bytes stand for 128 at most.
        if shape[0] * shape[1] > 64 * len(src):
            raise ValueError("fewer runs than pixels")
    elif syntax in _JPEG_2000:
        if jpeg2000_size(src) != shape:
            raise ValueError("a codestream of another size")
    elif jpeg_header(src)[1:] != shape:
        raise ValueError("a codestream of another size")


def decode_frame(src: bytes, runner: DecodeRunner) -> bytes:
    """Decode one frame; ``runner`` is told of what comes out."""
    syntax = runner.transfer_syntax
    if syntax == uid.RLELossless:
        return _decode_rle(src, runner)
    shape = (runner.rows, runner.columns)
    if runner.samples_per_pixel > 1:
        shape += (runner.samples_per_pixel,)
        runner.set_option("planar_configuration", 0)
    bits, kind = runner.bits_stored, "u"
    decode: Callable[..., np.ndarray]
    options = {}
    if syntax in _JPEG_2000:
        bits = runner.get_option("j2k_precision", bits)
        kind = "i" if runner.get_option("j2k_is_signed", False) else "u"
        decode = (
            imagecodecs.htj2k_decode if syntax in _HTJ2K else imagecodecs.jpeg2k_decode
        )
        if runner.photometric_interpretation in ("YBR_ICT", "YBR_RCT"):
            runner.set_option("photometric_interpretation", "RGB")
    elif syntax in _JPEG_LS:
        bits = runner.get_option("jls_precision", bits)
        # JPEG-LS knows no signs, and some encoders give all 16 bits as the precision:
        # the sign is where the header says.
        runner.set_option("jls_precision", runner.bits_stored)
        decode = imagecodecs.jpegls_decode
    else:
        bits = jpeg_header(src)[0]
        decode = imagecodecs.jpeg8_decode
        if runner.samples_per_pixel == 3:
            stored = "RGB" if runner.photometric_interpretation == "RGB" else "YCBCR"
            options = {"colorspace": stored, "outcolorspace": "RGB"}
            runner.set_option("photometric_interpretation", "RGB")
    out = np.empty(shape, f"{kind}{1 if bits <= 8 else 2}")
    decode(src, out=out, **options)
    runner.set_option("bits_allocated", 8 * out.itemsize)
    return out.tobytes()


def _decode_rle(src: bytes, runner: DecodeRunner) -> bytes:
    runner.set_option("planar_configuration", 1)
    decoded = imagecodecs.dicomrle_decode(src, f"<u{runner.bits_allocated // 8}")
    return bytes(decoded)
