"""Finding a project's images again after they were moved or on another computer."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_cmunet.errors import Cancelled
from napari_cmunet.io.discovery import find_images

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from napari_cmunet.project.image_table import ImageRecord


@dataclass(frozen=True)
class Found:
    """Where images were found.

    Parameters
    ----------
    places : dict of str to Path
        Folders that roots now stand for: paths below them are as before.
    moved : dict of str to str
        Path below the searched folder, by image id, where that is another one.
    """

    places: dict[str, Path]
    moved: dict[str, str]


def find_again(
    folder: Path,
    missing: Iterable[ImageRecord],
    fixed_roots: Iterable[str],
    should_stop: Callable[[], bool] = lambda: False,
) -> Found:
    """Look for images below a folder: by path and size, then by content.

    Parameters
    ----------
    folder : Path
        What the reader chose: the folder itself, one above it, or one inside it.
    missing : iterable of ImageRecord
    fixed_roots : iterable of str
        Roots that stay where they are, since other images are there.
    should_stop : callable
        Asked between files.

    Raises
    ------
    Cancelled
    """
    folder = Path(folder).absolute()
    files = [f.path.absolute() for f in find_images([folder]) if f.path.is_file()]
    missing, fixed = list(missing), set(fixed_roots)
    votes: dict[str, Counter[Path]] = defaultdict(Counter)
    matches: dict[str, dict[Path, Path]] = {}  # image -> place -> file
    ending = _by_ending(files, {len(_parts(r.path)) for r in missing})
    for record in missing:
        if should_stop():
            raise Cancelled
        matches[record.id] = {}
        for file in ending.get(_parts(record.path), ()):
            place = _place(file, record.path)
            if place and record.size in (None, _size(file)):
                matches[record.id][place] = file
                votes[record.root][place] += 1
    places = {r: _most(c) for r, c in votes.items() if r not in fixed}
    moved: dict[str, str] = {}
    lost = []
    for record in missing:
        at = matches[record.id]
        if places.get(record.root) in at:
            continue
        if len(at) == 1:
            (file,) = at.values()
            if file.is_relative_to(folder):
                moved[record.id] = file.relative_to(folder).as_posix()
                continue
        lost.append(record)
    moved |= _by_content(folder, files, lost, should_stop)
    return Found(places, moved)


def hash_file(path: Path, should_stop: Callable[[], bool] = lambda: False) -> str:
    """SHA-256 of a file, read piece by piece; raises OSError, Cancelled."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(2**22):
            if should_stop():
                raise Cancelled
            digest.update(piece)
    return digest.hexdigest()


def _by_content(
    folder: Path,
    files: list[Path],
    lost: list[ImageRecord],
    should_stop: Callable[[], bool],
) -> dict[str, str]:
    wanted = {r.sha256: r.id for r in lost if r.sha256}
    sizes = {r.size for r in lost if r.sha256}
    moved: dict[str, str] = {}
    for file in files:
        if not wanted:
            break
        if None not in sizes and _size(file) not in sizes:
            continue
        try:
            image = wanted.pop(hash_file(file, should_stop), None)
        except OSError:
            continue
        if image:
            moved[image] = file.relative_to(folder).as_posix()
    return moved


def _by_ending(
    files: list[Path], lengths: set[int]
) -> dict[tuple[str, ...], list[Path]]:
    """Files by the last parts of their paths, as many as any record has."""
    found: dict[tuple[str, ...], list[Path]] = defaultdict(list)
    for file in files:
        folded = tuple(map(_folded, file.parts))
        for length in lengths:
            if 0 < length < len(folded):
                found[folded[-length:]].append(file)
    return found


def _parts(path: str) -> tuple[str, ...]:
    return tuple(map(_folded, path.split("/"))) if path else ()


def _place(file: Path, path: str) -> Path | None:
    """The folder below which ``file`` has this path."""
    place = file.parents[len(_parts(path)) - 1]
    # Where case or code points differ, the record's path may not find the file.
    return place if (place / path).exists() else None


def _most(votes: Counter[Path]) -> Path:
    return max(votes, key=lambda place: (votes[place], -len(place.parts)))


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
