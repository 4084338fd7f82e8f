"""Names that are a device on Windows, whatever follows the first dot."""

from __future__ import annotations

import re

_DEVICES = re.compile(
    r"(con|conin\$|conout\$|prn|aux|nul|clock\$|(com|lpt)[0-9¹²³])", re.IGNORECASE
)


def is_device(name: str) -> bool:
    """Whether a name of a file or folder stands for a device: ``CON``, ``aux.tif``."""
    return _DEVICES.fullmatch(name.split(".")[0].split(":")[0].rstrip(" ")) is not None
