"""Synthetic coronary angiograms with known masks, made from a seed."""

from napari_cmunet.synthetic.cine import (
    PhantomCine,
    PhantomConfig,
    make_cine,
    make_frame,
)

__all__ = [
    "PhantomCine",
    "PhantomConfig",
    "make_cine",
    "make_frame",
]
