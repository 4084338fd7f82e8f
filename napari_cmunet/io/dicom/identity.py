"""Whom a DICOM file is about: to keep that at home, and to know who is the same.

Nothing of it leaves this module but in two forms: names of files with what identifies
somebody taken out, and a patient's key, of which only a salted hash may be kept.
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
from napari_cmunet.io.sniffing import open_source

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
# A shorter value counts only where it is a whole word of a name; one of a single
# character says nothing.
_LEAST_INSIDE, _LEAST_WORD = 4, 2
# No name of a file is longer. Only a file made to harm has more values in an element.
_LONGEST, _MOST_VALUES = 255, 100


def patient_key(path: Path | str) -> str | None:
    """Tell patients apart by what their DICOM files say.

    Returns
    -------
    str or None
        The same for all files of a patient, as far as the files tell. It may name the
        patient: keep a salted hash of it and nothing else. None if it is no DICOM
        file, or says nothing.
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
    """A file's name as it may be shown, without what identifies somebody.

    What is to be left out is what the file itself says, if it is DICOM.
    """
    return Cleaner(identifying_values(path)).clean(display_name(path))


def without_identity(files: Sequence[InputFile]) -> list[InputFile]:
    """The same files, with nobody's identity in their relative names.

    What any of the DICOM files says of its patient is looked for in the names of all,
    since a folder and a broken file are often named alike. Folders stay apart, by a
    number, and the same files always get the same names.
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
    """Takes identifying values out of names.

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
        """Replace what identifies somebody in one part of a path."""
        if self._pattern is None:
            return name
        pieces, end = [], 0
        for found in self._pattern.finditer(_fold(name)):
            pieces += [name[end : found.start()], REPLACEMENT]
            end = found.end()
        return "".join([*pieces, name[end:]])


def identifying_values(path: Path | str) -> set[str]:
    """Values in a DICOM file's header that name somebody, folded to plain letters."""
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
    """The same error, not naming its file by what identifies somebody."""
    return ReadError(error.path, error.reason, safe_name(error.path))


def _identity(path: Path | str) -> dict[str, object] | None:
    try:
        with open_source(path) as source:
            if source.kind != "DICOM":
                return None
            dataset = read_elements(source, KEYWORDS)
            return {k: v for k in KEYWORDS if (v := _value(dataset, k)) is not None}
    except Exception:  # noqa: BLE001
        # Reading the file in earnest will say what is wrong with it.
        return None


def _value(dataset: Dataset, keyword: str) -> object:
    """An element's value; None if it is none that names somebody."""
    try:
        value = dataset.get(keyword)  # only now pydicom makes a value of the bytes
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
    """Small letters without accents, as far as that keeps the length."""
    plain = []
    for character in text:
        base = unicodedata.normalize("NFD", character)[:1].casefold()
        plain.append(base if len(base) == 1 else character)
    return "".join(plain)


def _pattern(value: str) -> str:
    """The value with anything but letters and digits between its characters."""
    inner = r"[\W_]*".join(map(re.escape, value))
    if len(value) >= _LEAST_INSIDE:
        return inner
    return rf"(?<![^\W_]){inner}(?![^\W_])"
