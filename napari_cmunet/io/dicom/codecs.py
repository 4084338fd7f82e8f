"""A pydicom decoder plugin that decodes compressed frames with imagecodecs.

Its codecs (libjpeg-turbo, CharLS, OpenJPEG) have permissive licences, unlike
pylibjpeg-libjpeg (GPL), which pydicom suggests.
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
_plugin_lock = threading.Lock()
# pydicom looks up these two names in a plugin's module.
DECODER_DEPENDENCIES = dict.fromkeys(SYNTAXES, ("imagecodecs>=2024.6",))


def is_available(syntax: str) -> bool:
    """Whether frames of a transfer syntax can be decoded."""
    return syntax in SYNTAXES


def decoder_for(syntax: uid.UID) -> Decoder | None:
    """Return pydicom's decoder for a transfer syntax, with this plugin added."""
    if syntax.is_private or (syntax.is_compressed and not is_available(syntax)):
        return None
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        return None
    with _plugin_lock:  # pydicom's registry is not thread-safe
        if decoder.is_encapsulated and PLUGIN not in decoder.available_plugins:
            decoder.add_plugin(PLUGIN, (__name__, "decode_frame"))
    return decoder


def check_size(src: bytes, syntax: uid.UID, shape: tuple[int, int]) -> None:
    """Compare a codestream's own size (rows, columns) with the declared one.

    Call this before decoding, which allocates memory. Raises ValueError.
    """
    if syntax == uid.RLELossless:
        # Two bytes encode 128 at most.
        if shape[0] * shape[1] > 64 * len(src):
            raise ValueError("fewer runs than pixels")
    elif syntax in _JPEG_2000:
        if jpeg2000_size(src) != shape:
            raise ValueError("a codestream of another size")
    elif jpeg_header(src)[1:] != shape:
        raise ValueError("a codestream of another size")


def decode_frame(src: bytes, runner: DecodeRunner) -> bytes:
    """Decode one frame, and set the options of ``runner`` to match the result."""
    syntax = runner.transfer_syntax
    if syntax == uid.RLELossless:
        return _decode_rle(src, runner)
    shape: tuple[int, ...] = (runner.rows, runner.columns)
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
        # JPEG-LS has no sign, and some encoders declare a precision of 16 bits: the
        # sign bit is where the header says.
        runner.set_option("jls_precision", runner.bits_stored)
        decode = imagecodecs.jpegls_decode
        src = _ended(src)
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


def _ended(src: bytes) -> bytes:
    """Return a JPEG-LS stream with its end marker, without which CharLS may hang."""
    stripped = src.rstrip(b"\0")
    return stripped if stripped.endswith(b"\xff\xd9") else src + b"\xff\xd9"


def _decode_rle(src: bytes, runner: DecodeRunner) -> bytes:
    runner.set_option("planar_configuration", 1)
    dtype = f"<u{runner.bits_allocated // 8}"
    try:
        return bytes(imagecodecs.dicomrle_decode(src, dtype))
    except RuntimeError:
        stripped = src.rstrip(b"\0")  # padding that reads as a run without data
        if not 0 < len(src) - len(stripped) <= 4:
            raise
        return bytes(imagecodecs.dicomrle_decode(stripped, dtype))
