# SPDX-License-Identifier: Apache-2.0
"""OpenFlow of all bridges: their flows, RUNDIR/BRIDGE.mgmt, and the rows of Controller.

RUNDIR/BRIDGE.snoop, on which Open vSwitch copies what it and its controllers say, is not made.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

from heliograph.control import packet_ins
from heliograph.control.bridge import Bridge
from heliograph.control.channel import Channel
from heliograph.control.listener import Listener
from heliograph.control.rows import PROBE, Row
from heliograph.control.session import Session
from heliograph.control.subscriptions import Kind
from heliograph.control.targets import Target
from heliograph.control.versions import spoken
from heliograph.control.wanted import ControllerStatus, Hooks, WantedBridge
from heliograph.kernel.layouts import PacketIn
from heliograph.openflow.errors import OpenFlowError

log = logging.getLogger(__name__)


class _Served:
    """A bridge and where its controllers are."""

    def __init__(self, rundir: Path, bridge: Bridge, hooks: Hooks) -> None:
        self.bridge = bridge
        self.rows: dict[UUID, Row] = {}
        self._rundir, self._hooks = rundir, hooks
        self._trouble = ""
        self._closed = False
        name = bridge.wanted.name
        target = Target(listens=True, path=rundir / f"{name}.mgmt")
        self._mgmt = Listener(f"{name}<->unix", target, self._managed, lambda: None)

    def _managed(self, channel: Channel, name: str) -> Session:
        return Session(
            self.bridge,
            channel,
            name=name,
            versions=spoken(self.bridge.wanted.protocols),
            kind=Kind.SERVICE,
        )

    async def follow(self, old: WantedBridge | None) -> None:
        """Have the connections that the bridge is to have; those that have changed begin anew."""
        wanted = self.bridge.wanted
        same = old is not None and old.protocols == wanted.protocols
        rows = {row.uuid: row for row in wanted.controllers}
        for uuid, row in list(self.rows.items()):
            if not same or rows.get(uuid) != row.wanted:
                del self.rows[uuid]
                await row.close()
        for uuid, controller in rows.items():
            if uuid not in self.rows:
                changed = self._hooks.status_changed
                self.rows[uuid] = Row(controller, self.bridge, self._rundir, changed)
        await self.open()

    async def open(self) -> None:
        """Listen everywhere; what failed is tried again."""
        await self._mgmt.open()
        for row in self.rows.values():
            await row.open()

    async def tick(self) -> None:
        await self.open()
        trouble = ""
        try:
            await self.bridge.tick()
            await self._follow_controllers()
        except OpenFlowError as error:
            trouble = str(error)
            if trouble != self._trouble:  # not each second
                log.error("bridge %s: %s", self.bridge.wanted.name, error)
        except Exception:
            if not self._closed:  # else it was removed meanwhile, with its memory
                raise
        self._trouble = trouble

    async def _follow_controllers(self) -> None:
        connectors = [
            r.connector for r in self.rows.values() if r.wanted.is_primary and r.connector
        ]
        if connectors:
            unreachable = min(connector.unreachable for connector in connectors)
            probe = max(row.probe or PROBE for row in self.rows.values() if row.connector)
            await self.bridge.follow_controllers(unreachable, probe)

    async def close(self) -> None:
        self._closed = True
        await self._mgmt.close()
        for row in self.rows.values():
            await row.close()
        self.bridge.close()


class Service:
    """`keep`: the data plane was there before, so the flows of journals are in force."""

    def __init__(self, rundir: Path, hooks: Hooks, *, keep: bool) -> None:
        self._rundir, self._hooks, self._keep = rundir, hooks, keep
        self._journals = rundir / "flows"
        self._served: dict[UUID, _Served] = {}
        self._begun = False
        self.stores: dict[int, UUID] = {}  # bridges by the data plane's number of their store

    async def configure(self, wanted: Sequence[WantedBridge]) -> dict[UUID, str]:
        """Serve these bridges and no others.

        Returns, of each whose flows cannot be had, why; the next time it is tried again.
        """
        problems: dict[UUID, str] = {}
        if not self._begun:
            self._begin({bridge.uuid for bridge in wanted})
        named = {bridge.uuid: bridge for bridge in wanted}
        for uuid in [uuid for uuid in self._served if not self._is_same(named.get(uuid), uuid)]:
            await self._served.pop(uuid).close()
            self._journal(uuid).unlink(missing_ok=True)
        for uuid, bridge in named.items():
            served = self._served.get(uuid)
            if not _names_files(bridge.name):
                problems[uuid] = (
                    f"no socket is named after a bridge {bridge.name!r}: "
                    "its name must not be '', '.' or '..', nor hold '/' or NUL"
                )
                continue
            try:
                if served is None:
                    await self._add(bridge)
                elif served.bridge.wanted != bridge:
                    old = served.bridge.wanted
                    await served.bridge.configure(bridge)
                    await served.follow(old)
            except OpenFlowError as error:
                problems[uuid] = f"its flows cannot be put in force: {error}"
        return problems

    def _is_same(self, wanted: WantedBridge | None, uuid: UUID) -> bool:
        """Whether it is the bridge that is served; one of another name is another bridge."""
        return wanted is not None and wanted.name == self._served[uuid].bridge.wanted.name

    def _journal(self, uuid: UUID) -> Path:
        return self._journals / f"{uuid}.journal"

    def _begin(self, wanted: set[UUID]) -> None:
        """Remove flows that are no longer in force."""
        self._begun = True
        kept = {str(uuid) for uuid in wanted} if self._keep else set()
        try:
            self._journals.mkdir(mode=0o750, exist_ok=True)
            for path in self._journals.iterdir():
                if path.name.partition(".")[0] not in kept:
                    path.unlink()
        except OSError as error:
            log.error("no flows can be kept in %s: %s", self._journals, error.strerror or error)

    async def _add(self, wanted: WantedBridge) -> None:
        bridge = Bridge(wanted, self._journal(wanted.uuid), self._hooks)
        bridge.begin()
        served = self._served[wanted.uuid] = _Served(self._rundir, bridge, self._hooks)
        await served.follow(None)

    @property
    def bridges(self) -> dict[UUID, Bridge]:
        return {uuid: served.bridge for uuid, served in self._served.items()}

    def needs_tables(self, uuid: UUID) -> bool:
        """Whether the bridge has anything but the one flow that forwards as a learning switch."""
        return uuid in self._served and self._served[uuid].bridge.needs_tables

    def packet_in(self, record: PacketIn, frame: bytes) -> None:
        """A frame that the data plane has for controllers."""
        served = self._served.get(self.stores.get(record.store, UUID(int=0)))
        if served is not None:
            packet_ins.deliver(served.bridge, record, frame)

    def status(self) -> dict[UUID, ControllerStatus]:
        """Of each row of Controller."""
        return {
            uuid: row.status()
            for served in self._served.values()
            for uuid, row in served.rows.items()
        }

    async def tick(self) -> None:
        """Once a second."""
        for served in tuple(self._served.values()):
            await served.tick()

    async def close(self) -> None:
        """The journals stay, for the data plane goes on."""
        for served in self._served.values():
            await served.close()
        self._served.clear()


def _names_files(name: str) -> bool:
    """Who may write the database is to reach nothing outside RUNDIR by the name of a bridge."""
    return name not in {"", ".", ".."} and "/" not in name and "\0" not in name
