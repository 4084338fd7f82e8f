"""Propagating the mask of a corrected frame to the one that is shown."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import shift

from napari_cmunet.synthetic import PhantomConfig, make_cine

CINE = make_cine(PhantomConfig(frames=4, size=128, seed=5))
FRAME, MASK = CINE.frames[-1], CINE.masks[-1]


@pytest.fixture
def image_state(viewer, controller, settled):
    """A cine that moves by a pixel a frame; its third frame is corrected."""
    frames = [shift(FRAME, (0, n), order=1, mode="nearest") for n in range(8)]
    viewer.add_image(np.stack(frames), name="c")
    settled(controller)
    made = controller.active
    made.replace(2, _moved(2))
    viewer.dims.set_point(0, 3)
    return made


def _moved(n: int) -> np.ndarray:
    return shift(MASK.astype(float), (0, n), order=0) > 0.5


def dice(one, other) -> float:
    return 2 * (one & other).sum() / (one.sum() + other.sum())


@pytest.fixture
def press(panel, viewer, qtbot):
    """Press J, and wait until what it asked for is there."""
    propagation = panel.cine.propagation.propagation

    def press() -> None:
        keys = {str(key): function for key, function in viewer.keymap.items()}
        keys["J"](viewer)
        qtbot.waitUntil(
            lambda: (
                propagation.proposal is None or propagation.proposal.mask is not None
            )
        )

    return press


def test_a_proposal_is_shown_and_taken_over_in_one_step(
    image_state, panel, press, viewer, controller
):
    propagation = panel.cine.propagation.propagation
    before = image_state.mask_frame(3).copy()
    press()
    assert np.array_equal(image_state.mask_frame(3), before)
    assert "From frame 2" in panel.cine.propagation.message.text()
    assert panel.cine.propagation.propose.text() == "Accept"
    preview = next(layer for layer in viewer.layers if layer.name == "propagated mask")
    shown = preview.data[0]
    wanted = propagation.proposal.mask
    assert np.array_equal(shown == 1, wanted & (before == 0))
    assert np.array_equal(shown == 2, ~wanted & (before != 0))
    press()
    assert preview not in viewer.layers
    assert np.array_equal(image_state.mask_frame(3) != 0, wanted)
    assert dice(wanted, _moved(3)) > 0.8
    assert image_state.is_corrected(3)
    controller.editor.undo()
    assert np.array_equal(image_state.mask_frame(3), before)
    controller.editor.redo()
    assert np.array_equal(image_state.mask_frame(3) != 0, wanted)


@pytest.mark.parametrize("way", ["escape", "button", "frame"])
def test_a_proposal_is_dismissed(image_state, panel, press, viewer, way):
    before = image_state.mask.data.copy()
    press()
    if way == "escape":
        keys = {str(key): function for key, function in image_state.mask.keymap.items()}
        keys["Escape"](image_state.mask)
    elif way == "button":
        panel.cine.propagation.dismiss.click()
    else:
        viewer.dims.set_point(0, 4)
        panel.refresh()
    assert panel.cine.propagation.propagation.proposal is None
    assert [layer.name for layer in viewer.layers] == ["c", "c prediction", "c mask"]
    assert "Escape" not in {str(key) for key in image_state.mask.keymap}
    assert np.array_equal(image_state.mask.data, before)


def test_strokes_meanwhile_are_part_of_what_is_shown(image_state, panel, press):
    press()
    propagation = panel.cine.propagation.propagation
    wanted = propagation.proposal.mask
    image_state.replace(3, wanted)
    panel.refresh()
    assert not propagation._preview.layer.data.any()


def test_without_a_corrected_frame_near_by_it_is_said(
    image_state, panel, press, viewer
):
    viewer.dims.set_point(0, 6)
    press()
    panel.refresh()
    assert "No other frame within 3" in panel.cine.propagation.message.text()
    viewer.dims.set_point(0, 5)
    panel.refresh()
    assert panel.cine.propagation.message.isHidden()
    press()
    assert panel.cine.propagation.propagation.proposal.source == 2


def test_an_accepted_frame_is_carried_too(image_state, panel, press, viewer):
    image_state.own_masks[5] = _moved(5)
    image_state.mask_frame(5)[...] = _moved(5)
    viewer.dims.set_point(0, 6)
    press()
    assert panel.cine.propagation.propagation.proposal.source == 5


def test_a_vessel_tool_takes_its_place(image_state, panel, press, viewer):
    from napari_cmunet.vessels.tools import ADD

    press()
    panel.vessels.tools.activate(ADD)
    panel.refresh()
    assert panel.cine.propagation.propagation.proposal is None
    press()
    assert panel.vessels.tools.tool is None
    assert "Escape" in {str(key) for key in image_state.mask.keymap}
