"""Correct a mask with a set of tools, error by error, and take the time."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import gaussian_filter1d

from benchmarks.simulated_reader.errors import Error, Truth
from benchmarks.simulated_reader.hand import Hand, Tally
from napari_cmunet.training.evaluation.metrics import cldice, dice
from napari_cmunet.vessels.centreline import length, resample, smooth, tube
from napari_cmunet.vessels.tools import (
    EditContext,
    Point,
    Proposal,
    propose_branch,
    propose_bridge,
    propose_path,
    propose_removal,
    propose_run_removal,
    start_path,
)
from napari_cmunet.vessels.tree import build_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from napari_cmunet.vessels.vesselness import FrameFeatures

_MAX_ACTIONS = 400
_MIN_SHARE = 0.5  # of an error that a proposal must correct
_LONG = 60.0  # pixels of a superfluous run


class Action(StrEnum):
    """What the annotator can do beside painting."""

    TRACE = "trace"
    ACCEPT = "accept"
    REMOVE = "remove"
    BRIDGE = "bridge"
    NOT_ARTERY = "not artery"


_TOOL_OF = {
    Action.TRACE: "add",
    Action.ACCEPT: "add",
    Action.BRIDGE: "add",
    Action.REMOVE: "remove",
    Action.NOT_ARTERY: "remove",
}
_PROPOSE: dict[Action, Callable[[EditContext, Point], Proposal | None]] = {
    Action.ACCEPT: propose_branch,
    Action.BRIDGE: propose_bridge,
    Action.REMOVE: propose_removal,
    Action.NOT_ARTERY: propose_run_removal,
}

PRESSING, THINKING = "clicks and keys", "finding and deciding"


@dataclass(frozen=True)
class Correction:
    """A corrected mask and its cost.

    Parameters
    ----------
    mask : bool array (Y, X)
    tally : Tally
    dice, cldice : float
        Against the truth, at the end.
    left : int
        Errors that could not be corrected.
    """

    mask: np.ndarray
    tally: Tally
    dice: float
    cldice: float
    left: int


def correct(
    features: FrameFeatures,
    mask: np.ndarray,
    truth: np.ndarray,
    tools: Collection[Action] = (),
    hand: Hand | None = None,
    seed: int = 0,
) -> Correction:
    """Correct a mask until no error is left that counts.

    The longest error is taken first, with a tool for its kind before the brush. A
    proposal is seen before the click and accepted if it corrects at least half of the
    error. A rejected proposal costs time, too.

    Parameters
    ----------
    features : FrameFeatures
        Of the frame.
    mask : array (Y, X)
        The start; above 0 is artery.
    truth : array (Y, X)
    tools : collection of Action
        In addition to the brush.
    hand : Hand, optional
    seed : int
        Of the jitter.
    """
    reader = _Reader(features, mask, truth, tools, hand or Hand(), seed)
    reader.work()
    return Correction(
        reader.mask,
        reader.tally,
        dice(reader.mask, reader.truth.mask),
        cldice(reader.mask, reader.truth.mask),
        reader.left,
    )


class _Reader:
    def __init__(self, features, mask, truth, tools, hand, seed) -> None:
        self.features = features
        self.mask = np.array(mask) > 0
        self.truth = Truth(truth)
        self.actions = set(tools)
        self.hand = hand
        self.tally = Tally()
        self.left = 0
        self._random = np.random.default_rng(seed)
        self._side = max(self.mask.shape)
        self._at = np.array(self.mask.shape, float) / 2
        self._in_hand = "paint"
        self._brush = 3
        self._context: EditContext | None = None

    def work(self) -> None:
        given_up: list[np.ndarray] = []
        for _ in range(_MAX_ACTIONS):
            errors = [
                e
                for e in self.truth.errors(self.mask)
                if not any(_same(e.line, line) for line in given_up)
            ]
            if not errors:
                break
            before = self.truth.burden(self.mask)
            self.tally.spend(THINKING, self.hand.think)
            worst = errors[0]
            if not any(self._try(tool, worst, before) for tool in self._fitting(worst)):
                self._by_brush(worst)
            if self.truth.burden(self.mask) >= before:
                given_up.append(worst.line)
        # A last look, and accepting.
        self.tally.spend(THINKING, self.hand.think)
        self.tally.spend(PRESSING, self.hand.key)
        self.left = len(given_up)

    def _fitting(self, error: Error) -> list[Action]:
        if error.border:
            order = []
        elif error.missing:
            order = [Action.ACCEPT, Action.BRIDGE, Action.TRACE]
        elif error.length > _LONG * self.truth.scale or is_detached(
            self._look(), _middle(error)
        ):
            order = [Action.NOT_ARTERY, Action.REMOVE]
        else:
            order = [Action.REMOVE, Action.NOT_ARTERY]
        return [tool for tool in order if tool in self.actions]

    # -- vessel tools ---------------------------------------------------

    def _try(self, tool: Action, error: Error, before: int) -> bool:
        """Use a tool if what it offers is good; True if it was used."""
        context = self._look()
        middle = _middle(error)
        if tool is Action.TRACE:
            first, last = self._aim(error.line[0]), self._aim(error.line[-1])
            made = propose_path(context, start_path(context, first), last)
            stops = [first, last]
        else:
            made, stops = _PROPOSE[tool](context, middle), [middle]
            # No missing branch and no gap there: nothing is tried.
            if made is None:
                return False
        after = self.mask.copy()
        made.edit.apply(after)
        mended = before - self.truth.burden(after)
        wanted = _MIN_SHARE * self._weight(error)
        self._take(_TOOL_OF[tool])
        if tool is Action.NOT_ARTERY and not is_detached(context, middle):
            self._press()  # Shift
        for stop in stops:
            self._move(stop)
        if not len(made.edit) or mended < wanted:
            self.tally.spend("previews rejected", self.hand.preview)
            return False
        self.tally.spend(PRESSING, self.hand.click * len(stops))
        self.tally.clicks += len(stops)
        self.tally.note(str(tool))
        self._set(after)
        return True

    def _weight(self, error: Error) -> float:
        """Pixels that are wrong because of an error."""
        wrong = self.truth.wrong(self.mask)[0 if error.missing else 1]
        near = np.zeros(wrong.shape, bool)
        radius = np.full(len(error.line), error.radius + 1.0)
        near[tube(error.line, radius, wrong.shape)] = True
        return float((wrong & near).sum())

    # -- the brush ------------------------------------------------------------------

    def _by_brush(self, error: Error) -> None:
        """Paint or erase along an error, with a brush as wide as it is."""
        line = resample(smooth(resample(error.line.astype(float)), 2.0))
        after = self.mask.copy()
        if error.missing:
            self._take("paint")
            for stretch, radius in self._stretches(line):
                after[self._stroke(stretch, radius)] = True
        else:
            self._take("erase")
            # Not into the artery beside it.
            rows, columns = self._stroke(line, error.radius + 0.5)
            spared = self.truth.mask[rows, columns]
            after[rows[~spared], columns[~spared]] = False
        self.tally.note("brush")
        self._set(after)

    def _stretches(self, line: np.ndarray):
        """Parts of a true centreline that one brush size fits, each with its size."""
        at = tuple(np.round(line).astype(int).T)
        tree = self.truth.tree
        points = np.concatenate([b.points for b in tree.branches])
        radii = np.concatenate([b.radii for b in tree.branches])
        nearest = [int(np.hypot(*(points - p).T).argmin()) for p in np.stack(at, 1)]
        wide = gaussian_filter1d(radii[nearest], 4.0, mode="nearest")
        first = 0
        for index in range(1, len(line) + 1):
            part = wide[first : index + 1]
            done = index == len(line)
            if done or np.ptp(part) > 2 * self.truth.tolerance:
                yield line[first:index], float(np.median(wide[first:index]))
                first = max(first, index - 1)

    def _stroke(self, line: np.ndarray, radius: float):
        """Draw along a line; pixels that the brush has touched."""
        self._size(max(1, round(2 * radius)))
        self._move(line[0])
        margin = self.truth.tolerance
        speed = self.hand.paint_speed(margin, self._side)
        self.tally.spend(PRESSING, self.hand.click)
        self.tally.spend("painting", length(line) / speed)
        self.tally.strokes += 1
        sigma = min(speed * self.hand.jitter, margin / 3)
        noise = self._random.normal(0, 1, line.shape)
        if len(line) > 4:
            noise = gaussian_filter1d(noise, 3.0, axis=0, mode="nearest")
            noise /= max(noise.std(), 1e-9)
        self._at = line[-1]
        return tube(
            line + sigma * noise, np.full(len(line), self._brush / 2), self._shape
        )

    @property
    def _shape(self) -> tuple[int, int]:
        return self.mask.shape

    # -- the hand ---------------------------------------------------------------------

    def _aim(self, point: np.ndarray) -> tuple[float, float]:
        """Where a click lands that is meant for a point."""
        sigma = self.truth.tolerance / 3
        row, column = point + self._random.normal(0, sigma, 2)
        return float(row), float(column)

    def _press(self, more: float = 0.0) -> None:
        self.tally.spend(PRESSING, self.hand.key + more)
        self.tally.keys += 1

    def _take(self, tool: str) -> None:
        if self._in_hand != tool:
            self._press()
            self._in_hand = tool

    def _size(self, diameter: int) -> None:
        # One key for each pixel; a held key goes on faster than single presses.
        steps = abs(diameter - self._brush)
        if steps:
            self._press(0.1 * (steps - 1))
            self._brush = diameter

    def _move(self, point) -> None:
        way = float(np.hypot(*(np.asarray(point, float) - self._at)))
        zoom = self.hand.zoom(self._side)
        self.tally.spend("moving", way * zoom / self.hand.travel)
        self._at = np.asarray(point, float)

    def _look(self) -> EditContext:
        if self._context is None:
            self._context = EditContext(self.features, build_tree(self.mask))
        return self._context

    def _set(self, mask: np.ndarray) -> None:
        self.mask = mask
        self._context = None


def is_detached(context: EditContext, point: Point) -> bool:
    """Whether the branch under a point is not connected to the tree."""
    branch = context.branch_at(point)
    return branch is not None and context.tree.is_detached(branch)


def _middle(error: Error) -> tuple[float, float]:
    row, column = error.line[len(error.line) // 2]
    return float(row), float(column)


def _same(line: np.ndarray, other: np.ndarray) -> bool:
    """Whether two errors lie in the same place."""
    middle = line[len(line) // 2]
    return float(np.hypot(*(other - middle).T).min()) < 4
