"""Synthetic arteries in real frames: how dark, and which in which."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_cmunet.pretraining.copy_paste import DEPTH, draw_into, pairs


def test_wide_arteries_are_darker_than_thin_ones_and_the_rest_stays():
    frame = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    tree = torch.zeros_like(frame)
    tree[..., 10:24, :] = 1
    tree[..., 40:42, :] = 1
    faint, dark = (
        (frame - draw_into(frame, tree, torch.tensor([chance])))[0, 0, :, 32]
        for chance in (0.0, 1.0)
    )
    assert faint[17].item() == pytest.approx(DEPTH[0], rel=1e-4)
    assert dark[17].item() == pytest.approx(DEPTH[1], rel=1e-4)
    for drop in (faint, dark):
        assert 0.3 < drop[40] / drop[17] < 0.7
        assert drop[10] < 0.9 * drop[17]
        assert not drop[28:38].any()


@pytest.mark.parametrize("frames", [4, 8, 12])
@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_processes_compose_what_one_would(share, frames):
    whole = pairs(share, slice(0, 8), 8, frames)
    assert len(whole.phantoms) == 8 * share
    found = []
    for rank in range(4):
        part = pairs(share, slice(2 * rank, 2 * rank + 2), 8, frames)
        assert (part.frames < frames // 4).all()
        found += list(
            zip(part.phantoms + 2 * rank, part.frames + rank * frames // 4, strict=True)
        )
    assert found == list(zip(*whole, strict=True))


@pytest.mark.parametrize(("share", "of"), [(0.05, 8), (0.3, 8), (0.4, 2), (0.7, 8)])
def test_a_share_that_is_no_part_of_a_batch_is_met_over_the_steps(share, of):
    counts = [
        len(pairs(share, slice(0, of), of, 8, step).phantoms) for step in range(100)
    ]
    assert sum(counts) == pytest.approx(100 * of * share, abs=1)
    assert max(counts) - min(counts) <= 1


def test_none_are_composed_without_a_share():
    assert not np.size(pairs(0.0, slice(0, 8), 8, 8).phantoms)
