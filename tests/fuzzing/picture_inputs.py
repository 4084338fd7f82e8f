"""Broken TIFF, PNG, JPEG, WebP, BMP and NPY files, and masks and labels."""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np
import tifffile
from PIL import Image

from napari_cmunet.errors import ReadError
from napari_cmunet.io.formats.decoded import ReadLimits
from napari_cmunet.io.images import read_angiogram
from napari_cmunet.io.masks.files import read_mask, read_provenance, write_mask
from napari_cmunet.io.masks.label_file import Label, read_label, write_label
from napari_cmunet.io.provenance import Provenance
from napari_cmunet.synthetic import PhantomConfig, make_cine
from tests.fuzzing.mutations import EXTREMES, number_bytes, spoil, spoil_json
from tests.fuzzing.targets import MEGABYTE

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

LIMITS = ReadLimits(
    max_frame_pixels=2_000_000, max_decoded_bytes=32 * MEGABYTE, max_frames=500
)
"""Small ones, so that a reader that does not keep them is found out."""


def frames() -> np.ndarray:
    """A cine ``(3, 64, 64)``, uint8."""
    return make_cine(PhantomConfig(frames=3, size=64, seed=3)).frames


class _Pictures:
    """One file that is an image."""

    limit = LIMITS.max_decoded_bytes
    suffix = ""

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"input{self.suffix}"
        self.corpus = self.make_corpus()

    def make_corpus(self) -> list[bytes]:
        raise NotImplementedError

    def alter(self, random: Random, data: bytes) -> bytes:
        """Spoil what the format's structure says."""
        raise NotImplementedError

    def write(self, random: Random) -> None:
        data = random.choice(self.corpus)
        kind = random.random()
        if kind < 0.6:
            data = self.alter(random, data)
        if kind > 0.5:
            data = spoil(random, data, self.corpus)
        self.path.write_bytes(data)

    def read(self) -> None:
        look(self.path)

    def paths(self) -> list[Path]:
        return [self.path]


def look(path: Path) -> None:
    """Read an angiogram as the window does, its frames too."""
    image = read_angiogram(path, LIMITS)
    for index in {0, len(image.frames) - 1}:
        frame = np.asarray(image.frames[index])
        assert frame.ndim == 2
        assert np.isfinite(frame).all()
    assert image.pixel_size_mm is None or min(image.pixel_size_mm) > 0
    assert all("\n" not in note for note in image.notes)


class Tiff(_Pictures):
    """TIFF of many kinds: plain, tiled, compressed, ImageJ, OME, big."""

    suffix = ".tif"

    def make_corpus(self) -> list[bytes]:
        cine = frames()
        frame, deep = cine[0], cine.astype(np.uint16) * 200
        colour = np.repeat(frame[..., None], 3, axis=-1)
        made = [_tiff(cine), _tiff(deep), _tiff(frame), _tiff(frame.astype(np.float32))]
        made += [_tiff(cine, byteorder=">"), _tiff(cine, bigtiff=True)]
        made += [_tiff(colour, photometric="rgb"), _tiff(frame > 100)]
        made += [_tiff(cine, imagej=True), _tiff(cine, ome=True)]
        for how in ("zlib", "lzw", "packbits", "lzma", "zstd", "jpeg", "jpeg2000"):
            made.append(_tiff(cine, compression=how))
        made.append(_tiff(colour, compression="webp", photometric="rgb"))
        for how in ("png", "jpegxl", "lerc", "jpegxr"):
            made.append(_tiff(frame, compression=how))
        made.append(_tiff(deep, compression="zlib", predictor=True, tile=(32, 32)))
        made.append(_tiff(frame, resolution=(30, 30), resolutionunit="CENTIMETER"))
        palette = np.tile(np.arange(256, dtype=np.uint16) * 257, (3, 1))
        made.append(_tiff(frame, photometric="palette", colormap=palette))
        made.append(_tiff(frame, subifds=1))
        return made

    def alter(self, random: Random, data: bytes) -> bytes:
        made = bytearray(data)
        order, big, entries = _tags(data)
        if not entries:
            return data
        for _ in range(random.choice((1, 1, 2, 3))):
            at = random.choice(entries)
            wide = 8 if big else 4
            field, size = random.choice(((0, 2), (2, 2), (4, wide), (4 + wide, wide)))
            if size == 2 and field == 0:  # another tag that means something
                tag = random.choice(_TAGS)
                new = tag.to_bytes(2, order)
            elif size == 2 and random.random() < 0.7:
                new = random.randrange(20).to_bytes(2, order)
            else:
                new = number_bytes(random, size, order)
                if random.random() < 0.4:
                    new = random.randrange(len(data) + 9).to_bytes(size, order)
            made[at + field : at + field + size] = new
        return bytes(made)


_TAGS = (254, 256, 257, 258, 259, 262, 270, 273, 277, 278, 279, 284, 317, 320, 322)
_TAGS += (323, 324, 325, 330, 338, 339, 347, 530, 33628, 34412, 34377, 50838, 50839)
_TAGS += (65420, 65426, 32997, 34118, 33629, 42112, 37724, 51023)


def _tiff(array: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    photometric = options.pop("photometric", "minisblack")
    writer = {
        k: options.pop(k)
        for k in ("byteorder", "bigtiff", "imagej", "ome")
        if k in options
    }
    with tifffile.TiffWriter(file, **writer) as tif:
        tif.write(array, photometric=photometric, **options)
        if options.get("subifds"):
            tif.write(array[::2, ::2], photometric="minisblack")
    return file.getvalue()


def _tags(data: bytes) -> tuple[str, bool, list[int]]:
    """Byte order, whether it is a BigTIFF, and where the entries of its pages are."""
    order = "little" if data[:1] == b"I" else "big"
    big = data[2:4] in (b"+\0", b"\0+")
    wide, entry, count_bytes = (8, 20, 8) if big else (4, 12, 2)
    at = int.from_bytes(data[8 if big else 4 :][:wide], order)
    found: list[int] = []
    while at and len(found) < 500:
        count = int.from_bytes(data[at : at + count_bytes], order)
        start = at + count_bytes
        found += [start + entry * i for i in range(min(count, 60))]
        at = int.from_bytes(data[start + entry * count :][:wide], order)
    return order, big, found


class Raster(_Pictures):
    """PNG above all; JPEG, WebP and BMP."""

    def make_corpus(self) -> list[bytes]:
        frame = frames()[0]
        pictures = [Image.fromarray(frame), Image.fromarray(frame.astype(np.uint16))]
        pictures += [pictures[0].convert(m) for m in ("RGB", "RGBA", "P", "1", "LA")]
        made = [_saved(p, "PNG") for p in pictures]
        made.append(_saved(pictures[0], "PNG", transparency=3, dpi=(96, 96)))
        for kind in ("JPEG", "WEBP", "BMP"):
            made += [_saved(pictures[n], kind) for n in (0, 2)]
        made.append(_saved(pictures[0], "JPEG", progressive=True))
        made.append(
            _saved(pictures[0], "PNG", save_all=True, append_images=pictures[:1])
        )
        made.append(
            _saved(pictures[2], "WEBP", save_all=True, append_images=pictures[:2])
        )
        return made

    def alter(self, random: Random, data: bytes) -> bytes:
        if data[:4] != b"\x89PNG":
            return spoil(random, data, self.corpus)
        chunks = _chunks(data)
        for _ in range(random.choice((1, 1, 2, 3))):
            at = random.randrange(len(chunks))
            name, body = chunks[at]
            kind = random.randrange(7)
            if kind == 0:
                chunks.insert(at, random.choice(chunks))
            elif kind == 1 and len(chunks) > 1:
                del chunks[at]
            elif kind == 2:
                chunks[at] = (random.choice(_CHUNKS), body)
            elif kind == 3:
                chunks.insert(at, (random.choice(_CHUNKS), _bomb(random)))
            elif name == b"IHDR" or kind == 4:
                size = (number_bytes(random, 4, "big") for _ in "xy")
                modes = bytes(
                    random.choice((0, 1, 2, 3, 4, 6, 8, 16)) for _ in range(5)
                )
                keep = body[8:] if random.random() < 0.6 else modes
                chunks[0] = (b"IHDR", b"".join(size) + keep)
            else:
                chunks[at] = (name, spoil(random, body))
        return data[:8] + b"".join(_chunk(*chunk) for chunk in chunks)


_CHUNKS = (b"IHDR", b"IDAT", b"PLTE", b"tRNS", b"iCCP", b"zTXt", b"iTXt", b"tEXt")
_CHUNKS += (b"acTL", b"fcTL", b"fdAT", b"eXIf", b"IEND", b"gAMA", b"cHRM", b"pHYs")


# They inflate to much more than they are.
_BOMBS = tuple(zlib.compress(bytes(n * MEGABYTE)) for n in (1, 20))


def _bomb(random: Random) -> bytes:
    return random.choice((b"", b"a\0\0", b"a\0\1\0\0\0")) + random.choice(_BOMBS)


def _saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    at, found = 8, []
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def _chunk(name: bytes, body: bytes) -> bytes:
    check = zlib.crc32(name + body)
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", check)


class Npy(_Pictures):
    """NPY arrays whose headers say anything."""

    suffix = ".npy"

    def make_corpus(self) -> list[bytes]:
        cine = frames()
        made = []
        for array in (cine, cine[0], cine.astype(">u2"), cine.astype(np.float16)):
            file = io.BytesIO()
            np.save(file, array)
            made.append(file.getvalue())
        file = io.BytesIO()
        np.lib.format.write_array(file, np.asfortranarray(cine[0]), (2, 0))
        made.append(file.getvalue())
        return made

    def alter(self, random: Random, data: bytes) -> bytes:
        shape = tuple(
            random.choice((*EXTREMES, 64, 64, 64, -1, 3))
            for _ in range(random.choice((0, 1, 2, 2, 3, 3, 4, 30)))
        )
        header = (
            f"{{'descr': {random.choice(_DESCRIPTIONS)}, 'fortran_order': "
            f"{random.choice(('True', 'False', '0', 'None'))}, 'shape': "
            f"{random.choice((repr(shape), '(64, 64)', '(64,64', '64', 'None'))}, }}\n"
        )
        version = random.choice((b"\1\0", b"\1\0", b"\2\0", b"\3\0", b"\xff\xff"))
        size = 2 if version == b"\1\0" else 4
        text = header.encode("latin-1").ljust(random.choice((1, 118)))
        length = (len(text) % 256**size).to_bytes(size, "little")
        if random.random() < 0.2:
            length = number_bytes(random, size)
        return b"\x93NUMPY" + version + length + text + data[-4096:]


_DESCRIPTIONS = (
    "'|u1'",
    "'<u2'",
    "'>f8'",
    "'<f16'",
    "'<c16'",
    "'|O'",
    "'|V8'",
    "'<U9'",
)
_DESCRIPTIONS += (
    "[('a','|O')]",
    "[('a','<u2',(999999,))]",
    "('<u2',(9,9,9))",
    "'M8[s]'",
)
_DESCRIPTIONS += (
    "'|b1'",
    "'<u8'",
    "'|S0'",
    "'" + "x" * 9000 + "'",
    "(" * 95 + ")" * 95,
)
_DESCRIPTIONS += (
    "__import__('os').system('touch canary')",
    "9**9**9",
    "-" * 2000 + "1",
)


class LabelFile(_Pictures):
    """Masks and labels of this program, with their records."""

    suffix = ".tif"

    def make_corpus(self) -> list[bytes]:
        mask = frames()[0] > 120
        origin = Provenance(model="cmunet-artery", source_sha256="a" * 64, frames=(0,))
        path = self.path
        made = []
        for label in (
            Label(mask, None, origin),
            Label(mask, ~mask, origin, (0.3, 0.3)),
        ):
            write_label(path, label)
            made.append(path.read_bytes())
        write_mask(path, np.stack([mask, ~mask]), origin, (0.2, 0.2))
        return [*made, path.read_bytes()]

    def alter(self, random: Random, data: bytes) -> bytes:
        with tifffile.TiffFile(io.BytesIO(data)) as tif:
            pixels, text = tif.asarray(), tif.pages.first.description
        record = tifffile.tifffile.json.loads(text)
        made = spoil_json(random, record).decode("utf-8", "replace")
        if random.random() < 0.2:
            pixels = pixels[..., :1] if random.random() < 0.5 else pixels // 3
        file = io.BytesIO()
        with tifffile.TiffWriter(file) as tif:
            safe = made.encode("ascii", "replace").decode().replace("\0", " ")
            tif.write(pixels, description=safe, metadata=None, compression="zlib")
        return file.getvalue()

    def read(self) -> None:
        refusals = []
        for read in (read_mask, read_provenance, read_label):
            try:
                read(self.path)
            except ReadError as error:
                refusals.append(error)
        if refusals:
            raise refusals[0]
