"""napari reader for angiograms stored as NPY arrays."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LayerData = tuple[Any, dict[str, Any], str]


def get_reader(
    path: str | Sequence[str],
) -> Callable[[str | Sequence[str]], list[LayerData]] | None:
    """Return a reader for ``.npy`` files, None for anything else.

    The file is not opened yet: what is wrong with it is said when it is read.
    """
    paths = _as_list(path)
    if not paths or any(Path(p).suffix.lower() != ".npy" for p in paths):
        return None
    return read_npy_layers


def read_npy_layers(path: str | Sequence[str]) -> list[LayerData]:
    """Read NPY files as image layers.

    Several single frames of one size and type, opened as a stack, become one layer
    ``(T, Y, X)``; otherwise every file becomes a layer of its own.

    Raises
    ------
    ReadError
        Naming the first file that cannot be read.
    """
    import numpy as np

    from napari_cmunet.io.images import read_angiogram

    paths = [Path(p) for p in _as_list(path)]
    images = [read_angiogram(p) for p in paths]
    _show_notes(paths, [image.notes for image in images])
    kinds = {(i.shape, i.frames.dtype, i.is_cine) for i in images}
    if len(images) > 1 and len(kinds) == 1 and not images[0].is_cine:
        stack = np.concatenate([image.frames for image in images])
        return [(stack, {"name": paths[0].stem, "colormap": "gray"}, "image")]
    return [
        (
            image.frames if image.is_cine else image.frames[0],
            {
                "name": p.stem,
                "colormap": "gray",
                "metadata": {"napari_cmunet": {"source_sha256": image.sha256}},
            },
            "image",
        )
        for p, image in zip(paths, images, strict=True)
    ]


def _as_list(path: str | Sequence[str]) -> list[str]:
    # str() for Path objects, which some callers pass.
    return [str(p) for p in path] if isinstance(path, (list, tuple)) else [str(path)]


def _show_notes(paths: list[Path], notes: list[tuple[str, ...]]) -> None:
    from napari.utils.notifications import show_info

    from napari_cmunet.errors import display_name

    for path, texts in zip(paths, notes, strict=True):
        for text in texts:
            show_info(f"{display_name(path)}: {text}.")
