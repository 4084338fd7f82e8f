"""What the project section shows, as one value made from the session's state.

No widget is known here, so that every text and every greyed-out button can be tested
without one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_cmunet.project.readers.readers import FIRST_READER, REVIEWER

if TYPE_CHECKING:
    from napari_cmunet.gui.project.alerts import Alert
    from napari_cmunet.gui.project.difference_layer import ModelChange
    from napari_cmunet.gui.project.session import ProjectSession
    from napari_cmunet.project.annotation_time import AnnotationTime


@dataclass(frozen=True)
class SectionState:
    """Everything that changes in the project section."""

    is_open: bool = False
    title: str = ""
    busy: str = ""
    done: int = 0
    total: int = 0
    cancelling: bool = False
    alert: Alert | None = None
    message: str = ""
    message_tip: str = ""
    images: int = 0
    labelled: int = 0
    all_done: bool = False
    progress: str = ""
    annotation_time: str = ""
    annotation_time_tip: str = ""
    place: str = ""
    name: str = ""
    image: str = ""
    accept_text: str = "&Accept"
    can_accept: bool = False
    label: str = ""
    saved: bool = False
    can_take_back: bool = False
    can_move: bool = False
    can_flag: bool = False
    skipped: bool = False
    flagged: bool = False
    comment: str = ""
    other_is_selected: bool = False
    can_add: bool = False
    is_part: bool = False
    is_by_looking: bool = False
    can_draw: bool = False
    change: str = ""
    has_changed: bool = False


def describe_project(session: ProjectSession) -> SectionState:
    """Put the session's state into words."""
    job = session.job
    common: dict[str, Any] = {
        "busy": job.text if job else "",
        "done": job.done if job else 0,
        "total": job.total if job else 0,
        "cancelling": job.cancelling if job else False,
        "alert": session.messages.alert,
        "message": session.messages.text,
        "message_tip": session.messages.tip,
    }
    if session.project is None:
        return SectionState(**common)
    navigator, overview = session.navigator, session.overview
    image = navigator.opening or (navigator.current.id if navigator.current else "")
    status = overview.status(image)
    writable = not session.project.read_only
    return SectionState(
        is_open=True,
        title=_title(session),
        images=len(overview.ids),
        labelled=overview.progress.labelled,
        all_done=not overview.progress.left,
        progress=_progress(session),
        annotation_time=_annotation_time(overview.annotation_time),
        annotation_time_tip=_HOW if overview.annotation_time.still_pays else _NO_MORE,
        place=f"Image {overview.number(image)} of {len(overview.ids)}" if image else "",
        name=overview.name(image) if image else "",
        image=image,
        can_move=navigator.opening is None and bool(overview.ids),
        can_flag=writable
        and bool(image)
        and navigator.opening is None
        and (navigator.stuck is not None or not session.annotation.other_selected),
        skipped=status.state == "skipped",
        flagged=status.flagged,
        comment=status.comment,
        **_label(session),
        **common,
    )


def _title(session: ProjectSession) -> str:
    """The project's name, and who reads if that is not the first reader."""
    project = session.project
    assert project is not None
    name = project.folder.name
    if project.reader == FIRST_READER:
        return name
    return f"{name} · {session.overview.readers.name(project.reader)}"


def _progress(session: ProjectSession) -> str:
    first, _, rest = str(session.overview.progress).partition(",")
    project = session.project
    done = "decided" if project and project.reader == REVIEWER else "labelled"
    text = f"{first} {done}{',' + rest if rest else ''}"
    return text if session.workspace.writable else f"{text} (read only)"


_HOW = (
    "Your attention, by the mouse in the viewer: median of the first five labels, and "
    "of the last five. Pauses are left out."
)
_NO_MORE = (
    "The last two trainings were not better beyond chance, and your seconds a frame no "
    "longer fall: more labels like these may not pay."
)


def _annotation_time(time: AnnotationTime) -> str:
    """What a label costs: at first, and by now."""
    now, first = time.seconds, time.first_seconds
    if now is None:
        return ""
    was = "" if first is None else f"{first:.0f} s → "
    more = "" if time.still_pays else "; more may not pay"
    return f"{was}{now:.0f} s a frame{more}"


def _label(session: ProjectSession) -> dict[str, Any]:
    """What is said of the shown frame."""
    navigator, annotation = session.navigator, session.annotation
    opened = navigator.current
    if navigator.opening is not None:
        return {"label": "Opening the image…"}
    if opened is None:
        return {}
    if other := annotation.other_selected:
        return {
            "label": other,
            "other_is_selected": navigator.is_shown,
            "can_add": session.workspace.writable is not None and not session.busy,
        }
    why_not = annotation.why_not()
    frame = navigator.frame
    key = opened.key(frame)
    cine = opened.image_state.is_cine
    _, area, _ = navigator.parts()
    writable = session.workspace.writable is not None
    is_part = area.is_part(frame)
    what = "reviewed part" if is_part else "frame" if cine else "mask"
    known = {
        "can_accept": not why_not and key not in annotation.saving,
        "accept_text": f"&Accept the {what}",
        "is_part": is_part,
        "is_by_looking": area.is_by_looking(frame),
        "can_draw": writable,
        "can_take_back": frame in opened.labels and writable,
        **_change(session.preview.change, frame),
    }
    which = f"Frame {frame}" if cine else "This image"
    if key in annotation.saving:
        return {**known, "label": "Saving…"}
    if frame in opened.labels:
        if not annotation.is_unchanged(opened, frame):
            what = f"{which} has changed since it was"
            if opened.has_label_mask(frame) and not area.is_changed(frame):
                what = "Vessel names have changed since the mask was"
            return {**known, "label": f"{what} accepted. Accept it again."}
        rejection = session.project and session.project.rejection(*key)
        if rejection:
            reason = f": {rejection.reason}" if rejection.reason else ""
            text = f"Rejected by the reviewer{reason}. Mend it and accept it again."
            return {**known, "label": text}
        at = annotation.times.get(key)
        when = f" at {at}" if at else ""
        share = _share(opened.labels[frame].reviewed)
        text = f"Accepted{when}: saved as a label{share}."
        return {**known, "label": text, "saved": True}
    if not writable:
        text = "Open for reading only: what you paint here is not kept."
        return {**known, "label": text}
    if why_not:
        return {**known, "label": why_not}
    others = len(opened.labels)
    more = (
        f" {others} other frame{'s have' if others > 1 else ' has'} one."
        if (cine and others)
        else ""
    )
    draft = _draft(session, frame)
    if session.project and session.project.reader == REVIEWER:
        return {**known, "label": f"{which} is not decided yet.{draft}"}
    return {**known, "label": f"{which} has no label yet.{more}{draft}"}


def _draft(session: ProjectSession, frame: int) -> str:
    _, _, draft_saver = session.navigator.parts()
    if frame in draft_saver.problems:
        return f" Your corrections are not saved: {draft_saver.problems[frame]}"
    if draft_saver.has_draft(frame) and draft_saver.saved:
        return " Your corrections are kept as a draft."
    return ""


def _share(reviewed) -> str:
    if reviewed is None:
        return ""
    share = 100 * float(reviewed.mean())
    text = f"{share:.0f}" if share >= 1 else "less than 1"
    return f", {text} % of the frame reviewed"


def _change(change: ModelChange | None, frame: int) -> dict[str, Any]:
    difference = change.difference(frame) if change is not None else None
    if difference is None:
        return {}
    d = difference
    if d.found == d.gone == 0:
        return {"change": f"{d.now} finds here exactly what {d.before} found."}
    text = (
        f"{d.now} finds {d.found} pixels more (yellow) than {d.before} and {d.gone} no "
        "more (violet). Your mask has stayed as it is."
    )
    return {"change": text, "has_changed": True}
