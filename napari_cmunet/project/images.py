"""The images of a project: by reference, never copied."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from napari_cmunet.errors import (
    Cancelled,
    ImageMissingError,
    ProjectError,
    WriteError,
    display_name,
)
from napari_cmunet.io.discovery import find_images
from napari_cmunet.io.masks.files import is_own_mask
from napari_cmunet.project.files import (
    DRAFTS,
    IMAGES,
    LABELS,
    MODELS,
    inside,
)
from napari_cmunet.project.image_records import (
    PROJECT_ROOT,
    ImageRecord,
    ImageRoots,
    file_size,
    find_again,
    is_file,
    read_records,
    write_records,
)
from napari_cmunet.project.patients import by_dicom, patient_hash
from napari_cmunet.util.safe_files import hash_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from napari_cmunet.io.discovery import InputFile
    from napari_cmunet.io.images import Angiogram
    from napari_cmunet.project.lock import ProjectContext
    from napari_cmunet.project.patients import PatientRule

_SAVE_EVERY = 500


@dataclass(frozen=True)
class AddedImages:
    """The result of adding images."""

    images: tuple[str, ...]  # ids of the new ones
    known: int  # files that the project already has
    problems: tuple[str, ...]  # one sentence for each file that could not be added


@dataclass(frozen=True)
class RelinkResult:
    """How many images were found again, and which are still missing."""

    found: int
    missing: tuple[str, ...]


class ProjectImages:
    """The images of a project, in their order.

    :meth:`add`, :meth:`missing`, :meth:`relink` and :meth:`hash_of` access disks and
    are not for the GUI thread.
    """

    def __init__(self, context: ProjectContext) -> None:
        self._context = context
        self._file = inside(context.folder, IMAGES)
        self._records: dict[str, ImageRecord] = {}
        self._unsaved = 0  # facts learned since the file was written
        self.roots = ImageRoots(context)

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[ImageRecord]:
        return iter(list(self._records.values()))

    def __contains__(self, image: object) -> bool:
        return image in self._records

    def __getitem__(self, image: str) -> ImageRecord:
        try:
            return self._records[image]
        except KeyError:
            raise ProjectError(f"The project has no image '{image[:40]}'.") from None

    def ids(self) -> list[str]:
        """Return all ids, in the project's order."""
        return list(self._records)

    # -- the file ------------------------------------------------------------------

    def load(self, *, salvage: bool = False) -> int:
        """Read ``images.jsonl``; return the number of lines that were skipped.

        Parameters
        ----------
        salvage : bool
            Skip damaged lines.

        Raises
        ------
        ProjectDamagedError, ProjectVersionError
        """
        self._records, bad = read_records(self._file, salvage=salvage)
        return bad

    def _write(self, changed: Iterable[ImageRecord] = ()) -> None:
        """Write the file with some records added or changed; raises WriteError.

        The records in memory change only after the file.
        """
        records = self._records | {r.id: r for r in changed}
        write_records(self._file, records.values())
        self._records, self._unsaved = records, 0

    def save(self) -> None:
        """Write what was learned; a failure is retried at the next call."""
        if self._unsaved and not self._context.read_only:
            try:
                with self._context.writing():
                    self._write()
            except (ProjectError, WriteError):
                return

    # -- files of images -------------------------------------------------------------

    def path(self, image: str) -> Path:
        """Return the file of an image, as :meth:`ImageRoots.path` does."""
        return self.roots.path(self[image])

    def found_path(self, image: str) -> Path:
        """Return the file of an image that exists; raises ImageMissingError."""
        path = self.path(image)
        if not is_file(path):
            raise ImageMissingError(
                f"Image {image} is not where it was. Connect its disk, or show the "
                "project the folder of its images."
            )
        return path

    def id_of(self, path: Path) -> str | None:
        """Return the image of a file; None if it is not in the project."""
        wanted = os.path.normcase(os.path.abspath(path))  # noqa: PTH100
        return next((r.id for r in self if wanted in self.roots.files([r])), None)

    def files(self) -> set[str]:
        """Return the files of all images, to compare with ``os.path.normcase``."""
        return self.roots.files(self)

    def missing(self) -> list[str]:
        """Return the images whose files are missing."""
        missing = []
        for record in self:
            try:
                there = is_file(self.roots.path(record))
            except ProjectError:
                there = False
            if not there:
                missing.append(record.id)
        return missing

    def relink(
        self, folder: Path, should_stop: Callable[[], bool] = lambda: False
    ) -> RelinkResult:
        """Look for missing images in a folder: by path and size, then by content.

        In a read-only project, the result lasts until it is closed.

        Raises
        ------
        Cancelled
        """
        lost = set(self.missing())
        missing = [r for r in self if r.id in lost]
        fixed = {r.root for r in self if r.id not in lost} | {PROJECT_ROOT}
        roots, moved = find_again(folder, missing, fixed, should_stop)
        with self._context.reading():
            self.roots.remember(roots)
            if moved:
                root = self.roots.root_for(Path(folder).absolute(), self)
                records = []
                for image, path in moved.items():
                    size = file_size(Path(folder, path))
                    records.append(
                        replace(self[image], root=root, path=path, size=size)
                    )
                if self._context.read_only:
                    for record in records:
                        self._learn(record)
                else:
                    with self._context.writing():
                        self._write(records)
        still = self.missing()
        count = len(missing) - len(still)
        if count and not self._context.read_only:
            with self._context.writing():
                self._context.journal.append("images_relinked", count=count)
        return RelinkResult(count, tuple(still))

    # -- adding ----------------------------------------------------------------------

    def add(
        self,
        inputs: Iterable[Path | str],
        patient_of: PatientRule | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> AddedImages:
        """Add files and folders, without decoding the images.

        Parameters
        ----------
        inputs : iterable of Path or str
            Folders are walked.
        patient_of : callable, optional
            Gives the patient from an image's path below its folder, see
            :mod:`napari_cmunet.project.patients`. Where it is not given or gives None,
            a DICOM file's own patient is taken; any other image counts as a patient
            of its own.
        should_stop : callable
            Called between files; if True, nothing is added.

        Raises
        ------
        Cancelled, WriteError
        """
        inputs = [Path(os.path.abspath(p)) for p in inputs]  # noqa: PTH100
        problems: list[str] = []
        files: list[tuple[Path, InputFile, int, str | None]] = []
        own_folders = [self._context.folder / n for n in (LABELS, DRAFTS, MODELS)]
        # Slow disks first, without holding the project.
        for file in find_angiograms(inputs, skip=own_folders):
            if should_stop():
                raise Cancelled
            path = Path(os.path.abspath(file.path))  # noqa: PTH100
            size = file_size(path) if is_file(path) else None
            if size is None:
                problems.append(f"{display_name(path)}: it cannot be read.")
                continue
            below = PurePosixPath(file.relative.as_posix())
            patient = patient_of(below) if patient_of else None
            files.append((path, file, size, patient or by_dicom(path)))
        with self._context.writing():
            known = self.files()
            new: list[ImageRecord] = []
            ids = set(self._records)
            n_known = 0
            for path, file, size, patient in files:
                if os.path.normcase(path) in known:
                    n_known += 1
                    continue
                try:
                    root, relative = self.roots.reference(path, file, self)
                except ValueError as error:
                    problems.append(f"{display_name(path)}: {error}. Rename it.")
                    continue
                except ProjectError as error:
                    problems.append(f"{display_name(path)}: {error}")
                    continue
                image = _new_id(ids)
                ids.add(image)
                hashed = self._patient(image if patient is None else None, patient)
                new.append(ImageRecord(image, root, relative, hashed, size))
            if new:
                self._write(new)
                self._context.journal.append("images_added", count=len(new))
        return AddedImages(tuple(r.id for r in new), n_known, tuple(problems))

    def _patient(self, image: str | None, patient: str | None = None) -> str:
        key = f"name {patient}" if image is None else f"image {image}"
        return patient_hash(self._context.identity.salt, key)

    def add_lost(self, lost: dict[str, str | None]) -> None:
        """List images again of which only labels are left, with their files' hashes."""
        with self._context.writing():
            self._write(
                ImageRecord(image, "lost", "", self._patient(image), None, sha256)
                for image, sha256 in lost.items()
            )

    # -- facts -----------------------------------------------------------------------

    def learn(self, image: str, angiogram: Angiogram) -> None:
        """Note the facts of an image that was read; written some time later."""
        count, *shape = angiogram.frames.shape
        self.learn_facts(image, angiogram.sha256, (shape[0], shape[1]), count)

    def learn_facts(
        self,
        image: str,
        sha256: str | None = None,
        shape: tuple[int, int] | None = None,
        frames: int | None = None,
    ) -> None:
        """Note an image's hash, rows and columns, or number of frames."""
        with self._context.reading():
            record = self[image]
            changed = replace(
                record,
                sha256=sha256 or record.sha256,
                shape=shape or record.shape,
                frames=frames or record.frames,
            )
            if sha256 and record.sha256 not in (None, sha256):
                # The file was replaced: other facts may not hold.
                size = file_size(self.path(image))
                changed = replace(changed, size=size, shape=shape, frames=frames)
            self._learn(changed)
            if self._unsaved >= _SAVE_EVERY:
                self.save()

    def _learn(self, record: ImageRecord) -> None:
        if self[record.id] != record:
            self._records[record.id] = record
            self._unsaved += 1

    def hash_of(self, image: str) -> str:
        """Return the hash of an image's file as it is now; raises ImageMissingError."""
        path = self.found_path(image)
        try:
            return hash_file(path)
        except OSError as error:
            raise ImageMissingError(
                f"Image {image} cannot be read ({error.strerror})."
            ) from error


def _new_id(taken: set[str]) -> str:
    while (made := secrets.token_hex(6)) in taken:
        pass
    return made


def find_angiograms(
    inputs: Iterable[Path | str], skip: Iterable[Path] = ()
) -> list[InputFile]:
    """List image files without the masks that were exported beside them.

    A mask is left out of a folder; a file that is given itself is listed.
    """
    given = [Path(path) for path in inputs]
    return [
        file
        for file in find_images(given, skip)
        if file.path in given or not is_own_mask(file.path)
    ]
