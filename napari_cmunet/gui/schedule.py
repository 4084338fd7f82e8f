"""Which image is predicted now and which ones wait."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_cmunet.gui.layers import source_array

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_cmunet.gui.prediction import ModelChoice
    from napari_cmunet.gui.prediction_runner import PredictionRunner
    from napari_cmunet.gui.reading import Reading


class Schedule:
    """One image at a time, the one that is worked on before the others.

    Parameters
    ----------
    runner : PredictionRunner
        Does the work.
    shown : callable
        The frame of a reading that the viewer shows.
    """

    def __init__(
        self, runner: PredictionRunner, shown: Callable[[Reading], int]
    ) -> None:
        self._runner = runner
        self._shown = shown
        self.current: Reading | None = None
        self.waiting: list[Reading] = []
        self._only: dict[Reading, int] = {}

    def add(
        self, reading: Reading, *, first: bool = False, only: int | None = None
    ) -> None:
        """Put an image in line, all of it or ``only`` one frame."""
        if only is None:
            self._only.pop(reading, None)
        else:
            self._only[reading] = only
        if reading is not self.current and reading not in self.waiting:
            self.waiting.insert(0 if first else len(self.waiting), reading)

    def remove(self, reading: Reading) -> None:
        """Take an image out of line; what it has already is kept."""
        self._only.pop(reading, None)
        if reading in self.waiting:
            self.waiting.remove(reading)
        if reading is self.current:
            self.current = None
            self._runner.stop()

    def clear(self) -> None:
        """Give up everything."""
        self._only.clear()
        self.waiting.clear()
        self.current = None
        self._runner.stop()

    def go_on(self, active: Reading | None, choice: ModelChoice) -> None:
        """Start what comes next; the active image interrupts another."""
        if active in self.waiting:
            self.waiting.remove(active)
            if self.current is not None:
                self.waiting.insert(0, self.current)
            self._start(active, choice)
        elif self.current is None and self.waiting:
            self._start(self.waiting.pop(0), choice)

    def _start(self, reading: Reading, choice: ModelChoice) -> None:
        self.current = reading
        image = reading.image
        only = self._only.get(reading)
        self._runner.start(
            source_array(image),
            reading.waiting_frames() if only is None else [only],
            focus=self._shown(reading) if only is None else only,
            cine=reading.is_cine,
            rgb=image.rgb,
            choice=choice,
        )
