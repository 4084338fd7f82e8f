"""The keys of the vessel tools, bound to the viewer and given back again."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from napari_cmunet.gui.vessel_tools.row import MODE_KEYS
from napari_cmunet.vessels.modes import Mode

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import ViewerModel

    from napari_cmunet.gui.vessel_tools.controller import VesselTools
    from napari_cmunet.gui.vessel_tools.guided_review import Tour

NEXT_PLACE, SKIP_PLACE = "Q", "Shift+Q"

_LISTED = (
    (MODE_KEYS[Mode.ADD], "add a vessel: click, click"),
    (MODE_KEYS[Mode.REMOVE], "remove a branch; Shift: the whole run"),
    (NEXT_PLACE, "right: on to the next doubtful place"),
    (SKIP_PLACE, "skip this place"),
)


def listed_vessel_keys() -> list[tuple[str, str]]:
    """Return (key, what it does) for the panel's list."""
    return list(_LISTED)


class VesselKeys:
    """Binds the keys that nobody else has."""

    def __init__(self, viewer: ViewerModel, tools: VesselTools, tour: Tour) -> None:
        self._bound: dict[str, Callable] = {}
        acts = {key: partial(tools.toggle, mode) for mode, key in MODE_KEYS.items()}
        acts |= {NEXT_PLACE: tour.right, SKIP_PLACE: tour.skip}
        for key, act in acts.items():
            self._bind(viewer, key, act)

    def _bind(self, viewer: ViewerModel, key: str, act: Callable[[], None]) -> None:
        def pressed(_viewer) -> None:
            act()

        try:
            viewer.bind_key(key, pressed)
        except ValueError:  # taken by another plugin or by the user
            return
        self._bound[key] = pressed

    def unbind(self, viewer: ViewerModel) -> None:
        """Give the keys back, those that are still ours."""
        for key, pressed in self._bound.items():
            taken = viewer.bind_key(key, None)
            if taken is not None and taken is not pressed:
                viewer.bind_key(key, taken)
        self._bound.clear()
