"""What was there before the contrast is left out, and arteries are not."""

from __future__ import annotations

import numpy as np
import pytest

from napari_cmunet.cine.subtraction import (
    KEPT_PROBABILITY,
    frames_before,
    subtract,
    suppressed,
)
from napari_cmunet.model.threshold import mask_at, threshold_byte
from napari_cmunet.vessels.centreline import tube

SIDE, BEFORE, TIMES = 256, 3, 6
BYTE = threshold_byte(0.7)


def line(start, end, radius=3.0):
    """Pixels of a straight vessel, bool (Y, X)."""
    drawn = np.zeros((SIDE, SIDE), bool)
    points = np.linspace(start, end, 400)
    drawn[tube(points, np.full(400, radius), drawn.shape)] = True
    return drawn


ARTERY = line((20, 120), (230, 130), 4.0)
WIRE = line((60, 10), (60, 240))


def found_in(frames, probability):
    """What is left out, by frame."""
    every = subtract(frames, probability, BYTE)
    return {time: found for time, found in every if found is not None}


class Cine:
    """A cine and what a network that tells contrast says of it.

    Parameters
    ----------
    rest : float
        Share of the contrast that is in the artery before the injection.
    shift : int
        Pixels by which the wire moves with the injection.
    wire : bool array (Y, X)
    """

    def __init__(self, rest=0.0, shift=0, wire=WIRE) -> None:
        rng = np.random.default_rng(0)
        self.frames = 180 + rng.normal(0, 3, (TIMES, SIDE, SIDE))
        self.probability = np.full((TIMES, SIDE, SIDE), 5, np.uint8)
        self.wire = np.roll(wire, shift, axis=0)
        for time in range(TIMES):
            filled = 1.0 if time >= BEFORE else rest
            there = self.wire if time >= BEFORE else wire
            self.frames[time] -= 60 * there + 80 * filled * ARTERY
            found = there | (ARTERY if filled else np.zeros_like(ARTERY))
            self.probability[time][found] = 240
            if time < BEFORE:  # such a network leaves it empty
                one = self.probability[time]
                self.probability[time] = one * KEPT_PROBABILITY
        self.found = found_in(self.frames, self.probability)


@pytest.mark.parametrize("shift", [0, 2])
def test_a_wire_is_left_out_in_all_frames_with_contrast(shift):
    cine = Cine(shift=shift)
    assert sorted(cine.found) == list(range(BEFORE, TIMES))
    away = np.abs(np.arange(SIDE) - 125) > 20
    for time, found in cine.found.items():
        left = mask_at(suppressed(cine.probability[time], found), 0.7)
        assert not (left & cine.wire & away).any()
        assert (left & ARTERY).sum() > 0.95 * ARTERY.sum()


def test_an_artery_with_a_rest_of_contrast_stays():
    cine = Cine(rest=0.4)
    for found in cine.found.values():
        assert (found & ARTERY).sum() < 0.05 * ARTERY.sum()


def test_a_wire_that_is_elsewhere_now_is_not_told():
    assert not Cine(shift=30).found


def test_a_short_piece_stays():
    assert not Cine(wire=line((60, 40), (60, 48))).found


@pytest.mark.parametrize(("end", "told"), [(100, False), (145, True)])
def test_a_hole_in_an_artery_is_left_only_where_it_is_long(end, told):
    """Something that was there before lies on the artery itself."""
    covered = ARTERY.copy()
    covered[:80] = covered[end:] = False
    cine = Cine(wire=covered)
    for time in range(BEFORE, TIMES):
        cine.frames[time] += 80 * (ARTERY & covered)  # not darker than before
    cine.found = found_in(cine.frames, cine.probability)
    assert bool(cine.found) == told


def test_what_is_left_out_keeps_a_quarter():
    probability = np.array([[200, 100]], np.uint8)
    made = suppressed(probability, np.array([[True, False]]))
    assert made.tolist() == [[50, 100]]
    assert made.dtype == np.uint8
    assert probability[0, 0] == 200
    exact = suppressed(probability / np.float32(255), np.array([[True, False]]))
    assert exact.dtype == np.float32
    assert exact[0, 0] == pytest.approx(50 / 255)


def test_without_frames_before_the_contrast_nothing_is_left_out():
    cine = Cine()
    assert not found_in(cine.frames[BEFORE:], cine.probability[BEFORE:])
    assert not found_in(cine.frames[:BEFORE], cine.probability[:BEFORE])


def test_again_changes_nothing():
    cine = Cine()
    for time, found in cine.found.items():
        cine.probability[time] = suppressed(cine.probability[time], found)
    assert not found_in(cine.frames, cine.probability)


def test_the_first_empty_frames_before_the_fullest_one_count():
    def before(*sizes):
        """Frames with so many pixels of artery each; None for an emptied one."""
        probability = np.full((len(sizes), 4, 4), 60, np.uint8)
        for one, size in zip(probability, sizes, strict=True):
            one.ravel()[: size or 0] = 240
        return frames_before(probability, BYTE)

    assert before(0, 0, 3, 0, 9, 5, 0) == [0, 1, 3]
    assert before(*[0] * 10, 4) == [0, 1, 2, 3, 4, 5]
    assert before(0, 0, 9) == []
    assert before(5, 0, 0, 0) == []
    assert before(0, 0, 0, 0) == []


def test_a_frame_that_was_not_emptied_tells_nothing():
    cine = Cine()
    cine.probability[:BEFORE] = 100  # below the threshold, but no quarter
    assert not found_in(cine.frames, cine.probability)


def test_a_trunk_that_fills_before_the_contrast_is_told_stays():
    """Its first frames with contrast are left empty, too, as so little is filled."""
    cine = Cine()
    frames, probability = cine.frames[[0, 1, 2, 2, 2, 2, 3, 4]], cine.probability
    probability = probability[[0, 1, 2, 2, 2, 2, 3, 4]]
    frames[3:6] -= 80 * ARTERY
    probability[3:6][:, ARTERY] = 240 // 4
    for found in found_in(frames, probability).values():
        assert (found & WIRE).sum() > 0.5 * WIRE.sum()
        crossing = np.abs(np.arange(SIDE) - 60) < 16
        assert not (found & ARTERY)[~crossing].any()


def test_a_large_frame_is_looked_at_more_coarsely():
    cine = Cine()
    frames, probability = (
        a.repeat(5, 1).repeat(5, 2)[:, :1278, :1275]
        for a in (cine.frames, cine.probability)
    )
    found = found_in(frames, probability)
    assert sorted(found) == sorted(cine.found)
    for time, mask in found.items():
        assert mask.shape == (1278, 1275)
        wanted = cine.found[time].repeat(5, 0).repeat(5, 1)[:1278, :1275]
        assert (mask & wanted).sum() > 0.8 * mask.sum()
        assert (mask & wanted).sum() > 0.8 * wanted.sum()
