# SPDX-License-Identifier: Apache-2.0
"""OpenFlow of all bridges: their flows, RUNDIR/BRIDGE.mgmt, and the rows of Controller.

RUNDIR/BRIDGE.snoop, on which Open vSwitch copies what it and its controllers say, is not made.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

from heliograph.control.bridge import Bridge
from heliograph.control.channel import Channel
from heliograph.control.listener import Listener
from heliograph.control.session import Session
from heliograph.control.subscriptions import Kind
from heliograph.control.targets import Target
from heliograph.control.versions import spoken, unspoken
from heliograph.control.wanted import Hooks, WantedBridge

log = logging.getLogger(__name__)


class _Served:
    """A bridge and where its controllers are."""

    def __init__(self, rundir: Path, bridge: Bridge) -> None:
        self.bridge = bridge
        name = bridge.wanted.name
        target = Target(listens=True, path=rundir / f"{name}.mgmt")
        self.mgmt = Listener(f"{name}<->unix", target, self._managed)

    def _managed(self, channel: Channel, name: str) -> Session:
        return Session(
            self.bridge,
            channel,
            name=name,
            versions=spoken(self.bridge.wanted.protocols),
            kind=Kind.SERVICE,
        )

    async def close(self) -> None:
        await self.mgmt.close()
        self.bridge.close()


class Service:
    """`keep`: the data plane was there before, so the flows of journals are in force."""

    def __init__(self, rundir: Path, hooks: Hooks, *, keep: bool) -> None:
        self._rundir, self._hooks, self._keep = rundir, hooks, keep
        self._journals = rundir / "flows"
        self._bridges: dict[UUID, _Served] = {}
        self._begun = False

    async def configure(self, wanted: Sequence[WantedBridge]) -> None:
        """Serve these bridges and no others."""
        if not self._begun:
            self._begin({bridge.uuid for bridge in wanted})
        named = {bridge.uuid: bridge for bridge in wanted}
        for uuid in [uuid for uuid in self._bridges if uuid not in named]:
            await self._bridges.pop(uuid).close()
            self._journal(uuid).unlink(missing_ok=True)
        for uuid, bridge in named.items():
            if uuid in self._bridges:
                await self._bridges[uuid].bridge.configure(bridge)
            else:
                await self._add(bridge)

    def _journal(self, uuid: UUID) -> Path:
        return self._journals / f"{uuid}.journal"

    def _begin(self, wanted: set[UUID]) -> None:
        """Remove what flows are no longer in force."""
        self._begun = True
        self._journals.mkdir(mode=0o750, exist_ok=True)
        kept = {self._journal(uuid) for uuid in wanted} if self._keep else set()
        for path in self._journals.iterdir():
            if path not in kept:
                path.unlink()

    async def _add(self, wanted: WantedBridge) -> None:
        if bad := unspoken(wanted.protocols):
            log.warning("bridge %s: %s is not spoken", wanted.name, ", ".join(bad))
        journal = self._journal(wanted.uuid)
        adopt = journal.exists()
        bridge = Bridge(wanted, journal, self._hooks)
        bridge.begin(adopt=adopt)
        served = self._bridges[wanted.uuid] = _Served(self._rundir, bridge)
        await served.mgmt.open()

    def needs_tables(self, uuid: UUID) -> bool:
        return uuid in self._bridges and self._bridges[uuid].bridge.needs_tables

    async def tick(self) -> None:
        """Once a second."""
        for served in self._bridges.values():
            await served.bridge.tick()
            await served.mgmt.open()

    async def close(self) -> None:
        """The journals stay, for the data plane goes on."""
        for served in self._bridges.values():
            await served.close()
        self._bridges.clear()
