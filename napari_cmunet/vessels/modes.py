"""The names of the tools, and of the modes in which a hand takes them up."""

from __future__ import annotations

from enum import StrEnum


class Tool(StrEnum):
    """What can be done to a mask besides painting."""

    TRACE = "trace"
    ACCEPT = "accept"
    REMOVE = "remove"
    BRIDGE = "bridge"
    NOT_ARTERY = "not artery"


class Mode(StrEnum):
    """What a hand takes up; the place that is clicked says which tool is meant."""

    ADD = "add"
    REMOVE = "remove"


MODE_OF = {
    Tool.TRACE: Mode.ADD,
    Tool.ACCEPT: Mode.ADD,
    Tool.BRIDGE: Mode.ADD,
    Tool.REMOVE: Mode.REMOVE,
    Tool.NOT_ARTERY: Mode.REMOVE,
}
