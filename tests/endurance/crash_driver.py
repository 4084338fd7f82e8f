r"""Crash the program at random instants and look whether anything was lost.

``engine``
    A reader without a window, killed with ``kill -9``; with ``--faults`` a share of
    all writes fails, with ``--full-disk`` the disk is now and then really full.
``window``
    The real window, driven by its buttons, trainings included, killed the same way.
``commands``
    ``finetune``, ``export`` and ``segment``, killed the same way.
``import``
    The import of masks of other programs, killed the same way.
``power``
    The power goes: only what was flushed is left.
``readers``
    Two readers and a reviewer, who merges and rejects, take turns and are killed.
``together``
    Several programs on one project at the same time, some of them killed.

Each prints its seed and repeats it with ``--seed``. The exit code is 1 if anything that
was shown as done is not there, bit for bit, or something does not open. ::

    python -m tests.endurance.crash_driver engine --rounds 200
    xvfb-run -a -s "-screen 0 1600x1000x24" \
        python -m tests.endurance.crash_driver window --rounds 60
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.endurance.crash.ledger import Ledger, Lost
from tests.endurance.crash.pipe import Told, teller


def main() -> int:
    """Run the rounds; 0 if nothing was lost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=list(CAMPAIGNS))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--at", type=Path, help="folder to work in; kept afterwards")
    parser.add_argument("--faults", type=float, default=0.0, metavar="SHARE")
    parser.add_argument("--full-disk", action="store_true", help="--at is a small disk")
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args()
    if args.seed is None:
        args.seed = random.randrange(10**9)
    print(f"seed {args.seed}", flush=True)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        args.folder = args.at or Path(temporary)
        args.spare = Path(temporary) / "spare"  # copies are looked at there
        args.spare.mkdir()
        from tests.endurance.crash.phantom_project import make_home

        make_home(args.folder / "home")
        ledger = Ledger()
        figures: dict[str, object] = {"what": args.what, "seed": args.seed}
        try:
            figures |= CAMPAIGNS[args.what](args, ledger)
            figures["lost"] = 0
        except Lost as error:
            figures["lost"] = str(error)
            print(f"LOST: {error}", file=sys.stderr)
    figures |= {
        "done": dict(ledger.done),
        "failed in words": dict(ledger.failed),
        "drafts found again": ledger.checked_drafts,
        "seconds": round(time.monotonic() - began, 1),
    }
    print(json.dumps(figures, indent=1))
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0 if figures["lost"] == 0 else 1


# -- campaigns ----------------------------------------------------------------


def engine(args: argparse.Namespace, ledger: Ledger) -> dict:
    """Kill a reader without a window."""
    from tests.endurance.crash.disk_faults import DiskFaults
    from tests.endurance.crash.phantom_project import make_project

    folder = make_project(args.folder, 6, model=False)
    kills = faults = 0
    for number in range(args.rounds):
        choose = random.Random(f"{args.seed} {number}")
        faulty = args.faults if number % 2 else 0.0
        bursts = number % 4 == 3
        ledger.single_faults = not (bursts or args.full_disk)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            tell = teller(writing)
            if faulty:
                DiskFaults(folder, choose, faulty, bursts=bursts).install()
            _engine_child(args, folder, choose, tell)
        os.close(writing)
        told = Told(reading, ledger)
        # Most die at work, some while they open the project.
        early = choose.random() < 0.15
        try:
            if not early:
                told.hear_until("opened", 30)
                told.hear_notes(choose.randrange(60), 10)
            told.hear_for(choose.uniform(0, 0.02))
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        told.close()
        kills += 1
        faults += faulty > 0
        (folder.parent / "ballast").unlink(missing_ok=True)
        ledger.check(folder, args.spare / "copy")
        if kills % 20 == 0:
            print(f"{kills} kills: {dict(ledger.done)}", file=sys.stderr, flush=True)
    return {"kills": kills, "of them with a failing disk": faults}


def _engine_child(args, folder: Path, choose: random.Random, tell) -> None:
    from napari_cmunet.errors import CMUNetError
    from napari_cmunet.project.project import Project
    from tests.endurance.crash.reader_without_window import Reader

    try:
        while True:
            try:
                project = Project.open(folder, user="reader-1")
                break
            except CMUNetError as error:
                tell({"kind": "failed", "act": "open", "why": str(error)})
        tell({"kind": "opened"})
        reader = Reader(project, choose, tell, args.folder / "exports")
        while True:
            if args.full_disk and choose.random() < 0.1:
                _fill(folder.parent / "ballast", choose)
            reader.act()
    except BaseException:  # noqa: BLE001
        tell({"kind": "fault", "text": traceback.format_exc()})
    os._exit(1)


def _fill(ballast: Path, choose: random.Random) -> None:
    """Fill the disk, or free it again."""
    if ballast.exists():
        ballast.unlink()
        return
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.tell() < 2**27:
                file.write(b"\0" * 4096)
        except OSError:
            return
    sys.exit("--full-disk needs a small disk: see docs/reliability.md")


def power(args: argparse.Namespace, ledger: Ledger) -> dict:
    """Cut the power at random flushes of a reader without a window."""
    import copy
    import shutil

    from napari_cmunet.project.project import Project
    from tests.endurance.crash.phantom_project import make_project
    from tests.endurance.crash.power_cut import PowerCut
    from tests.endurance.crash.reader_without_window import Reader

    folder = make_project(args.folder, 6, model=False)
    choose = random.Random(args.seed)
    cuts = {"strict": 0, "by chance": 0}

    def cut() -> None:
        if busy or choose.random() > 0.03 or sum(cuts.values()) >= args.rounds:
            return
        kind = choose.choice(list(cuts))
        left = args.spare / "left"
        disk.leave(left, None if kind == "strict" else choose)
        busy.append(1)
        disk.pause()
        try:
            copy.deepcopy(ledger).check(left, args.spare / "copy")
        finally:
            disk.install()
            busy.clear()
        shutil.rmtree(left)
        cuts[kind] += 1

    busy: list[int] = []
    with Project.open(folder, user="reader-1") as project:
        disk = PowerCut(folder, cut)
        disk.install()
        reader = Reader(project, choose, ledger.note, args.folder / "exports")
        while sum(cuts.values()) < args.rounds:
            reader.act()
        disk.close()
    return {"power cuts": cuts}


def window(args: argparse.Namespace, ledger: Ledger) -> dict:
    """Kill the window; what one leaves, the next one opens."""
    from tests.endurance.crash.window_rounds import run

    return run(args, ledger)


def commands(args: argparse.Namespace, ledger: Ledger) -> dict:
    """Kill the commands."""
    from tests.endurance.crash.command_rounds import run

    return run(args, ledger)


def readers(args: argparse.Namespace, ledger: Ledger) -> dict:
    """Kill two readers and a reviewer who take turns at one project."""
    from tests.endurance.crash.reader_rounds import run

    return run(args, ledger)


def together(args: argparse.Namespace, ledger: Ledger) -> dict:
    """Let a reader accept while commands and other readers are at the same project."""
    from tests.endurance.crash.together_rounds import run

    return run(args, ledger)


def imports(args: argparse.Namespace, ledger: Ledger) -> dict:
    """Kill the import of masks of other programs."""
    from tests.endurance.crash.import_rounds import run

    return run(args, ledger)


CAMPAIGNS = {
    "engine": engine,
    "window": window,
    "commands": commands,
    "power": power,
    "readers": readers,
    "together": together,
    "import": imports,
}


if __name__ == "__main__":
    sys.exit(main())
