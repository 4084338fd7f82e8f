from __future__ import annotations

import numpy as np
import pytest

from napari_cmunet.cine.best_frame import fill_curve, find_best_frame
from napari_cmunet.synthetic import PhantomConfig, make_cine


@pytest.mark.parametrize("seed", [3, 8])
@pytest.mark.slow
def test_the_best_filled_frame_shows_most_of_the_tree(seed):
    cine = make_cine(PhantomConfig(frames=20, size=192, seed=seed))
    area = cine.masks.sum(axis=(1, 2))
    best = find_best_frame(cine.frames)
    assert area[best] > 0.8 * area.max()
    assert area[best] > 1.2 * area.mean()


@pytest.mark.slow
def test_bits_and_sizes_do_not_matter():
    cine = make_cine(PhantomConfig(frames=12, size=192, seed=3))
    larger = np.repeat(np.repeat(cine.frames, 2, axis=1), 2, axis=2)
    deeper = larger.astype(np.uint16) * 16 + 300
    assert abs(find_best_frame(deeper) - find_best_frame(cine.frames)) <= 1


def test_one_can_stop_and_nothing_is_found_in_nothing():
    frames = np.zeros((4, 64, 64), np.uint8)
    assert fill_curve(frames, should_stop=lambda: True) is None
    assert find_best_frame(frames) is None
