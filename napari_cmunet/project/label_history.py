"""The history of a label: its versions, and what the journal says of it in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_cmunet.io.label_file import read_label

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from napari_cmunet.io.label_file import Label
    from napari_cmunet.project.journal import Entry
    from napari_cmunet.project.labels import OlderLabel, ProjectLabels
    from napari_cmunet.project.project import Project


@dataclass(frozen=True)
class LabelVersion:
    """One version of a label: the one in use, or one that was replaced."""

    number: int  # from 1, the oldest
    sha256: str  # of the file
    path: Path
    older: OlderLabel | None  # the kept file; None if only the one in use has it
    in_use: bool

    def read(self) -> Label:
        """Read it; raises ReadError."""
        return read_label(self.path)


def label_versions(labels: ProjectLabels, image: str, frame: int) -> list[LabelVersion]:
    """Return the versions of a frame's label, the oldest first; slow.

    Files with the same bytes are one version.
    """
    current = labels.hash(image, frame)
    found: dict[str, OlderLabel | None] = {}
    for older in labels.older(image, frame):
        sha256 = older.sha256()
        if sha256 is not None:
            found.setdefault(sha256, older)
    if current is not None:
        found.setdefault(current, None)
    path = labels.path(image, frame)
    return [
        LabelVersion(
            number, sha256, older.path if older else path, older, sha256 == current
        )
        for number, (sha256, older) in enumerate(found.items(), 1)
    ]


@dataclass(frozen=True)
class Event:
    """One line of the history of an image."""

    time: str  # UTC
    user: str
    frame: int | None  # None: of the whole image
    text: str

    def __str__(self) -> str:
        date, _, clock = self.time.partition("T")
        who = f", {self.user}" if self.user else ""
        what = "" if self.frame is None else f"frame {self.frame} "
        return f"{date} {clock[:5]}{who}: {what}{self.text}"


def image_history(
    project: Project, image: str, frame: int | None = None
) -> Iterator[Event]:
    """Tell what was done to an image and its labels, in words; slow.

    Parameters
    ----------
    frame : int, optional
        Leave out what concerns other frames alone.
    """
    labels = project.labels
    frames = {f for f in (frame, *labels.frames(image)) if f is not None}
    frames |= {e.frame for e in project.journal() if e.image == image and e.frame}
    versions = {
        f: {v.sha256: v.number for v in label_versions(labels, image, f)}
        for f in frames | {0}
        if frame in (None, f)
    }
    for entry in project.journal():
        if entry.what == "trained":
            yield from _learned(entry, project, versions)
        elif entry.image == image and entry.frame is None:
            text = _IMAGE_WORDS.get(entry.what)
            if text:
                yield Event(entry.time, entry.user, None, text)
        elif entry.image == image and entry.frame in versions:
            text = _in_words(entry, versions[entry.frame])
            yield Event(entry.time, entry.user, entry.frame, text)


_IMAGE_WORDS = {
    "skipped": "skipped",
    "unskipped": "not skipped any more",
    "flagged": "flagged for a second look",
    "unflagged": "flag removed",
    "commented": "comment changed",
}
_FRAME_WORDS = {
    "accepted": "accepted",
    "withdrawn": "withdrawn",
    "restored": "restored",
    "label_recovered": "found on the disk, not in the journal",
    "label_missing": "missing on the disk",
}


def _in_words(entry: Entry, versions: Mapping[str, int]) -> str:
    """Tell one entry on a frame."""
    details = entry.details
    text = _FRAME_WORDS.get(entry.what, entry.what.replace("_", " "))
    number = versions.get(str(details.get("sha256")))
    if number is not None:
        text += f" (version {number})"
    parts = []
    replaced = versions.get(str(details.get("replaced")))
    if replaced is not None:
        parts.append(f"in place of version {replaced}")
    model, threshold = details.get("model"), details.get("threshold")
    if isinstance(model, str):
        at = f" at {threshold:g}" if isinstance(threshold, int | float) else ""
        parts.append(f"from {model}{at}")
    pixels, seconds = details.get("pixels_changed"), details.get("seconds")
    if isinstance(pixels, int | float):
        parts.append(f"{pixels:.0f} pixels changed" if pixels else "unchanged")
    if isinstance(seconds, int | float):
        parts.append(f"{seconds:.0f} s")
    reviewed = details.get("reviewed")
    if isinstance(reviewed, int | float) and reviewed < 1:
        parts.append(f"{100 * reviewed:.0f} % of the frame reviewed")
    return ", ".join([text, *parts])


def _learned(
    entry: Entry, project: Project, versions: Mapping[int, Mapping[str, int]]
) -> Iterator[Event]:
    """Tell which versions a model has learned from."""
    model = str(entry.details.get("model"))
    if model not in project.models.names():
        return
    learned = project.models.learned_labels(model)
    for frame, numbers in versions.items():
        for sha256, number in numbers.items():
            if sha256 in learned:
                text = f"learned by {model} (version {number})"
                yield Event(entry.time, entry.user, frame, text)
