"""How long a reader has worked on an image, pauses left out."""

from __future__ import annotations

from time import monotonic

PAUSE_SECONDS = 15.0
"""Somebody who looks and thinks moves the mouse or presses a key before long."""


class ReadingClock:
    """Adds up the time between signs of life; a longer gap counts as a pause."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._last: float | None = None

    def restart(self) -> None:
        """Begin anew, from now."""
        self._seconds = 0.0
        self._last = monotonic()

    def go_on(self) -> None:
        """The image is seen from now on; the time before does not count."""
        self._last = monotonic()

    def stop(self) -> None:
        """The image is left."""
        self._seconds = self.seconds
        self._last = None

    def tick(self) -> None:
        """The reader has done something."""
        if self._last is not None:
            self._seconds = self.seconds
            self._last = monotonic()

    @property
    def seconds(self) -> float:
        """Seconds of attention up to now."""
        if self._last is None:
            return self._seconds
        return self._seconds + min(monotonic() - self._last, PAUSE_SECONDS)
