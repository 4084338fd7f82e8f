"""Reads an image of a project; its labels, drafts and provenance while it is open."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Image

from napari_cmunet.errors import CMUNetError, FileError
from napari_cmunet.gui.cine.calibration import BEFORE
from napari_cmunet.gui.export import source_file
from napari_cmunet.gui.images.image_state import ImageState
from napari_cmunet.gui.images.layers import METADATA, is_inverted
from napari_cmunet.gui.vessel_tools.frame_state import restore_record, review_record
from napari_cmunet.io.images import Angiogram, read_angiogram
from napari_cmunet.io.lazy_frames import LazyFrames
from napari_cmunet.io.polarity import invert_window
from napari_cmunet.io.provenance import Provenance
from napari_cmunet.project.labels.as_labelled import as_labelled, labelled_inverted
from napari_cmunet.project.readers.agreement import Readings, read_readings
from napari_cmunet.reader import layer_name, layer_options

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from napari_cmunet.gui.images.corrections import Companion
    from napari_cmunet.gui.vessel_tools.frame_state import ReviewRecord
    from napari_cmunet.io.masks.label_file import Label
    from napari_cmunet.project.files import FrameKey
    from napari_cmunet.project.project import Project


@dataclass(frozen=True)
class LoadedImage:
    """An image, its labels and its drafts."""

    id: str
    path: Path
    angiogram: Angiogram
    name: str  # of its layer; not the patient's, where the file says who that is
    contrast: tuple[float, float]  # darkest and brightest grey value
    labels: dict[int, Label]  # the accepted labels by frame
    drafts: dict[int, Label]  # strokes since the last acceptance by frame
    #: What could not be read, or does not fit, one sentence each.
    problems: tuple[str, ...]
    #: By frame; only for the reviewer.
    readings: dict[int, Readings] = field(default_factory=dict)
    inverted: bool | None = None  # as the user chose; None: as the labels say

    @property
    def count(self) -> int:
        """Number of frames."""
        return len(self.angiogram.frames)


def load_image(project: Project, image: str) -> LoadedImage:
    """Read an image of a project, its labels and drafts.

    Raises
    ------
    ImageMissingError
        If the file is not there.
    ReadError
        If it cannot be read.
    """
    path = project.images.found_path(image)
    angiogram = read_angiogram(path)
    project.images.learn(image, angiogram)
    problems = list(angiogram.notes)
    shape, sha256 = angiogram.frames.shape, angiogram.sha256
    fits = partial(_fits, shape=shape, sha256=sha256)
    labels = {}
    for frame in project.labels.frames(image):
        try:
            label = project.labels.get(image, frame)
        except CMUNetError as error:
            reason = error.reason if isinstance(error, FileError) else str(error)
            problems.append(f"The label of frame {frame} cannot be read: {reason}")
            continue
        if label is not None and fits(label, frame):
            labels[frame] = label
        elif label is not None:
            problems.append(
                f"The label of frame {frame} does not fit the image any more: the "
                "file has changed. The label is kept until a mask is accepted."
            )
    drafts = {}
    for owner, frame in project.drafts.keys():
        draft = project.drafts.load(image, frame) if owner == image else None
        if draft is not None and fits(draft, frame):
            drafts[frame] = draft
    return LoadedImage(
        image,
        path,
        angiogram,
        layer_name(path),
        _contrast(angiogram.frames),
        labels,
        drafts,
        tuple(problems),
        read_readings(project, image, fits, problems),
        project.is_inverted(image),
    )


def _fits(label: Label, frame: int, shape: tuple[int, ...], sha256: str | None) -> bool:
    return (
        frame < shape[0]
        and label.mask.shape == shape[1:]
        and label.provenance.source_sha256 in (None, sha256)
    )


def _contrast(frames: np.ndarray | LazyFrames) -> tuple[float, float]:
    # Of a cine that is yet to be decoded, the frame in the middle is.
    some = frames[len(frames) // 2] if isinstance(frames, LazyFrames) else frames
    low, high = float(some.min()), float(some.max())
    return (low, high) if high > low else (low, low + 1)


PAUSE_SECONDS = 15.0
"""Somebody who looks and thinks moves the mouse or presses a key before long."""


class AnnotationClock:
    """Adds up the time between activities; a longer gap counts as a pause."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._last: float | None = None

    def restart(self) -> None:
        """Restart from zero."""
        self._seconds = 0.0
        self._last = monotonic()

    def resume(self) -> None:
        """Resume: the image is shown again."""
        self._last = monotonic()

    def stop(self) -> None:
        """Pause: the image is no longer shown."""
        self._seconds = self.seconds
        self._last = None

    def tick(self) -> None:
        """Note an activity."""
        if self._last is not None:
            self._seconds = self.seconds
            self._last = monotonic()

    @property
    def seconds(self) -> float:
        """Seconds of activity up to now."""
        if self._last is None:
            return self._seconds
        return self._seconds + min(monotonic() - self._last, PAUSE_SECONDS)


class OpenImage:
    """What the window knows of one image of a project.

    Parameters
    ----------
    image_state : ImageState, optional
        One that was opened before the project; a new one by default.
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
        self.readings: dict[int, Readings] = dict(loaded.readings)
        self.clock = AnnotationClock()
        first = {f: r.first for f, r in self.readings.items()}
        for frame, label in (first | loaded.labels | loaded.drafts).items():
            self._restore(frame, label)

    def _restore(self, frame: int, label: Label) -> None:
        """Let a frame's mask be this label, whatever is predicted."""
        image_state = self.image_state
        if image_state.usable_mask and image_state.is_corrected(frame):
            return  # corrections in the window come first
        image_state.own_masks[frame] = label.mask.copy()
        image_state.origins[frame] = label.provenance
        image_state.names[frame] = label.names
        threshold = label.provenance.threshold
        if threshold is not None:
            image_state.thresholds[frame] = threshold
        if image_state.usable_mask:
            image_state.mask_frame(frame)[...] = label.mask
            image_state.refresh_mask()

    def fits(self, label: Label, frame: int) -> bool:
        """Whether a label is of the file that is open, and of its size."""
        return _fits(label, frame, self.image_state.shape, self.sha256)

    def show_label(
        self, frame: int, label: Label, companion: Companion | None = None
    ) -> None:
        """Let a frame's mask be this label, in one undo step with the companion."""
        image_state = self.image_state
        image_state.own_masks[frame] = label.mask.copy()
        image_state.origins[frame] = label.provenance
        if image_state.usable_mask:
            image_state.replace(frame, label.mask, label.names, companion)
        else:
            image_state.names[frame] = label.names

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
        undecided = {f: r for f, r in self.readings.items() if f not in self.labels}
        for known in (self.drafts, undecided, self.labels):
            if known:
                return max(known)
        return (count - 1) // 2

    def has_label_mask(self, frame: int) -> bool:
        """Whether a frame's mask is the one of its label."""
        mask, label = self.mask(frame), self.labels.get(frame)
        if mask is None or label is None:
            return False
        return np.array_equal(mask, label.mask)

    def is_changed(self, frame: int) -> bool:
        """Whether a frame is other than its label, or than its prediction."""
        mask, names = self.mask(frame), self.image_state.names.get(frame, ())
        if mask is None:
            return False
        label = self.labels.get(frame)
        if label is not None:
            return names != label.names or not np.array_equal(mask, label.mask)
        return bool(names) or self.pixels_changed(frame, mask) > 0

    def pixels_changed(self, frame: int, mask: np.ndarray) -> int:
        """How many pixels are other than what the model has found."""
        if not self.image_state.has_prediction(frame):
            return int(mask.sum())
        return int((mask != self.image_state.found(frame)).sum())

    def pixels_added(self, frame: int, mask: np.ndarray) -> int:
        """How many pixels are artery that the model has not found."""
        if not self.image_state.has_prediction(frame):
            return int(mask.sum())
        return int((mask & ~self.image_state.found(frame).astype(bool)).sum())

    def provenance(self, frame: int) -> Provenance:
        """Where a frame's mask comes from: a prediction, or the file it was in."""
        image_state = self.image_state
        origin = image_state.origins.get(frame)
        source = image_state.sources.get(frame)
        if source is not None and (origin is None or self._is_prediction(frame)):
            origin = Provenance(
                model=source.model,
                model_sha256=source.sha256 or None,
                threshold=float(image_state.thresholds[frame]),
                device=source.device,
            )
        return replace(
            origin or Provenance(),
            source_sha256=self.sha256,
            inverted=is_inverted(image_state.image),
        )

    def _is_prediction(self, frame: int) -> bool:
        mask = self.mask(frame)
        return mask is not None and np.array_equal(
            mask, self.image_state.thresholded(frame)
        )


def find_open(
    loaded: LoadedImage, image_states: Iterable[ImageState]
) -> ImageState | None:
    """Find an image among those that the user has opened without a project."""
    wanted = os.path.normcase(os.path.abspath(loaded.path))  # noqa: PTH100
    for image_state in image_states:
        path = source_file(image_state)
        if path is None or image_state.image_replaced:
            continue
        same = os.path.normcase(os.path.abspath(path)) == wanted  # noqa: PTH100
        if same and image_state.shape == loaded.angiogram.frames.shape:
            return image_state
    return None


class ImageMemory:
    """What was looked at, and the clock, of each image opened in a project."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[ReviewRecord, AnnotationClock]] = {}

    def recall(self, opened: OpenImage) -> None:
        """Restore what is known of an image that is shown; its clock goes on."""
        if opened.id in self._known:
            memory, opened.clock = self._known[opened.id]
            restore_record(opened.image_state, memory)
        self._known[opened.id] = review_record(opened.image_state), opened.clock
        opened.clock.resume()

    def clear(self) -> None:
        """Forget all images: the project is closed."""
        self._known.clear()


def _image_layer(loaded: LoadedImage) -> Image:
    readings = [x for r in loaded.readings.values() for x in r.labels.values()]
    labels = [*loaded.labels.values(), *readings]
    own, angiogram = loaded.angiogram, as_labelled(loaded.angiogram, labels)
    inverted = loaded.inverted
    if inverted is None:
        inverted = labelled_inverted([*labels, *loaded.drafts.values()])
    contrast = loaded.contrast
    if inverted:
        contrast = contrast and invert_window(contrast, angiogram.frames.dtype)
        angiogram = angiogram.inverted()
    options = layer_options(loaded.name, angiogram, is_cine=angiogram.is_cine)
    if angiogram.pixel_size_mm != own.pixel_size_mm:
        known = own.pixel_size_mm is not None
        options["metadata"][METADATA][BEFORE] = {
            "pixel_size_mm": own.pixel_size_mm,
            "pixel_size_source": own.pixel_size_source,
            "pixel_size_error": own.pixel_size_error,
            "scale": own.pixel_size_mm if known else (1.0, 1.0),
            "unit": "mm" if known else "pixel",
        }
    return Image(
        angiogram.frames if angiogram.is_cine else angiogram.frames[0],
        **{"contrast_limits": contrast} | options,
    )
