"""How long a hand takes: constants, with where they come from, and a stopwatch."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Hand:
    """A person at a mouse.

    Speeds are in pixels of the screen. Paint speed falls with the margin, and jitter
    grows with the speed, as in the simulated annotator of RootPainter
    (``trainer/tests/sim_benchmark``): the fastest at which three standard deviations
    of jitter stay within the margin. Clicks, keys and thinking are the operators of
    the keystroke-level model (Card, Moran and Newell 1980, doi 10.1145/358886.358895).

    Attributes
    ----------
    screen
        Pixels of the screen that the frame's longer side fills.
    travel
        Speed of a mouse that does not paint (RootPainter: 800).
    slowest, fastest
        Limits of the speed while painting (RootPainter: 30 and 200).
    jitter
        Standard deviation of the aim in pixels, per pixel a second (RootPainter: 0.04).
    think
        Finding the next error and deciding what to do (operator M: 1.35 s).
    click
        Button down and up (operator B, twice: 0.2 s).
    key
        One key (operator K of an average typist: 0.28 s).
    preview
        Seeing that what a tool offers is not what is wanted.
    """

    screen: float = 1024.0
    travel: float = 800.0
    slowest: float = 30.0
    fastest: float = 200.0
    jitter: float = 0.04
    think: float = 1.35
    click: float = 0.2
    key: float = 0.28
    preview: float = 0.6

    def zoom(self, side: int) -> float:
        """Pixels of the screen for one of a frame with this longer side."""
        return self.screen / side

    def paint_speed(self, margin: float, side: int) -> float:
        """Pixels of the frame a second that keep within a margin in such pixels."""
        zoom = self.zoom(side)
        fast = margin * zoom / (3 * self.jitter)
        return float(np.clip(fast, self.slowest, self.fastest)) / zoom


FAST_BRUSH = Hand(slowest=200.0)
"""Paints at full speed however thin the vessel: all that speaks for the brush."""


@dataclass
class Tally:
    """What a correction has cost so far.

    Attributes
    ----------
    where : dict of str to float
        Seconds by what they went into.
    used : dict of str to int
        How often each tool was of use.
    """

    where: dict[str, float] = field(default_factory=dict)
    strokes: int = 0
    clicks: int = 0
    keys: int = 0
    used: dict[str, int] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """In all."""
        return sum(self.where.values())

    def spend(self, what: str, seconds: float) -> None:
        """Let some time pass."""
        self.where[what] = self.where.get(what, 0.0) + seconds

    def note(self, tool: str) -> None:
        """One more use of a tool."""
        self.used[tool] = self.used.get(tool, 0) + 1
