"""Saves corrections that are not accepted yet as drafts."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_cmunet.io.masks.label_file import NAMES, names_to_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_cmunet.gui.project.images.open_image import OpenImage
    from napari_cmunet.gui.project.reviewed_area import ReviewedArea
    from napari_cmunet.gui.project.workspace import ProjectWriter
    from napari_cmunet.project.project import Project

SAVE_AFTER_MS = 300


class DraftSaver:
    """Saves drafts of one open image while its mask is edited.

    Parameters
    ----------
    area : ReviewedArea
        Its reviewed area is saved with the draft.
    """

    #: A draft was saved, or could not be.
    changed = Signal()

    def __init__(
        self,
        project: Project,
        writer: ProjectWriter,
        opened: OpenImage,
        area: ReviewedArea,
    ) -> None:
        self._project, self._writer = project, writer
        self._opened, self._area = opened, area
        self._touched: set[int] = set()
        self._saving: set[int] = set()
        self._on_disk = set(opened.drafts)
        #: Frames whose strokes could not be saved, with the reason.
        self.problems: dict[int, str] = {}
        self._soon = QTimer()
        self._soon.setSingleShot(True)
        self._soon.timeout.connect(self.flush)
        opened.image_state.mask_changed.connect(self.note)

    def note(self, frames: Iterable[int]) -> None:
        """Note that frames may have changed, and save them soon."""
        self._touched.update(frames)
        self._opened.clock.tick()
        if self._touched and not self._soon.isActive():
            self._soon.start(SAVE_AFTER_MS)

    def flush(self) -> None:
        """Submit what is not saved yet to the writer."""
        self._soon.stop()
        frames, self._touched = self._touched | set(self.problems), set()
        for frame in sorted(frames):
            self._save(frame)

    def discard(self, frame: int) -> None:
        """Drop a frame: it is accepted as it is now."""
        self._touched.discard(frame)
        self.problems.pop(frame, None)
        self._on_disk.discard(frame)

    @property
    def saved(self) -> bool:
        """Whether everything is on the disk."""
        return not (self._touched or self._saving or self.problems)

    def has_draft(self, frame: int) -> bool:
        """Whether there is a draft of a frame."""
        return frame in self._on_disk

    def stop(self) -> None:
        """Stop following the mask."""
        self._soon.stop()
        self._opened.image_state.mask_changed.disconnect(self.note)

    def _save(self, frame: int) -> None:
        opened = self._opened
        mask = opened.mask(frame)
        image, drafts = opened.id, self._project.drafts
        changed = opened.is_changed(frame) or self._area.is_changed(frame)
        if mask is not None and changed:
            reviewed = self._area.reviewed(frame, mask)
            origin = opened.provenance(frame)
            note = {NAMES: names_to_json(opened.image_state.names.get(frame, ()))}
            act = partial(
                drafts.save, image, frame, mask, reviewed, provenance=origin, note=note
            )
            self._on_disk.add(frame)
        elif frame in self._on_disk:
            self._on_disk.discard(frame)
            act = partial(drafts.discard, image, frame)
        else:
            self.problems.pop(frame, None)
            return
        self._saving.add(frame)
        self._writer.submit(
            act, partial(self._on_saved, frame), partial(self._on_failed, frame)
        )

    def _on_saved(self, frame: int, _: object) -> None:
        self._saving.discard(frame)
        self.problems.pop(frame, None)
        self.changed.emit()

    def _on_failed(self, frame: int, problem: str) -> None:
        self._saving.discard(frame)
        self.problems[frame] = problem
        self.changed.emit()
