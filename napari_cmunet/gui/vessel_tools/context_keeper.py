"""Keeps the tools prepared for the mask as it is. The work is done off the GUI thread.

Whether a scene still fits is asked by comparing, not by listening: napari tells nobody
that it undoes.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari.qt.threading import create_worker
from psygnal import Signal

from napari_cmunet.gui.images.corrections import fingerprint
from napari_cmunet.gui.images.layers import read_frame, source_array

if TYPE_CHECKING:
    import numpy as np

    from napari_cmunet.gui.images.image_state import ImageState
    from napari_cmunet.vessels.edit_context import Scene
    from napari_cmunet.vessels.features import Evidence

_FRAMES_KEPT = 6


@dataclass(frozen=True)
class _Job:
    """Copies and references that the worker's thread may read."""

    number: int
    key: tuple
    frames: Any
    frame: int
    cine: bool
    rgb: bool
    probability: np.ndarray
    mask: np.ndarray
    background: np.ndarray | None
    evidence: Evidence | None
    print: int


@dataclass(frozen=True)
class _Prepared:
    number: int
    key: tuple
    print: int
    scene: Scene


class SceneKeeper:
    """Prepares one scene at a time, for the frame that the cursor is over."""

    #: A scene is ready that was asked for.
    ready = Signal()

    def __init__(self) -> None:
        self._evidence: OrderedDict[tuple, Evidence] = OrderedDict()
        self._prepared: _Prepared | None = None
        self._worker = None
        self._number = 0
        #: Why the last one could not be prepared, empty if it could.
        self.problem = ""

    @property
    def working(self) -> bool:
        """Whether something is being prepared."""
        return self._worker is not None

    def scene(
        self, image_state: ImageState, frame: int, background: np.ndarray | None
    ) -> Scene | None:
        """The scene of a frame's mask as it is now, or None until ``ready``."""
        key = self._key(image_state, frame)
        seen = fingerprint(image_state.mask_frame(frame))
        done = self._prepared
        if done is not None and done.key == key and done.print == seen:
            return done.scene
        if self._worker is None:
            self._start(image_state, frame, key, seen, background)
        return None

    def forget(self) -> None:
        """Drop what is prepared; what is under way is thrown away when it is done."""
        self._number += 1
        self._prepared = None
        self._evidence.clear()

    @staticmethod
    def _key(image_state: ImageState, frame: int) -> tuple:
        # A frame that is predicted anew has a new source, and new pixels a new array.
        data = source_array(image_state.image)
        return id(image_state), frame, id(image_state.sources.get(frame)), id(data)

    def _start(self, image_state, frame, key, seen, background) -> None:
        self._number += 1
        image = image_state.image
        job = _Job(
            number=self._number,
            key=key,
            frames=source_array(image),
            frame=frame,
            cine=image_state.is_cine,
            rgb=bool(image.rgb),
            probability=image_state.probability[frame].copy(),
            mask=image_state.mask_frame(frame) != 0,
            background=background,
            evidence=self._evidence.get(key),
            print=seen,
        )
        self._worker = create_worker(_prepare, job)
        self._worker.returned.connect(self._on_returned)
        self._worker.finished.connect(self._on_finished)
        self._worker.start()

    def _on_returned(self, result: tuple[_Prepared | None, str]) -> None:
        prepared, self.problem = result
        if prepared is None or prepared.number != self._number:
            return
        self._prepared = prepared
        self._evidence[prepared.key] = prepared.scene.evidence
        while len(self._evidence) > _FRAMES_KEPT:
            self._evidence.popitem(last=False)

    def _on_finished(self) -> None:
        self._worker = None
        self.ready.emit()


def _prepare(job: _Job) -> tuple[_Prepared | None, str]:
    """Runs in a worker's thread, and imports there what the tools need."""
    from napari_cmunet.vessels import tools  # noqa: F401
    from napari_cmunet.vessels.edit_context import look
    from napari_cmunet.vessels.features import gather

    try:
        evidence = job.evidence
        if evidence is None:
            frame = read_frame(job.frames, job.frame, cine=job.cine, rgb=job.rgb)
            evidence = gather(frame, job.probability)
        scene = look(evidence, job.mask, job.background)
    except (OSError, ValueError, MemoryError) as exc:
        return None, f"The vessel tools cannot read this frame ({exc})."
    return _Prepared(job.number, job.key, job.print, scene), ""
