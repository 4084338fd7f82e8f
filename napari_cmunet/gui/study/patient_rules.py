"""Ways to tell which images are of one patient, with what each comes to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from napari_cmunet.study.patients import by_folder, by_prefix

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_cmunet.io.find import InputFile
    from napari_cmunet.study.patients import PatientRule

_SEPARATORS = ("_", "-", " ")
_MOST_IMAGES = 8
"""More images of each patient, in the mean, are not believed at first."""


@dataclass(frozen=True)
class PatientChoice:
    """One way.

    Parameters
    ----------
    text : str
        As offered to the reader.
    rule : callable or None
        None: each image is another patient.
    result : str
        What it comes to with these images.
    patients : int
    """

    text: str
    rule: PatientRule | None
    result: str
    patients: int = 0


def patient_choices(files: Iterable[InputFile]) -> list[PatientChoice]:
    """Ways that make sense for these files, the likeliest first.

    A rule makes sense if it puts some images together and not all of them. Of several,
    the one that puts most together comes first, since two patients taken for one do no
    harm; but hardly any patient has more than some images.
    """
    paths = [PurePosixPath(file.relative.as_posix()) for file in files]
    offered: list[PatientChoice] = []
    ways = [("One folder for each patient", by_folder(1))]
    ways += [
        (f"File names up to the {_ORDINAL[n]} “{sep}”", by_prefix(sep, n))
        for n in (1, 2, 3)
        for sep in _SEPARATORS
    ]
    seen: set[tuple[str | None, ...]] = set()
    for text, rule in ways:
        patients = tuple(rule(path) for path in paths)
        groups = Counter(p for p in patients if p is not None)
        together = len(groups) + patients.count(None)
        if patients in seen or not 1 < together < len(paths):
            continue
        seen.add(patients)
        offered.append(PatientChoice(text, rule, result_of(rule, paths), together))
    few = len(paths) / _MOST_IMAGES
    offered.sort(key=lambda choice: (choice.patients < few, choice.patients))
    alone = PatientChoice(
        "Each image is another patient", None, result_of(None, paths), len(paths)
    )
    return [*offered, alone]


_ORDINAL = {1: "first", 2: "second", 3: "third"}


def result_of(rule: PatientRule | None, paths: list[PurePosixPath]) -> str:
    """What a rule comes to, in words."""
    patients = [rule(path) if rule is not None else None for path in paths]
    groups = Counter(p for p in patients if p is not None)
    alone = patients.count(None)
    text = f"{len(groups) + alone} patients in {len(paths)} files"
    if groups:
        name, count = groups.most_common(1)[0]
        text += f"; for instance “{name}” has {count}"
    if groups and alone:
        text += f"; {alone} files are patients of their own"
    return f"{text}."
