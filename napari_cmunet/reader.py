"""napari reader for angiograms: DICOM, NPY arrays, and folders of angiograms."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cmunet.errors import CMUNetError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_cmunet.io.images import Angiogram

LayerData = tuple[Any, dict[str, Any], str]

MOST_OPEN = 30  # images of a folder that are opened without a project


def get_reader(
    path: str | Sequence[str],
) -> Callable[[str | Sequence[str]], list[LayerData]] | None:
    """Return a reader for NPY and DICOM files and folders, None for anything else.

    A file with their suffix is not opened yet; reading it reports what is wrong. A file
    with an unknown suffix is inspected. The images of a folder are looked for when it
    is read; ``*.zarr`` is one image in a folder, and not ours.
    """
    paths = [Path(p) for p in _as_list(path)]
    if not paths or not all(map(_is_ours, paths)):
        return None
    return read_layers


def read_layers(path: str | Sequence[str]) -> list[LayerData]:
    """Read files as image layers.

    Several single frames of one size and type, opened as a stack, become one layer
    ``(T, Y, X)``; otherwise every file becomes a layer of its own. For a DICOMDIR and a
    folder, so does every image in it.

    Raises
    ------
    ReadError
        Naming the first file that cannot be read.
    CMUNetError
        If a folder has more images than are opened at once.
    """
    import numpy as np

    from napari_cmunet.io.discovery import find_images
    from napari_cmunet.io.images import read_angiogram
    from napari_cmunet.io.sniffing import is_dicom
    from napari_cmunet.util.safe_files import is_folder

    given = [Path(p) for p in _as_list(path)]
    folders = any(map(is_folder, given))
    paths = [file.path for file in find_images(given)]
    if folders:
        check_count(len(paths))
    # A long cine is hashed when its mask is written, not while the user waits. What a
    # DICOMDIR lists cannot be found again by the path that napari keeps.
    images = [
        read_angiogram(p, hashed=p not in given or not is_dicom(p)) for p in paths
    ]
    names = [layer_name(p) for p in paths]
    _show_notes(paths, images)
    kinds = {(i.shape, i.frames.dtype, i.is_cine) for i in images}
    if len(images) > 1 and len(kinds) == 1 and not (folders or images[0].is_cine):
        stack = np.concatenate([np.asarray(image.frames) for image in images])
        options = layer_options(names[0], images[0], is_cine=True)
        options["metadata"]["napari_cmunet"].pop("source_sha256", None)
        return [(stack, options, "image")]
    return [
        (
            image.frames if image.is_cine else image.frames[0],
            layer_options(name, image, is_cine=image.is_cine),
            "image",
        )
        for name, image in zip(names, images, strict=True)
    ]


def check_count(images: int) -> None:
    """Raise if so many images are too many to open at once."""
    if images > MOST_OPEN:
        raise CMUNetError(
            f"{images} images are too many to open at once (at most {MOST_OPEN}). "
            "Make a project of the folder instead."
        )


def may_differ(path: Path) -> bool:
    """Whether napari's own reader may show a file otherwise than this program reads it.

    It shows where white is zero inverted, palettes as colour, grey with transparency
    and separate channels as another axis, thumbnails, and formats that this program
    refuses. Looks at the header alone.
    """
    import tifffile

    from napari_cmunet.io.formats.raster import image_mode
    from napari_cmunet.io.sniffing import open_sniffed

    try:
        with open_sniffed(path) as file:
            if file.kind in ("PNG", "WebP", "BMP"):
                return image_mode(file) in ("LA", "P", "PA", "1")
            if file.kind != "TIFF":
                return False
            with tifffile.TiffFile(
                file.handle, name=path.name, _multifile=False
            ) as tif:
                first = tif.pages.first
                if first.photometric in (0, 3) or first.subfiletype:
                    return True
                if first.samplesperpixel == 2 or first.planarconfig == 2:
                    return True
                second = tif.pages[1] if len(tif.pages) > 1 else first
                return first.shape != second.shape
    except Exception:  # noqa: BLE001
        return True  # reading it says what is wrong


def read_again(path: Path) -> LayerData:
    """Read one file as ``read_layers`` does; raises ReadError."""
    return read_layers(str(path))[0]


def _is_ours(path: Path) -> bool:
    from napari_cmunet.io.discovery import DICOMDIR
    from napari_cmunet.io.sniffing import KIND_OF_SUFFIX, is_dicom
    from napari_cmunet.util.safe_files import is_folder

    kind = KIND_OF_SUFFIX.get(path.suffix.lower())
    if is_folder(path):
        return path.suffix.lower() != ".zarr"
    if kind in ("DICOM", "NPY") or path.name.upper() == DICOMDIR:
        return True
    return kind is None and is_dicom(path)


def layer_options(name: str, image: Angiogram, *, is_cine: bool) -> dict[str, Any]:
    """Layer options and metadata of an image, without the patient's identity."""
    record: dict[str, Any] = {
        **({"source_sha256": image.sha256} if image.sha256 else {}),
        "pixel_size_mm": image.pixel_size_mm,
        "pixel_size_source": image.pixel_size_source,
        "pixel_size_error": image.pixel_size_error,
        "frames_per_second": image.frames_per_second,
        **({"is_inverted": True} if image.is_inverted else {}),
    }
    options: dict[str, Any] = {
        "name": name,
        "colormap": "gray",
        "metadata": {"napari_cmunet": record},
    }
    if is_cine:
        options["axis_labels"] = ("t", "y", "x")
    if image.pixel_size_mm is not None:
        time = (1.0,) if is_cine else ()
        options["scale"] = (*time, *image.pixel_size_mm)
        options["units"] = (*(("pixel",) if is_cine else ()), "mm", "mm")
    limits = _contrast_limits(image)
    if limits is not None:
        options["contrast_limits"] = limits
    return options


def _contrast_limits(image: Angiogram) -> tuple[float, float] | None:
    """The file's own window, or the range of a cine's middle frame."""
    from napari_cmunet.io.lazy_frames import LazyFrames

    if not isinstance(image.frames, LazyFrames):
        return None
    frame = image.frames[len(image.frames) // 2]
    low, high = float(frame.min()), float(frame.max())
    if image.window is not None and image.window[0] < high and image.window[1] > low:
        return image.window
    return (low, high) if low < high else None


def layer_name(path: Path) -> str:
    """The file's stem, without what identifies a patient."""
    from napari_cmunet.io.discovery import stem_of
    from napari_cmunet.io.sniffing import is_dicom

    if not is_dicom(path):
        return path.stem
    from napari_cmunet.io.dicom.identity import safe_name

    return stem_of(Path(safe_name(path)))


def _as_list(path: str | Sequence[str]) -> list[str]:
    # str() for Path objects, which some callers pass.
    return [str(p) for p in path] if isinstance(path, (list, tuple)) else [str(path)]


def _show_notes(paths: list[Path], images: list[Angiogram]) -> None:
    from napari.utils.notifications import show_info

    for path, image in zip(paths, images, strict=True):
        if image.notes:
            from napari_cmunet.io.dicom.identity import safe_name

            shown = safe_name(path)
            for text in image.notes:
                show_info(f"{shown}: {text}.")
