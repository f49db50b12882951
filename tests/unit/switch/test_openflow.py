# SPDX-License-Identifier: Apache-2.0
"""What the OpenFlow service is told, and what becomes of its wishes, with both sides played."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest
from tests.unit.switch.conftest import Rows, device

from heliograph.control.wanted import Tally, WantedBridge
from heliograph.errors import HeliographError
from heliograph.kernel.counters import Counts, PortCounts
from heliograph.kernel.layouts import PORT_COUNTERS, PortFlags
from heliograph.kernel.snapshot import BridgeEntry
from heliograph.openflow.errors import Code, OpenFlowError
from heliograph.openflow.messages import PortConfig
from heliograph.switch import openflow, plan, wanted
from heliograph.switch.feedback import Port
from heliograph.switch.openflow import OpenFlow
from heliograph.switch.slots import Slots


class Service:
    """Stands for control.service.Service."""

    def __init__(self) -> None:
        self.stores: dict[int, UUID] = {}
        self.bridges: dict[UUID, WantedBridge] = {}
        self.needing: set[UUID] = set()
        self.refusals: dict[UUID, str] = {}

    async def configure(self, bridges: Sequence[WantedBridge]) -> dict[UUID, str]:
        named = {bridge.uuid: bridge for bridge in bridges}
        self.bridges = {
            u: b for u, b in named.items() if u in self.bridges or u not in self.refusals
        }
        return self.refusals

    def needs_tables(self, uuid: UUID) -> bool:
        return uuid in self.needing


class Kernel:
    """Stands for the data plane, the devices and the reconciler."""

    def __init__(self) -> None:
        self.adopted = False
        self.in_force: dict[int, BridgeEntry] = {}
        self.counters = SimpleNamespace(
            read=lambda ports, _: Counts({n: PortCounts(n, 0, 0, 0, 0, {}) for n in ports}, {}),
            port_map=self,
        )
        self.slots = Slots()
        self.up: dict[int, bool] = {}
        self.fault: Exception | None = None

    def read(self, slot: int) -> list[int]:
        """Counters of a port."""
        return [100, 6400, *[0] * (PORT_COUNTERS.size // 8 - 2)]

    def map_fd(self, name: str) -> int:
        return -1

    @property
    def bridges(self) -> dict[int, BridgeEntry]:
        return self.in_force

    def amend(self, slot: int, change: Callable[[BridgeEntry], BridgeEntry]) -> None:
        if self.fault:
            raise self.fault
        self.in_force[slot] = change(self.in_force[slot])

    async def set_up(self, ifindex: int, up: bool) -> None:
        if self.fault:
            raise self.fault
        self.up[ifindex] = up

    async def stats(self) -> dict[int, Any]:
        return {}


class Store:
    """Stands for BridgeStore; `room` False: the kernel has no memory."""

    room = True

    def __init__(self, plane: Kernel, slot: int, port_live: Callable[[int], bool]) -> None:
        if not self.room:
            raise OpenFlowError(Code.OFPFMFC_TABLE_FULL, "no memory")
        self.port_live, self.closed, self.settled = port_live, False, False
        in_force = plane.in_force.get(slot)
        self.number = 2 * slot + (in_force is None or not in_force.second_store)

    def settle(self) -> None:
        self.settled = True

    def close(self) -> None:
        self.closed = True


class Scene:
    """br0 with tap1 (ofport 1) and tap2 (2), and an OpenFlow that is about to be told of it."""

    def __init__(self, rows: Rows, path: Path) -> None:
        self.rows, self.kernel = rows, Kernel()
        self.ports = tuple(rows.port(name) for name in ("tap1", "tap2"))
        self.bridge = rows.bridge("br0", self.ports)
        for number, port in enumerate(self.ports):
            rows.set("Interface", rows.interface_of(port), ofport_request=number + 1)
        self.stirred = 0
        played = cast("Any", self.kernel)
        self.openflow = OpenFlow(path, played, played, played, stir=self._stir, tell=lambda: None)
        self.service = cast("Service", self.openflow._service)
        self.devices = {
            rows.interface_of(port): device(11 + n) for n, port in enumerate(self.ports)
        }

    def _stir(self) -> None:
        self.stirred += 1

    @property
    def slot(self) -> int:
        return self.planned.slots.bridges[self.bridge]

    @property
    def store(self) -> Store:
        return cast("Store", self.openflow._stores[self.bridge][1])

    async def run_pass(self) -> BridgeEntry:
        """As the agent does; returns what is put in force."""
        needed = wanted.devices(self.rows.intent)
        present = {uuid: self.devices[uuid] for uuid in needed.internal}
        made = plan.plan(self.rows.intent, plan.Facts(present), self.kernel.slots)
        self.planned = made
        ports = {uuid: Port(n, present[uuid], None) for uuid, n in made.ports.items()}
        await self.openflow.configure(self.rows.intent, made, ports)
        self.openflow.complete(made)
        if not self.kernel.fault:
            self.kernel.in_force = {entry.slot: entry for entry in made.bridges.values()}
        self.openflow.release(made)
        return made.bridges[self.bridge]


@pytest.fixture
def scene(rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(openflow, "Service", lambda *_, **__: Service())
    monkeypatch.setattr(openflow, "Ring", lambda fd: SimpleNamespace(fd=fd))
    monkeypatch.setattr(openflow, "BridgeStore", Store)
    return Scene(rows, tmp_path)


async def test_the_service_is_told_of_bridges_and_ports(scene: Scene) -> None:
    await scene.run_pass()
    told = scene.service.bridges[scene.bridge]
    assert (told.name, told.fail_mode, told.controllers) == ("br0", None, ())
    assert [(port.number, port.name) for port in told.ports] == [(1, "tap1"), (2, "tap2")]
    assert scene.service.stores == {2 * scene.slot + 1: scene.bridge}


async def test_a_bridge_pays_for_tables_only_when_it_needs_them(scene: Scene) -> None:
    assert not (await scene.run_pass()).flows
    scene.service.needing.add(scene.bridge)
    assert (await scene.run_pass()).flows


async def test_a_bridge_that_fails_closed_has_no_flows_either(scene: Scene) -> None:
    scene.rows.set("Bridge", scene.bridge, stp_enable=True)
    scene.service.needing.add(scene.bridge)
    entry = await scene.run_pass()
    await scene.openflow.tables_needed(scene.bridge, True)
    assert not entry.flows and not scene.kernel.in_force[scene.slot].flows


async def test_tables_are_switched_on_without_a_pass(scene: Scene) -> None:
    await scene.run_pass()
    await scene.openflow.tables_needed(scene.bridge, True)
    assert scene.kernel.in_force[scene.slot].flows
    await scene.openflow.tables_needed(scene.bridge, False)
    assert not scene.kernel.in_force[scene.slot].flows
    scene.kernel.fault = OSError("no memory")
    with pytest.raises(OpenFlowError, match="no memory"):
        await scene.openflow.tables_needed(scene.bridge, True)


def configs(entry: BridgeEntry) -> dict[int, int]:
    return {port.ofport: port.config for port in entry.ports}


async def test_what_is_set_of_a_port_is_in_force_and_stays(scene: Scene) -> None:
    await scene.run_pass()
    bits = PortConfig.NO_FLOOD | PortConfig.NO_STP
    await scene.openflow.set_port(scene.bridge, 2, bits, bits | PortConfig.NO_FWD)
    flags = {1: 0, 2: PortFlags.PORT_NO_FLOOD}
    assert configs(scene.kernel.in_force[scene.slot]) == flags and scene.stirred == 1
    assert configs(await scene.run_pass()) == flags
    told = scene.service.bridges[scene.bridge].ports
    assert [port.config for port in told] == [PortConfig.NONE, bits]
    await scene.openflow.set_port(scene.bridge, 2, PortConfig.NONE, bits)
    assert configs(scene.kernel.in_force[scene.slot]) == {1: 0, 2: 0}


async def test_a_port_that_was_gone_begins_anew(scene: Scene) -> None:
    await scene.run_pass()
    await scene.openflow.set_port(scene.bridge, 2, PortConfig.NO_FWD, PortConfig.NO_FWD)
    scene.rows.set("Bridge", scene.bridge, ports=scene.ports[:1])
    await scene.run_pass()
    scene.rows.set("Bridge", scene.bridge, ports=tuple(sorted(scene.ports)))
    assert configs(await scene.run_pass()) == {1: 0, 2: 0}


async def test_a_port_is_set_down_by_its_device(scene: Scene) -> None:
    await scene.run_pass()
    await scene.openflow.set_port(scene.bridge, 1, PortConfig.DOWN, PortConfig.DOWN)
    await scene.openflow.set_port(scene.bridge, 2, PortConfig.NONE, PortConfig.DOWN)
    assert scene.kernel.up == {11: False, 12: True}
    scene.kernel.fault = HeliographError("device tap1 is gone")
    with pytest.raises(OpenFlowError, match="is gone"):
        await scene.openflow.set_port(scene.bridge, 1, PortConfig.DOWN, PortConfig.DOWN)
    scene.kernel.fault = None
    with pytest.raises(OpenFlowError, match="no port 9"):
        await scene.openflow.set_port(scene.bridge, 9, PortConfig.DOWN, PortConfig.DOWN)


async def test_a_device_that_is_elsewhere_cannot_be_set_down(scene: Scene) -> None:
    for interface, found in scene.devices.items():
        scene.devices[interface] = replace(found, name="hg0123456789ab", peer_elsewhere=True)
    await scene.run_pass()
    with pytest.raises(OpenFlowError, match="another network namespace"):
        await scene.openflow.set_port(scene.bridge, 1, PortConfig.DOWN, PortConfig.DOWN)
    assert scene.kernel.up == {}


async def test_buckets_watch_ports_with_a_link(scene: Scene) -> None:
    interface = scene.rows.interface_of(scene.ports[1])
    scene.devices[interface] = replace(scene.devices[interface], carrier=False)
    await scene.run_pass()
    assert [scene.store.port_live(number) for number in (1, 2, 3)] == [True, False, False]


async def test_statistics_of_ports(scene: Scene) -> None:
    await scene.run_pass()
    await asyncio.sleep(0.002)
    found = await scene.openflow.port_stats(scene.bridge)
    numbers = [scene.planned.ports[scene.rows.interface_of(port)] for port in scene.ports]
    assert [(stats.port, stats.rx_packets) for stats in found] == [(1, numbers[0]), (2, numbers[1])]
    assert all(stats.duration_ns and stats.duration_ns > 10**6 for stats in found)


async def test_tables_are_the_ones_in_force_when_the_kernel_has_taken_the_snapshot(
    scene: Scene,
) -> None:
    """An earlier process's stay until then."""
    scene.kernel.fault = OSError("no memory")
    await scene.run_pass()
    assert not scene.store.settled
    scene.kernel.fault = None
    entry = await scene.run_pass()
    assert (entry.second_store, scene.store.settled) == (True, True)
    assert (await scene.run_pass()).second_store


async def test_tables_of_the_next_process_are_in_the_other_store(
    scene: Scene, tmp_path: Path
) -> None:
    await scene.run_pass()
    played = cast("Any", scene.kernel)
    scene.openflow = OpenFlow(tmp_path, played, played, played, stir=scene._stir, tell=scene._stir)
    assert not (await scene.run_pass()).second_store and scene.store.settled


async def test_what_ports_received_outlasts_them(scene: Scene) -> None:
    await scene.run_pass()
    scene.kernel.slots = scene.planned.slots
    assert scene.openflow.received(scene.bridge) == Tally(200, 12800)
    scene.rows.set("Bridge", scene.bridge, ports=scene.ports[:1])
    await scene.run_pass()
    assert scene.service.bridges[scene.bridge].departed == Tally(100, 6400)
    assert scene.openflow.received(scene.bridge) == Tally(200, 12800)


async def test_a_bridge_that_is_gone_leaves_no_tables(scene: Scene) -> None:
    await scene.run_pass()
    store = scene.store
    other = scene.rows.bridge("br1")
    scene.rows.set("Open_vSwitch", scene.rows.root, bridges=(other,))
    scene.bridge = other
    await scene.run_pass()
    assert store.closed and scene.service.bridges.keys() == {other}


async def test_without_room_for_tables_a_bridge_fails_closed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "room", False)
    entry = await scene.run_pass()
    assert not entry.forwarding and not entry.flows and scene.service.bridges == {}
    assert "no memory" in scene.planned.problems[scene.bridge]
    monkeypatch.setattr(Store, "room", True)
    assert (await scene.run_pass()).forwarding


async def test_only_a_bridge_without_tables_fails_closed(scene: Scene) -> None:
    scene.service.refusals = {scene.bridge: "no memory"}
    entry = await scene.run_pass()
    assert not entry.forwarding
    assert scene.planned.problems[scene.bridge] == "no memory; so it forwards nothing"
    scene.service.refusals = {}
    assert (await scene.run_pass()).forwarding and scene.planned.problems == {}
    scene.service.refusals = {scene.bridge: "no memory"}
    assert (await scene.run_pass()).forwarding, "by the flows that it has"
    assert scene.planned.problems[scene.bridge] == "no memory"
