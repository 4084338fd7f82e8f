"""The bundled model that proposes names of vessels."""

from __future__ import annotations

import numpy as np
from skimage.draw import line

from napari_cmunet.model.registry import load_model
from napari_cmunet.model.vessel_names import NAMES_MODEL, propose_names
from napari_cmunet.vessels.segments import SEGMENTS


def test_it_proposes_with_doubt_and_leaves_a_readers_names_alone():
    mask = np.zeros((256, 256), bool)
    for start, end in (((40, 60), (120, 50)), ((120, 50), (200, 120))):
        rows, columns = line(*start, *end)
        for row in range(-4, 5):
            mask[rows + row, columns] = True
    for column in range(-3, 4):
        mask[120:200, 50 + column] = True
    model = load_model(NAMES_MODEL)
    proposed = propose_names(mask, model)
    assert proposed
    assert all(0 < name.doubt < 1 for name in proposed)
    sides = {SEGMENTS[name.segment].side for name in proposed if name.segment}
    assert len(sides) == 1
    own = (proposed[0].__class__("15", proposed[0].points),)
    again = propose_names(mask, model, own)
    assert again[0] == own[0]
    assert {name.doubt for name in again if name.segment == "15"} == {0.0}
    assert propose_names(np.zeros_like(mask), model) == ()
