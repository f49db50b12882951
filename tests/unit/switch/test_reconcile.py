# SPDX-License-Identifier: Apache-2.0
"""What is done to devices and maps, and in which order, with the kernel played."""

import dataclasses
from collections import defaultdict
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest
from tests.unit.switch.conftest import Rows, device

from heliograph.errors import HeliographError
from heliograph.kernel.dataplane import DataPlane
from heliograph.kernel.devices import Device, Devices, Restore
from heliograph.kernel.layouts import Reason
from heliograph.kernel.snapshot import BridgeEntry
from heliograph.kernel.tunnels import UnderlayEntry
from heliograph.switch import plan, underlay, wanted, wire
from heliograph.switch.encapsulation import Network
from heliograph.switch.reconcile import Reconciler
from heliograph.switch.restores import Restores

FAR, NEAR = ip_address("192.0.2.1"), ip_address("192.0.2.2")
PATH = underlay.Path(9, FAR, NEAR, 1500, Reason.DELIVERED, None)


class Host:
    """Devices of a namespace; `deeds` are the changes made to them."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.by_name: dict[str, Device] = {}
        self.by_index: dict[int, Device] = {}
        self.deeds: list[str] = []
        self.refuse: set[str] = set()
        self.offload: defaultdict[int, bool] = defaultdict(lambda: True)

    def put(self, made: Device) -> Device:
        self.by_name[made.name] = self.by_index[made.ifindex] = made
        return made

    def _do(self, what: str, ifindex: int, **facts: Any) -> None:
        if what.split(maxsplit=1)[0] in self.refuse:
            raise HeliographError(f"refused: {what}")
        self.deeds.append(what)
        self.put(dataclasses.replace(self.by_index[ifindex], **facts))

    async def offloads(self, ifindex: int) -> tuple[bool, bool, bool]:
        return (self.offload[ifindex],) * 3

    async def set_offload(self, ifindex: int, *, tx: bool, tso: bool, gso: bool) -> None:
        assert tx == tso == gso
        self._do(f"offload {'on' if tx else 'off'}", ifindex)
        self.offload[ifindex] = tx

    async def create_internal(
        self, name: str, far_name: str, alias: str, mac: str, mtu: int
    ) -> tuple[Device, Device]:
        self.deeds.append(f"create {name} {mtu}")
        index = 100 + len(self.by_index)
        user = self.put(device(index, name, mac=mac, mtu=mtu, peer=index + 1))
        return user, self.put(device(index + 1, far_name, peer=index))

    async def set_mac(self, ifindex: int, mac: str) -> None:
        self._do(f"mac {mac}", ifindex, mac=mac)

    async def set_mtu(self, ifindex: int, mtu: int) -> None:
        self._do(f"mtu {mtu}", ifindex, mtu=mtu)

    async def set_up(self, ifindex: int, up: bool) -> None:
        self._do(f"up {up}", ifindex, admin_up=up)

    def why_not(self, made: Device) -> str | None:
        return "it has a master" if made.master else None

    async def as_found(self, ifindex: int) -> Restore:
        made = self.by_index[ifindex]
        return Restore(ifindex, made.name, made.mac, made.promiscuous, False)

    async def take(self, ifindex: int) -> None:
        assert Restores(self.file).get(ifindex), "changed before it was written how it was"
        self._do("take", ifindex, promiscuous=True)

    async def release(self, restore: Restore) -> None:
        if restore.ifindex in self.by_index:
            self._do("release", restore.ifindex, promiscuous=restore.promiscuous)

    async def delete(self, *ifindexes: int) -> None:
        for ifindex in ifindexes:
            made = self.by_index.pop(ifindex)
            del self.by_name[made.name]
            self.deeds.append(f"delete {made.name}")


class Plane:
    """The data plane's maps, as far as devices are concerned."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.linked: dict[int, tuple[int, int]] = {}
        self.switched: list[int] = []
        self.refuse: set[int] = set()
        self.receiving: set[int] = set()
        self.underlay: UnderlayEntry | None = None
        self.refuse_receiver: set[int] = set()
        self.order: list[str] = []  # of what concerns tunnels, and of switch-overs
        self.name = "/run/test/bpf"
        nothing = SimpleNamespace(zero=lambda slot: None)
        self.counters = SimpleNamespace(port_map=nothing, mirror_map=nothing)

    def rows(self, first: int, count: int) -> dict[int, UUID]:
        return {}

    def set_row(self, index: int, row: UUID | None) -> None:
        pass

    def carry_over(self) -> None:
        pass

    def take_over(self) -> None:
        pass

    def put_underlay(self, entry: UnderlayEntry) -> None:
        if entry != self.underlay:
            self.order.append(f"underlay of {len(entry.tunnels)}")
        self.underlay = entry

    def restart_sequence(self, port: int) -> None:
        self.order.append(f"sequence of {port}")

    def receivers(self) -> frozenset[int]:
        return frozenset(self.receiving)

    def attach_receiver(self, ifindex: int) -> None:
        if ifindex in self.refuse_receiver:
            raise OSError(12, "Cannot allocate memory")
        if ifindex not in self.receiving:
            self.order.append(f"receive on {ifindex}")
        self.receiving.add(ifindex)

    def detach_receiver(self, ifindex: int) -> None:
        self.order.append(f"no more on {ifindex}")
        self.receiving.remove(ifindex)

    def attach_segmenter(self, near: int, far: int) -> None:
        self.linked |= dict.fromkeys((near, far), (-1, -1))

    def clear_bridge(self, slot: int) -> None:
        self.switched.append(-1 - slot)

    def switch_over(self, bridge: Any) -> None:
        if bridge.slot in self.refuse:
            raise OSError(12, "Cannot allocate memory")
        self.switched.append(bridge.slot)
        self.order.append(f"bridge of {len(bridge.ports)}")

    def devices(self) -> dict[int, tuple[int, int]]:
        return dict(self.linked)

    def attached(self) -> frozenset[int]:
        return frozenset(self.linked)

    def set_device(self, ifindex: int, bridge: int, port: int) -> None:
        self.linked[ifindex] = (bridge, port)

    def attach(self, ifindex: int) -> None:
        pass

    def forget_dead_links(self, ifindex: int) -> None:
        pass

    def detach(self, ifindex: int) -> None:
        self.host.deeds.append(f"detach {ifindex}")

    def forget_device(self, ifindex: int) -> None:
        self.linked.pop(ifindex, None)


class Scene:
    """A reconciler on a played kernel, and rows to follow."""

    def __init__(self, rows: Rows, file: Path) -> None:
        self.rows, self.file = rows, file
        self.host = Host(file)
        self.plane = Plane(self.host)
        self.receivers: frozenset[int] = frozenset()  # where the network's addresses are
        self.restart()

    def restart(self) -> None:
        """Another process."""
        plane, devices = cast("DataPlane", self.plane), cast("Devices", self.host)
        self.reconciler = Reconciler(plane, devices, Restores(self.file))

    async def follow(self) -> tuple[list[str], dict[UUID, str], dict[UUID, str]]:
        """One pass: the deeds on devices, errors by Interface row, remarks by Port row."""
        needed = wanted.devices(self.rows.intent)
        prepared = await self.reconciler.prepare(needed)
        network = Network(
            needed.tunnels,
            dict.fromkeys(needed.tunnels, PATH),
            addresses=frozenset({NEAR}),
            receivers=self.receivers,
        )
        facts = plan.Facts(prepared.present, prepared.errors, {}, prepared.segmenter, network)
        made = plan.plan(self.rows.intent, facts, self.reconciler.slots)
        faults = self.reconciler.apply(made, prepared.present)
        await self.reconciler.release(needed, prepared.present)
        deeds, self.host.deeds = self.host.deeds, []
        return deeds, prepared.errors | faults, prepared.remarks


@pytest.fixture
def scene(rows: Rows, tmp_path: Path) -> Scene:
    return Scene(rows, tmp_path / "devices.json")


async def test_an_internal_port_is_made_once_and_followed(scene: Scene) -> None:
    port = scene.rows.port("tap1")
    bridge = scene.rows.bridge("br0", (port,))
    interface = scene.rows.interface_of(port)
    assert (await scene.follow())[0] == ["create tap1 1500"]
    assert (await scene.follow())[0] == []
    scene.rows.set("Interface", interface, mtu_request=9000, mac="02:00:00:00:00:01")
    assert (await scene.follow())[0] == ["mac 02:00:00:00:00:01", "mtu 9000"]
    scene.rows.set("Interface", interface, mtu_request=None, mac=None)
    stable = wanted.Internal(interface, port, "tap1", None, None, "br0").stable_mac
    assert (await scene.follow())[0] == [f"mac {stable}", "mtu 1500"]
    scene.rows.set("Bridge", bridge, ports=())
    deeds, _, _ = await scene.follow()
    assert deeds[0].startswith("delete hg"), "ours go before their pins do"
    assert deeds[1].startswith("detach")


async def test_a_row_in_the_place_of_another_has_its_name_at_once(scene: Scene) -> None:
    """`del-port tap1 -- add-port tap1`: one transaction, another row."""
    bridge = scene.rows.bridge("br0", (scene.rows.port("tap1"),))
    await scene.follow()
    scene.rows.set("Bridge", bridge, ports=(scene.rows.port("tap1"),))
    deeds, errors, _ = await scene.follow()
    assert deeds[0].startswith("delete hg") and deeds[1] == "create tap1 1500" and not errors
    stays = scene.rows.port("tap2")
    scene.rows.set("Bridge", bridge, ports=(stays,))
    await scene.follow()
    scene.host.put(dataclasses.replace(scene.host.by_name.pop("tap2"), name="tap3"))
    scene.rows.set("Bridge", bridge, ports=(stays, scene.rows.port("tap3")))
    assert not any(deed.startswith("delete") for deed in (await scene.follow())[0])


async def test_what_the_user_set_himself_stays_his(scene: Scene) -> None:
    port = scene.rows.port("tap1")
    scene.rows.bridge("br0", (port,))
    await scene.follow()
    user = scene.host.by_name["tap1"]
    scene.host.put(dataclasses.replace(user, mtu=9000, mac="02:00:00:00:00:05"))
    assert (await scene.follow())[0] == []
    scene.restart()
    assert (await scene.follow())[0] == []


async def test_a_new_process_applies_what_rows_ask_for(scene: Scene) -> None:
    port = scene.rows.port("tap1")
    scene.rows.bridge("br0", (port,))
    await scene.follow()
    scene.restart()
    interface = scene.rows.interface_of(port)
    scene.rows.set("Interface", interface, mtu_request=1400, mac="02:00:00:00:00:01")
    assert (await scene.follow())[0] == ["mac 02:00:00:00:00:01", "mtu 1400"]


async def test_a_refused_setting_costs_no_device_and_is_said_until_mended(scene: Scene) -> None:
    port = scene.rows.port("tap1")
    scene.rows.bridge("br0", (port,))
    await scene.follow()
    scene.host.refuse = {"mtu"}
    scene.rows.set("Interface", scene.rows.interface_of(port), mtu_request=70000)
    for _ in range(2):
        deeds, errors, remarks = await scene.follow()
        assert deeds == [] and errors == {} and "refused" in remarks[port]
    scene.host.refuse = set()
    assert await scene.follow() == (["mtu 70000"], {}, {})


async def test_an_existing_device_is_taken_and_put_back(scene: Scene) -> None:
    interface = scene.rows.add("Interface", name="eth0")
    port = scene.rows.add("Port", name="eth0", interfaces=(interface,))
    bridge = scene.rows.bridge("br0", (port,))
    _, errors, _ = await scene.follow()
    assert "No such device" in errors[interface]
    scene.host.put(device(7, "eth0"))
    assert await scene.follow() == (["take"], {}, {})
    assert (await scene.follow())[0] == []
    scene.rows.set("Interface", interface, mtu_request=1400)
    assert (await scene.follow())[0] == ["mtu 1400"]
    scene.restart()
    assert (await scene.follow())[0] == [], "adopted as it is"
    scene.rows.set("Bridge", bridge, ports=())
    assert (await scene.follow())[0] == ["detach 7", "mtu 1500", "release"]
    assert list(Restores(scene.file)) == []


async def test_a_device_that_is_refused_is_not_touched(scene: Scene) -> None:
    interface = scene.rows.add("Interface", name="eth0")
    scene.rows.bridge("br0", (scene.rows.add("Port", name="eth0", interfaces=(interface,)),))
    scene.host.put(device(7, "eth0", master=9))
    deeds, errors, _ = await scene.follow()
    assert deeds == [] and "master" in errors[interface]


async def test_a_bridge_that_the_kernel_refuses_leaves_the_others_alone(scene: Scene) -> None:
    bridges = [scene.rows.bridge(name, (scene.rows.port(name),)) for name in ("br0", "br1")]
    scene.plane.refuse = {0}
    _, faults, _ = await scene.follow()
    assert len(faults) == 1 and faults.keys() <= set(bridges)
    assert scene.plane.switched == [1]
    scene.plane.refuse = set()
    assert (await scene.follow())[1] == {}
    assert scene.plane.switched == [1, 0], "only what was refused is done again"


async def test_what_a_killed_process_was_making_and_nobody_wants_any_more_goes(
    scene: Scene,
) -> None:
    Restores(scene.file).making = ("hg0123456789ab",)
    scene.host.put(device(40, "hg0123456789ab"))
    scene.restart()
    assert (await scene.follow())[0] == ["delete hg0123456789ab"]
    assert Restores(scene.file).making == ()


async def test_departure_10_wire_frames_switch_offloads_off_and_back_as_found(scene: Scene) -> None:
    scene.host.put(device(77, "eth7", kind=""))
    interface = scene.rows.add("Interface", name="eth7")
    config = {"heliograph-wire-frames": "true"}
    port = scene.rows.add("Port", name="eth7", interfaces=(interface,), other_config=config)
    scene.rows.bridge("br0", (port,))
    assert "offload off" in (await scene.follow())[0]
    assert (await scene.follow())[0] == []
    scene.restart()
    scene.rows.set("Port", port, other_config={})
    assert "offload on" in (await scene.follow())[0]


async def test_departure_10_a_device_that_comes_again_is_no_known_one(scene: Scene) -> None:
    scene.host.put(device(77, "eth7", kind=""))
    interface = scene.rows.add("Interface", name="eth7")
    config = {"heliograph-wire-frames": "true"}
    port = scene.rows.add("Port", name="eth7", interfaces=(interface,), other_config=config)
    bridge = scene.rows.bridge("br0", (port,))
    assert "offload off" in (await scene.follow())[0]
    scene.rows.set("Bridge", bridge, ports=())
    assert "offload on" in (await scene.follow())[0]
    scene.rows.set("Bridge", bridge, ports=(port,))
    assert "offload off" in (await scene.follow())[0]


class Digger:
    """Adds tunnels to br0, which has tap1, and takes them away."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.ports = [scene.rows.port("tap1")]
        self.bridge = scene.rows.bridge("br0", tuple(self.ports))
        scene.receivers = frozenset({9})

    def dig(self, name: str) -> UUID:
        """The Interface row of a new tunnel."""
        options = {"remote_ip": str(FAR), "key": str(len(self.ports))}
        interface = self.scene.rows.add("Interface", name=name, type="gre", options=options)
        self.set(*self.ports, self.scene.rows.add("Port", name=name, interfaces=(interface,)))
        return interface

    def set(self, *ports: UUID) -> None:
        self.ports = list(ports)
        self.scene.rows.set("Bridge", self.bridge, ports=tuple(sorted(ports)))

    async def order(self) -> list[str]:
        """One pass: what was done to maps and hooks, in this order; no error may come of it."""
        _, errors, _ = await self.scene.follow()
        assert errors == {}
        done, self.scene.plane.order = self.scene.plane.order, []
        return done


@pytest.fixture
def digger(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Digger:
    monkeypatch.setattr(wire, "mute_ipv6", lambda name: None)
    return Digger(scene)


async def test_tunnels_change_with_their_bridges(digger: Digger) -> None:
    """A new one carries nothing before, one that goes stays until then. It begins with sequence
    number 0 (rules 109 and 114), of a slot that another may have had; what goes on in the others
    is left alone."""
    assert await digger.order() == ["sequence of 0", "underlay of 0", "bridge of 1"]
    digger.dig("gre0")
    assert await digger.order() == [
        *("sequence of 1", "underlay of 0", "bridge of 2", "underlay of 1", "receive on 9"),
    ]
    digger.dig("gre1")
    assert await digger.order() == ["sequence of 2", "bridge of 3", "underlay of 2"]
    assert await digger.order() == []
    digger.set(*digger.ports[:2])
    assert await digger.order() == ["bridge of 2", "underlay of 1"]
    digger.dig("gre2")
    assert await digger.order() == ["sequence of 2", "bridge of 3", "underlay of 2"]


async def test_a_tunnel_that_changes_with_its_bridge_carries_nothing_between(
    digger: Digger,
) -> None:
    interface = digger.dig("gre0")
    await digger.order()
    digger.scene.rows.set("Interface", interface, options={"remote_ip": str(FAR), "key": "9"})
    digger.dig("gre1")
    done = await digger.order()
    assert done[1:] == ["underlay of 0", "bridge of 3", "underlay of 2"]


async def test_a_tunnel_of_another_kind_numbers_anew(digger: Digger) -> None:
    """Its port is the same; one whose key changes goes on."""
    interface = digger.dig("gre0")
    await digger.order()
    digger.scene.rows.set("Interface", interface, options={"remote_ip": str(FAR), "key": "9"})
    assert await digger.order() == ["underlay of 1"]
    digger.scene.rows.set("Interface", interface, type="vxlan")
    anew, *rest = await digger.order()
    assert anew.startswith("sequence of ")
    assert rest == ["underlay of 1"]


async def test_tunnels_receive_where_the_addresses_are_and_no_longer(digger: Digger) -> None:
    digger.dig("gre0")
    await digger.order()
    digger.scene.receivers = frozenset({10, 11})
    done = await digger.order()
    assert sorted(done) == ["no more on 9", "receive on 10", "receive on 11"]
    assert done.index("no more on 9") == 2, "what receives anew does before"
    digger.set(digger.ports[0])
    assert sorted((await digger.order())[2:]) == ["no more on 10", "no more on 11"]


async def test_the_last_tunnel_takes_the_segmenter_along(digger: Digger) -> None:
    digger.dig("gre0")
    deeds, _, _ = await digger.scene.follow()
    (near,) = (deed.split()[1] for deed in deeds if deed.startswith("create hg"))
    ends = {near, digger.scene.host.by_index[digger.scene.host.by_name[near].peer].name}
    assert digger.scene.host.offload[digger.scene.host.by_name[near].ifindex] is False
    assert (await digger.scene.follow())[0] == []
    digger.set(digger.ports[0])
    deeds, _, _ = await digger.scene.follow()
    assert {deed.split()[1] for deed in deeds if deed.startswith("delete")} == ends


async def test_departure_1_without_segmenter_every_tunnel_says_why(digger: Digger) -> None:
    """The bridge's other ports work; the next pass tries again."""
    tunnels = {digger.dig("gre0"), digger.dig("gre1")}
    digger.scene.host.refuse = {"offload"}
    _, errors, _ = await digger.scene.follow()
    assert errors.keys() == tunnels
    assert all("need the segmenter's devices: refused" in error for error in errors.values())
    assert digger.scene.plane.order[-1] == "bridge of 1"
    digger.scene.host.refuse = set()
    assert "bridge of 3" in await digger.order()


async def test_a_device_where_tunnels_cannot_receive_is_an_error_of_theirs(
    digger: Digger,
) -> None:
    interface = digger.dig("gre0")
    digger.scene.host.put(device(9, "eth9", kind=""))
    digger.scene.plane.refuse_receiver = {9}
    _, errors, _ = await digger.scene.follow()
    assert errors == {
        interface: "eth9: tunnels cannot receive there: [Errno 12] Cannot allocate memory"
    }
    digger.scene.plane.refuse_receiver = set()
    assert "receive on 9" in await digger.order()


async def test_a_bridge_in_force_is_amended_between_passes(scene: Scene) -> None:
    bridge = scene.rows.bridge("br0")
    slot = 0

    def with_flows(entry: BridgeEntry) -> BridgeEntry:
        return dataclasses.replace(entry, flows=True)

    scene.reconciler.amend(slot, with_flows)
    assert scene.plane.switched == [], "it is not there yet"
    await scene.follow()
    assert scene.reconciler.slots.bridges == {bridge: slot}
    scene.reconciler.amend(slot, with_flows)
    scene.reconciler.amend(slot, with_flows)
    assert scene.plane.switched == [slot, slot] and scene.reconciler.bridges[slot].flows
    scene.plane.refuse = {slot}
    with pytest.raises(OSError, match="memory"):
        scene.reconciler.amend(slot, lambda entry: dataclasses.replace(entry, flows=False))
    assert scene.reconciler.bridges[slot].flows
