"""How large a compressed picture says it is, without decoding it."""

from __future__ import annotations

import struct


def jpeg_header(data: bytes) -> tuple[int, int, int]:
    """Bits a sample, rows and columns of a JPEG or JPEG-LS stream.

    Raises
    ------
    ValueError
        If it does not say.
    """
    at = 2
    while at + 9 < len(data):
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at] != 0xFF or length < 2:
            break
        # SOF0 to SOF15, and SOF55 of JPEG-LS; C4, C8 and CC are other things.
        if marker == 0xF7 or (
            0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)
        ):
            return struct.unpack_from(">BHH", data, at + 4)
        at += 2 + length
    raise ValueError("no frame header in the JPEG stream")


def jpeg2000_size(data: bytes) -> tuple[int, int]:
    """Rows and columns of a JPEG 2000 codestream, in a box or not.

    Raises
    ------
    ValueError
        If it does not say.
    """
    start = data.index(b"\xff\x4f\xff\x51") + 8
    try:
        right, bottom, left, top = struct.unpack_from(">4I", data, start)
    except struct.error as error:
        raise ValueError("no size in the JPEG 2000 stream") from error
    return bottom - top, right - left
