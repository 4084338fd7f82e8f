"""The plugin's page in napari's Preferences, with defaults if it is missing."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from napari.settings import get_plugin_settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Preferences:
    """What the user prefers."""

    pre_segment: bool = True
    model: str = "cmunet-artery"
    device: str = "auto"
    working_folder: str = ""
    cluster: str = ""


def _settings() -> Any | None:
    try:
        return get_plugin_settings("napari-cmunet")
    except (KeyError, OSError, ValueError):
        # The plugin is not installed, or the settings file cannot be read.
        return None


def load_preferences() -> Preferences:
    """Read the preferences."""
    settings = _settings()
    segmentation = getattr(settings, "segmentation", None)
    folders = getattr(settings, "folders", None)
    default = Preferences()
    return Preferences(
        pre_segment=bool(getattr(segmentation, "pre_segment", default.pre_segment)),
        model=str(getattr(segmentation, "model", "") or default.model),
        device=_plain(getattr(segmentation, "device", default.device)),
        cluster=str(getattr(segmentation, "cluster", "") or ""),
        working_folder=str(getattr(folders, "working_folder", "") or ""),
    )


def save_preference(name: str, value: Any) -> None:
    """Save one setting of the segmentation page."""
    segmentation = getattr(_settings(), "segmentation", None)
    if not hasattr(segmentation, name):
        return
    try:
        setattr(segmentation, name, value)
    except (ValueError, TypeError, OSError):
        logger.warning("The preference %s could not be saved", name, exc_info=True)


def _plain(value: Any) -> str:
    # napari turns an enum of the manifest into an Enum class.
    return str(getattr(value, "value", value))
