"""The image of a project that is open in the viewer: its labels, drafts and origin."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Image

from napari_cmunet.gui.calibration import BEFORE
from napari_cmunet.gui.images.image_state import ImageState
from napari_cmunet.gui.images.layers import METADATA
from napari_cmunet.gui.project.activity import AnnotationClock
from napari_cmunet.io.provenance import Provenance
from napari_cmunet.reader import layer_options

if TYPE_CHECKING:
    from napari_cmunet.gui.project.image_loading import LoadedImage
    from napari_cmunet.io.images import Angiogram
    from napari_cmunet.io.label_file import Label
    from napari_cmunet.project.files import FrameKey


class OpenImage:
    """What the window knows of one image of a project.

    Parameters
    ----------
    loaded : LoadedImage
    image_state : ImageState, optional
        One that the reader has opened before the project; made anew by default.
    """

    def __init__(
        self, loaded: LoadedImage, image_state: ImageState | None = None
    ) -> None:
        self.id = loaded.id
        self.sha256 = loaded.angiogram.sha256
        self.problems = loaded.problems
        #: Whether the layers are the program's to take away.
        self.own_layers = image_state is None
        self.image_state = image_state or ImageState(_image_layer(loaded))
        self.image_state.file = loaded.path
        self.image_state.in_project = True
        self.labels: dict[int, Label] = dict(loaded.labels)
        self.drafts: dict[int, Label] = dict(loaded.drafts)
        self.origins: dict[int, Provenance] = {}
        self.clock = AnnotationClock()
        for frame, label in (loaded.labels | loaded.drafts).items():
            self._restore(frame, label)

    def _restore(self, frame: int, label: Label) -> None:
        """Let a frame's mask be this label, whatever is predicted."""
        image_state = self.image_state
        if image_state.usable_mask and image_state.is_corrected(frame):
            return  # what the reader has in hand comes first
        image_state.own_masks[frame] = label.mask.copy()
        self.origins[frame] = label.provenance
        threshold = label.provenance.threshold
        if threshold is not None:
            image_state.thresholds[frame] = threshold
        if image_state.usable_mask:
            image_state.mask_frame(frame)[...] = label.mask
            image_state.refresh_mask()

    def key(self, frame: int) -> FrameKey:
        """Image id and frame."""
        return self.id, frame

    def mask(self, frame: int) -> np.ndarray | None:
        """Copy a frame's mask as bool (Y, X); None if there is none."""
        image_state = self.image_state
        if image_state.usable_mask:
            return image_state.mask_frame(frame) != 0
        kept = image_state.own_masks.get(frame)
        return None if kept is None else kept.copy()

    def first_frame(self, wanted: int | None = None) -> int:
        """The frame to begin with: as wanted, a draft's, a label's, or the middle."""
        count = self.image_state.count
        if wanted is not None and 0 <= wanted < count:
            return wanted
        for known in (self.drafts, self.labels):
            if known:
                return max(known)
        return (count - 1) // 2

    def is_changed(self, frame: int) -> bool:
        """Whether a frame's mask is other than its label, or than its prediction."""
        mask = self.mask(frame)
        if mask is None:
            return False
        label = self.labels.get(frame)
        if label is not None:
            return not np.array_equal(mask, label.mask)
        return self.pixels_changed(frame, mask) > 0

    def pixels_changed(self, frame: int, mask: np.ndarray) -> int:
        """How many pixels are other than what the model has found."""
        if not self.image_state.has_prediction(frame):
            return int(mask.sum())
        return int((mask != self.image_state.found(frame)).sum())

    def provenance(self, frame: int) -> Provenance:
        """Where a frame's mask comes from: a prediction, or the file it was in."""
        origin, image_state = self.origins.get(frame), self.image_state
        source = image_state.sources.get(frame)
        if source is not None and (origin is None or self._is_prediction(frame)):
            origin = Provenance(
                model=source.model,
                model_sha256=source.sha256 or None,
                threshold=float(image_state.thresholds[frame]),
                device=source.device,
            )
        return replace(origin or Provenance(), source_sha256=self.sha256)

    def _is_prediction(self, frame: int) -> bool:
        mask = self.mask(frame)
        return mask is not None and np.array_equal(
            mask, self.image_state.thresholded(frame)
        )


def _image_layer(loaded: LoadedImage) -> Image:
    own, angiogram = loaded.angiogram, _as_labelled(loaded)
    options = layer_options(loaded.name, angiogram, is_cine=angiogram.is_cine)
    if angiogram.pixel_size_mm != own.pixel_size_mm:
        known = own.pixel_size_mm is not None
        options["metadata"][METADATA][BEFORE] = {
            "pixel_size_mm": own.pixel_size_mm,
            "pixel_size_source": own.pixel_size_source,
            "scale": own.pixel_size_mm if known else (1.0, 1.0),
            "unit": "mm" if known else "pixel",
        }
    return Image(
        angiogram.frames if angiogram.is_cine else angiogram.frames[0],
        **{"contrast_limits": loaded.contrast} | options,
    )


def _as_labelled(loaded: LoadedImage) -> Angiogram:
    """The image with the pixel size that its labels were accepted with.

    That is the file's own, unless the reader has measured it on a catheter.
    """
    known = [
        label
        for label in loaded.labels.values()
        if label.pixel_size_mm and label.note.get("pixel_size_source")
    ]
    if not known:
        return loaded.angiogram
    latest = max(known, key=lambda label: label.provenance.created)
    return replace(
        loaded.angiogram,
        pixel_size_mm=latest.pixel_size_mm,
        pixel_size_source=str(latest.note["pixel_size_source"]),
    )
