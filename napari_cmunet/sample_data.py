"""File, Open Sample, CM-UNet: synthetic angiograms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_cmunet.synthetic import PhantomConfig, make_cine, make_frame

if TYPE_CHECKING:
    from napari.types import LayerData

# Seeds that show a whole, well-filled tree with some crossing vessels.
FRAME = PhantomConfig(size=512, seed=12)
CINE = PhantomConfig(frames=30, size=512, seed=12, side="left")


def sample_frame() -> list[LayerData]:
    """Make one frame at full contrast."""
    image, _ = make_frame(FRAME)
    return [(image, {"name": "Synthetic angiogram", "colormap": "gray"}, "image")]


def sample_cine() -> list[LayerData]:
    """Make a cine (T, Y, X), from before the injection to the washout."""
    cine = make_cine(CINE)
    options = {
        "name": "Synthetic cine",
        "colormap": "gray",
        "axis_labels": ("t", "y", "x"),
        "metadata": {"napari_cmunet": {"pixel_size_mm": cine.pixel_size_mm}},
    }
    return [(cine.frames, options, "image")]
