"""Find image files among files and folders, and name their outputs."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_cmunet.io.sniffing import SUFFIXES, is_dicom
from napari_cmunet.util.safe_files import is_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


DICOMDIR = "DICOMDIR"


@dataclass(frozen=True)
class InputFile:
    """An input file and its path relative to the folder that was given."""

    path: Path
    relative: Path  # only the name if a file was given


def find_images(
    inputs: Iterable[Path | str], skip: Iterable[Path | str] = ()
) -> list[InputFile]:
    """List the image files among ``inputs``, walking folders.

    Parameters
    ----------
    inputs : iterable of Path or str
        Files and folders. A file is listed whatever its name, and a folder even if it
        has no images or is not readable, so that reading it reports the problem.
        Inside folders, hidden files and other suffixes are skipped, except for DICOM
        files, which are recognised by content whatever their suffix. A DICOMDIR
        stands for its images.
    skip : iterable of Path or str
        Folders that are skipped, such as the output folder.

    Returns
    -------
    list of InputFile
        In the order of ``inputs``; the files of a folder are sorted. Duplicates, also
        by links, are dropped.
    """
    skipped = {_identity(Path(folder)) for folder in skip}
    listed: set[object] = set()
    found: list[InputFile] = []
    for given in map(Path, inputs):
        if is_folder(given):
            files = _walk(given, skipped) or [InputFile(given, Path(given.name))]
        elif given.name.upper() == DICOMDIR:
            files = _listed_in(given) or [InputFile(given, Path(given.name))]
        else:
            files = [InputFile(given, Path(given.name))]
        for file in files:
            identity = _identity(file.path)
            if identity not in listed:
                listed.add(identity)
                found.append(file)
    return found


def output_paths(files: Sequence[InputFile], suffix: str = ".tif") -> list[Path]:
    """Name one output for each input, relative to the output folder.

    Sub-folders and stems are kept. Inputs whose names would clash (``a.png`` and
    ``a.tif``, ignoring case) keep their suffix, then get a number. The result is
    deterministic.
    """
    plain = [file.relative.with_name(stem_of(file.relative) + suffix) for file in files]
    clashes = Counter(_folded(path) for path in plain)
    longer = [
        path
        if clashes[_folded(path)] == 1
        else file.relative.with_name(file.relative.name + suffix)
        for file, path in zip(files, plain, strict=True)
    ]
    taken: set[str] = set()
    names = []
    for path in longer:
        name, number = path, 1
        while _folded(name) in taken:
            number += 1
            name = path.with_name(f"{path.stem}-{number}{suffix}")
        taken.add(_folded(name))
        names.append(name)
    return names


def stem_of(path: Path) -> str:
    """Return a file's name without its suffix; a number is not a suffix."""
    return path.name if path.suffix[1:].isdigit() else path.stem


def holds_images(folder: Path) -> bool:
    """Whether a folder contains an image file."""
    return bool(_walk(folder, set()))


def _walk(folder: Path, skipped: set[object]) -> list[InputFile]:
    files = sorted(_images_below(folder, skipped), key=lambda path: path.parts)
    return [InputFile(path, path.relative_to(folder)) for path in files]


def _images_below(folder: Path, skipped: set[object]) -> Iterator[Path]:
    visited: set[object] = set(skipped)
    # Follow links, but enter each folder once.
    for parent, folders, names in os.walk(folder, followlinks=True):
        identity = _identity(Path(parent))
        if identity in visited:
            folders.clear()
            continue
        visited.add(identity)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            if not name.startswith(".") and _is_image(Path(parent, name)):
                yield Path(parent, name)


def _is_image(path: Path) -> bool:
    """Whether a file is an image, by its suffix or as DICOM by its content.

    DICOM files are named ``IM000001``, ``1.2.840.10008.5``, ``XA.1.IMA`` and so on.
    """
    if path.suffix.lower() in SUFFIXES:
        return True
    return path.name.upper() != DICOMDIR and is_dicom(path)


def _listed_in(dicomdir: Path) -> list[InputFile]:
    # Deferred: importing pydicom is slow.
    from napari_cmunet.io.dicom.directory import listed_images

    folder = dicomdir.parent
    return [InputFile(folder / name, Path(name)) for name in listed_images(dicomdir)]


def _identity(path: Path) -> object:
    """Return an identity that is equal for two names of one file."""
    try:
        return Path(os.path.realpath(path))
    except (OSError, ValueError):
        return path


def _folded(path: Path) -> str:
    return str(path).casefold()
