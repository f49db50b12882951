# SPDX-License-Identifier: Apache-2.0
"""OpenFlow of the switch: its service is told of every bridge, and does what it wants through this.

A pass tells the service before the data plane is changed, so a bridge's tables are in their store
before its frames are sent through them. What the service wants in between is put in force at once,
without a pass; what OpenFlow has set of ports is kept in memory, as in Open vSwitch.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from operator import or_
from pathlib import Path
from uuid import UUID

from heliograph.control.service import Service
from heliograph.control.wanted import ControllerStatus, Tally, WantedBridge
from heliograph.errors import HeliographError
from heliograph.kernel.dataplane import DataPlane
from heliograph.kernel.devices import Devices, is_far_end
from heliograph.kernel.layouts import PortFlags
from heliograph.kernel.ring import Ring
from heliograph.kernel.snapshot import BridgeEntry
from heliograph.openflow.errors import Code, OpenFlowError
from heliograph.openflow.messages import PortConfig, PortDesc, PortState, PortStats
from heliograph.switch import feedback, portdesc
from heliograph.switch.intent import Bridge, Intent, without_repeats
from heliograph.switch.plan import Plan
from heliograph.switch.received import Received
from heliograph.switch.reconcile import Reconciler
from heliograph.switch.stores import BridgeStore

TICK_SECONDS = 1.0
PACKET_INS = 256  # at once, before other work has its turn
_FLAGS = {
    PortConfig.NO_RECV: PortFlags.PORT_NO_RECEIVE,
    PortConfig.NO_FWD: PortFlags.PORT_NO_FORWARD,
    PortConfig.NO_FLOOD: PortFlags.PORT_NO_FLOOD,
    PortConfig.NO_PACKET_IN: PortFlags.PORT_NO_PACKET_IN,
}
_KEPT = reduce(or_, _FLAGS) | PortConfig.NO_STP | PortConfig.NO_RECV_STP  # these are just told


class OpenFlow:
    """The service, and the hooks that it calls. `stir` makes a pass due, `tell` a transaction."""

    def __init__(
        self,
        rundir: Path,
        plane: DataPlane,
        devices: Devices,
        reconciler: Reconciler,
        *,
        stir: Callable[[], None],
        tell: Callable[[], None],
    ) -> None:
        self._plane, self._devices, self._reconciler = plane, devices, reconciler
        self._stir, self._tell = stir, tell
        self._service = Service(rundir, self, keep=plane.adopted)
        self._ring = Ring(plane.map_fd("packet_ins"))
        self._received = Received(plane.counters.port_map, lambda: reconciler.slots)
        self._stores: dict[UUID, tuple[int, BridgeStore]] = {}
        self._ports: dict[UUID, dict[int, portdesc.Place]] = {}  # by Bridge row and ofport
        self._configs: dict[UUID, PortConfig] = {}  # by Interface row
        self._since: dict[UUID, int] = {}  # when an Interface became a port

    async def run(self) -> None:
        """Whatever is not asked for by a pass, until cancelled or one of it fails."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._ring.fd, self._take_packet_ins)
        try:
            while True:
                await asyncio.sleep(TICK_SECONDS)
                await self._service.tick()
        finally:
            loop.remove_reader(self._ring.fd)

    async def close(self) -> None:
        """Connections end and sockets go; flows stay."""
        await self._service.close()
        self._ring.close()
        for _, store in self._stores.values():
            store.close()

    def _take_packet_ins(self) -> None:
        for record, frame in self._ring.read(limit=PACKET_INS):
            self._service.packet_in(record, frame)

    # Within a pass.

    async def configure(
        self, rows: Intent, planned: Plan, ports: Mapping[UUID, feedback.Port]
    ) -> None:
        """Have the service know the bridges as planned. One that has no tables and cannot have them
        forwards nothing."""
        wanted, faults = [], {}
        for bridge in without_repeats(rows)[0].bridges:
            if bridge.uuid in planned.bridges:
                try:
                    wanted.append(self._bridge(bridge, planned, ports))
                except (OSError, OpenFlowError) as error:
                    faults[bridge.uuid] = f"there is no place for its flows: {error}"
        alive = {place.interface for places in self._ports.values() for place in places.values()}
        for known in (self._configs, self._since):
            for interface in known.keys() - alive:
                del known[interface]
        self._service.stores = {self._stores[b.uuid][1].number: b.uuid for b in wanted}
        faults |= await self._service.configure(wanted)
        for uuid, text in faults.items():
            planned.complain(uuid, text)
            if uuid not in self._service.bridges:
                planned.complain(uuid, "so it forwards nothing")
                planned.bridges[uuid] = replace(planned.bridges[uuid], forwarding=False)

    def _bridge(
        self, bridge: Bridge, planned: Plan, ports: Mapping[UUID, feedback.Port]
    ) -> WantedBridge:
        places = self._ports[bridge.uuid] = portdesc.places(bridge, planned, ports)
        for place in places.values():
            self._since.setdefault(place.interface, time.monotonic_ns())
        slots = planned.slots.ports
        rows = {port.uuid: slots[port.uuid] for port in bridge.ports if port.uuid in slots}
        return WantedBridge(
            uuid=bridge.uuid,
            name=bridge.name,
            datapath_id=feedback.datapath_id(bridge, ports),
            plane=self._store(bridge.uuid, planned.slots.bridges[bridge.uuid]),
            fail_mode=bridge.fail_mode,
            protocols=bridge.protocols,
            controllers=bridge.controllers,
            ports=tuple(self._describe(place) for place in places.values()),
            description=bridge.description,
            departed=self._received.follow(bridge.uuid, rows),
        )

    def _describe(self, place: portdesc.Place) -> PortDesc:
        return portdesc.describe(place, self._configs.get(place.interface, PortConfig.NONE))

    def _store(self, bridge: UUID, slot: int) -> BridgeStore:
        known = self._stores.get(bridge)
        if known is None:
            store = BridgeStore(self._plane, slot, lambda ofport: self._is_live(bridge, ofport))
            known = self._stores[bridge] = slot, store
        return known[1]

    def _is_live(self, bridge: UUID, ofport: int) -> bool:
        place = self._ports.get(bridge, {}).get(ofport)
        if place is None:
            return False
        desc = self._describe(place)
        return not desc.state & PortState.LINK_DOWN and not desc.config & PortConfig.DOWN

    @property
    def uses_tables(self) -> bool:
        """Whether a bridge has more than its NORMAL flow."""
        return any(self._service.needs_tables(uuid) for uuid in self._stores)

    def complete(self, planned: Plan) -> None:
        """Put into the plan what OpenFlow says of bridges and ports this moment."""
        for uuid, entry in planned.bridges.items():
            known = self._stores.get(uuid)
            needed = known is not None and self._service.needs_tables(uuid)
            second = known is not None and known[1].number % 2 == 1
            through = _through_tables(replace(entry, second_store=second), needed)
            planned.bridges[uuid] = self._with_configs(uuid, through)

    def _with_configs(self, bridge: UUID, entry: BridgeEntry) -> BridgeEntry:
        """The entry with what is set of its ports."""
        flags = {
            ofport: sum(flag for bit, flag in _FLAGS.items() if config & bit)
            for ofport, place in self._ports.get(bridge, {}).items()
            if (config := self._configs.get(place.interface, PortConfig.NONE))
        }
        ports = tuple(replace(port, config=flags.get(port.ofport, 0)) for port in entry.ports)
        return replace(entry, ports=ports)

    def release(self, planned: Plan) -> None:
        """Let go of the tables of bridges that are gone, and of those of an earlier process."""
        for uuid in self._stores.keys() - planned.bridges.keys():
            _, store = self._stores.pop(uuid)
            self._ports.pop(uuid, None)
            self._received.forget(uuid)
            store.close()
        for slot, store in self._stores.values():
            entry = self._reconciler.bridges.get(slot)
            if entry is not None and 2 * slot + entry.second_store == store.number:
                store.settle()

    def status(self) -> Mapping[UUID, ControllerStatus]:
        """By Controller row."""
        return self._service.status()

    # Hooks of the service.

    async def port_stats(self, bridge: UUID) -> Sequence[PortStats]:
        """Of all ports of the bridge."""
        places = self._ports.get(bridge, {})
        numbers = [place.port.number for place in places.values()]
        counts = await asyncio.to_thread(self._plane.counters.read, numbers, ())
        devices = await self._devices.stats()
        now = time.monotonic_ns()
        return [
            portdesc.statistics(place, counts, devices, now - self._since[place.interface])
            for place in places.values()
        ]

    def received(self, bridge: UUID) -> Tally:
        """What has come in by ports of the bridge for it to forward."""
        return self._received.total(bridge)

    async def set_port(self, bridge: UUID, port: int, config: PortConfig, mask: PortConfig) -> None:
        """Make the bits of `mask` those of `config`; returns when they are in force.

        Raises OpenFlowError if they cannot be.
        """
        place = self._ports.get(bridge, {}).get(port)
        if place is None:
            raise OpenFlowError(Code.OFPPMFC_BAD_PORT, f"there is no port {port} now")
        if mask & PortConfig.DOWN:
            await self._set_up(place, up=not config & PortConfig.DOWN)
        known = self._configs.get(place.interface, PortConfig.NONE)
        self._configs[place.interface] = ((known & ~mask) | (config & mask)) & _KEPT
        self._amend(bridge, lambda entry: self._with_configs(bridge, entry))
        self._stir()

    async def _set_up(self, place: portdesc.Place, *, up: bool) -> None:
        ours, device = place.port.device, place.port.user or place.port.device
        word = "up" if up else "down"
        if ours is None or device is None:
            raise OpenFlowError(
                Code.OFPPMFC_BAD_CONFIG, f"port {place.name} has no device that could be {word}"
            )
        if ours.peer_elsewhere and is_far_end(ours):
            raise OpenFlowError(
                Code.OFPPMFC_BAD_CONFIG,
                f"{place.name} is in another network namespace, where you must set it: "
                f"ip link set {device.name} {word}",
            )
        try:
            await self._devices.set_up(device.ifindex, up)
        except HeliographError as error:
            raise OpenFlowError(Code.OFPPMFC_BAD_CONFIG, str(error)) from error

    async def tables_needed(self, bridge: UUID, needed: bool) -> None:
        """Whether frames are to pass the bridge's tables; returns when that is in force.

        Raises OpenFlowError when the kernel refuses.
        """
        self._amend(bridge, lambda entry: _through_tables(entry, needed))
        self._stir()

    def _amend(self, bridge: UUID, change: Callable[[BridgeEntry], BridgeEntry]) -> None:
        if bridge not in self._stores:
            return
        try:
            self._reconciler.amend(self._stores[bridge][0], change)
        except OSError as error:
            raise OpenFlowError(
                Code.OFPFMFC_UNKNOWN, f"the kernel refused the bridge's configuration: {error}"
            ) from error

    def status_changed(self) -> None:
        """Service.status() has something new."""
        self._tell()


def _through_tables(entry: BridgeEntry, needed: bool) -> BridgeEntry:
    """With flows or without; one that is to forward nothing does not do it by flows either."""
    return replace(entry, flows=needed and entry.forwarding)
