"""One image of a project with everything that is known of it, read in a worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_cmunet.errors import CMUNetError, FileError
from napari_cmunet.gui.vessel_tools.frame_state import restore_record, review_record
from napari_cmunet.io.images import read_angiogram
from napari_cmunet.io.lazy_frames import LazyFrames
from napari_cmunet.reader import layer_name

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from napari_cmunet.gui.project.activity import AnnotationClock
    from napari_cmunet.gui.project.open_image import OpenImage
    from napari_cmunet.gui.vessel_tools.frame_state import ReviewRecord
    from napari_cmunet.io.images import Angiogram
    from napari_cmunet.io.label_file import Label
    from napari_cmunet.project.project import Project


class ImageMemory:
    """By the id of an image."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[ReviewRecord, AnnotationClock]] = {}

    def recall(self, opened: OpenImage) -> None:
        """An image is shown: give back what is known of it; its clock goes on."""
        if opened.id in self._known:
            memory, opened.clock = self._known[opened.id]
            restore_record(opened.image_state, memory)
        self._known[opened.id] = review_record(opened.image_state), opened.clock
        opened.clock.go_on()

    def forget(self) -> None:
        """The project is closed."""
        self._known.clear()


@dataclass(frozen=True)
class LoadedImage:
    """An image, its labels and its drafts.

    Parameters
    ----------
    id : str
    path : Path
    angiogram : Angiogram
    name : str
        Of its layer; not the patient's, where the file says who that is.
    contrast : (float, float)
        Darkest and brightest grey value.
    labels : dict of int to Label
        The accepted labels by frame.
    drafts : dict of int to Label
        Strokes since the last acceptance by frame.
    problems : tuple of str
        What could not be read, or does not fit, one sentence each.
    """

    id: str
    path: Path
    angiogram: Angiogram
    name: str
    contrast: tuple[float, float]
    labels: dict[int, Label]
    drafts: dict[int, Label]
    problems: tuple[str, ...]

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
    labels = {}
    for frame in project.labels.frames(image):
        try:
            label = project.labels.get(image, frame)
        except CMUNetError as error:
            reason = error.reason if isinstance(error, FileError) else str(error)
            problems.append(f"The label of frame {frame} cannot be read: {reason}")
            continue
        if label is not None and _fits(label, frame, angiogram):
            labels[frame] = label
        elif label is not None:
            problems.append(
                f"The label of frame {frame} does not fit the image any more: the "
                "file has changed. The label is kept; annotation replaces it."
            )
    drafts = {}
    for owner, frame in project.drafts.keys():
        draft = project.drafts.load(image, frame) if owner == image else None
        if draft is not None and _fits(draft, frame, angiogram):
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
    )


def _fits(label: Label, frame: int, angiogram: Angiogram) -> bool:
    hashed = label.provenance.source_sha256
    return (
        frame < len(angiogram.frames)
        and label.mask.shape == angiogram.frames.shape[1:]
        and hashed in (None, angiogram.sha256)
    )


def _contrast(frames: np.ndarray | LazyFrames) -> tuple[float, float]:
    # Of a cine that is yet to be decoded, the frame in the middle is.
    some = frames[len(frames) // 2] if isinstance(frames, LazyFrames) else frames
    low, high = float(some.min()), float(some.max())
    return (low, high) if high > low else (low, low + 1)
