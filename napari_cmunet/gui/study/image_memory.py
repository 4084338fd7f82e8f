"""What the window remembers of an image that the reader has left.

What was looked at there, and the seconds of attention it has had, until the study is
closed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_cmunet.gui.vessel_tools.looked_at import looked_at, recall

if TYPE_CHECKING:
    from napari_cmunet.gui.study.clock import ReadingClock
    from napari_cmunet.gui.study.open_image import OpenImage
    from napari_cmunet.gui.vessel_tools.looked_at import LookedAt


class ImageMemory:
    """By the id of an image."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[LookedAt, ReadingClock]] = {}

    def recall(self, opened: OpenImage) -> None:
        """An image is shown: give back what is known of it; its clock goes on."""
        if opened.id in self._known:
            memory, opened.clock = self._known[opened.id]
            recall(opened.reading, memory)
        self._known[opened.id] = looked_at(opened.reading), opened.clock
        opened.clock.go_on()

    def forget(self) -> None:
        """The study is closed."""
        self._known.clear()
