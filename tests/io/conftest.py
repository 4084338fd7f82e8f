from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_cmunet.synthetic import PhantomConfig, make_cine

if TYPE_CHECKING:
    from pathlib import Path

#: As a detector of 12 bits sees it.
CINE = make_cine(PhantomConfig(frames=3, size=64, seed=3, bits=12)).frames


@pytest.fixture
def frame() -> np.ndarray:
    """A frame (40, 48), uint8, no two rows or columns alike."""
    return np.random.default_rng(3).integers(1, 250, (40, 48), dtype=np.uint8)


@pytest.fixture
def cine() -> np.ndarray:
    """A cine (5, 40, 48), uint8."""
    return np.random.default_rng(4).integers(0, 256, (5, 40, 48), dtype=np.uint8)


@pytest.fixture
def saved(tmp_path: Path):
    """Save an array as NPY and return its path."""

    def save(array: np.ndarray, name: str = "a.npy") -> Path:
        path = tmp_path / name
        np.save(path, array)
        return path

    return save
