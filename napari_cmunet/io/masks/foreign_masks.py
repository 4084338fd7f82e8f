"""Masks of other programs: find them among files and folders, and read them.

A mask file is named as its image is. A COCO file holds the masks of many images, a
DICOM Segmentation names its image by an identifier, an nnU-Net dataset has its labels
in a folder of their own.
"""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cmunet.errors import CMUNetError, ReadError, printable
from napari_cmunet.io.discovery import find_images, stem_of
from napari_cmunet.io.masks.coco import draw_mask, read_coco
from napari_cmunet.io.masks.files import (
    BESIDE_MASK,
    LargeMasks,
    fit_mask,
    is_beside_mask,
    read_mask,
    read_mask_for,
    read_pixels,
    read_provenance,
)
from napari_cmunet.io.sniffing import is_dicom, open_sniffed
from napari_cmunet.util.safe_files import hash_file, is_folder, read_plain
from napari_cmunet.util.text import parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from napari_cmunet.io.dicom.segmentation import Segmentation
    from napari_cmunet.io.masks.coco import CocoAnnotations, CocoImage
    from napari_cmunet.io.provenance import Provenance

NNUNET_LABELS, NNUNET_CARD = "labelsTr", "dataset.json"
_REVIEWED_SEGMENT = "Reviewed area"
_NOT_READ = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".mat", ".h5", ".npz")
_MAX_JSON = 2**24
_NO_ARTERY = ("background", "ignore", _REVIEWED_SEGMENT.casefold())


@dataclass(frozen=True)
class MaskPages:
    """A mask that was read, of one image."""

    #: bool (Y, X), or (T, Y, X) of several frames.
    mask: np.ndarray
    #: bool, of the same shape; None if all of it was reviewed.
    reviewed: np.ndarray | None = None
    #: Of a mask that this program has written.
    provenance: Provenance | None = None


@dataclass(frozen=True)
class ForeignMask:
    """A mask of one image, in a file of another program."""

    path: Path
    kind: str  # "PNG", "COCO", "DICOM SEG", …
    #: Name of the image without a suffix, or what is known of it.
    name: str
    #: Reads it for an image of a shape, (Y, X) or (T, Y, X).
    read: Callable[[tuple[int, ...], LargeMasks], MaskPages] = field(repr=False)
    relative: Path = Path()  # to the folder that was given
    source_uid: str = ""  # identifier of a DICOM image
    frames: tuple[int, ...] | None = None  # of the image, one a page; None: as they are

    def sha256(self) -> str:
        """Hash the file; raises OSError."""
        return hash_file(self.path)


@dataclass
class FoundMasks:
    """What was found, and what cannot be used."""

    masks: list[ForeignMask] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)  # one sentence for each file


def find_masks(inputs: Sequence[Path], artery: Collection[str] = ()) -> FoundMasks:
    """List the masks in files and folders, without reading their pixels.

    Parameters
    ----------
    artery : collection of str
        Names of the categories, segments or labels that are artery. Needed only where a
        file has several.
    """
    found = FoundMasks()
    for given in inputs:
        if is_folder(given):
            _find_in_folder(given, found, artery)
        else:
            _find_in_file(given, Path(given.name), found, artery)
    return found


def _find_in_folder(folder: Path, found: FoundMasks, artery: Collection[str]) -> None:
    datasets: list[Path] = []
    images_of_coco: set[str] = set()
    before = len(found.masks) + len(found.problems)
    for path in _other_files(folder):
        if path.name == NNUNET_CARD and (path.parent / NNUNET_LABELS).is_dir():
            datasets.append(path.parent)
        elif path.suffix.lower() == ".json":
            listed = _add(found, _coco_masks, path, artery, quiet=True)
            images_of_coco |= {m.name for m in listed}
        else:
            found.problems.append(f"{path.name}: {_not_read(path)}")
    for dataset in datasets:
        _add(found, _nnunet_masks, dataset, artery)
    files = find_images([folder], skip=datasets)
    if files and files[0].path == folder:  # nothing was found
        files = []
    for file in files:
        beside = is_beside_mask(file.path) or stem_of(file.path) in images_of_coco
        if not beside:
            _find_in_file(file.path, file.relative, found, artery)
    if len(found.masks) + len(found.problems) == before:
        found.problems.append(f"{folder.name}: no mask was found in this folder.")


def _find_in_file(
    path: Path, relative: Path, found: FoundMasks, artery: Collection[str]
) -> None:
    if path.name == NNUNET_CARD:
        _add(found, _nnunet_masks, path.parent, artery)
    elif path.suffix.lower() == ".json":
        _add(found, _coco_masks, path, artery)
    elif path.name.lower().endswith(_NOT_READ):
        found.problems.append(f"{path.name}: {_not_read(path)}")
    elif is_dicom(path):
        _add(found, _dicom_masks, path, artery)
    else:
        _add(found, _mask_file, path, relative)


def _add(
    found: FoundMasks,
    find: Callable[..., Iterator[ForeignMask]],
    path: Path,
    *options: object,
    **more: bool,
) -> list[ForeignMask]:
    try:
        masks = list(find(path, *options, **more))
    except CMUNetError as error:
        found.problems.append(str(error))
        return []
    found.masks += masks
    return masks


def _other_files(folder: Path) -> Iterator[Path]:
    """Yield JSON files, and files of kinds that are not read."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(names):
            lower = name.lower()
            if lower.endswith((".json", *_NOT_READ)) and not name.startswith("."):
                yield Path(parent, name)


def _not_read(path: Path) -> str:
    kind = "".join(path.suffixes[-2:]).lower().lstrip(".").upper()
    return f"masks of this kind ({kind[-8:]}) are not read. Export it as PNG or TIFF."


# -- mask files --------------------------------------------------------------------


def _mask_file(path: Path, relative: Path) -> Iterator[ForeignMask]:
    with open_sniffed(path) as file:
        kind = file.kind
    made = read_provenance(path) if kind == "TIFF" else None
    yield ForeignMask(
        path,
        kind,
        stem_of(path),
        partial(_read_file, path, made),
        relative,
        frames=made.frames if made else None,
    )


def _read_file(
    path: Path, made: Provenance | None, shape: tuple[int, ...], large: LargeMasks
) -> MaskPages:
    mask = read_mask_for(path, shape, large=large)
    part = path.with_name(BESIDE_MASK["reviewed"].format(path.stem))
    reviewed = read_mask(part, large="keep") if part.exists() else None
    if reviewed is not None and reviewed.shape != mask.shape:
        raise ReadError(part, "it is not of the size of the mask that it belongs to.")
    return MaskPages(mask, reviewed, made)


# -- nnU-Net -----------------------------------------------------------------------


def _nnunet_masks(folder: Path, artery: Collection[str]) -> Iterator[ForeignMask]:
    card = folder / NNUNET_CARD
    try:
        values = _label_values(parse_json(read_plain(card, _MAX_JSON) or b""))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReadError(card, "it does not say what its labels are.") from error
    names = chosen_names(card, values, artery)
    wanted = [value for name in names for value in values[name]]
    ignored = values.get("ignore", [])
    for file in find_images([folder / NNUNET_LABELS]):
        if file.path.is_dir():
            continue
        read = partial(_read_nnunet, file.path, wanted, ignored)
        name = stem_of(file.path)
        yield ForeignMask(file.path, "nnU-Net", name, read, file.relative)


def _label_values(card: Any) -> dict[str, list[int]]:
    """Return the values of each label; version 1 wrote them the other way round."""
    values = {}
    for name, value in card["labels"].items():
        if isinstance(value, str):
            name, value = value, int(name)
        values[name] = [int(v) for v in (value if isinstance(value, list) else [value])]
    return values


def _read_nnunet(
    path: Path,
    artery: list[int],
    ignored: list[int],
    shape: tuple[int, ...],
    large: LargeMasks,
) -> MaskPages:
    decoded = read_pixels(path)
    pixels = np.asarray(decoded.array)
    if pixels.shape[-1] != 1:
        raise ReadError(path, "its labels are in colour; they are whole numbers.")
    pixels = pixels[..., 0] if decoded.is_cine else pixels[0, ..., 0]
    mask = fit_mask(path, np.isin(pixels, artery), shape, large=large)
    return MaskPages(mask, ~np.isin(pixels, ignored) if ignored else None)


# -- COCO --------------------------------------------------------------------------


def _coco_masks(
    path: Path, artery: Collection[str], *, quiet: bool = False
) -> Iterator[ForeignMask]:
    """Yield the masks of a COCO file.

    Parameters
    ----------
    quiet : bool
        Pass over JSON of other kinds.
    """
    content = read_coco(path)
    if content is None:
        if quiet:
            return
        raise ReadError(path, "it is JSON, but no COCO annotations. Export those.")
    names = chosen_names(path, content.names(), artery)
    for image in content.images:
        # The name may be a path of another system.
        name = stem_of(Path(PureWindowsPath(image.file_name).name))
        if content.of(image, names):
            read = partial(_read_coco, path, content, image, names)
            yield ForeignMask(path, "COCO", name, read, Path(path.name))


def _read_coco(
    path: Path,
    content: CocoAnnotations,
    image: CocoImage,
    names: list[str],
    shape: tuple[int, ...],
    large: LargeMasks,
) -> MaskPages:
    outlines = content.of(image, names)
    mask = draw_mask(path, image, [o for o in outlines if not o.iscrowd])
    mask = fit_mask(path, mask, shape, large=large)
    crowds = [o for o in outlines if o.iscrowd]
    return MaskPages(mask, ~draw_mask(path, image, crowds) if crowds else None)


# -- DICOM Segmentation --------------------------------------------------------------


def _dicom_masks(path: Path, artery: Collection[str]) -> Iterator[ForeignMask]:
    # Deferred: importing pydicom is slow.
    from napari_cmunet.io.dicom import segmentation as seg
    from napari_cmunet.io.dicom.identity import safe_name

    if not seg.is_segmentation(path):
        raise ReadError(
            path, "it is a DICOM image, not a mask of one.", safe_name(path)
        )
    content = seg.read_segmentation(path)
    names = chosen_names(path, content.segments.values(), artery)
    sources: dict[str, set[int]] = defaultdict(set)
    for frame in content.frames:
        sources[frame.source_uid].add(frame.source_frame)
    for source, frames in sources.items():
        if not source:
            raise ReadError(
                path, "it does not say which image it belongs to.", safe_name(path)
            )
        ordered = tuple(sorted(frames))
        read = partial(_read_dicom, content, source, ordered, names)
        yield ForeignMask(
            path,
            "DICOM SEG",
            stem_of(path),
            read,
            Path(path.name),
            source_uid=source,
            frames=ordered,
        )


def _read_dicom(
    content: Segmentation,
    source: str,
    frames: tuple[int, ...],
    names: list[str],
    shape: tuple[int, ...],
    large: LargeMasks,
) -> MaskPages:
    from napari_cmunet.io.dicom.segmentation import read_segments

    pixels = read_segments(content)
    parts = {n: label for n, label in content.segments.items() if label in names}
    seen = _REVIEWED_SEGMENT in content.segments.values()
    mask = np.zeros((len(frames), *content.shape), bool)
    reviewed = np.zeros_like(mask)
    for frame in content.frames:
        if frame.source_uid != source:
            continue
        page = frames.index(frame.source_frame)
        if frame.segment is None:  # pixels are numbers of segments
            mask[page] |= np.isin(pixels[frame.index], list(parts))
        elif frame.segment in parts:
            mask[page] |= pixels[frame.index]
        elif content.segments.get(frame.segment) == _REVIEWED_SEGMENT:
            reviewed[page] |= pixels[frame.index]
    if len(shape) == 2:
        mask, reviewed = mask[0], reviewed[0]
    return MaskPages(
        fit_mask(content.path, mask, shape, large=large), reviewed if seen else None
    )


def chosen_names(
    path: Path, names: Collection[str], artery: Collection[str]
) -> list[str]:
    """Return which categories of a file are artery.

    Raises
    ------
    ReadError
        If there are several and none was chosen, or none of the chosen is there.
    """
    found = [n for n in dict.fromkeys(names) if n.casefold() not in _NO_ARTERY]
    wanted = [n for n in found if n.casefold() in {a.casefold() for a in artery}]
    if wanted or len(found) == 1:
        return wanted or found
    if not found:
        raise ReadError(path, "it holds no outlines.")
    shown = ", ".join(printable(n)[:40] for n in found[:30])
    raise ReadError(
        path, f"it tells {len(found)} kinds apart: {shown}. Say which are artery."
    )
