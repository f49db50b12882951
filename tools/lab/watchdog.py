# SPDX-License-Identifier: Apache-2.0
"""Ends what a test lets loose: a storm of frames would else take the machine's processors.

A process of its own, because the test's may wait for something that a storm never lets happen,
and with a real-time priority, because a storm is handled before anything ordinary.
"""

import select
import subprocess
import sys
from types import TracebackType
from typing import Self

from tools.lab.lab import Lab, remove

SECONDS = 30.0


class Watchdog:
    """A context manager: when its body takes too long, everything of the lab is deleted, and the
    test fails."""

    def __init__(self, lab: Lab, seconds: float = SECONDS) -> None:
        self._words = ["chrt", "--fifo", "1", sys.executable, "-m", __name__]
        self._words += [lab.token, str(seconds)]
        self._seconds = seconds

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._words, stdin=subprocess.PIPE)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()  # whoever dies lets go of it as well
        if self._process.wait():
            raise AssertionError(f"after {self._seconds} s the watchdog removed everything")


def main(token: str, seconds: str) -> None:
    """Remove everything of a lab's after so many seconds, unless standard input ends before; the
    exit code tells."""
    if not select.select([sys.stdin], [], [], float(seconds))[0]:
        remove(token)
        sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:3])
