"""Which patients validate: drawn once, when a patient's first label is accepted.

Of every five patients in a row one validates; which one is drawn by the project's salt.
So the share is right from the start, and no later patient moves an earlier one.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Literal

from napari_cmunet.project.errors import ProjectDamagedError
from napari_cmunet.project.files import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    Side = Literal["train", "validation"]

TRAIN: Side = "train"
VALIDATION: Side = "validation"
BLOCK = 5


class Split:
    """The sides of a project's patients.

    Parameters
    ----------
    path : Path
        ``split.json``.
    salt : bytes
    """

    def __init__(self, path: Path, salt: bytes) -> None:
        self.path = path
        self._salt = salt
        self._sides: dict[str, Side] = {}

    def load(self) -> None:
        """Read the file; raises ProjectDamagedError."""
        patients = (read_json(self.path) or {}).get("patients", {})
        if not isinstance(patients, dict) or any(
            side not in (TRAIN, VALIDATION) for side in map(str, patients.values())
        ):
            raise ProjectDamagedError(f"In the project, {self.path.name} is damaged.")
        self._sides = patients

    def side(self, patient: str) -> Side | None:
        """The side of a patient, None before the first label."""
        return self._sides.get(patient)

    def sides(self) -> dict[str, Side]:
        """All patients that have a side, in the order in which they got it."""
        return dict(self._sides)

    def preview(self, patients: Iterable[str]) -> dict[str, Side]:
        """The sides with some further patients, in this order; nothing is written."""
        sides = dict(self._sides)
        for patient in patients:
            if patient not in sides:
                sides[patient] = self._draw(len(sides))
        return sides

    def assign(self, patients: Iterable[str]) -> dict[str, Side]:
        """Give patients without one a side, and write it; raises WriteError.

        Returns
        -------
        dict
            Those that are new.
        """
        return self._write(self.preview(patients))

    def recall(self, sides: Mapping[str, Side]) -> None:
        """Take over sides from the journal, where none is known; nothing is written."""
        self._sides = {**sides, **self._sides}

    def save(self) -> None:
        """Write what is known; raises WriteError."""
        write_json(self.path, {"version": 1, "patients": self._sides})

    def _write(self, sides: dict[str, Side]) -> dict[str, Side]:
        new = {p: s for p, s in sides.items() if p not in self._sides}
        if new:
            write_json(self.path, {"version": 1, "patients": sides})
            self._sides = sides
        return new

    def _draw(self, number: int) -> Side:
        block, place = divmod(number, BLOCK)
        digest = hmac.new(self._salt, f"block {block}".encode(), hashlib.sha256)
        chosen = int.from_bytes(digest.digest()[:8]) % BLOCK
        return VALIDATION if place == chosen else TRAIN
