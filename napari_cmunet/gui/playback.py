"""Playing a cine at the rate at which it was taken."""

from __future__ import annotations

from napari.settings import get_settings


def play_at(frames_per_second: object) -> None:
    """Set the rate of napari's play button; leave it where none is known.

    napari has one rate for all, in its preferences; whole frames a second.
    """
    if isinstance(frames_per_second, (int, float)) and frames_per_second > 0:
        rate = max(1, round(frames_per_second))
        application = get_settings().application
        if application.playback_fps != rate:
            application.playback_fps = rate
