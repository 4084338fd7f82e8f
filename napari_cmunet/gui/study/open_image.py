"""The image of a study that is open in the viewer: its labels, drafts and origin."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Image

from napari_cmunet.gui.calibrating import BEFORE
from napari_cmunet.gui.layers import METADATA
from napari_cmunet.gui.reading import Reading
from napari_cmunet.gui.study.clock import ReadingClock
from napari_cmunet.io.provenance import Provenance
from napari_cmunet.reader import layer_options

if TYPE_CHECKING:
    from napari_cmunet.gui.study.loading import LoadedImage
    from napari_cmunet.io.images import Angiogram
    from napari_cmunet.io.labels import Label
    from napari_cmunet.study.labels import Key


class OpenImage:
    """What the window knows of one image of a study.

    Parameters
    ----------
    loaded : LoadedImage
    reading : Reading, optional
        One that the reader has opened before the study; made anew by default.
    """

    def __init__(self, loaded: LoadedImage, reading: Reading | None = None) -> None:
        self.id = loaded.id
        self.sha256 = loaded.angiogram.sha256
        self.problems = loaded.problems
        #: Whether the layers are the program's to take away.
        self.own_layers = reading is None
        self.reading = reading or Reading(_image_layer(loaded))
        self.reading.file = loaded.path
        self.reading.in_study = True
        self.labels: dict[int, Label] = dict(loaded.labels)
        self.drafts: dict[int, Label] = dict(loaded.drafts)
        self.origins: dict[int, Provenance] = {}
        self.clock = ReadingClock()
        for frame, label in (loaded.labels | loaded.drafts).items():
            self._restore(frame, label)

    def _restore(self, frame: int, label: Label) -> None:
        """Let a frame's mask be this label, whatever is predicted."""
        reading = self.reading
        if reading.usable_mask and reading.is_corrected(frame):
            return  # what the reader has in hand comes first
        reading.own[frame] = label.mask.copy()
        self.origins[frame] = label.provenance
        threshold = label.provenance.threshold
        if threshold is not None:
            reading.thresholds[frame] = threshold
        if reading.usable_mask:
            reading.mask_frame(frame)[...] = label.mask
            reading.refresh_mask()

    def key(self, frame: int) -> Key:
        """Image id and frame."""
        return self.id, frame

    def mask(self, frame: int) -> np.ndarray | None:
        """Copy a frame's mask as bool (Y, X); None if there is none."""
        reading = self.reading
        if reading.usable_mask:
            return reading.mask_frame(frame) != 0
        kept = reading.own.get(frame)
        return None if kept is None else kept.copy()

    def first_frame(self, wanted: int | None = None) -> int:
        """The frame to begin with: as wanted, a draft's, a label's, or the middle."""
        count = self.reading.count
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
        if not self.reading.has_prediction(frame):
            return int(mask.sum())
        return int((mask != self.reading.found(frame)).sum())

    def provenance(self, frame: int) -> Provenance:
        """Where a frame's mask comes from: a prediction, or the file it was in."""
        origin, reading = self.origins.get(frame), self.reading
        source = reading.sources.get(frame)
        if source is not None and (origin is None or self._is_prediction(frame)):
            origin = Provenance(
                model=source.model,
                model_sha256=source.sha256 or None,
                threshold=float(reading.thresholds[frame]),
                device=source.device,
            )
        return replace(origin or Provenance(), source_sha256=self.sha256)

    def _is_prediction(self, frame: int) -> bool:
        mask = self.mask(frame)
        return mask is not None and np.array_equal(mask, self.reading.cut(frame))


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
