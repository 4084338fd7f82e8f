"""What the panel shows, as one value made from the controller's state.

No widget is known here, so that every text and every greyed-out button can be tested
without one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari.layers import Shapes

from napari_cmunet.core.threshold import DEFAULT_THRESHOLD

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.gui.reading import Reading


@dataclass(frozen=True)
class PanelState:
    """Everything that changes in the panel.

    ``done`` and ``total`` are frames; a total of 0 while busy means that nobody knows.
    """

    images: tuple[str, ...] = ()
    active: int = -1
    status: str = ""
    status_tip: str = ""
    failed: bool = False
    busy: bool = False
    done: int = 0
    total: int = 0
    show_segment: bool = True
    in_study: bool = False
    segment_text: str = "Segment arteries"
    can_segment: bool = False
    mask_missing: bool = False
    can_correct: bool = False
    can_undo: bool = False
    can_redo: bool = False
    can_reset: bool = False
    reset_text: str = "Reset mask"
    mode: str = ""
    mask_visible: bool = False
    outline: bool = False
    has_prediction: bool = False
    prediction_visible: bool = False
    can_cut: bool = False
    threshold: float = DEFAULT_THRESHOLD
    threshold_note: str = ""
    saved: str = ""
    unsaved: bool = False
    masks: int = 0
    can_export: bool = False
    devices: tuple[str, ...] = ("cpu",)
    device_in_use: str = ""


def describe(controller: Controller) -> PanelState:
    """Put the controller's state into words."""
    reading = controller.active
    readings = controller.readings
    names = tuple(_name(controller, r) for r in readings)
    masks = [r for r in readings if r.usable_mask]
    engine = controller.runner.engine
    common = {
        "images": names,
        "active": readings.index(reading) if reading in readings else -1,
        "masks": len(masks),
        "can_export": bool(masks),
        "devices": engine.devices if engine is not None else ("cpu",),
        "device_in_use": _device(controller),
        "status_tip": controller.message_tip,
        **_work(controller),
    }
    if reading is None:
        status = (
            controller.message
            or "Open an angiogram: drag a file onto the window, or use File > Open."
        )
        return PanelState(status=status, failed=controller.failed, **common)
    if reading.why_not is not None:
        return PanelState(status=reading.why_not, **common)

    frame = controller.shown(reading)
    mask = reading.mask if reading.usable_mask else None
    threshold = float(reading.thresholds[frame])
    if reading.steps.dragging:
        threshold = reading.threshold
    unsaved = reading.corrections.unsaved() if mask is not None else []
    return PanelState(
        status=_status(controller, reading, frame),
        failed=controller.failed,
        segment_text=_segment_text(controller, reading),
        can_segment=reading is not controller.schedule.current,
        show_segment=reading is not controller.schedule.current,
        in_study=reading.in_study,
        mask_missing=mask is None and bool(reading.sources or reading.mask),
        can_correct=mask is not None,
        can_undo=mask is not None and reading.steps.can_undo,
        can_redo=mask is not None and reading.steps.can_redo,
        can_reset=mask is not None
        and reading.has_prediction(frame)
        and reading.is_corrected(frame),
        reset_text="Reset frame" if reading.is_cine else "Reset mask",
        mode=_mode(controller, mask),
        mask_visible=mask is not None and mask.visible,
        outline=mask is not None and mask.contour > 0,
        has_prediction=bool(reading.sources),
        prediction_visible=reading.prediction is not None
        and reading.prediction.visible,
        can_cut=mask is not None and bool(reading.sources),
        threshold=threshold,
        threshold_note=(
            "Acts on this frame and on every frame you have not corrected."
            if reading.is_cine
            else ""
        ),
        # In a study, what counts is whether a mask is accepted.
        saved="" if mask is None or reading.in_study else _saved(reading, unsaved),
        unsaved=bool(unsaved) and not reading.in_study,
        **common,
    )


def _name(controller: Controller, reading: Reading) -> str:
    gone = reading.image not in controller.viewer.layers
    return f"{reading.image.name} (image closed)" if gone else reading.image.name


def _device(controller: Controller) -> str:
    if controller.runner.loading:
        return "Loading the model…"
    engine = controller.runner.engine
    return "" if engine is None else f"In use: {engine.device_text()}"


def _work(controller: Controller) -> dict:
    runner = controller.runner
    # The model may also be loaded ahead of time; nobody waits for that.
    if controller.schedule.current not in controller.readings:
        return {}
    done, total = runner.progress
    if runner.loading:
        return {"busy": True}
    return {
        "busy": True,
        "done": done,
        "total": total if total > 1 else 0,
    }


def _time_left(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 90:
        return f", about {max(1, round(seconds))} s left"
    return f", about {round(seconds / 60)} min left"


def _mode(controller: Controller, mask: Labels | None) -> str:
    """The mask's tool, unless a box or a line is being drawn."""
    if mask is None or isinstance(controller.viewer.layers.selection.active, Shapes):
        return ""
    return str(mask.mode)


def _segment_text(controller: Controller, reading: Reading) -> str:
    waiting = len(reading.waiting_frames())
    if not reading.sources or (waiting == reading.count and waiting == 1):
        return "&Segment arteries"
    if 0 < waiting < reading.count:
        return f"&Segment the other {waiting} frames"
    return "&Segment again"


def _status(controller: Controller, reading: Reading, frame: int) -> str:
    if controller.message:
        return controller.message
    if controller.runner.running and controller.runner.loading:
        return "Loading the model. The first time takes a few seconds."
    if reading is controller.schedule.current:
        if not reading.is_cine:
            return "Segmenting the arteries…"
        done, total = controller.runner.progress
        left = _time_left(controller.runner.seconds_left)
        text = f"Segmenting: {done} of {total} frames{left}."
        if reading.usable_mask:
            text += " You can correct meanwhile."
        return text
    if reading in controller.schedule.waiting:
        return "This image is segmented next."
    if not reading.sources:
        return "Press Segment to find the arteries."
    if reading.mask is None:
        return "The mask was deleted."
    if not reading.usable_mask:
        return "The mask no longer has the size of the image."
    if not reading.has_prediction(frame):
        return "This frame is not segmented yet."
    if not reading.mask.visible:
        return "The mask is hidden."
    if not reading.mask_frame(frame).any():
        where = "this frame" if reading.is_cine else "this image"
        return f"No artery in {where}. Lower the threshold, or paint with the brush."
    then = "accept" if reading.in_study else "export"
    return f"Arteries found. Correct the mask (brush, Add or Remove), then {then} it."


def _saved(reading: Reading, unsaved: list[int]) -> str:
    exported = reading.corrections.exported_at
    if unsaved and reading.is_cine:
        frames = f"{len(unsaved)} frame" + ("s" if len(unsaved) > 1 else "")
        return f"Corrections in {frames} are not exported."
    if unsaved:
        return "Your corrections are not exported."
    if exported is None:
        return "Not exported yet."
    if exported != reading.threshold:
        return "The threshold has changed since the export."
    return "Exported as it is."
