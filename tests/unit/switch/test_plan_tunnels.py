# SPDX-License-Identifier: Apache-2.0
"""Tunnel ports: what the data plane is to know of them, and what is said where they cannot work."""

from dataclasses import replace
from ipaddress import ip_address
from typing import Any
from uuid import UUID

import pytest
from tests.unit.switch.conftest import Rows, device

from heliograph.kernel.devices import Device
from heliograph.kernel.layouts import Reason, TunnelKind
from heliograph.kernel.tunnels import UnderlayEntry, Way
from heliograph.switch import plan, wanted
from heliograph.switch.encapsulation import Network
from heliograph.switch.slots import Slots
from heliograph.switch.underlay import Path

FAR, NEAR = ip_address("192.0.2.1"), ip_address("192.0.2.2")
SEGMENTER = 77
UPLINK = device(9, "eth9", kind="")  # of the host, and no port
PATH = Path(9, FAR, NEAR, 1500, Reason.DELIVERED, None)
NO_ROUTE = Path(0, None, None, 0, Reason.DROP_NO_ROUTE, "no route to 192.0.2.1")


def tunnel(rows: Rows, name: str, kind: str = "gre", /, **options: str) -> UUID:
    """A tunnel's Port row."""
    interface = rows.add(
        "Interface", name=name, type=kind, options={"remote_ip": str(FAR)} | options
    )
    return rows.add("Port", name=name, interfaces=(interface,))


class Host:
    """Devices for all rows that need one, and a network where every tunnel leaves by `egress`."""

    def __init__(self, rows: Rows, egress: Device = UPLINK) -> None:
        self.rows = rows
        self.egress = egress
        self.present: dict[UUID, Device] = {}
        self.errors: dict[UUID, str] = {}
        self.path = PATH
        self.segmenter = SEGMENTER

    def user_end(self, port: UUID) -> Device:
        """The end of an internal port that has the host's addresses."""
        ours = self.present[self.rows.interface_of(port)]
        return device(ours.peer, "br0", peer=ours.ifindex)

    def plan(self, old: Slots | None = None) -> plan.Plan:
        intent = self.rows.intent
        needed = wanted.devices(intent)
        for number, uuid in enumerate((*needed.internal, *needed.existing)):
            self.present.setdefault(uuid, device(100 + number, peer=200 + number))
        sending = {uuid for uuid, made in needed.tunnels.items() if made.remote}
        network = Network(
            needed.tunnels,
            dict.fromkeys(sending, self.path),
            dict.fromkeys(sending, self.egress) if self.path.ifindex else {},
            frozenset({NEAR}),
            frozenset({9}),
            37,
        )
        errors = needed.errors | self.errors
        facts = plan.Facts(self.present, errors, {}, self.segmenter, network)
        return plan.plan(intent, facts, old or Slots())


def test_several_tunnels_on_several_bridges(rows: Rows) -> None:
    """Each has its port's number and its bridge's slot; all share the segmenter."""
    names = {"gre0": "br0", "gre1": "br0", "vx0": "br1"}
    ports = {
        name: tunnel(rows, name, "vxlan" if name == "vx0" else "gre", key=str(number))
        for number, name in enumerate(names)
    }
    bridges = {
        name: rows.bridge(
            name, (rows.port(f"tap-{name}"), *(ports[p] for p in names if names[p] == name))
        )
        for name in ("br0", "br1")
    }
    made = Host(rows).plan()
    assert made.errors == made.problems == {}
    assert (made.underlay.segmenter, made.underlay.tai_offset) == (SEGMENTER, 37)
    entries = {entry.number: entry for entry in made.underlay.tunnels}
    for name, port in ports.items():
        entry = entries.pop(made.slots.ports[port])
        assert entry.bridge == made.slots.bridges[bridges[names[name]]]
        assert entry.kind == (TunnelKind.VXLAN if name == "vx0" else TunnelKind.GRE)
        assert entry.way == Way(Reason.DELIVERED, 9, NEAR, FAR, 1500)
        (there,) = (p for p in made.bridges[bridges[names[name]]].ports if p.number == entry.number)
        assert there.tunnel and there.ifindex == SEGMENTER
        assert made.ofports[rows.interface_of(port)] > 0
    assert entries == {}
    assert made.receivers == {9}
    assert made.tunnels.keys() == {rows.interface_of(port) for port in ports.values()}
    assert made.tunnels.keys().isdisjoint(made.ports)


def test_without_tunnels_there_is_no_underlay(rows: Rows) -> None:
    """A tunnel that goes takes along where it received."""
    gre, tap = tunnel(rows, "gre0"), rows.port("tap1")
    bridge = rows.bridge("br0", (tap, gre))
    host = Host(rows)
    first = host.plan()
    assert len(first.underlay.tunnels) == 1 and first.receivers
    rows.set("Bridge", bridge, ports=(tap,))
    again = host.plan(first.slots)
    assert (again.underlay, again.receivers, again.tunnels) == (UnderlayEntry(), frozenset(), {})
    assert gre not in again.slots.ports


def test_a_tunnel_keeps_its_number(rows: Rows) -> None:
    """What is on its way through the segmenter is marked with it."""
    ports = [tunnel(rows, f"gre{n}", key=str(n)) for n in range(3)]
    bridge = rows.bridge("br0", tuple(ports))
    host = Host(rows)
    first = host.plan()
    rows.set("Bridge", bridge, ports=tuple(sorted(ports[1:])))
    again = host.plan(first.slots)
    assert {e.number for e in again.underlay.tunnels} == {first.slots.ports[p] for p in ports[1:]}


def test_departure_1_a_tunnel_without_a_way_is_a_port_and_says_so(rows: Rows) -> None:
    """On its Port, and on the mirror that copies into it; the Interface itself is in order."""
    gre, tap = tunnel(rows, "gre0"), rows.port("tap1")
    mirror = rows.add("Mirror", name="m", select_src_port=(tap,), output_port=gre)
    bridge = rows.bridge("br0", (tap, gre), mirrors=(mirror,))
    host = Host(rows)
    host.path = NO_ROUTE
    made = host.plan()
    assert made.errors == {}
    assert made.problems == {
        gre: "sends nothing: no route to 192.0.2.1",
        mirror: "its output does not work: no route to 192.0.2.1",
    }
    (entry,) = made.underlay.tunnels
    assert entry.way.state == Reason.DROP_NO_ROUTE
    assert made.bridges[bridge].mirrors, "its copies are counted as dropped"
    host.path = PATH
    assert host.plan(made.slots).problems == {}


def test_a_tunnel_that_only_receives_is_none_for_a_mirror(rows: Rows) -> None:
    gre, tap = tunnel(rows, "gre0", remote_ip="flow"), rows.port("tap1")
    mirror = rows.add("Mirror", name="m", select_src_port=(tap,), output_port=gre)
    rows.bridge("br0", (tap, gre), mirrors=(mirror,))
    made = Host(rows).plan()
    assert "receives from any address and sends nothing" in made.problems[gre]
    assert "names no host to send to" in made.problems[mirror]
    (entry,) = made.underlay.tunnels
    assert (entry.remote, made.underlay.addresses) == (None, frozenset({NEAR}))


def test_options_without_effect_are_said_on_the_port(rows: Rows) -> None:
    gre = tunnel(rows, "gre0", "erspan", erspan_ver="1", csum="true")
    rows.bridge("br0", (gre,))
    made = Host(rows).plan()
    assert "options:csum has no effect" in made.problems[gre] and made.errors == {}


def test_options_that_cannot_be_followed_are_an_error_of_the_interface(rows: Rows) -> None:
    gre, tap = tunnel(rows, "gre0", key="x"), rows.port("tap1")
    mirror = rows.add("Mirror", name="m", select_src_port=(tap,), output_port=gre)
    bridge = rows.bridge("br0", (tap, gre), mirrors=(mirror,))
    made = Host(rows).plan()
    interface = rows.interface_of(gre)
    assert "options:key='x'" in made.errors[interface] and made.ofports[interface] == -1
    assert "options:key='x'" in made.problems[mirror]
    assert len(made.bridges[bridge].ports) == 1 and made.underlay == UnderlayEntry()


def test_without_the_segmenter_no_tunnel_is_a_port(rows: Rows) -> None:
    gre, tap = tunnel(rows, "gre0"), rows.port("tap1")
    bridge = rows.bridge("br0", (tap, gre))
    host = Host(rows)
    host.segmenter = 0
    host.errors = {rows.interface_of(gre): "tunnels need the segmenter's devices: no room"}
    made = host.plan()
    assert made.ofports[rows.interface_of(gre)] == -1
    assert len(made.bridges[bridge].ports) == 1 and made.tunnels == {}


# A tunnel whose packets come back into the switch: br0's LOCAL port has the host's address.


def looping(rows: Rows, *, tunnels: int = 1, **selects: Any) -> tuple[Host, list[UUID]]:
    """br0 with LOCAL, tap1, tap2 and tunnels that leave by LOCAL, and a mirror into the first one.
    `selects` has columns of names; returned are the rows of LOCAL, tap1, the tunnels, the mirror.
    """
    ports = {name: rows.port(name) for name in ("br0", "tap1", "tap2")}
    dug = [tunnel(rows, f"gre{n}", key=str(n)) for n in range(tunnels)]
    columns = {
        column: tuple(sorted(ports[name] for name in names.split()))
        if isinstance(names, str)
        else names
        for column, names in selects.items()
    }
    mirror = rows.add("Mirror", name="m", output_port=dug[0], **columns)
    rows.bridge("br0", (*ports.values(), *dug), mirrors=(mirror,))
    host = Host(rows)
    host.plan()
    host.egress = host.user_end(ports["br0"])
    return host, [ports["br0"], ports["tap1"], *dug, mirror]


@pytest.mark.parametrize(
    "selects", [{"select_all": True}, {"select_src_port": "br0"}], ids=["all", "LOCAL"]
)
def test_a_tunnel_whose_packets_would_be_mirrored_into_it_is_no_port(
    rows: Rows, selects: dict[str, Any]
) -> None:
    """What the mirror would have kept for itself must not be flooded to without it."""
    host, (_, _, gre, other, mirror) = looping(rows, tunnels=2, **selects)
    made = host.plan()
    interface = rows.interface_of(gre)
    assert (
        "leave by br0, back into the switch, where mirror m would copy them"
        in (made.errors[interface])
    )
    assert made.ofports[interface] == -1
    assert "without end" in made.problems[mirror]
    (bridge,) = made.bridges.values()
    assert bridge.mirrors == () and mirror not in made.slots.mirrors
    numbers = {made.slots.ports[port] for port in (gre, other)}
    assert {entry.number for entry in made.underlay.tunnels} == {made.slots.ports[other]}
    assert {p.number for p in bridge.ports} & numbers == {made.slots.ports[other]}


def test_a_mirror_that_sees_them_by_whichever_port_they_leave(rows: Rows) -> None:
    host, (_, _, gre, mirror) = looping(rows, select_dst_port="tap1 tap2")
    made = host.plan()
    assert made.errors.keys() == {rows.interface_of(gre)} and made.problems.keys() == {mirror}


@pytest.mark.parametrize(
    "selects",
    [
        {"select_src_port": "tap1 tap2"},
        {"select_src_port": "tap1", "select_dst_port": "tap1 br0"},
    ],
    ids=["src", "src and dst"],
)
def test_a_mirror_that_need_not_see_the_tunnels_packets_works(
    rows: Rows, selects: dict[str, Any]
) -> None:
    """By which port they go on is not known; the program lets none into its tunnel again."""
    host, (*_, mirror) = looping(rows, **selects)
    made = host.plan()
    assert made.errors == made.problems == {}
    assert mirror in made.slots.mirrors


def test_a_tunnel_that_leaves_by_a_device_of_the_host_is_no_loop(rows: Rows) -> None:
    host, (*_, mirror) = looping(rows, select_all=True)
    host.egress = UPLINK
    made = host.plan()
    assert made.errors == made.problems == {}
    assert mirror in made.slots.mirrors


def test_numbers_of_devices_elsewhere_are_not_those_of_our_ports(rows: Rows) -> None:
    """The other end of the host's own veth device may have any number in its namespace."""
    host, (*_, mirror) = looping(rows, select_all=True)
    host.egress = replace(host.egress, name="eth0", peer_elsewhere=True)
    made = host.plan()
    assert made.errors == made.problems == {}
    assert mirror in made.slots.mirrors


def test_departure_1_another_mirror_into_a_tunnel_that_is_no_port_says_so(rows: Rows) -> None:
    host, (_, tap, gre, mirror) = looping(rows, select_all=True)
    (bridge,) = rows.intent.bridges
    other = rows.add("Mirror", name="other", select_src_port=(tap,), output_port=gre)
    rows.set("Bridge", bridge.uuid, mirrors=tuple(sorted((mirror, other))))
    made = host.plan()
    assert "its output does not work" in made.problems[other]


def test_mirrored_tunnels_that_feed_each_other(rows: Rows) -> None:
    """Two bridges: what the one's tunnel sends, the other mirrors into its own, and back."""
    taps = {name: rows.port(name) for name in ("br0", "br1")}
    dug = {name: tunnel(rows, f"gre-{name}", key=name[-1]) for name in taps}
    bridges = {}
    for name, local in taps.items():
        mirror = rows.add("Mirror", name="m", select_src_port=(local,), output_port=dug[name])
        rows.bridge(name, (local, dug[name]), mirrors=(mirror,))
        bridges[name] = mirror
    host = Host(rows)
    host.plan()
    one, two = (rows.interface_of(dug[name]) for name in ("br0", "br1"))
    ends = {one: host.user_end(taps["br1"]), two: host.user_end(taps["br0"])}
    needed = wanted.devices(rows.intent)

    def made(egress: dict[UUID, Device]) -> plan.Plan:
        network = Network(needed.tunnels, dict.fromkeys(needed.tunnels, PATH), egress)
        facts = plan.Facts(host.present, {}, {}, SEGMENTER, network)
        return plan.plan(rows.intent, facts, Slots())

    assert made(ends).errors.keys() == {one, two}
    assert made(ends).problems.keys() == set(bridges.values())
    assert made({one: ends[one], two: UPLINK}).errors == {}


def test_a_tunnel_that_receives_by_a_port_of_the_switch_says_so(rows: Rows) -> None:
    """D1: the host's address is on a device that has become a port."""
    gre0 = tunnel(rows, "gre0")
    uplink = rows.add("Interface", name="eth9")
    port = rows.add("Port", name="eth9", interfaces=(uplink,))
    rows.bridge("br0", (gre0, port))
    host = Host(rows, UPLINK)
    host.present[uplink] = UPLINK
    assert "receives nothing: eth9, by which packets of gre0" in host.plan().problems[gre0]
    host.present[uplink] = device(10, "eth10", kind="")
    assert gre0 not in host.plan().problems


def test_a_tunnel_through_a_device_without_ethernet_sends_only(rows: Rows) -> None:
    """D1: what comes back by WireGuard, say, is not understood."""
    gre0 = tunnel(rows, "gre0")
    rows.bridge("br0", (gre0,))
    wireguard = replace(device(9, "wg0", kind="wireguard"), link_type=65534)
    assert "receives nothing: wg0" in Host(rows, wireguard).plan().problems[gre0]
