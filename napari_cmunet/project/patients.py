"""Patients of a project, as salted hashes: rules that tell them, and their split.

One of every five patients in a row validates; which one is drawn by the project's
salt when the patient's first label is accepted. So the share is right from the start,
and no later patient moves an earlier one.
"""

from __future__ import annotations

import csv
import hashlib
import hmac
import io
import unicodedata
from typing import TYPE_CHECKING, Literal

from pydantic import TypeAdapter

from napari_cmunet.errors import ReadError
from napari_cmunet.project.files import Table
from napari_cmunet.util.safe_files import read_plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path, PurePosixPath

    PatientRule = Callable[[PurePosixPath], str | None]

Side = Literal["train", "validation"]

TRAIN: Side = "train"
VALIDATION: Side = "validation"
BLOCK = 5
_MAX_CSV_BYTES = 2**26


def by_csv(path: Path) -> PatientRule:
    """Return a rule from a CSV with the columns ``stem`` and ``patient``.

    Raises
    ------
    ReadError
    """
    patients = read_patients(path)
    return lambda image: patients.get(image.stem)


def by_folder(level: int = 1) -> PatientRule:
    """Return a rule for one folder per patient.

    Parameters
    ----------
    level : int
        Depth of the folder below the one that was added, from 1. An image less deep
        is a patient of its own.
    """

    def rule(image: PurePosixPath) -> str | None:
        folders = image.parts[:-1]
        return "/".join(folders[:level]) if len(folders) >= level else None

    return rule


def by_prefix(until: str | int, parts: int = 1) -> PatientRule:
    """Return a rule by the beginning of the file's name.

    Parameters
    ----------
    until : str or int
        What follows the beginning, such as ``_``; or how many characters it has.
    parts : int
        Number of parts that ``until`` divides the beginning into: ``p_12`` of
        ``p_12_LCA`` has two.
    """

    def rule(image: PurePosixPath) -> str | None:
        stem = image.stem
        if isinstance(until, int):
            return stem[:until] if 0 < until <= len(stem) else None
        pieces = stem.split(until) if until else []
        head = until.join(pieces[:parts]) if until else ""
        return head if len(pieces) > parts and head else None

    return rule


def by_dicom(image: Path) -> str | None:
    """Return the patient of a DICOM file, None if it is not DICOM or does not say.

    Used where another rule gives None, so that cines of one patient never lie on both
    sides of a split. Takes the file, not its path below a folder.
    """
    # pydicom takes a moment to load.
    from napari_cmunet.io.sniffing import is_dicom

    if not is_dicom(image):
        return None
    from napari_cmunet.io.dicom.identity import patient_key

    return patient_key(image)


def patient_hash(salt: bytes, patient: str) -> str:
    """Return the salted hash that stands for a patient in the project."""
    # Names from other systems may be written with other code points, or be no text.
    name = unicodedata.normalize("NFC", patient.strip())
    text = f"patient {name}".encode("utf-8", "surrogatepass")
    return hmac.new(salt, text, hashlib.sha256).hexdigest()[:16]


def read_patients(path: Path) -> dict[str, str]:
    """Read the patient of each stem from a CSV with ``stem`` and ``patient``.

    Raises
    ------
    ReadError
        If it cannot be read or a column is missing.
    """
    try:
        data = read_plain(path, _MAX_CSV_BYTES)
        if data is None:
            raise ReadError(path, "it is too large to be a list of patients.")
        with io.StringIO(data.decode("utf-8-sig"), newline="") as file:
            rows = csv.DictReader(file)
            if not {"stem", "patient"} <= set(rows.fieldnames or ()):
                raise ReadError(path, "it needs the columns 'stem' and 'patient'.")
            return {row["stem"]: row["patient"] for row in rows if row["patient"]}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or "not CSV in UTF-8"
        raise ReadError(path, f"the list cannot be read ({reason}).") from error


_SIDES = TypeAdapter(dict[str, Side])


class Split(Table[Side]):
    """The sides of a project's patients, ``split.json``."""

    def __init__(self, path: Path, salt: bytes) -> None:
        super().__init__(path, "patients", _SIDES)
        self._salt = salt

    def side(self, patient: str) -> Side | None:
        """Return the side of a patient, None before the first label."""
        return self._values.get(patient)

    def sides(self) -> dict[str, Side]:
        """Return all patients that have a side, in the order of assignment."""
        return dict(self._values)

    def preview(self, patients: Iterable[str]) -> dict[str, Side]:
        """Return the sides with further patients, in this order; nothing is written."""
        sides = dict(self._values)
        for patient in patients:
            if patient not in sides:
                sides[patient] = self._draw(len(sides))
        return sides

    def assign(self, patients: Iterable[str]) -> dict[str, Side]:
        """Assign a side to patients without one and write it; raises WriteError.

        Returns
        -------
        dict
            The new ones.
        """
        sides = self.preview(patients)
        new = {p: s for p, s in sides.items() if p not in self._values}
        if new:
            self.save(sides)
        return new

    def recall(self, sides: Mapping[str, Side]) -> None:
        """Take over sides from the journal where none is known, in memory."""
        self._values = {**sides, **self._values}

    def _draw(self, number: int) -> Side:
        block, place = divmod(number, BLOCK)
        digest = hmac.new(self._salt, f"block {block}".encode(), hashlib.sha256)
        chosen = int.from_bytes(digest.digest()[:8]) % BLOCK
        return VALIDATION if place == chosen else TRAIN
