"""How long a reader has worked on an image, pauses left out."""

from __future__ import annotations

import time

PAUSE_SECONDS = 30.0


class ReadingClock:
    """Adds up the time between signs of life; a longer gap counts as a pause."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin anew, from now."""
        self._seconds = 0.0
        self._last = time.monotonic()

    def tick(self) -> None:
        """The reader has done something."""
        now = time.monotonic()
        self._seconds += min(now - self._last, PAUSE_SECONDS)
        self._last = now

    @property
    def seconds(self) -> float:
        """Seconds up to now."""
        return self._seconds + min(time.monotonic() - self._last, PAUSE_SECONDS)
