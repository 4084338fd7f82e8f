"""What the panel shows, as one value made from the controller's state.

Knows no widget: every text and every disabled button can be tested without one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari.layers import Shapes

from napari_cmunet.model.threshold import DEFAULT_THRESHOLD

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.gui.images.image_state import ImageState


@dataclass(frozen=True)
class PanelState:
    """Everything that changes in the panel.

    ``done`` and ``total`` are frames; a total of 0 while busy means unknown.
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
    in_project: bool = False
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
    """Describe the controller's state for the panel."""
    image_state = controller.active
    image_states = controller.image_states
    names = tuple(_name(controller, r) for r in image_states)
    masks = [r for r in image_states if r.usable_mask]
    engine = controller.queue.engine
    common = {
        "images": names,
        "active": image_states.index(image_state)
        if image_state in image_states
        else -1,
        "masks": len(masks),
        "can_export": bool(masks),
        "devices": engine.devices if engine is not None else ("cpu",),
        "device_in_use": _device(controller),
        "status_tip": controller.message_tip,
        **_work(controller),
    }
    if image_state is None:
        status = (
            controller.message
            or "Open an angiogram: drag a file onto the window, or use File > Open."
        )
        return PanelState(status=status, failed=controller.failed, **common)
    if image_state.unsupported is not None:
        return PanelState(status=image_state.unsupported, **common)

    frame = controller.shown(image_state)
    mask = image_state.mask if image_state.usable_mask else None
    threshold = float(image_state.thresholds[frame])
    if image_state.history.dragging:
        threshold = image_state.threshold
    unsaved = image_state.corrections.unsaved() if mask is not None else []
    return PanelState(
        status=_status(controller, image_state, frame),
        failed=controller.failed,
        segment_text=_segment_text(controller, image_state),
        can_segment=image_state is not controller.queue.current,
        show_segment=image_state is not controller.queue.current,
        in_project=image_state.in_project,
        mask_missing=mask is None and bool(image_state.sources or image_state.mask),
        can_correct=mask is not None,
        can_undo=mask is not None and image_state.history.can_undo,
        can_redo=mask is not None and image_state.history.can_redo,
        can_reset=mask is not None
        and image_state.has_prediction(frame)
        and image_state.is_corrected(frame),
        reset_text="Reset frame" if image_state.is_cine else "Reset mask",
        mode=_mode(controller, mask),
        mask_visible=mask is not None and mask.visible,
        outline=mask is not None and mask.contour > 0,
        has_prediction=bool(image_state.sources),
        prediction_visible=image_state.prediction is not None
        and image_state.prediction.visible,
        can_cut=mask is not None and bool(image_state.sources),
        threshold=threshold,
        threshold_note=(
            "Acts on this frame and on every frame you have not corrected."
            if image_state.is_cine
            else ""
        ),
        # In a project masks are accepted instead.
        saved=""
        if mask is None or image_state.in_project
        else _saved(image_state, unsaved),
        unsaved=bool(unsaved) and not image_state.in_project,
        **common,
    )


def _name(controller: Controller, image_state: ImageState) -> str:
    gone = image_state.image not in controller.viewer.layers
    return (
        f"{image_state.image.name} (image closed)" if gone else image_state.image.name
    )


def _device(controller: Controller) -> str:
    if controller.queue.loading:
        return "Loading the model…"
    engine = controller.queue.engine
    return "" if engine is None else f"In use: {engine.device_text()}"


def _work(controller: Controller) -> dict:
    queue = controller.queue
    # Loading a model ahead of time is not shown as work.
    if controller.queue.current not in controller.image_states:
        return {}
    done, total = queue.progress
    if queue.loading:
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
    """The current tool, unless a box or a line is being drawn."""
    if mask is None or isinstance(controller.viewer.layers.selection.active, Shapes):
        return ""
    return str(mask.mode)


def _segment_text(controller: Controller, image_state: ImageState) -> str:
    waiting = len(image_state.waiting_frames())
    if not image_state.sources or (waiting == image_state.count and waiting == 1):
        return "&Segment arteries"
    if 0 < waiting < image_state.count:
        return f"&Segment the other {waiting} frames"
    return "&Segment again"


def _status(controller: Controller, image_state: ImageState, frame: int) -> str:
    if controller.message:
        return controller.message
    if controller.queue.running and controller.queue.loading:
        return "Loading the model. The first time takes a few seconds."
    if image_state is controller.queue.current:
        if not image_state.is_cine:
            return "Segmenting the arteries…"
        done, total = controller.queue.progress
        left = _time_left(controller.queue.seconds_left)
        text = f"Segmenting: {done} of {total} frames{left}."
        if image_state.usable_mask:
            text += " You can correct meanwhile."
        return text
    if image_state in controller.queue.waiting:
        return "This image is segmented next."
    if not image_state.sources:
        return "Press Segment to find the arteries."
    if image_state.mask is None:
        return "The mask was deleted."
    if not image_state.usable_mask:
        return "The mask no longer has the size of the image."
    if not image_state.has_prediction(frame):
        return "This frame is not segmented yet."
    if not image_state.mask.visible:
        return "The mask is hidden."
    if not image_state.mask_frame(frame).any():
        where = "this frame" if image_state.is_cine else "this image"
        return f"No artery in {where}. Lower the threshold, or paint with the brush."
    then = "accept" if image_state.in_project else "export"
    return f"Arteries found. Correct the mask (brush, Add or Remove), then {then} it."


def _saved(image_state: ImageState, unsaved: list[int]) -> str:
    exported = image_state.corrections.exported_at
    if unsaved and image_state.is_cine:
        frames = f"{len(unsaved)} frame" + ("s" if len(unsaved) > 1 else "")
        return f"Corrections in {frames} are not exported."
    if unsaved:
        return "Your corrections are not exported."
    if exported is None:
        return "Not exported yet."
    if exported != image_state.threshold:
        return "The threshold has changed since the export."
    return "Exported as it is."
