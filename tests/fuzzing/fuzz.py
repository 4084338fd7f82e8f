"""Give the readers of files inputs that are broken on purpose.

    python -m tests.fuzzing.fuzz tiff --inputs 20000 --seed 1 --json tiff.json
    python -m tests.fuzzing.fuzz all --inputs 200

A fault is: an error that is not of this program's own kinds, more than 5 s, more than
twice the memory that the reader's limit allows, a program that is run, a connection,
or a file opened or changed outside the folder of the input. The same seed gives the
same inputs. Linux only, since it looks at the process's memory in ``/proc``.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from tests.fuzzing.run import HEADER, fuzz
from tests.fuzzing.targets import NAMES


def main() -> int:
    """Fuzz, print a table, and return 1 if there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("reader", nargs="+", choices=[*NAMES, "all"])
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="at most, for each reader"
    )
    parser.add_argument("--json", type=Path, help="what was found, for programs")
    parser.add_argument("--keep", type=Path, help="folder for inputs that show a fault")
    options = parser.parse_args()
    readers = NAMES if "all" in options.reader else options.reader
    outcomes = []
    print(HEADER, flush=True)
    for reader in readers:
        outcome = fuzz(
            reader, options.inputs, options.seed, options.keep, options.minutes
        )
        outcomes.append(outcome)
        print(outcome.row(), flush=True)
        for fault in outcome.faults:
            print(f"{reader}, input {fault['input']}: {fault['what']}", file=sys.stderr)
        if options.json:
            found = [asdict(o) for o in outcomes]
            options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return 1 if any(outcome.faults for outcome in outcomes) else 0


if __name__ == "__main__":
    raise SystemExit(main())
