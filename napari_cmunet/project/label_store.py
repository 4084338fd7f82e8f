"""The accepted labels and the drafts of a project: one TIFF for each frame.

``labels/<image>/frame_0007.tif`` counts; what it replaced lies in ``older`` beside it,
so that an acceptance never destroys one. Whether a frame is labelled is whether the
file is there; nothing else has to agree with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_cmunet.errors import NotFlushedError, ReadError, WriteError
from napari_cmunet.io.label_file import Label, read_label, write_label
from napari_cmunet.project.errors import ProjectDamagedError, ProjectError
from napari_cmunet.project.files import (
    DRAFTS,
    LABELS,
    OLDER,
    frame_file,
    frame_of,
    inside,
    is_image_id,
    make_folder,
    read_bytes,
)
from napari_cmunet.util.atomic import atomic_write, sync_folder, write_reason

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_LABEL_BYTES = 2**28
_DRAFT = re.compile(r"([0-9a-f]{12})-(frame_\d{4,6}\.tif)")

FrameKey = tuple[str, int]
"""Image id and frame, counted from 0."""


@dataclass(frozen=True)
class OlderLabel:
    """A label that was replaced or withdrawn; the highest number is the last."""

    image: str
    frame: int
    number: int
    path: Path


class LabelStore:
    """The labels of a project.

    Parameters
    ----------
    folder : Path
        Of the project.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, image: str, frame: int) -> Path:
        """Where the label of a frame is, or would be."""
        return inside(self._folder, LABELS, image, frame_file(frame))

    def scan(self) -> Iterator[FrameKey]:
        """All labelled frames, as they lie on the disk."""
        for image, folder in self._image_folders():
            for name in sorted(_plain_files(folder)):
                frame = frame_of(name)
                if frame is not None:
                    yield image, frame

    def _image_folders(self) -> Iterator[tuple[str, Path]]:
        try:
            names = sorted(os.listdir(inside(self._folder, LABELS)))  # noqa: PTH208
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise ProjectError(
                f"The project's labels cannot be listed ({error.strerror})."
            ) from error
        for name in names:
            if is_image_id(name):
                folder = self._folder / LABELS / name
                if not folder.is_symlink() and folder.is_dir():
                    yield name, folder

    def sha256(self, image: str, frame: int) -> str | None:
        """Hash of a label's file, None if there is none."""
        data = read_bytes(self.path(image, frame), MAX_LABEL_BYTES)
        return None if data is None else hashlib.sha256(data).hexdigest()

    def read(self, image: str, frame: int) -> Label | None:
        """The label of a frame; None if there is none; raises ReadError."""
        path = self.path(image, frame)
        try:
            return read_label(path)
        except ReadError:
            if not path.exists():
                return None
            raise

    def write(self, image: str, frame: int, label: Label) -> str:
        """Replace the label of a frame, keeping the old one; returns its hash.

        At any instant the old or the new one is there, whole.
        """
        path = self.path(image, frame)
        make_folder(path.parent)
        with self._kept(image, frame, path):
            write_label(path, label)
            return self.sha256(image, frame) or ""

    def withdraw(self, image: str, frame: int) -> Path | None:
        """Take a label out of use, into ``older``; None if there was none."""
        path = self.path(image, frame)
        if not path.exists():
            return None
        with self._kept(image, frame, path) as kept:
            try:
                path.unlink()
            except OSError as error:
                raise WriteError(path, write_reason(error)) from error
            try:
                sync_folder(path.parent)
            except OSError as error:
                raise NotFlushedError(path, write_reason(error)) from error
        return kept

    def restore(self, older: OlderLabel) -> str:
        """Make an older label count again; returns the file's hash."""
        path = self.path(older.image, older.frame)
        data = read_bytes(older.path, MAX_LABEL_BYTES)
        if data is None:
            raise ProjectError("That version of the label is not there any more.")
        read_label(older.path)  # raises if it is damaged
        make_folder(path.parent)
        with self._kept(older.image, older.frame, path), atomic_write(path) as file:
            file.write(data)
        return hashlib.sha256(data).hexdigest()

    def older(self, image: str, frame: int) -> list[OlderLabel]:
        """Labels of a frame that do not count any more, the oldest first."""
        pattern = re.compile(re.escape(frame_file(frame)[:-4]) + r"-(\d{1,9})\.tif")
        found = []
        for name in _plain_files(inside(self._folder, LABELS, image, OLDER)):
            match = pattern.fullmatch(name)
            if match:
                path = inside(self._folder, LABELS, image, OLDER, name)
                found.append(OlderLabel(image, frame, int(match[1]), path))
        return sorted(found, key=lambda older: older.number)

    def hash_of(self, older: OlderLabel) -> str | None:
        """Hash of an older label's file."""
        data = read_bytes(older.path, MAX_LABEL_BYTES)
        return None if data is None else hashlib.sha256(data).hexdigest()

    def _next_older(self, image: str, frame: int) -> Path:
        folder = make_folder(inside(self._folder, LABELS, image, OLDER))
        number = max((o.number for o in self.older(image, frame)), default=0) + 1
        return folder / f"{frame_file(frame)[:-4]}-{number:03d}.tif"

    @contextlib.contextmanager
    def _kept(self, image: str, frame: int, path: Path) -> Iterator[Path | None]:
        """Keep the file at ``path`` among the older ones while the body replaces it.

        If the body fails, even after the replacing, it is as before.
        """
        kept = self._keep(image, frame, path) if path.exists() else None
        try:
            yield kept
        except (NotFlushedError, ProjectDamagedError):  # replaced, but not for sure
            with contextlib.suppress(OSError):
                _put_back(path, kept)
            raise
        except BaseException:
            if kept is not None:
                with contextlib.suppress(OSError):
                    kept.unlink()
            raise

    def _keep(self, image: str, frame: int, path: Path) -> Path:
        while True:
            kept = self._next_older(image, frame)
            try:
                os.link(path, kept)
                sync_folder(kept.parent)
            except FileExistsError:  # another program, which has just lost the project
                continue
            except OSError:  # a disk without links
                with atomic_write(kept) as file:
                    file.write(read_bytes(path, MAX_LABEL_BYTES) or b"")
            return kept


def _put_back(path: Path, kept: Path | None) -> None:
    """Undo what has replaced a label, or was the first one."""
    if kept is None:
        path.unlink(missing_ok=True)
    else:
        kept.replace(path)


class DraftStore:
    """Strokes since the last acceptance, saved as they are made.

    Each draft knows which label it was drawn over, so that one that an acceptance has
    overtaken is not offered again.

    Parameters
    ----------
    folder : Path
        Of the project.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, image: str, frame: int) -> Path:
        """Where the draft of a frame is, or would be."""
        return inside(self._folder, DRAFTS, f"{image}-{frame_file(frame)}")

    def scan(self) -> list[FrameKey]:
        """All frames that have a draft."""
        keys = []
        for name in sorted(_plain_files(inside(self._folder, DRAFTS))):
            match = _DRAFT.fullmatch(name)
            frame = frame_of(match[2]) if match else None
            if match and frame is not None:
                keys.append((match[1], frame))
        return keys

    def write(self, image: str, frame: int, draft: Label) -> None:
        """Save a draft; raises WriteError."""
        path = self.path(image, frame)
        make_folder(path.parent)
        write_label(path, draft)

    def read(self, image: str, frame: int) -> Label | None:
        """A draft, None if there is none; raises ReadError."""
        path = self.path(image, frame)
        return read_label(path) if path.exists() else None

    def discard(self, image: str, frame: int) -> None:
        """Remove a draft, if there is one; raises WriteError."""
        path = self.path(image, frame)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise WriteError(path, write_reason(error)) from error


def _plain_files(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as found:
            return [e.name for e in found if e.is_file(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ProjectError(
            f"A folder of the project cannot be listed ({error.strerror})."
        ) from error
