"""Coronary artery segmentation in napari with CM-UNet, few-shot fine-tuned."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("napari-cmunet")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0"
