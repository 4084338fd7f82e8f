"""Whatever a reader does, undoing all of it gives the prediction back."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tests.gui.conftest import cine, expected


def act(rng: random.Random, viewer, controller) -> None:
    """Do one thing that a reader might do."""
    correct, image_state = controller.editor, controller.active
    what = rng.choice(["paint", "paint", "drag", "keys", "reset", "scrub", "idle"])
    if what == "scrub":
        viewer.dims.set_point(0, rng.randrange(4))
    elif what == "paint":
        # Also strokes through several frames' worth of the same place.
        mask, frame = image_state.mask, controller.shown(image_state)
        with mask.block_history():
            for _ in range(rng.randrange(1, 4)):
                place = (frame, rng.randrange(16), rng.randrange(16))
                mask.paint(place, rng.randrange(2))
    elif what == "drag":
        correct.begin_threshold()
        for _ in range(rng.randrange(1, 4)):
            correct.move_threshold(rng.randrange(101) / 100)
        correct.end_threshold()
    elif what == "keys":
        value = float(image_state.thresholds[controller.shown(image_state)])
        for i in range(rng.randrange(1, 5)):
            value = min(1.0, max(0.0, value + rng.choice([-0.05, 0.05])))
            correct.move_threshold(value, join=i > 0)
    elif what == "reset":
        correct.reset_frame()
    elif what == "idle":
        correct._on_idle()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.slow
def test_undo_all_and_redo_all(seed, viewer, controller, settled):
    rng = random.Random(seed)
    image = cine(4, size=32)
    viewer.add_image(image)
    settled(controller)
    image_state = controller.active
    image_state.mask.brush_size = 3
    for _ in range(30):
        act(rng, viewer, controller)
    settled(controller)
    final, threshold = image_state.mask.data.copy(), image_state.threshold
    for _ in range(100):
        image_state.mask.undo()
        if rng.random() < 0.3:
            viewer.dims.set_point(0, rng.randrange(4))
    settled(controller)
    assert image_state.threshold == 0.5
    np.testing.assert_array_equal(image_state.mask.data, expected(image))
    assert image_state.corrections.unsaved() == []
    for _ in range(100):
        image_state.mask.redo()
    settled(controller)
    assert image_state.threshold == threshold
    np.testing.assert_array_equal(image_state.mask.data, final)
