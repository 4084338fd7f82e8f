"""The report of the shown frame, written in a worker."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_cmunet.errors import CMUNetError
from napari_cmunet.gui import export
from napari_cmunet.gui.dialogs import ask_for_file, confirm
from napari_cmunet.gui.images.layers import Frames
from napari_cmunet.gui.jobs import JobRunner
from napari_cmunet.gui.measurement.measurement import calibration_of, measurement_of

if TYPE_CHECKING:
    import numpy as np
    from qtpy.QtWidgets import QWidget

    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.gui.images.image_state import ImageState
    from napari_cmunet.gui.jobs import Report, ShouldStop
    from napari_cmunet.io.provenance import Provenance
    from napari_cmunet.vessels.naming import SegmentName
    from napari_cmunet.vessels.qca import Calibration


class ReportSaver:
    """Asks where the report of the shown frame goes, and writes it."""

    #: A report is begun or done.
    changed = Signal()

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self.message = ""
        self._of: tuple[ImageState, int] | None = None
        self._jobs = JobRunner("Saving the report", failure="The report failed")

    @property
    def running(self) -> bool:
        """Whether a report is being written."""
        return self._jobs.running

    def save(self, least: float, parent: QWidget | None) -> None:
        """Save a report of the shown frame.

        Parameters
        ----------
        least : float
            Narrowing from which a place is a lesion, 0 to 1.
        parent : QWidget, optional
            Of the dialogs.
        """
        here = self._controller.images.editable
        if self.running or here is None:
            return
        state, frame = here
        path = _ask_where(state, self._controller.working_folder, parent)
        if path is not None:
            self._of = here
            request = _request(state, frame, least, path)
            self._jobs.start(request.run, on_result=self._on_saved, on_error=self._say)
            self._say("Saving the report…")

    def follow(self) -> None:
        """Drop the message with the image or frame that it is about."""
        state = self._controller.active
        shown = state and (state, self._controller.shown(state))
        if not self.running and shown != self._of:
            self._of, self.message = None, ""

    def close(self) -> None:
        """Wait for nothing any more. Idempotent."""
        self._jobs.cancel()

    def _on_saved(self, path: Path) -> None:
        self._say(f"Saved {path.name} to {export.short(path.parent)}.")

    def _say(self, message: str) -> None:
        self.message = message
        self.changed.emit()


@dataclass(frozen=True)
class ReportRequest:
    """Copies and references that a worker may read."""

    path: Path
    frames: Frames
    frame: int
    window: tuple[float, float]
    mask: np.ndarray
    found: np.ndarray | None
    record: dict[str, Any] | None
    names: tuple[SegmentName, ...]
    calibration: Calibration
    provenance: Provenance
    source: Path | None
    title: str
    least: float

    def run(self, report: Report, should_stop: ShouldStop) -> Path:
        """Measure the tree and write the page. Runs in a worker."""
        # Slow to import, or seldom needed.
        from napari_cmunet.io.dicom.identity import safe_name
        from napari_cmunet.io.measured_lesion import (
            MeasuredFrame,
            recorded_lesion,
            reported,
            tree_lesions,
        )
        from napari_cmunet.io.report import (
            frame_facts,
            frame_section,
            write_report,
        )
        from napari_cmunet.vessels.qca import analyse_tree

        pixels = self.frames[self.frame]
        drawn = None if self.found is None else self.mask != self.found
        tree = analyse_tree(pixels, self.mask, drawn=drawn, least=self.least)
        found = tree_lesions(tree, self.calibration, self.names)
        measured = MeasuredFrame(
            self.frame,
            pixels,
            self.window,
            _shows_text(self.source, pixels),
            self.mask,
            reported(recorded_lesion(self.record, self.names), found),
            self.calibration,
            replace(self.provenance, corrected=bool(drawn is None or drawn.any())),
        )
        added = None if drawn is None else int((drawn & self.mask).sum())
        facts = frame_facts(
            measured,
            changed=None if drawn is None else int(drawn.sum()),
            added=added,
        )
        title = safe_name(self.source) if self.source is not None else self.title
        if self.frames.is_cine:
            title += f", frame {self.frame}"
        write_report(self.path, "1 frame", [frame_section(measured, title, facts)])
        return self.path


def _request(state: ImageState, frame: int, least: float, path: Path) -> ReportRequest:
    image = state.image
    low, high = (0.0, 255.0) if image.rgb else image.contrast_limits
    return ReportRequest(
        path,
        Frames.of(image),
        frame,
        (float(low), float(high)),
        state.mask_frame(frame) != 0,
        state.thresholded(frame).astype(bool) if state.has_prediction(frame) else None,
        measurement_of(state, frame),
        tuple(state.names.get(frame, ())),
        calibration_of(state),
        export.origin(state),
        export.source_file(state),
        image.name,
        least,
    )


def _ask_where(
    state: ImageState, working_folder: str, parent: QWidget | None
) -> Path | None:
    """Ask for the file; None if the user cancels."""
    name = Path(export.file_name(state)).with_suffix(".html").name
    suggestion = Path(export.start_folder(state, working_folder)) / name
    path = ask_for_file(parent, "Save report", suggestion, "Report", ".html", ".htm")
    if path is None:
        return None
    text = f"{path.name} exists already."
    if path.exists() and not confirm(parent, "Overwrite?", text, "Overwrite"):
        return None
    return path


def _shows_text(source: Path | None, pixels: np.ndarray) -> bool:
    """Whether text may be in the picture, as file or frame say."""
    from napari_cmunet.io.images import has_text, read_angiogram

    if source is not None:
        with suppress(CMUNetError):
            return read_angiogram(source, hashed=False).burned_in
    return has_text(pixels)
