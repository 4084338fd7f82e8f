"""What can be wrong with a project, in words for its reader."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_cmunet.errors import CMUNetError

if TYPE_CHECKING:
    from napari_cmunet.project.lock import Holder


class ProjectError(CMUNetError):
    """Something about a project that its reader can read and act upon."""


class ProjectDamagedError(ProjectError):
    """A file of the project cannot be understood; opening with ``salvage`` may help."""


class ProjectVersionError(ProjectError):
    """Written by a newer program; nothing was changed."""


class ProjectReadOnlyError(ProjectError):
    """The project is open for reading alone."""


class ProjectLockedError(ProjectError):
    """Another program has the project open for writing.

    Parameters
    ----------
    message : str
    holder : Holder
        Who, where and since when, as far as known.
    """

    def __init__(self, message: str, holder: Holder) -> None:
        super().__init__(message)
        self.holder = holder


class LockLostError(ProjectError):
    """Another program has taken the project over; nothing more is written from here."""


class ImageMissingError(ProjectError):
    """An image is not where the project looks for it; ``relink`` finds it again."""


class ExportConflictError(ProjectError):
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
