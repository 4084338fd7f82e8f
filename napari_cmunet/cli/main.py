"""The command line: ``napari-cmunet`` and ``python -m napari_cmunet``.

Exit 0: all done. 1: some input failed, every other was done, each failure named on
stderr. 2: bad usage, an unknown model among it. Nothing but results goes to stdout.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from typing import TYPE_CHECKING

from napari_cmunet.cli.parser import build_parser
from napari_cmunet.errors import CMUNetError, UnknownModelError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    _take_any_file_name()
    args = build_parser().parse_args(argv)
    try:
        command = importlib.import_module(f"napari_cmunet.cli.{args.command}")
        return command.run(args)
    except (UsageError, UnknownModelError) as exc:
        print(f"napari-cmunet: {exc}", file=sys.stderr)
        return 2
    except CMUNetError as exc:
        print(f"napari-cmunet: {exc}", file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as exc:
        if not _is_out_of_memory(exc):
            raise
        print(
            "napari-cmunet: not enough memory. Close other programs and start again; "
            "finished files are whole.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("napari-cmunet: stopped; finished files are whole.", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `... | head`
        # Python writes what is left once more as it exits: let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _is_out_of_memory(exc: Exception) -> bool:
    if isinstance(exc, MemoryError):
        return True
    if "torch" not in sys.modules:
        return False
    from napari_cmunet.model.device import is_out_of_memory

    return is_out_of_memory(exc)


def _take_any_file_name() -> None:
    """Let stdout print names that are no text in the system's encoding."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Elsewhere than on Windows the very bytes come out again.
        sys.stdout.reconfigure(
            errors="backslashreplace" if sys.platform == "win32" else "surrogateescape"
        )
