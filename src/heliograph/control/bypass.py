# SPDX-License-Identifier: Apache-2.0
"""Counters of the flow that frames go past.

A bridge that has nothing but the flow to begin with is a learning switch, and its frames meet no
tables (`Hooks.tables_needed`). That flow has then counted what came in by the bridge's ports.
"""

from collections.abc import Awaitable, Callable

from heliograph.control.wanted import NO_FRAMES, Tally
from heliograph.flows.flow import Counters, Usage
from heliograph.flows.records import Besides


class Bypass:
    """Counters of a bridge's flows. `received`: what has come in by its ports, ever more."""

    def __init__(self, plane: Counters, received: Callable[[], Tally]) -> None:
        self._plane, self._received = plane, received
        self._flow = 0  # that frames go past, or did
        self._on = False  # they do
        self._more = NO_FRAMES  # what it counts besides the plane; if on, less what had come in
        self._came = NO_FRAMES  # when last looked at
        self._changed = 0  # when that was seen to have changed

    def usage(self, flow_id: int) -> Usage:
        """As of the last `look`."""
        usage = self._plane.usage(flow_id)
        if flow_id != self._flow:
            return usage
        more = self._more.plus(self._came) if self._on else self._more
        return Usage(
            max(usage.packets + more.packets, 0),
            max(usage.bytes + more.bytes, 0),
            max(usage.last_used, self._changed),
        )

    def look(self, now: int) -> None:
        """At what has come in by now."""
        if not self._on:
            return
        came = self._received()
        if came.packets > self._came.packets:
            self._changed = now
        # How many bytes were in frames that met nothing is estimated: it may have been too few.
        self._came = Tally(came.packets, max(came.bytes, self._came.bytes))

    # From here to there

    def start(self, besides: Besides, alone: int | None) -> None:
        """Go on with what a journal kept. `alone`: the flow that frames go past, if they do."""
        came = self._received()
        self._flow, self._more = besides.flow, Tally(besides.packets, besides.bytes)
        if besides.on:
            self._more = self._more.plus(came)
        if alone is not None:
            self._begin(alone, came)

    def follow(self, alone: int) -> bool:
        """Another flow may be in the place of the one that frames go past; whether it is."""
        if alone == self._flow:
            return False
        self._begin(alone, self._received())
        return True

    def _begin(self, alone: int, came: Tally) -> None:
        if alone != self._flow:
            self._flow, self._more, self._changed = alone, NO_FRAMES, 0
        self._more = self._more.minus(came)
        self._came, self._on = came, True

    async def turn(self, alone: int | None, switch: Callable[[], Awaitable[None]]) -> None:
        """Have `switch` make frames go past tables, in which is just the flow `alone`, or not.

        What passes meanwhile is counted once, whichever way it takes; a frame that comes just
        between the readings of two counters may count for none or twice.
        """
        flow = self._flow if alone is None else alone
        came, counted = self._received(), self._counted(flow)
        await switch()
        if alone is None:
            came = self._received()
        meanwhile = self._counted(flow).minus(counted)
        if alone is None:
            self._more, self._on = self._more.plus(came), False
        else:
            self._begin(alone, came)
        self._more = self._more.minus(meanwhile)

    def _counted(self, flow_id: int) -> Tally:
        usage = self._plane.usage(flow_id)
        return Tally(usage.packets, usage.bytes)

    def besides(self, departed: Tally) -> Besides:
        """For the journal. `departed`: of `received`, what is not of the ports that are there."""
        more = self._more.plus(departed) if self._on else self._more
        return Besides(self._flow, more.packets, more.bytes, self._on)
