r"""What saving strokes costs the window: milliseconds of the GUI thread a stroke.

In the real window, with a project of one frame of each size. Time is the processor's,
of the GUI thread alone, in everything that the saving does there: noting a stroke,
handing over its mask, hearing that it is on the disk and showing so. ::

    xvfb-run -a -s "-screen 0 1600x1000x24" python -m benchmarks.autosave_table
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.endurance.crash.hand import Hand
from tests.endurance.crash.phantom_project import MODEL, install_model, make_home

SIZES = (256, 512, 1024)


def main() -> int:
    """Print a line for each size of frame."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--strokes", type=int, default=40)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        make_home(Path(temporary) / "home")
        project = make_project(Path(temporary))
        measured = watch()
        hand = Hand(random.Random(0))
        if not hand.open(project, 600):
            sys.exit(f"the project did not open: {hand.reader.messages.alert}")
        print("frame      mean ms   sd    most   (GUI thread, per stroke)")
        for number, size in enumerate(SIZES):
            costs = []
            for _ in range(args.strokes):
                measured.clear()
                hand.stroke()
                keeper = hand.reader.navigator.draft_saver
                hand.until(lambda k=keeper: k.saved, 60)
                costs.append(1000 * sum(measured))
            mean, spread, most = np.mean(costs), np.std(costs), max(costs)
            print(f"{size:4} x {size:4} {mean:7.2f} {spread:6.2f} {most:7.2f}")
            if number + 1 < len(SIZES) and not hand.next():
                sys.exit(f"no next image: {hand.reader.messages.text}")
        hand.close()
    return 0


def watch() -> list[float]:
    """Measure all that the saving does on the GUI thread, from now on."""
    from napari_cmunet.gui.project.draft_saver import DraftSaver

    seconds: list[float] = []
    depth = [0]

    def measured(real):
        def call(*args):
            began = time.thread_time()
            depth[0] += 1
            try:
                return real(*args)
            finally:
                depth[0] -= 1
                if not depth[0]:
                    seconds.append(time.thread_time() - began)

        return call

    for name in ("note", "flush", "_on_saved", "_on_failed"):
        setattr(DraftSaver, name, measured(getattr(DraftSaver, name)))
    return seconds


def make_project(folder: Path) -> Path:
    """A project of one phantom frame of each size."""
    from napari_cmunet.project.project import Project
    from napari_cmunet.synthetic import PhantomConfig, make_frame

    pictures = folder / "pictures"
    pictures.mkdir()
    for size in SIZES:
        frame, _ = make_frame(PhantomConfig(size=size, seed=1))
        np.save(pictures / f"frame-{size:04}.npy", frame)
    with Project.create(folder / "project") as project:
        project.images.add([pictures])
        install_model()
        project.models.promote(MODEL, installed=True, reason="chosen")
        return project.folder


if __name__ == "__main__":
    sys.exit(main())
