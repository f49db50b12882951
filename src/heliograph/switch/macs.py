# SPDX-License-Identifier: Apache-2.0
"""Looking after the MAC tables: sweeping, and saying which MAC moves too often."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from uuid import UUID

from heliograph.kernel.fdb import Fdb
from heliograph.kernel.snapshot import BridgeEntry
from heliograph.switch.intent import Intent
from heliograph.switch.plan import Plan

LOOK_SECONDS = 1.0
SWEEP_SECONDS = 5.0
# After a slice of a sweep, so many times its duration: sweeping costs a thirtieth of a processor,
# or a half while there is something that a change made void.
REST, HASTY_REST = 29, 1
_END = object()


class MacKeeper:
    """`problems` says by slot of a bridge which MAC moves too often; `changed` is called when
    that has become another."""

    def __init__(self, fdb: Fdb, changed: Callable[[], None]) -> None:
        self._fdb = fdb
        self._changed = changed
        self._bridges: Mapping[int, BridgeEntry] | None = None  # not known yet: all is kept
        self._due = asyncio.Event()
        self._swept = 0.0
        self._flaps: dict[int, object] = {}

    def configure(self, bridges: Mapping[int, BridgeEntry]) -> None:
        """These bridges are in force now: what that made void is swept out at once."""
        if bridges != self._bridges:
            self._bridges = dict(bridges)
            self._due.set()

    def complain(self, intent: Intent, plan: Plan) -> None:
        """Add to a plan's problems what is wrong with MACs."""
        names = {
            number: port.name
            for bridge in intent.bridges
            for port in bridge.ports
            for number in (plan.slots.ports.get(port.uuid),)
            if number is not None
        }
        for uuid, bridge in plan.bridges.items():
            self._complain_of(uuid, bridge, names, plan)

    def _complain_of(
        self, uuid: UUID, bridge: BridgeEntry, names: Mapping[int, str], plan: Plan
    ) -> None:
        flap = self._fdb.flap(bridge.slot)
        if flap and all(port in names for port in flap.ports):
            one, other = (names[port] for port in flap.ports)
            plan.complain(
                uuid,
                f"MAC {flap.mac} of VLAN {flap.vlan} moves between ports {one} and {other} more "
                "than 100 times a second: look for a loop, or for two hosts with one address",
            )

    async def run(self) -> None:
        """Sweep and look, for ever. Raises OSError as the kernel says it."""
        jobs = [asyncio.ensure_future(job) for job in (self._sweep(), self._look())]
        try:
            done, _ = await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
            for job in done:
                job.result()
        finally:
            for job in jobs:
                job.cancel()

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            # Not wait_for: one that is cancelled just when it ends goes on (Python 3.11).
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_SECONDS):
                    await self._due.wait()
            if self._bridges is None:
                continue
            hasty = self._due.is_set()
            self._due.clear()
            slices = self._fdb.sweep(self._in_force)
            more = True
            while more:
                began = loop.time()
                more = await asyncio.to_thread(next, slices, _END) is not _END
                rest = HASTY_REST if hasty or self._due.is_set() else REST
                await asyncio.sleep(rest * (loop.time() - began))

    def _in_force(self) -> Mapping[int, BridgeEntry]:
        assert self._bridges is not None
        return self._bridges

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            flaps: dict[int, object] = {slot: self._fdb.flap(slot) for slot in self._bridges or ()}
            if flaps != self._flaps:
                self._flaps = flaps
                self._changed()
