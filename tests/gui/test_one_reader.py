"""The window and the command line read a file alike: pixels, frames and mask."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from napari.layers._source import layer_source
from napari_builtins.io import napari_get_reader
from PIL import Image

from napari_cmunet.cli import segment
from napari_cmunet.cli.main import main
from napari_cmunet.errors import ReadError
from napari_cmunet.gui.images.layers import Frames
from napari_cmunet.io.images import read_angiogram
from napari_cmunet.io.masks.files import read_mask
from napari_cmunet.reader import read_layers
from tests.gui.conftest import FakeModel, TellsContrast, cine, frame
from tests.io.dicom_making import make_dataset, write_dicom

pytestmark = pytest.mark.slow

SIZE = 64


def save(image: Image.Image, path, **options):
    image.save(path, **options)
    return path


def grey_alpha(folder):
    grey = Image.fromarray(frame(1, SIZE))
    return save(
        Image.merge("LA", (grey, Image.new("L", grey.size, 255))), folder / "a.png"
    )


def palette_png(folder):
    made = Image.fromarray(frame(1, SIZE), mode="P")
    made.putpalette([v for n in range(256) for v in (255 - n,) * 3])
    return save(made, folder / "a.png")


def colour_png(folder):
    colours = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    return save(Image.fromarray(colours), folder / "a.png")


def small_png(folder):
    return save(Image.fromarray(frame(1, 20)), folder / "a.png")


def plain_png(folder):
    return save(Image.fromarray(frame(1, SIZE)), folder / "a.png")


def grey_rgb_png(folder):
    return save(Image.fromarray(frame(1, SIZE)).convert("RGB"), folder / "a.png")


def deep_png(folder):
    deep = frame(1, SIZE).astype(np.uint16) * 16
    return save(Image.fromarray(deep), folder / "a.png")


def tiff(name, array, **options):
    def make(folder):
        tifffile.imwrite(folder / "a.tif", array, **options)
        return folder / "a.tif"

    make.__name__ = name
    return make


def thumbnail_first(folder):
    with tifffile.TiffWriter(folder / "a.tif") as tif:
        thumbnail = frame(2, SIZE)[::2, ::2]
        tif.write(thumbnail, photometric="minisblack", subfiletype=1)
        tif.write(frame(1, SIZE), photometric="minisblack")
    return folder / "a.tif"


def unmarked_thumbnail_first(folder):
    with tifffile.TiffWriter(folder / "a.tif") as tif:
        tif.write(frame(2, SIZE)[::2, ::2], photometric="minisblack")
        tif.write(frame(1, SIZE), photometric="minisblack")
    return folder / "a.tif"


def npy(name, array):
    def make(folder):
        np.save(folder / "a.npy", array)
        return folder / "a.npy"

    make.__name__ = name
    return make


def picture(name, make_image, **options):
    def make(folder):
        return save(
            make_image(Image.fromarray(frame(1, SIZE))), folder / name, **options
        )

    make.__name__ = name.replace(".", "_") + "".join(sorted(options))
    return make


def rotated_jpeg(folder):
    """Exif says that it is to be shown on its side; the stored rows count."""
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = Image.fromarray(frame(1, SIZE)[:48])
    return save(wide, folder / "a.jpg", quality=95, exif=exif)


def transparent_grey_png(folder):
    return save(Image.fromarray(frame(1, SIZE)), folder / "a.png", transparency=3)


def gamma_png(folder):
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add(b"gAMA", (20000).to_bytes(4, "big"))
    return save(Image.fromarray(frame(1, SIZE)), folder / "a.png", pnginfo=info)


def pyramid(folder):
    with tifffile.TiffWriter(folder / "a.tif") as tif:
        tif.write(frame(1, 2 * SIZE), photometric="minisblack", subifds=1)
        tif.write(frame(1, 2 * SIZE)[::2, ::2], photometric="minisblack", subfiletype=1)
    return folder / "a.tif"


def ome(folder):
    options = {"metadata": {"axes": "TCZYX"}, "photometric": "minisblack"}
    data = cine(3, SIZE)[:, None, None]
    tifffile.imwrite(folder / "a.ome.tif", data, ome=True, **options)
    return folder / "a.ome.tif"


def odd_dicom(name, **elements):
    def make(folder):
        return write_dicom(folder / "a.v2", cine(3, SIZE), bits=8, **elements)

    make.__name__ = name
    return make


def dicom_overlay_bits(folder):
    """An overlay in the unused bits above the pixels, as DICOM once had it."""
    stored = cine(3, SIZE).astype(np.uint16)
    stored[:, 3:9, 3:9] |= 1 << 12
    made = make_dataset(stored, bits=12)
    made.save_as(folder / "a.dcm", enforce_file_format=True)
    return folder / "a.dcm"


def dicom(folder):
    return write_dicom(folder / "XA.1.IMA", cine(3, SIZE), bits=8)


GREYS = np.stack([np.arange(256)[::-1] * 257] * 3).astype(np.uint16)
KINDS = [
    plain_png,
    grey_alpha,
    palette_png,
    colour_png,
    small_png,
    grey_rgb_png,
    deep_png,
    tiff("plain", frame(1, SIZE), photometric="minisblack"),
    tiff("white_is_zero", frame(1, SIZE), photometric="miniswhite"),
    tiff("white_is_zero_cine", cine(3, SIZE), photometric="miniswhite"),
    tiff("palette", frame(1, SIZE), photometric="palette", colormap=GREYS),
    tiff("imagej", cine(3, SIZE)[:, None], imagej=True, metadata={"axes": "TZYX"}),
    tiff("channel_axis", cine(3, SIZE)[:, None], photometric="minisblack"),
    tiff("small", frame(1, 20), photometric="minisblack"),
    thumbnail_first,
    unmarked_thumbnail_first,
    npy("npy", frame(1, SIZE)),
    npy("npy_cine_with_channel", cine(3, SIZE)[:, None]),
    npy("npy_grey_alpha", np.stack([frame(1, SIZE)] * 2, -1)),
    dicom,
    rotated_jpeg,
    transparent_grey_png,
    gamma_png,
    pyramid,
    ome,
    picture("a.png", lambda grey: grey.point(lambda v: 255 * (v > 90), "1")),
    picture("a.bmp", lambda grey: grey.convert("P")),
    picture("a.webp", lambda grey: grey.convert("RGB"), lossless=True),
    picture("a.jpeg", lambda grey: grey.convert("CMYK"), quality=95),
    picture("a.gif", lambda grey: grey),
    picture("b.tif", lambda grey: grey.point(lambda v: 255 * (v > 90), "1")),
    tiff("bilevel_white", frame(1, SIZE) > 90, photometric="miniswhite"),
    tiff("signed", cine(3, SIZE).astype(np.int16) - 300, photometric="minisblack"),
    tiff("big_endian", frame(1, SIZE).astype(">u2"), byteorder=">"),
    tiff("white_16", 4095 - frame(1, SIZE).astype("u2"), photometric="miniswhite"),
    tiff("float", frame(1, SIZE) / np.float32(255), photometric="minisblack"),
    tiff("planar_grey", np.stack([frame(1, SIZE)] * 3), photometric="rgb"),
    tiff("lzw", frame(1, SIZE), compression="lzw", predictor=True),
    tiff(
        "one_sample_alpha",
        np.stack([frame(1, SIZE)] * 2, -1),
        extrasamples=["unassalpha"],
    ),
    tiff("imagej_inverting", frame(1, SIZE), imagej=True, photometric="miniswhite"),
    odd_dicom("dicom_monochrome1", PhotometricInterpretation="MONOCHROME1"),
    odd_dicom("dicom_comma", FrameTime="66", RescaleSlope="1", RescaleIntercept="-5"),
    odd_dicom("dicom_window", WindowCenter="100", WindowWidth="50"),
    dicom_overlay_bits,
]


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_window_and_command_line_agree(
    make, tmp_path, viewer, controller, settled, monkeypatch
):
    folder = tmp_path / "in"
    folder.mkdir()
    path = make(folder)
    try:
        right = np.asarray(read_angiogram(path).frames)
    except ReadError:
        right = None
    # As File > Open does: napari's own reader has no rival for PNG and TIFF.
    plugin, read = "napari-cmunet", read_layers
    if path.suffix not in (".npy", ".dcm", ".IMA", ".v2"):
        plugin, read = "napari", napari_get_reader(str(path))
    try:
        layers = read(str(path))
    except ReadError:
        layers = []
    for data, *options in layers:
        with layer_source(path=str(path), reader_plugin=plugin):
            viewer.add_image(data, **(options[0] if options else {}))
    settled(controller)
    state = controller.active
    fake_segmentation(monkeypatch)
    code = main(["segment", str(folder), "-o", str(tmp_path / "out")])
    if right is None:
        assert code == 1
        assert state is None or (state.unsupported and state.mask is None)
        return
    assert code == 0
    assert state.unsupported is None
    shown = Frames.of(state.image)
    frames = [shown[n] for n in range(state.count)]
    assert np.array_equal(np.stack(frames), right)
    if right.dtype == np.uint8:  # the fake model's own type
        for number in range(state.count):
            viewer.dims.set_point(0, number)
            settled(controller)
        (written,) = (tmp_path / "out").glob("*.tif")
        mask = read_mask(written, large="keep").reshape(right.shape)
        drawn = [state.mask_frame(n) > 0 for n in range(state.count)]
        assert np.array_equal(np.stack(drawn), mask)


def test_window_and_command_line_leave_out_the_same(
    tmp_path, injection, viewer, controller, settled, monkeypatch
):
    """What was there before the contrast, in a cine."""
    settled(controller)
    np.save(tmp_path / "cine.npy", injection)
    fake_segmentation(monkeypatch, TellsContrast())
    assert main(["segment", str(tmp_path / "cine.npy"), "-o", str(tmp_path)]) == 0
    mask = read_mask(tmp_path / "cine.tif")
    assert mask[4, 100, 62]
    assert not mask[:, 28:36].any()
    assert np.array_equal(controller.active.mask.data > 0, mask)


def fake_segmentation(monkeypatch, predict=None):
    """Let the command line predict as the window's fake model does."""
    model = FakeModel()
    model.predict = predict or model.predict

    class Predictor:
        notices = ()
        card = SimpleNamespace(
            name="fake", sha256="a" * 64, threshold=0.5, postprocessing=True
        )
        device = SimpleNamespace(type="cpu")

        def predict_frames(self, frames, *, exact):
            for index, pixels in enumerate(np.asarray(frames)):
                probability = model.predict(pixels)
                yield SimpleNamespace(index=index, probability=probability)

    card = SimpleNamespace(kind="artery", threshold=0.5, name="fake")
    loaded = SimpleNamespace(card=card)
    monkeypatch.setattr(segment, "load_model", lambda name: loaded)
    monkeypatch.setattr(segment, "Predictor", lambda *_: Predictor())
