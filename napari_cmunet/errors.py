"""Errors shown to users: what happened, to which file, and what to do.

``str(error)`` is one or two sentences on one line and needs no traceback.
"""

from __future__ import annotations

from pathlib import Path


def display_name(path: Path | str) -> str:
    """Return a file's name as it may be shown: no folders, one printable line.

    Folders often hold patients' names, and messages end up in logs.
    """
    return printable(Path(path).name or ".")


def printable(text: str) -> str:
    """Text from a file as it may be shown: one line without codes for a terminal."""
    # Names may hold line breaks, terminal codes or bytes that are no text at all.
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


class CMUNetError(Exception):
    """Base class of all errors shown to users."""


class UsageError(CMUNetError):
    """A command line that is not valid."""


class FileError(CMUNetError):
    """Base class of errors about one file.

    Parameters
    ----------
    path : Path or str
        The file. Kept whole in ``.path``; the message shows its name alone.
    reason : str
        What is wrong and, where something can be done, what to do.
    shown : str, optional
        What the message calls the file, where its own name is not to be shown.
    """

    def __init__(self, path: Path | str, reason: str, shown: str = "") -> None:
        super().__init__(f"{shown or display_name(path)}: {reason}")
        self.path = Path(path)
        self.reason = reason
        self.shown = shown

    def __reduce__(self) -> tuple[type[FileError], tuple[Path, str, str]]:
        # The default would rebuild the error from its message alone.
        return type(self), (self.path, self.reason, self.shown)


class ReadError(FileError):
    """A file that cannot be read, or whose content cannot be used."""


class WriteError(FileError):
    """A file that could not be written. What was there before is still there."""


class NotFlushedError(WriteError):
    """A file that was written but may not survive a power cut."""


class ModelError(CMUNetError):
    """A model that is missing, damaged, unknown or does not fit."""


class UnknownModelError(ModelError):
    """A model was asked for that does not exist, or that cannot do the job."""


class TrainingError(CMUNetError):
    """A training that could not start or go on.

    Not a RuntimeError on purpose: napari's generator workers swallow those.
    """


class OutOfMemoryError(TrainingError):
    """A training for which memory did not suffice."""


class NotANumberError(TrainingError):
    """A training whose loss became infinite or not a number."""


class DeviceError(CMUNetError):
    """A device that was asked for and is not there, or cannot do the job."""


class DownloadError(CMUNetError):
    """A download that was refused, broke off, or brought another file."""


class PacsError(CMUNetError):
    """A PACS that does not answer, refuses, or sends what is not whole."""


class PacsGoneError(PacsError):
    """A PACS that does not answer: there is no use in asking for more."""


class ClusterError(CMUNetError):
    """A cluster that does not answer, or that cannot do the job."""


class Cancelled(CMUNetError):
    """The user stopped the job; nothing is wrong."""

    def __init__(self, message: str = "Cancelled.") -> None:
        super().__init__(message)


class ProjectError(CMUNetError):
    """A problem with a project."""


class ProjectDamagedError(ProjectError):
    """A file of the project is damaged; opening with ``salvage`` may help."""


class ProjectVersionError(ProjectError):
    """The project was written by a newer program; nothing was changed."""


class ProjectReadOnlyError(ProjectError):
    """The project is open for reading only."""


class LockLostError(ProjectError):
    """Another program has taken the project over; nothing more can be written."""


class ImageMissingError(ProjectError):
    """An image's file is missing; ``relink`` finds it again."""
