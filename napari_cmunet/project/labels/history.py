"""The history of a label: its versions, and what the journal says of it in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_cmunet.io.masks.label_file import read_label
from napari_cmunet.project.readers.readers import known_readers

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from napari_cmunet.io.masks.label_file import Label
    from napari_cmunet.project.journal import Entry
    from napari_cmunet.project.labels.labels import OlderLabel, ProjectLabels
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


_Versions = dict[tuple[str, int], dict[str, int]]
"""Number of each version by its hash, by reader and frame."""


def image_history(
    project: Project,
    image: str,
    frame: int | None = None,
    readers: Collection[str] | None = None,
) -> Iterator[Event]:
    """Tell what was done to an image and its labels, in words; slow.

    Parameters
    ----------
    frame : int, optional
        Leave out what concerns other frames alone.
    readers : collection of str, optional
        Codes of the readers whose labels are included; all by default.
    """
    names = known_readers(project.id)
    entries = [
        entry
        for entry in project.journal()
        if (entry.what == "trained" or entry.image == image)
        and (readers is None or entry.reader in readers)
        and (frame is None or entry.frame in (None, frame))
    ]
    versions: _Versions = {}
    for reader, labels in project.readers.items():
        if readers is None or reader in readers:
            mine = [e.frame for e in entries if e.reader == reader]
            frames = {f for f in (*mine, *labels.frames(image)) if f is not None}
            for f in frames:
                found = label_versions(labels, image, f) if frame in (None, f) else []
                versions[reader, f] = {v.sha256: v.number for v in found}
    for entry in entries:
        user = entry.user
        if entry.reader:
            user = f"{names.name(entry.reader)}{', ' + user if user else ''}"
        if entry.what == "trained":
            yield from _learned(entry, project, versions)
            continue
        if entry.frame is None:
            text = _IMAGE_WORDS.get(entry.what, "")
        else:
            numbers = versions.get((entry.reader, entry.frame), {})
            text = _in_words(entry, numbers, project)
        if text:
            yield Event(entry.time, user, entry.frame, text)


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
    "rejected": "rejected by the reviewer",
    "admitted": "rejection undone by the reviewer",
}


def _in_words(entry: Entry, versions: Mapping[str, int], project: Project) -> str:
    """Tell one entry on a frame."""
    details = entry.details
    text = _FRAME_WORDS.get(entry.what, entry.what.replace("_", " "))
    number = versions.get(str(details.get("sha256")))
    if number is not None:
        text += f" (version {number})"
    if entry.what == "rejected":
        # The journal does not hold the reason, which may name people.
        rejection = project.reviews.rejection(str(details.get("sha256")))
        return f"{text}: {rejection.reason}" if rejection else text
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


def _learned(entry: Entry, project: Project, versions: _Versions) -> Iterator[Event]:
    """Tell which versions a model has learned from."""
    model = str(entry.details.get("model"))
    if model not in project.models.names():
        return
    learned = project.models.learned_labels(model)
    for (_, frame), numbers in versions.items():
        for sha256, number in numbers.items():
            if sha256 in learned:
                text = f"learned by {model} (version {number})"
                yield Event(entry.time, entry.user, frame, text)
