"""Something that the reader should know, with the ways out as buttons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Way:
    """One way out: a button."""

    text: str
    tip: str
    act: Callable[[], None]


@dataclass(frozen=True)
class Notice:
    """What is said until the reader has chosen a way, or all is well again.

    Parameters
    ----------
    text : str
    ways : tuple of Way
    about : str
        What it is about, so that it can be taken back: ``image``, ``draft``, …
    serious : bool
        Whether something did not work.
    """

    text: str
    ways: tuple[Way, ...] = ()
    about: str = ""
    serious: bool = False
