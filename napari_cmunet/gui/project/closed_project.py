"""The image that a closed project leaves open, as one of no project."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from napari_cmunet.gui.project.open_image import OpenImage


class Remains:
    """Knows whether anything was painted on it since then.

    Nor would it be safe to take it away: with OpenGL in software, napari crashes when
    the last layers go while a brush was in hand.
    """

    def __init__(self) -> None:
        self._left: tuple[OpenImage, np.ndarray | None] | None = None

    def keep(self, opened: OpenImage) -> None:
        """The project is closed; this image stays."""
        opened.image_state.in_project = False
        mask = opened.image_state.mask
        self._left = opened, None if mask is None else mask.data.copy()

    def untouched(self) -> OpenImage | None:
        """The image, if nothing was painted on it."""
        if self._left is None:
            return None
        opened, before = self._left
        mask = opened.image_state.mask
        same = mask is None or (
            before is not None and np.array_equal(mask.data, before)
        )
        return opened if same else None

    def forget(self) -> None:
        """Another image has taken its place."""
        self._left = None
