# SPDX-License-Identifier: Apache-2.0
"""One bridge as its OpenFlow connections see it: tables, ports, and the data plane behind them.

A change is checked by the model, given to the data plane, kept in the journal, and then answered.
What the data plane refuses is undone in the model, so both are always equal.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from heliograph.control.bypass import Bypass
from heliograph.control.keeper import Keeper
from heliograph.control.peers import Asked, Peer, Peers
from heliograph.control.wanted import Hooks, WantedBridge
from heliograph.flows.bundles import Bundles
from heliograph.flows.change import Change
from heliograph.flows.checks import check_packet_out
from heliograph.flows.flow import SECOND, TABLES, Flow, groups_in
from heliograph.flows.records import NOTHING
from heliograph.flows.tables import Tables
from heliograph.kernel.layouts import TableFlags
from heliograph.openflow.actions import Output, Port
from heliograph.openflow.errors import Code, OpenFlowError
from heliograph.openflow.flows import FlowCommand, FlowFlags, FlowMod, GroupMod, PacketOut
from heliograph.openflow.match import ANYTHING
from heliograph.openflow.messages import (
    BundleControl,
    PortConfig,
    PortDesc,
    PortMod,
    PortReason,
    PortStats,
    PortStatus,
    RoleRequest,
)

log = logging.getLogger(__name__)

_NORMAL = (Output(Port.NORMAL),)
_LEARN_AND_FORWARD = FlowMod(command=FlowCommand.ADD, table_id=0, priority=0, actions=_NORMAL)
_NO_FLOWS = FlowMod(command=FlowCommand.DELETE)
_FEW_FLOWS = 1000


class Bridge:
    def __init__(self, wanted: WantedBridge, journal: Path, hooks: Hooks) -> None:
        self.wanted = wanted
        self.peers = Peers()
        self.ports: dict[int, PortDesc] = {}
        self._hooks = hooks
        self._bypass = Bypass(wanted.plane, lambda: hooks.received(wanted.uuid))
        self.tables = Tables(self._bypass)
        self._keeper = Keeper(wanted.name, journal)
        self._told_needed: bool | None = None
        self._ports_stale = False  # groups do not know of the latest
        self._misses = False  # what the data plane was told
        self._matched = [0] * TABLES
        self._matched_gone = [0] * TABLES  # of those, by flows that are no more
        self._summed = 0  # when
        self._fallback: Flow | None = None  # while controllers cannot be reached
        self.now = time.monotonic_ns

    # Its life

    def begin(self) -> None:
        """Give the data plane what the journal holds, or else the flows to begin with.

        Raises OpenFlowError if it cannot take them.
        """
        kept = self._keeper.load()
        self.ports = {port.number: port for port in self.wanted.ports}
        if kept is not None:
            self.tables.restore(kept.flows, kept.groups, kept.next_id)
            self.wanted.plane.load(self.tables)
            if self._has_controllers and self._is_default():
                self._fallback = self._first_flow()
        else:
            self._reset(standalone=self._forwards_alone)
            self.wanted.plane.load(self.tables)
            self._keeper.rewrite(self.tables)
        self._told_needed = self.needs_tables
        self._bypass.start(kept.besides if kept else NOTHING, self._alone)
        self._note()

    def close(self) -> None:
        self._keeper.close()

    async def configure(self, wanted: WantedBridge) -> None:
        """Raises OpenFlowError; then it is to be tried again."""
        old, self.wanted = self.wanted, wanted
        if wanted.departed != old.departed:
            self._note()
        for status in self._set_ports(wanted.ports):
            self.peers.tell_port(status)
        before = _standalone(old), bool(_primaries(old))
        after = _standalone(wanted), bool(_primaries(wanted))
        # As Open vSwitch: who may decide what the bridge does has changed.
        if before[1] != after[1] or (before[0] != after[0] and not after[1]):
            try:
                await self._enforce(self._reset(standalone=self._forwards_alone))
            except OpenFlowError:
                self.wanted = old
                raise
            self._fallback = None

    @property
    def _has_controllers(self) -> bool:
        return bool(_primaries(self.wanted))

    @property
    def _forwards_alone(self) -> bool:
        return _standalone(self.wanted) and not self._has_controllers

    def _reset(self, *, standalone: bool) -> Change:
        mods = (_NO_FLOWS, _LEARN_AND_FORWARD) if standalone else (_NO_FLOWS,)
        return self.tables.change_all(mods, self.now())

    def _first_flow(self) -> Flow:
        return next(iter(self.tables.flows.values()))

    def _is_default(self) -> bool:
        """Whether there is one flow only, that which a bridge has to begin with."""
        if len(self.tables.flows) != 1:
            return False
        flow = self._first_flow()
        rest = flow.table_id, flow.priority, flow.cookie, flow.idle_timeout, flow.hard_timeout
        return (
            rest == (0, 0, 0, 0, 0)
            and flow.match == ANYTHING
            and flow.actions == _NORMAL
            and flow.flags & ~FlowFlags.RESET_COUNTS == FlowFlags.NONE
        )

    @property
    def needs_tables(self) -> bool:
        return not self._is_default()

    @property
    def _alone(self) -> int | None:
        """The flow that frames go past, for there is no other."""
        return None if self.needs_tables else self._first_flow().id

    # Changes

    async def change(
        self, mod: FlowMod | GroupMod, version: int, asked: Asked | None = None
    ) -> None:
        """Raises OpenFlowError; then nothing is changed."""
        await self._enforce(self.tables.change(mod, self.now(), version), asked)

    async def control_bundle(self, bundles: Bundles, control: BundleControl, peer: Peer) -> None:
        """Raises OpenFlowError."""
        committed = bundles.control(control, self.tables, self.now())
        if committed is None:
            return
        await self._enforce(committed.change, Asked(peer, committed.xids))
        for packet in committed.packets:
            try:
                self.wanted.plane.packet_out(packet)
            except OpenFlowError as error:  # it is too late to refuse the bundle
                log.warning("bridge %s: a bundle's frame: %s", self.wanted.name, error)

    def _apply(self, change: Change) -> None:
        matched = self._matched_by(change)
        try:
            self.wanted.plane.apply(change.delta)
        except Exception:  # a fault of ours must not leave the two different either
            self.tables.undo(change)
            raise
        for table_id, packets in matched:
            self._matched_gone[table_id] += packets
        self._keeper.append(change, self.tables)

    def _matched_by(self, change: Change) -> list[tuple[int, int]]:
        """Tables, and packets that each of the flows had matched whose counters end."""
        self.look()
        gone = set(change.delta.gone)
        old = {step.old.id: step.old for step in change.steps if isinstance(step.old, Flow)}
        return [(old[n].table_id, self._bypass.usage(n).packets) for n in gone & old.keys()]

    async def _enforce(self, change: Change, asked: Asked | None = None) -> None:
        if not change.steps:
            return
        self._apply(change)
        self.peers.tell_monitors(change.steps, asked)
        await self._tell_needed()
        if change.removed:
            await self.peers.tell_removed(change.removed)

    async def _tell_needed(self) -> None:
        alone = self._alone
        needed = alone is None
        if needed != self._told_needed:
            uuid = self.wanted.uuid
            await self._bypass.turn(alone, lambda: self._hooks.tables_needed(uuid, needed))
            self._told_needed = needed
        elif alone is None or not self._bypass.follow(alone):
            return
        self._note()

    def _note(self) -> None:
        self._keeper.note(self._bypass.besides(self.wanted.departed))

    # Counters

    def look(self) -> None:
        """Bring counters of flows up to date."""
        self._bypass.look(self.now())

    def lookups(self, table_id: int) -> tuple[int, int]:
        """How many frames came to a table, and how many found a flow."""
        return self._matched[table_id] + self.wanted.plane.misses(table_id), self._matched[table_id]

    async def count_matched(self) -> None:
        """Sum up for lookups(). With many flows that is work, so others have their turn."""
        if len(self.tables.flows) > _FEW_FLOWS and self.now() < self._summed + SECOND:
            return
        matched = list(self._matched_gone)
        for position, flow in enumerate(list(self.tables.flows.values()), 1):
            matched[flow.table_id] += self._bypass.usage(flow.id).packets
            if position % _FEW_FLOWS == 0:
                await asyncio.sleep(0)
        # Of flows that went meanwhile some count in neither.
        self._matched = [max(pair) for pair in zip(matched, self._matched, strict=True)]
        self._summed = self.now()

    # Frames from controllers

    def packet_out(self, packet: PacketOut) -> None:
        """Raises OpenFlowError."""
        check_packet_out(packet)
        for group_id in groups_in(packet.actions):
            if group_id not in self.tables.groups:
                raise OpenFlowError(Code.OFPBAC_BAD_OUT_GROUP, f"group {group_id} is not there")
        self.wanted.plane.packet_out(packet)

    # Ports

    def _set_ports(self, ports: Sequence[PortDesc]) -> list[PortStatus]:
        """What is to be told of it."""
        fresh = {port.number: port for port in ports}
        told = []
        for number, port in self.ports.items():
            if number not in fresh or fresh[number].name != port.name:
                told.append(PortStatus(PortReason.DELETE, port))
        for number, port in fresh.items():
            old = self.ports.get(number)
            if old is None or old.name != port.name:
                told.append(PortStatus(PortReason.ADD, port))
            elif old != port:
                told.append(PortStatus(PortReason.MODIFY, port))
        self.ports = fresh
        if told:
            self._follow_ports()
        return told

    def _follow_ports(self) -> None:
        """Have groups choose anew; what finds no room is tried again each second."""
        try:
            self.wanted.plane.ports_changed()
        except OpenFlowError as error:
            if not self._ports_stale:
                log.error("bridge %s: groups do not follow its ports: %s", self.wanted.name, error)
            self._ports_stale = True
        else:
            self._ports_stale = False

    def sorted_ports(self) -> list[PortDesc]:
        return [self.ports[number] for number in sorted(self.ports)]

    async def port_stats(self, number: int) -> list[PortStats]:
        """Of all, or of one; none for one that is not there."""
        found = await self._hooks.port_stats(self.wanted.uuid)
        return [stats for stats in found if number in {Port.NONE, stats.port}]

    async def modify_port(self, mod: PortMod, asked: Peer) -> None:
        """Raises OpenFlowError."""
        port = self.ports.get(mod.port)
        if port is None:
            raise OpenFlowError(Code.OFPPMFC_BAD_PORT, f"no port {mod.port}")
        if port.address != mod.address:
            raise OpenFlowError(
                Code.OFPPMFC_BAD_HW_ADDR,
                f"port {mod.port} has the address {port.address:012x}, not {mod.address:012x}",
            )
        config = port.config & ~mod.mask | mod.config & mod.mask
        if config == port.config:
            return
        await self._hooks.set_port(self.wanted.uuid, port.number, mod.config, mod.mask)
        port = replace(self.ports.get(mod.port, port), config=PortConfig(config))
        if mod.port in self.ports:
            self.ports[mod.port] = port
            self.peers.tell_port(PortStatus(PortReason.MODIFY, port), asked)

    # Time

    async def tick(self) -> None:
        """Once a second: flows whose time is over go."""
        self.wanted.plane.tidy()
        if self._ports_stale:
            self._follow_ports()
        await self._tell_needed()  # again, if it failed
        await self._enforce(self.tables.expire(self.now()))
        self._keeper.retry(self.tables)

    def follow_misses(self) -> None:
        """Have frames that no flow matches told, while somebody wants that."""
        wanted = self.peers.want_misses
        if wanted != self._misses:
            self._misses = wanted
            flags = TableFlags.TABLE_MISS_TO_CONTROLLER if wanted else 0
            for table_id in range(TABLES):
                self.wanted.plane.set_table_flags(table_id, flags)

    def elect(self, peer: Peer, request: RoleRequest) -> None:
        """Raises OpenFlowError."""
        self.peers.elect(peer, request)
        self.follow_misses()
        self._hooks.status_changed()

    async def follow_controllers(self, unreachable: float, probe: float) -> None:
        """Forward alone while no controller is to be reached, in the seconds of three probes.

        `unreachable`: seconds since one was, the longest of them `probe` seconds apart.
        """
        if not _standalone(self.wanted) or not self._has_controllers:
            return
        if unreachable >= 3 * probe and self._fallback is None:
            log.warning(
                "bridge %s: no controller answered for %d s, so it forwards by itself",
                self.wanted.name,
                unreachable,
            )
            await self._enforce(self._reset(standalone=True))
            self._fallback = self._first_flow()
        elif unreachable == 0 and self._fallback is not None:
            log.warning("bridge %s: a controller is there again", self.wanted.name)
            fallback, self._fallback = self._fallback, None
            if self.tables.flows.get(fallback.id) is fallback:
                gone = replace(_LEARN_AND_FORWARD, command=FlowCommand.DELETE_STRICT, actions=())
                await self._enforce(self.tables.change(gone, self.now()))


def _standalone(wanted: WantedBridge) -> bool:
    return wanted.fail_mode != "secure"


def _primaries(wanted: WantedBridge) -> list[str]:
    """Controllers that decide about the bridge: those that the switch connects to."""
    return [c.target for c in wanted.controllers if c.is_primary]
