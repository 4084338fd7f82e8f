"""What can be wrong with a study, in words for its reader."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_cmunet.errors import CMUNetError

if TYPE_CHECKING:
    from napari_cmunet.study.lock import Holder


class StudyError(CMUNetError):
    """Something about a study that its reader can read and act upon."""


class StudyDamagedError(StudyError):
    """A file of the study cannot be understood; opening with ``salvage`` may help."""


class StudyVersionError(StudyError):
    """Written by a newer program; nothing was changed."""


class StudyReadOnlyError(StudyError):
    """The study is open for reading alone."""


class StudyLockedError(StudyError):
    """Another program has the study open for writing.

    Parameters
    ----------
    message : str
    holder : Holder
        Who, where and since when, as far as known.
    """

    def __init__(self, message: str, holder: Holder) -> None:
        super().__init__(message)
        self.holder = holder


class LockLostError(StudyError):
    """Another program has taken the study over; nothing more is written from here."""


class ImageMissingError(StudyError):
    """An image is not where the study looks for it; ``relink`` finds it again."""


class ExportConflictError(StudyError):
    """The chosen folder holds other files; ask before writing there.

    Parameters
    ----------
    message : str
    replaced : tuple of str
        Names of files that the export would replace.
    may_overwrite : bool
        Whether it can be done all the same, if the reader says so.
    """

    def __init__(
        self,
        message: str,
        replaced: tuple[str, ...] = (),
        *,
        may_overwrite: bool = True,
    ) -> None:
        super().__init__(message)
        self.replaced, self.may_overwrite = replaced, may_overwrite
