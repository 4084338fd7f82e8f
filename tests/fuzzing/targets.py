"""The readers that are fuzzed, by name."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

MEGABYTE = 2**20


class Target(Protocol):
    """A reader and the files that it is given.

    Made once for each run, with a folder of its own.
    """

    limit: int
    """Bytes that reading declares to take at most; twice as many are a fault."""

    def __init__(self, folder: Path) -> None: ...

    def write(self, random: Random) -> None:
        """Write the next input; only what was drawn from ``random`` tells what."""
        ...

    def read(self) -> None:
        """Read it; a CMUNetError is a refusal, any other a fault."""
        ...

    def paths(self) -> list[Path]:
        """Files of the input, to be kept if a fault is found."""
        ...


_WHERE = {
    "dicom": ("dicom_inputs", "Dicom"),
    "tiff": ("picture_inputs", "Tiff"),
    "raster": ("picture_inputs", "Raster"),
    "npy": ("picture_inputs", "Npy"),
    "model": ("model_inputs", "ModelFolder"),
    "checkpoint": ("checkpoint_inputs", "CheckpointFile"),
    "project": ("project_inputs", "ProjectFolder"),
    "label": ("picture_inputs", "LabelFile"),
    "patients": ("project_inputs", "PatientList"),
}
NAMES = tuple(_WHERE)
_WHERE["faulty"] = ("faulty_inputs", "Faulty")  # to test the fuzzing itself


def make(name: str, folder: Path) -> Target:
    """Make a target; only now what it needs is imported."""
    module, kind = _WHERE[name]
    return getattr(import_module(f"tests.fuzzing.{module}"), kind)(folder)
