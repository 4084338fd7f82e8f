r"""How many files of the package three ways of a user's pass through.

A key pressed until the label is on the disk, an image opened until its mask is drawn,
and a fine-tuning from the button to the new model, in a real window and its process.
Counts files in which a function ran. Importing a file does not count, nor does the
panel that shows the new state, nor what other threads do at the same time. ::

    xvfb-run -a python -m benchmarks.ways
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = str(Path(__file__).parents[1] / "napari_cmunet") + os.sep
SHOWING = ("CMUNetPanel.refresh", "Prefetcher.plan", "ImageOrder.score")
"""What follows from the way and is not part of it."""

_passed: list[str] = []
_until = ""
_depth = threading.local()


def _profile(frame, event: str, _argument: object) -> None:
    """Note the file of a function that is called, until one has returned."""
    global _until
    code = frame.f_code
    if not _until or not code.co_filename.startswith(PACKAGE):
        return
    if code.co_qualname in SHOWING:
        below = getattr(_depth, "showing", 0)
        _depth.showing = max(0, below + {"call": 1, "return": -1}.get(event, 0))
    elif event == "call" and code.co_name != "<module>":
        name = code.co_filename.removeprefix(PACKAGE)
        if name not in _passed and not getattr(_depth, "showing", 0):
            _passed.append(name)
    elif event == "return" and code.co_qualname == _until:
        _until = ""


@contextmanager
def way(name: str, until: str) -> Iterator[None]:
    """Print the files passed until a function has returned."""
    global _until
    _passed.clear()
    _until = until
    yield
    _until = ""
    print(f"{name}: {len(_passed)} files")
    print("  " + "\n  ".join(_passed))


def _profile_workers() -> None:
    """Profile threads that Qt starts, too."""
    from superqt.utils import _qthreading as threads

    for kind in (threads.FunctionWorker, threads.GeneratorWorker):
        run = kind.run

        def profiled(self, run=run) -> None:
            sys.setprofile(_profile)
            run(self)

        kind.run = profiled


def main() -> None:
    """Walk the three ways."""
    threading.setprofile(_profile)
    sys.setprofile(_profile)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NAPARI_CMUNET_HOME"] = folder
        _walk(Path(folder))


def _walk(home: Path) -> None:
    import numpy as np

    from benchmarks.whole_loop import Loop
    from napari_cmunet.gui.project.workspace import NewProject
    from napari_cmunet.project.training.finetuning import finetune_project
    from napari_cmunet.synthetic import PhantomConfig, make_frame

    _profile_workers()
    images = home / "images"
    images.mkdir()
    for seed in range(3):
        np.save(
            images / f"{seed}.npy",
            make_frame(PhantomConfig(frames=1, size=128, seed=seed))[0],
        )
    loop = Loop(home, "dark")
    loop.until(lambda: loop.panel.controller.queue.engine is not None, "the model")
    with way("image opened -> mask drawn", "OpenImages.add_mask"):
        loop.viewer.open(str(images / "0.npy"), plugin="napari-cmunet")
        loop.until(lambda: not _until, "the mask")
    loop.reader.create(NewProject(home / "project", (images,)))
    loop.until(loop.ready, "the project")
    loop.rest(5)  # the next image is prepared
    with way("K pressed -> label on disk", "ProjectLabels.accept"):
        loop.viewer.keymap[_key("K")](loop.viewer)
        loop.until(lambda: not _until, "the label")
    loop.rest()
    options = {"steps": 4, "batch": 2, "width": 4, "start": "random"}
    training = loop.reader.training.session
    training.options, training.in_stages = options, False
    with way("fine-tune: the window", "promote_if_better"):
        training.start()
        loop.until(lambda: not _until and not training.running, "the model")
    with way("fine-tune: its process", "finetune_project"):
        finetune_project(home / "project", options, write=lambda event: None)
    loop.viewer.close()


def _key(text: str):
    from app_model.types import KeyBinding

    return KeyBinding.from_str(text)


if __name__ == "__main__":
    main()
