"""Which patients validate: split by patient, and fixed once a patient is in."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

FEW_PATIENTS = 8
"""Below this, one held-out part says too little: each patient is left out in turn."""

PARTS = 4
"""Parts that patients are left out in, where one by one would take too long."""


def validates(patient: str, share: float = 0.2) -> bool:
    """Whether a patient belongs to validation.

    Decided by a hash of the patient alone, so that more patients, or fewer, never
    move one to the other side.

    Parameters
    ----------
    patient : str
        Any stable name of the patient.
    share : float
        Expected share of the patients that validate.
    """
    digest = hashlib.sha256(f"napari-cmunet split {patient}".encode()).digest()
    return int.from_bytes(digest[:8]) < share * 2**64


def split_by_patient(
    patients: Sequence[str], share: float = 0.2
) -> tuple[list[int], list[int]]:
    """Indices that train and indices that validate.

    Parameters
    ----------
    patients : sequence of str
        The patient of each label.
    share : float
        Expected share of the patients that validate.

    Returns
    -------
    train, validation : lists of int
        ``validation`` may be empty.
    """
    train, validation = [], []
    for index, patient in enumerate(patients):
        (validation if validates(patient, share) else train).append(index)
    return train, validation


def leave_patients_out(
    patients: Sequence[str],
) -> list[tuple[list[int], list[int]]]:
    """Indices to learn from and indices left out, so that each patient is out once.

    Few patients are left out one by one, more of them in :data:`PARTS` parts.
    """
    known = sorted(set(patients))
    parts = len(known) if len(known) < FEW_PATIENTS else PARTS
    part = {patient: number % parts for number, patient in enumerate(known)}
    return [
        (
            [i for i, p in enumerate(patients) if part[p] != number],
            [i for i, p in enumerate(patients) if part[p] == number],
        )
        for number in range(parts)
    ]
