"""Which images are of one patient, without the project knowing who that is."""

from __future__ import annotations

import csv
import hashlib
import hmac
import io
import unicodedata
from typing import TYPE_CHECKING

from napari_cmunet.errors import ReadError
from napari_cmunet.util.safe_files import read_plain

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path, PurePosixPath

    PatientRule = Callable[[PurePosixPath], str | None]

_MAX_CSV_BYTES = 2**26


def by_csv(path: Path) -> PatientRule:
    """By a CSV file with the columns ``stem`` and ``patient``; raises ReadError."""
    patients = read_patients(path)
    return lambda image: patients.get(image.stem)


def by_folder(level: int = 1) -> PatientRule:
    """One folder for each patient.

    Parameters
    ----------
    level : int
        Which folder below the one that was added: 1 is the first. An image that lies
        less deep is a patient of its own.
    """

    def rule(image: PurePosixPath) -> str | None:
        folders = image.parts[:-1]
        return "/".join(folders[:level]) if len(folders) >= level else None

    return rule


def by_prefix(until: str | int, parts: int = 1) -> PatientRule:
    """By the beginning of the file's name.

    Parameters
    ----------
    until : str or int
        What follows the beginning, such as ``_``; or how many characters it has.
    parts : int
        How often ``until`` stands before the beginning ends: ``p_12`` of ``p_12_LCA``
        has two parts.
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
    """By what a DICOM file says of its patient; takes the file, not its path below.

    Used wherever another rule does not know, so that cines of one patient never lie on
    both sides of a split. None if the file is not DICOM or says nothing.
    """
    # pydicom takes a moment to load.
    from napari_cmunet.io.sniffing import is_dicom

    if not is_dicom(image):
        return None
    from napari_cmunet.io.dicom.identity import patient_key

    return patient_key(image)


def patient_hash(salt: bytes, patient: str) -> str:
    """Name of a patient in the project; without the salt nobody can guess it."""
    # Names from other systems may be written with other code points, or be no text.
    name = unicodedata.normalize("NFC", patient.strip())
    text = f"patient {name}".encode("utf-8", "surrogatepass")
    return hmac.new(salt, text, hashlib.sha256).hexdigest()[:16]


def read_patients(path: Path) -> dict[str, str]:
    """The patient of each stem, from a CSV with the columns ``stem`` and ``patient``.

    Raises
    ------
    ReadError
        If it cannot be read or lacks a column.
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
