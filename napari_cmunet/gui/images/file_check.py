"""Read files again that napari's own reader may have read otherwise.

The command line and a project read files with this program's reader; the window must
show the same pixels.
"""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import TYPE_CHECKING

from napari.layers._source import layer_source

from napari_cmunet.gui.images import layers
from napari_cmunet.gui.jobs import Job
from napari_cmunet.reader import may_differ, read_again

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import ViewerModel
    from napari.layers import Image

    from napari_cmunet.gui.jobs import JobResult
    from napari_cmunet.reader import LayerData


class FileCheck:
    """Compares new image layers with their files, as this program reads them.

    A layer that shows other pixels is exchanged for one that shows the right ones.

    Parameters
    ----------
    on_checked : callable
        Called when a layer that was pending is checked.
    """

    def __init__(
        self, viewer: weakref.ref[ViewerModel], on_checked: Callable[[], None]
    ) -> None:
        self._viewer, self._on_checked = viewer, on_checked
        self._jobs: dict[Image, Job] = {}
        self._checked: weakref.WeakSet[Image] = weakref.WeakSet()
        self._problems: weakref.WeakKeyDictionary[Image, str] = (
            weakref.WeakKeyDictionary()
        )

    def problem(self, image: Image) -> str | None:
        """Return why the file of a layer cannot be used, None if it can."""
        return self._problems.get(image)

    def is_pending(self, image: Image) -> bool:
        """Whether a layer is being checked; starts the check where one is needed."""
        if image in self._jobs:
            return True
        if image in self._checked or image.source.reader_plugin != "napari":
            return False
        path = Path(str(image.source.path))
        odd = layers.unsupported(image) is not None or layers.is_small(image)
        if not path.is_file() or not (odd or may_differ(path)):
            return False

        def ended(result: JobResult) -> None:
            self._jobs.pop(image, None)
            self._checked.add(image)
            viewer = self._viewer()
            if viewer is None or image not in viewer.layers:
                return
            if result.error is not None:
                self._problems[image] = str(result.error)
            elif not layers.shows(image, result.result[0]):
                _exchange(viewer, image, result.result, path)
            self._on_checked()

        job = Job("Reading the file", lambda *_: read_again(path), ended)
        self._jobs[image] = job.start()
        return True


def _exchange(viewer: ViewerModel, image: Image, read: LayerData, path: Path) -> None:
    """Exchange a layer for one with the pixels that were read from its file."""
    data, options, _ = read
    with layer_source(path=str(path), reader_plugin="napari-cmunet"):
        made = type(image)(data, **options | {"name": image.name})
    index = viewer.layers.index(image)
    viewer.layers.remove(image)
    viewer.layers.insert(index, made)
    viewer.layers.selection.active = made
