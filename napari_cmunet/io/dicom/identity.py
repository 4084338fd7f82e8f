"""Patient identity: de-identified file names, and matching of patients.

Only two things leave this module: file names without identifying values, and a
patient key, of which only a salted hash may be stored.
"""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

from pydicom.multival import MultiValue
from pydicom.valuerep import PersonName

from napari_cmunet.errors import ReadError, display_name
from napari_cmunet.io.dicom.header import read_elements
from napari_cmunet.io.sniffing import SUFFIXES, open_sniffed

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from pydicom import Dataset

    from napari_cmunet.io.discovery import InputFile

_PEOPLE = (
    "PatientName",
    "OtherPatientNames",
    "PatientBirthName",
    "PatientMotherBirthName",
    "ResponsiblePerson",
    "ReferringPhysicianName",
    "PerformingPhysicianName",
    "PhysiciansOfRecord",
    "NameOfPhysiciansReadingStudy",
    "OperatorsName",
    "RequestingPhysician",
)
_IDS = (
    "PatientID",
    "OtherPatientIDs",
    "IssuerOfPatientID",
    "AccessionNumber",
    "StudyID",
    "AdmissionID",
    "DeviceSerialNumber",
    "StationName",
    "InstitutionName",
    "InstitutionAddress",
    "InstitutionalDepartmentName",
    "PatientAddress",
    "PatientTelephoneNumbers",
)
_DATES = ("PatientBirthDate",)
_UNIQUE = ("StudyInstanceUID",)
KEYWORDS = _PEOPLE + _IDS + _DATES + _UNIQUE

REPLACEMENT = "anon"
# Shorter values must match a whole word of a name; a single character is ignored.
_LEAST_INSIDE, _LEAST_WORD = 4, 2
# Longest file name; values of one element that are used.
_LONGEST, _MOST_VALUES = 255, 100


def patient_key(path: Path | str) -> str | None:
    """Return a key that is equal for DICOM files of the same patient.

    Returns
    -------
    str or None
        It may name the patient: store only a salted hash of it. None if the file is
        not DICOM or does not identify a patient.
    """
    dataset = _identity(path)
    if dataset is None:
        return None
    number = _text(dataset.get("PatientID"))
    if number:
        return f"dicom id {number}|{_text(dataset.get('IssuerOfPatientID'))}"
    name, born = (_text(dataset.get(k)) for k in ("PatientName", "PatientBirthDate"))
    if name:
        return f"dicom name {name}|{born}"
    study = _text(dataset.get("StudyInstanceUID"))
    return f"dicom study {study}" if study else None


def safe_name(path: Path | str) -> str:
    """Return a file's name without the identifying values in its DICOM header."""
    return Cleaner(identifying_values(path)).clean(display_name(path))


def without_identity(files: Sequence[InputFile]) -> list[InputFile]:
    """Remove identifying values from the relative names of files.

    Values from any of the DICOM files are removed from all names, since a folder or a
    damaged file may carry them too. Folders stay distinct, by a number. The result is
    deterministic.
    """
    values: set[str] = set()
    for file in files:
        values |= identifying_values(file.path)
    cleaner = Cleaner(values)
    same: dict[tuple[Path, str], list[str]] = {}
    renamed = []
    for file in files:
        relative = Path()
        for part in file.relative.parts[:-1]:
            name = cleaner.clean(part)
            if name != part:
                alike = same.setdefault((relative, name), [])
                if part not in alike:
                    alike.append(part)
                number = alike.index(part) + 1
                name = name if number == 1 else f"{name}-{number}"
            relative /= name
        relative /= cleaner.clean(file.relative.name)
        renamed.append(dataclasses.replace(file, relative=relative))
    return renamed


class Cleaner:
    """Removes identifying values from names.

    Parameters
    ----------
    values : collection of str
        As :func:`identifying_values` gives them.
    """

    def __init__(self, values: Collection[str]) -> None:
        longest_first = sorted(values, key=lambda value: (-len(value), value))
        patterns = "|".join(map(_pattern, longest_first))
        self._pattern = re.compile(patterns) if patterns else None

    def clean(self, name: str) -> str:
        """Replace identifying values in one part of a path."""
        # The suffix names the format, also where somebody is called "Dcm".
        suffix = Path(name).suffix
        if suffix.lower() in SUFFIXES and suffix != name:
            return self.clean(name.removesuffix(suffix)) + suffix
        if self._pattern is None:
            return name
        pieces, end = [], 0
        for found in self._pattern.finditer(_fold(name)):
            pieces += [name[end : found.start()], REPLACEMENT]
            end = found.end()
        return "".join([*pieces, name[end:]])


def identifying_values(path: Path | str) -> set[str]:
    """Return identifying values of a DICOM header, folded to plain letters."""
    dataset = _identity(path)
    if dataset is None:
        return set()
    values: set[str] = set()
    for keyword in _PEOPLE:
        for name in _each(dataset.get(keyword)):
            values.update(re.split(r"[\^=\s,]+", str(name)))
    for keyword in _IDS:
        values.update(str(value) for value in _each(dataset.get(keyword)))
    for date in _each(dataset.get("PatientBirthDate")):
        year, month, day = str(date)[:4], str(date)[4:6], str(date)[6:8]
        values.update((year + month + day, day + month + year, month + day + year))
    folded = {re.sub(r"[\W_]+", "", _fold(value)) for value in values}
    return {value for value in folded if _LEAST_WORD <= len(value) <= _LONGEST}


def shielded(error: ReadError) -> ReadError:
    """Return the error with a de-identified file name."""
    return ReadError(error.path, error.reason, safe_name(error.path))


def _identity(path: Path | str) -> dict[str, object] | None:
    try:
        with open_sniffed(path) as file:
            if file.kind != "DICOM":
                return None
            dataset = read_elements(file, KEYWORDS)
            return {k: v for k in KEYWORDS if (v := _value(dataset, k)) is not None}
    except Exception:  # noqa: BLE001
        # Reading the image reports what is wrong with the file.
        return None


def _value(dataset: Dataset, keyword: str) -> object:
    """Return an element's value; None if it is not text."""
    try:
        value = dataset.get(keyword)  # pydicom converts the bytes here
    except Exception:  # noqa: BLE001
        return None
    return value if isinstance(value, (str, PersonName, MultiValue)) else None


def _each(value: object) -> Iterable[object]:
    if value is None or value == "":
        return ()
    return value[:_MOST_VALUES] if isinstance(value, MultiValue) else (value,)


def _text(value: object) -> str:
    return str(value).strip() if value is not None else ""


def _fold(text: str) -> str:
    """Convert to lower case without accents, as far as that keeps the length."""
    plain = []
    for character in text:
        base = unicodedata.normalize("NFD", character)[:1].casefold()
        plain.append(base if len(base) == 1 else character)
    return "".join(plain)


def _pattern(value: str) -> str:
    """Match the value with any punctuation between its characters."""
    inner = r"[\W_]*".join(map(re.escape, value))
    if len(value) >= _LEAST_INSIDE:
        return inner
    return rf"(?<![^\W_]){inner}(?![^\W_])"
