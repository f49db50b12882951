# SPDX-License-Identifier: Apache-2.0
"""How often to try again, and how often to follow what others change."""

import asyncio

BACK_OFF_SECONDS = (0.1, 5.0)
# After a pass, devices that change wait for so many times its duration: a host where they change
# all the time costs a fifth of a processor at most.
REST = 4


class BackOff:
    """How long to wait after each failure in a row, in seconds."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """It worked."""
        self._delay = BACK_OFF_SECONDS[0]

    def next(self) -> float:
        """It failed once more."""
        delay, self._delay = self._delay, min(self._delay * 2, BACK_OFF_SECONDS[1])
        return delay


class Pace:
    """Makes a pass due when devices have changed, after the rest that the last pass has earned."""

    def __init__(self, due: asyncio.Event) -> None:
        self._due = due
        self._began: float | None = None
        self._rested = 0.0
        self._stirred = False
        self._wake: asyncio.TimerHandle | None = None

    def stir(self) -> None:
        """Devices have changed."""
        loop = asyncio.get_running_loop()
        if self._began is not None:
            self._stirred = True
        elif self._wake is None:
            self._wake = loop.call_at(max(self._rested, loop.time()), self._due.set)

    def begin(self) -> None:
        """A pass begins; it takes in what has changed until now."""
        self._began = asyncio.get_running_loop().time()
        self._stirred = False
        if self._wake:
            self._wake.cancel()
            self._wake = None

    def end(self) -> None:
        """It has ended."""
        now = asyncio.get_running_loop().time()
        self._rested = now + REST * (now - (self._began or now))
        self._began = None
        if self._stirred:
            self.stir()
