"""The pipe on which a child process reports what it does to the campaign."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from typing import TYPE_CHECKING

from tests.endurance.crash.ledger import Lost

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.endurance.crash.ledger import Ledger


class Told:
    """The reading end of a pipe on which a child tells what it does, line by line."""

    def __init__(self, descriptor: int, ledger: Ledger) -> None:
        self._descriptor, self._ledger = descriptor, ledger
        os.set_blocking(descriptor, False)
        self._rest = b""
        self.notes: dict[str, dict] = {}  # the last one of each kind
        self.kinds: Counter[str] = Counter()
        self.fault = ""

    def hear(self) -> bool:
        """Take in what was told since then; False once the child is no more."""
        while True:
            try:
                piece = os.read(self._descriptor, 2**16)
            except BlockingIOError:
                return True
            if not piece:
                return False
            *lines, self._rest = (self._rest + piece).split(b"\n")
            for line in lines:
                told = json.loads(line)
                if told["kind"] == "fault":
                    self.fault = told["text"]
                self.notes[told["kind"]] = told
                self.kinds[told["kind"]] += 1
                if "act" in told:
                    self._ledger.note(told)

    def hear_for(self, seconds: float) -> None:
        """Take in what is told for a while."""
        end = time.monotonic() + seconds
        while self.hear() and time.monotonic() < end:
            time.sleep(min(0.01, seconds))

    def hear_notes(self, count: int, seconds: float) -> None:
        """Take in so many notes, in some time at most."""
        end, until = time.monotonic() + seconds, self.kinds.total() + count
        while self.kinds.total() < until and self.hear() and time.monotonic() < end:
            time.sleep(0.005)

    def hear_until(self, kind: str, seconds: float) -> bool:
        """Wait for an event; False if the child ended or it took too long."""
        end = time.monotonic() + seconds
        while kind not in self.notes:
            if not self.hear() or time.monotonic() > end:
                return kind in self.notes
            time.sleep(0.01)
        return True

    def close(self) -> None:
        """Hear the last of a child that is no more; raises Lost if it broke."""
        self.hear()
        os.close(self._descriptor)
        if self.fault:
            raise Lost(f"the program broke:\n{self.fault}")


def teller(descriptor: int) -> Callable[[dict], None]:
    """Tell notes on a pipe; each is there whole, or not at all, when killed."""
    write = os.write  # as it is now: a failing disk does not concern it

    def tell(note: dict) -> None:
        write(descriptor, (json.dumps(note) + "\n").encode())

    return tell
