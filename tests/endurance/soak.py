r"""Read for a long time in the real window and look whether anything piles up.

Small synthetic angiograms are opened, corrected, taken back now and then, accepted, one
after the other, while trainings of a tiny model come and go. After each training, once
all is still, memory, file handles, threads, processes and layers are counted. ::

    xvfb-run -a -s "-screen 0 1600x1000x24" \
        python -m tests.endurance.soak --images 500 --trainings 20
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.endurance.crash.hand import Hand
from tests.endurance.crash.phantom_project import MODEL, make_home

SIZE = 128
DRAWN = 20
#: Per image, once the window is warm.
MAX_GROWTH_KB = 60


def main() -> int:
    """Read; 0 if everything came back to where it was."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--trainings", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=240, help="then it ends")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        make_home(Path(temporary) / "home")
        report = run(args, make_long_project(Path(temporary), args.images))
    print(json.dumps({k: v for k, v in report.items() if k != "table"}, indent=1))
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    return 1 if report["grown"] else 0


def make_long_project(folder: Path, images: int) -> Path:
    """A project of so many frames: few phantoms, each shifted and turned."""
    from napari_cmunet.project.project import Project
    from napari_cmunet.synthetic import PhantomConfig, make_frame
    from tests.endurance.crash.phantom_project import install_model

    seeds = range(min(DRAWN, images))
    drawn = [make_frame(PhantomConfig(size=SIZE, seed=n))[0] for n in seeds]
    pictures = folder / "pictures"
    for number in range(images):
        place = pictures / f"patient-{number // 4:03d}"
        place.mkdir(parents=True, exist_ok=True)
        frame = np.roll(np.rot90(drawn[number % len(drawn)], number), number, 0)
        np.save(place / f"frame-{number:03d}.npy", frame)
    with Project.create(folder / "project", user="reader-1") as project:
        project.images.add([pictures], lambda path: path.parts[0])
        install_model()
        project.models.promote(MODEL, installed=True, reason="chosen")
        project.change_settings(start=MODEL, minutes=0.5)
        return project.folder


def run(args: argparse.Namespace, project: Path) -> dict:
    """The whole reading; what was counted after each training."""
    began = time.monotonic()
    hand = Hand(random.Random(args.seed))
    if not hand.open(project, 600):
        sys.exit(f"the project did not open: {hand.reader.messages.alert}")
    training = hand.reader.training.session
    training.options = {"steps": 4, "batch": 2}
    ended: list[str] = []
    training.ended.connect(lambda result: ended.append(result.kind))
    every = max(1, args.images // args.trainings)
    table = []
    for number in range(1, args.images + 1):
        read_one(hand, number)
        if number % 10 == 0:
            seconds = round(time.monotonic() - began)
            print(f"{number} images, {seconds} s", file=sys.stderr, flush=True)
        if number % every == 0:
            hand.click(hand.finetune.start)
            hand.until(lambda: not training.running, 900)
            table.append(count(hand, number, len(ended)))
            print(table[-1], file=sys.stderr, flush=True)
        if time.monotonic() - began > args.minutes * 60 and len(table) > 1:
            break
        if number < args.images and not hand.next():
            sys.exit(f"no next image after {number}: {hand.reader.messages.text}")
    labels = len(hand.reader.project.labels.keys())
    hand.close()
    # What is loaded at first (torch, shaders, undo) is there to stay.
    warm, last = table[len(table) // 4], table[-1]
    growth = (last["memory_mb"] - warm["memory_mb"]) * 1024
    per_image = growth / max(1, last["images"] - warm["images"])
    grown = [
        name
        for name, slack in (("threads", 3), ("processes", 0))
        if last[name] > warm[name] + slack
    ]
    # The threads of a pool come and go, each with two handles.
    before, after = (x["handles"] - 2 * x["threads"] for x in (warm, last))
    grown += ["handles"] if after > before + 3 else []
    grown += ["layers"] if last["layers"] != warm["layers"] else []
    # Over a few images, what is loaded late outweighs what piles up.
    long = last["images"] - warm["images"] >= 50
    grown += ["memory"] if long and per_image > MAX_GROWTH_KB else []
    return {
        "labels": labels,
        "trainings": dict.fromkeys(ended, 0) | {k: ended.count(k) for k in ended},
        "seconds": round(time.monotonic() - began),
        "warm": warm,
        "last": last,
        "memory_kb_per_image": round(per_image, 1),
        "grown": grown,
        "table": table,
    }


def read_one(hand: Hand, number: int) -> None:
    """Correct the open image and accept it."""
    if not hand.until(lambda: hand.ready, 120):
        sys.exit(
            f"image {number} cannot be accepted: {hand.reader.annotation.why_not()}"
        )
    for _ in range(3):
        hand.stroke()
    hand.click(hand.panel.undo)
    if not hand.mask().any():
        hand.opened.image_state.mask.paint((SIZE // 2, SIZE // 2), 1)
    if not hand.accept():
        sys.exit(f"image {number} was not accepted: {hand.reader.messages.alert}")
    if number % 10 == 0:
        hand.click(hand.page.back)
        hand.until(lambda: hand.reader.workspace.writer.idle, 60)
        hand.accept()


def count(hand: Hand, images: int, trainings: int) -> dict[str, float]:
    """What the process holds now."""
    hand.until(lambda: not hand.panel.controller.queue.running, 120)
    hand.live(0.5)
    gc.collect()
    here = Path("/proc/self")
    pages = int((here / "statm").read_text().split()[1])
    children = 0
    for task in (here / "task").iterdir():
        with contextlib.suppress(OSError):
            children += len((task / "children").read_text().split())
    return {
        "images": images,
        "trainings": trainings,
        "memory_mb": round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1),
        "handles": len(list((here / "fd").iterdir())),
        "threads": len(list((here / "task").iterdir())),
        "processes": children,
        "layers": len(hand.viewer.layers),
    }


if __name__ == "__main__":
    sys.exit(main())
