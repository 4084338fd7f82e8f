"""What the panel shows, as one value made from the controller's state.

Knows no widget: every text and every disabled button can be tested without one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari.layers import Shapes

from napari_cmunet.gui.images.layers import frame_position
from napari_cmunet.model.threshold import DEFAULT_THRESHOLD
from napari_cmunet.util.cluster import is_address
from napari_cmunet.util.text import counted, duration

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.gui.images.image_state import ImageState

FOUND, EMPTY, PENDING, REFUSED = "found", "empty", "pending", "refused"


@dataclass(frozen=True)
class PanelState:
    """Everything that changes in the panel.

    ``done`` and ``total`` are frames; a total of 0 while busy means unknown.
    """

    images: tuple[str, ...] = ()
    active: int = -1
    status: str = ""
    status_tip: str = ""
    #: What was found: one of FOUND, EMPTY, PENDING, REFUSED, or none of these.
    kind: str = ""
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
    devices: tuple[str, ...] = ("cpu",)
    device_in_use: str = ""


def describe(controller: Controller) -> PanelState:
    """Describe the controller's state for the panel."""
    image_state = controller.active
    image_states = controller.image_states
    names = tuple(_name(controller, r) for r in image_states)
    engine = controller.queue.engine
    common = {
        "images": names,
        "active": image_states.index(image_state)
        if image_state in image_states
        else -1,
        "masks": sum(r.usable_mask for r in image_states),
        "devices": engine.devices if engine is not None else ("cpu",),
        "device_in_use": _device(controller),
        "status_tip": controller.message_tip,
        **_work(controller),
    }
    if image_state is None:
        status = (
            controller.message
            or "Open an angiogram: press Open… or drag a file onto the window."
        )
        return PanelState(status=status, failed=controller.failed, **common)
    if image_state.unsupported is not None:
        return PanelState(status=image_state.unsupported, kind=REFUSED, **common)

    frame = controller.shown(image_state)
    mask = image_state.mask if controller.images.editable else None
    threshold = float(image_state.thresholds[frame])
    if image_state.history.dragging:
        threshold = image_state.threshold
    unsaved = image_state.corrections.unsaved() if mask is not None else []
    kind, status = _status(controller, image_state, frame)
    return PanelState(
        status=status,
        kind=kind,
        failed=controller.failed,
        segment_text=_segment_text(controller, image_state),
        can_segment=image_state is not controller.queue.current,
        show_segment=image_state is not controller.queue.current,
        in_project=image_state.in_project,
        mask_missing=not image_state.usable_mask
        and bool(image_state.sources or image_state.mask),
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
    if engine is None:
        return ""
    text = f"Runs on {engine.device_text()}"
    if is_address(controller.choice.device):
        text += "; fine-tuning runs on the cluster"
    return text


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


def _status(
    controller: Controller, image_state: ImageState, frame: int
) -> tuple[str, str]:
    """Return what was found in the shown frame, and the text of the panel."""
    if not controller.images.has_shown_frame(image_state):
        at = round(frame_position(image_state.image, controller.viewer))
        frames = f"{image_state.count} frames, 0 to {image_state.count - 1}"
        return (
            "",
            f"This cine has no frame {at}: it has {frames}. Move the slider back.",
        )
    kind, text = _found(image_state, frame)
    if image_state is controller.queue.current or (
        image_state in controller.queue.waiting and kind != FOUND
    ):
        kind = PENDING
    if controller.message:
        return kind, controller.message
    queue = controller.queue
    if queue.running and queue.loading:
        return kind, "Loading the model. The first time takes a few seconds."
    if image_state is queue.current:
        if not image_state.is_cine:
            return kind, "Segmenting the arteries…"
        done, total = queue.progress
        if done >= total:
            return kind, "Leaving out what was there before the contrast…"
        left = queue.seconds_left
        about = "" if left is None else f", about {duration(left)} left"
        progress = f"Segmenting: {done} of {total} frames{about}."
        if image_state.usable_mask:
            progress += " You can correct meanwhile."
        return kind, progress
    if image_state in queue.waiting:
        return kind, "This image is segmented next."
    return kind, text


def _found(image_state: ImageState, frame: int) -> tuple[str, str]:
    """Return what was found in a frame that nothing is at work on."""
    where = "this frame" if image_state.is_cine else "this image"
    if not image_state.sources:
        return PENDING, "Not segmented yet. Press Segment to find the arteries."
    if image_state.mask is None:
        return "", "The mask was deleted."
    if not image_state.usable_mask:
        return "", "The mask no longer has the size of the image."
    if not image_state.has_prediction(frame):
        return PENDING, "This frame is not segmented yet."
    drawn = bool(image_state.mask_frame(frame).any())
    if frame in image_state.flat and not drawn:
        return REFUSED, f"No contrast: all pixels of {where} are alike."
    if not image_state.mask.visible:
        return "", "The mask is hidden."
    then = "accept" if image_state.in_project else "export"
    if not drawn:
        return EMPTY, _empty(image_state, frame)
    if not image_state.found(frame).any() and not image_state.thresholded(frame).any():
        return EMPTY, (
            f"No artery found in {where}; the mask is what you drew. You can {then} it."
        )
    return FOUND, f"Arteries found. Correct the mask, then {then} it."


def _empty(image_state: ImageState, frame: int) -> str:
    """Say why the mask of a frame is empty, and what to do."""
    what = "artery"
    if image_state.is_empty(frame):
        if image_state.sources[frame].tells_contrast:
            what = "contrast"
        if image_state.is_cine and all(
            map(image_state.is_empty, range(image_state.count))
        ):
            if what == "artery":
                return "No artery found in any frame of this cine."
            return "No contrast in this cine: no artery found in any frame."
    best = image_state.best_frame
    then = "Lower the threshold, or draw with Paint or Add."
    if best not in (None, frame):
        then = f"Go to the best frame ({best})."
    return f"No {what} in this frame. {then}"


def _saved(image_state: ImageState, unsaved: list[int]) -> str:
    exported = image_state.corrections.exported_at
    if unsaved and image_state.is_cine:
        frames = counted(len(unsaved), "frame")
        return f"Corrections in {frames} are not exported."
    if unsaved:
        return "Your corrections are not exported."
    if exported is None:
        return "Not exported yet."
    if exported != image_state.threshold:
        return "The threshold has changed since the export."
    return "Exported; unchanged since."
