"""A reader with every fault that fuzzing looks for: to see that it is seen."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_cmunet.errors import ReadError
from tests.fuzzing.targets import MEGABYTE

if TYPE_CHECKING:
    from random import Random


class Faulty:
    """Input after input, another fault."""

    limit = 16 * MEGABYTE

    def __init__(self, folder: Path) -> None:
        self._folder, self._written = folder, -6  # the first five warm up
        self.path = folder / "input"

    def write(self, random: Random) -> None:
        self._written += 1
        self.path.write_text(str(self._written), encoding="ascii")

    def read(self) -> None:
        number = int(self.path.read_text(encoding="ascii"))
        if number == 0:
            raise ValueError("no error of this program")
        if number == 1:
            Path("/etc/hostname").read_bytes()
        elif number == 2:
            outside = self._folder.parent / f"{self._folder.name}-outside"
            outside.write_text("x", encoding="ascii")
            outside.unlink()
        elif number == 3:
            os.system("true")
        elif number == 4:
            assert np.ones(48 * MEGABYTE, np.uint8).all()
        elif number == 5:
            raise ReadError(self.path, "two\nlines")
        elif number == 6:
            os.abort()

    def paths(self) -> list[Path]:
        return [self.path]
