"""The images of an open project: adding them, where they lie, finding them again."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from napari_cmunet.errors import Cancelled, WriteError, display_name
from napari_cmunet.io.discovery import find_images
from napari_cmunet.project.errors import ImageMissingError, ProjectError
from napari_cmunet.project.files import IMAGES, inside
from napari_cmunet.project.image_roots import ImageLocations, file_size, is_file
from napari_cmunet.project.image_table import (
    PROJECT_ROOT,
    ImageRecord,
    ImageTable,
    new_id,
)
from napari_cmunet.project.patients import by_dicom, patient_hash
from napari_cmunet.project.relink import find_again, hash_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from napari_cmunet.io.discovery import InputFile
    from napari_cmunet.io.images import Angiogram
    from napari_cmunet.project.patients import PatientRule
    from napari_cmunet.project.session import Session

_SAVE_EVERY = 500


@dataclass(frozen=True)
class AddedImages:
    """What adding images came to.

    Parameters
    ----------
    images : tuple of str
        Ids of the new ones.
    known : int
        Files that the project already has.
    own_patient : int
        New images whose patient is not known; each counts as another patient.
    problems : tuple of str
        One sentence for each file that could not be added.
    """

    images: tuple[str, ...]
    known: int
    own_patient: int
    problems: tuple[str, ...]


@dataclass(frozen=True)
class RelinkResult:
    """How many images were found again, and which are still missing."""

    found: int
    missing: tuple[str, ...]


class ProjectImages:
    """The images of a project.

    Everything that walks folders or reads files is for a worker, not for the GUI
    thread: :meth:`add`, :meth:`missing`, :meth:`relink`, :meth:`hash_all`.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._table = ImageTable(inside(session.folder, IMAGES))
        self._at = ImageLocations(session, self._table)

    def load(self, *, salvage: bool = False) -> int:
        """Read the list of images; see :meth:`ImageTable.load`."""
        return self._table.load(salvage=salvage)

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[ImageRecord]:
        return iter(self._table)

    def __contains__(self, image: object) -> bool:
        return image in self._table

    def __getitem__(self, image: str) -> ImageRecord:
        return self._table[image]

    def ids(self) -> list[str]:
        """All ids, in the project's order."""
        return self._table.ids()

    def path(self, image: str) -> Path:
        """The file of an image, whether it is there or not.

        Raises
        ------
        ImageMissingError
            If this computer does not know the folder.
        """
        return self._at.path(image)

    def found_path(self, image: str) -> Path:
        """The file of an image that is there; raises ImageMissingError."""
        return self._at.found_path(image)

    def files(self) -> set[str]:
        """Files of all images whose folders are known here, whether there or not."""
        return self._at.known_paths()

    def missing(self) -> list[str]:
        """Images whose files are not where the project looks for them."""
        return [r.id for r in self._table if not self._at.is_there(r.id)]

    def relink(
        self, folder: Path, should_stop: Callable[[], bool] = lambda: False
    ) -> RelinkResult:
        """Look for missing images in a folder: by path and size, then by content.

        Works in a project that is open for reading too, for as long as it is open.

        Raises
        ------
        Cancelled
        """
        missing = [r for r in self._table if not self._at.is_there(r.id)]
        lost = {r.id for r in missing}
        fixed = {r.root for r in self._table if r.id not in lost} | {PROJECT_ROOT}
        found = find_again(folder, missing, fixed, should_stop)
        with self._session.reading():
            self._at.remember(found.places)
            if found.moved:
                root = self._at.root_for(Path(folder).absolute())
                records = []
                for image, path in found.moved.items():
                    size = file_size(Path(folder, path))
                    record = self._table[image]
                    records.append(replace(record, root=root, path=path, size=size))
                if self._session.read_only:
                    for record in records:
                        self._table.learn(record)
                else:
                    with self._session.writing():
                        self._table.save(records)
        still = self.missing()
        count = len(missing) - len(still)
        if count and not self._session.read_only:
            with self._session.writing():
                self._session.journal.append("images_relinked", count=count)
        return RelinkResult(count, tuple(still))

    # -- adding ---------------------------------------------------------------

    def add(
        self,
        inputs: Iterable[Path | str],
        patient_of: PatientRule | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> AddedImages:
        """Add files and folders, without reading the images.

        Parameters
        ----------
        inputs : iterable of Path or str
            Folders are walked.
        patient_of : callable, optional
            Tells the patient from an image's path below its folder, see
            :mod:`napari_cmunet.project.patients`. Without it, or where it does not
            know, a DICOM file is asked, and each other image counts as a patient of
            its own.
        should_stop : callable
            Asked between files; nothing is added then.

        Raises
        ------
        Cancelled, WriteError
        """
        inputs = [Path(os.path.abspath(p)) for p in inputs]  # noqa: PTH100
        problems: list[str] = []
        files: list[tuple[Path, InputFile, int, str | None]] = []
        # The disk is looked at first: it may be slow, and nobody is to wait meanwhile.
        for file in find_images(inputs, skip=self._own_folders()):
            if should_stop():
                raise Cancelled
            path = Path(os.path.abspath(file.path))  # noqa: PTH100
            size = file_size(path) if is_file(path) else None
            if size is None:
                problems.append(f"{display_name(path)}: it cannot be read.")
            else:
                patient = patient_of(_posix(file.relative)) if patient_of else None
                if patient is None:
                    patient = by_dicom(path)
                files.append((path, file, size, patient))
        with self._session.writing():
            known = self._at.known_paths()
            new: list[ImageRecord] = []
            ids = set(self._table.ids())
            n_known = own = 0
            for path, file, size, patient in files:
                if os.path.normcase(path) in known:
                    n_known += 1
                    continue
                try:
                    root, below = self._at.reference(path, file)
                except ValueError as error:
                    problems.append(f"{display_name(path)}: {error}. Rename it.")
                    continue
                except ProjectError as error:
                    problems.append(f"{display_name(path)}: {error}")
                    continue
                image = new_id(ids)
                ids.add(image)
                own += patient is None
                key = f"image {image}" if patient is None else f"name {patient}"
                hashed = patient_hash(self._session.identity.salt, key)
                new.append(ImageRecord(image, root, below, hashed, size))
            if new:
                self._table.save(new)
                self._session.journal.append("images_added", count=len(new))
        return AddedImages(tuple(r.id for r in new), n_known, own, tuple(problems))

    def _own_folders(self) -> list[Path]:
        # Images may lie in the project folder, but its own masks are none.
        names = ("labels", "drafts", "models")
        return [self._session.folder / name for name in names]

    def regroup(self, patient_of: PatientRule) -> int:
        """Tell the patients anew, by a rule; returns how many images changed.

        The rule sees each image's path below the folder that the project knows. Images
        for which it does not know stay as they are.
        """
        salt = self._session.identity.salt
        with self._session.writing():
            changed = []
            for record in self._table:
                patient = patient_of(PurePosixPath(record.path))
                if patient is not None:
                    hashed = patient_hash(salt, f"name {patient}")
                    if hashed != record.patient:
                        changed.append(replace(record, patient=hashed))
            if changed:
                self._table.save(changed)
                self._session.journal.append("images_regrouped", count=len(changed))
        return len(changed)

    # -- what is learned of them ---------------------------------------------

    def learn(self, image: str, angiogram: Angiogram) -> None:
        """Take note of what reading an image showed; written some time later."""
        count, *shape = angiogram.frames.shape
        self.learn_facts(image, angiogram.sha256, (shape[0], shape[1]), count)

    def learn_facts(
        self,
        image: str,
        sha256: str | None = None,
        shape: tuple[int, int] | None = None,
        frames: int | None = None,
    ) -> None:
        """Take note of an image's hash, rows and columns, or number of frames."""
        with self._session.reading():
            record = self._table[image]
            changed = replace(
                record,
                sha256=sha256 or record.sha256,
                shape=shape or record.shape,
                frames=frames or record.frames,
            )
            if sha256 and record.sha256 not in (None, sha256):
                # Another picture than before: what else was known may not hold.
                size = file_size(self.path(image))
                changed = replace(changed, size=size, shape=shape, frames=frames)
            self._table.learn(changed)
            if self._table.unsaved >= _SAVE_EVERY:
                self.save()

    def save(self) -> None:
        """Write what was learned; a failure is left for the next time."""
        if self._table.unsaved and not self._session.read_only:
            try:
                with self._session.writing():
                    self._table.save()
            except (ProjectError, WriteError):
                return

    def hash_all(self, should_stop: Callable[[], bool] = lambda: False) -> int:
        """Hash the files that were never read; returns how many could not be.

        With the hashes, images are found again even if they were renamed.
        """
        failed = 0
        for record in self._table:
            if should_stop():
                break
            if record.sha256 is None:
                try:
                    digest = hash_file(self._at.found_path(record.id), should_stop)
                except Cancelled:
                    break
                except (OSError, ProjectError):
                    failed += 1
                else:
                    self.learn_facts(record.id, digest)
        self.save()
        return failed

    def hash_of(self, image: str) -> str:
        """Hash of an image's file as it is now; raises ImageMissingError."""
        path = self._at.found_path(image)
        try:
            return hash_file(path)
        except OSError as error:
            raise ImageMissingError(
                f"Image {image} cannot be read ({error.strerror})."
            ) from error

    def add_lost(self, lost: dict[str, str | None]) -> None:
        """List images again of which only labels are left: id and hash of the file."""
        salt = self._session.identity.salt
        records = [
            ImageRecord(
                image, "lost", "", patient_hash(salt, f"image {image}"), None, sha256
            )
            for image, sha256 in lost.items()
        ]
        with self._session.writing():
            self._table.save(records)


def _posix(path: Path) -> PurePosixPath:
    return PurePosixPath(path.as_posix())
