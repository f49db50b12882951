# SPDX-License-Identifier: Apache-2.0
"""Paths of tunnels and where they receive, on a network made up here.

With real namespaces: tests/system/test_underlay.py.
"""

import asyncio
import time
from ipaddress import ip_address as ip
from uuid import uuid4

import pytest
from tests.unit.switch.conftest import device
from tests.unit.waiting import PATIENCE, rest, until

from heliograph.errors import HeliographError
from heliograph.kernel.devices import Devices
from heliograph.kernel.layouts import Reason
from heliograph.kernel.links import Device
from heliograph.kernel.routes import Address, Neighbour, Route, Routes
from heliograph.switch import underlay as module
from heliograph.switch.underlay import Path, Underlay, Wish

OURS, HOP, FAR = ip("10.0.0.1"), ip("10.0.0.2"), ip("10.9.0.1")
OURS6, FAR6 = ip("fd00::1"), ip("fd09::1")
TUNNEL = uuid4()
ETH0, ETH1, LOOPBACK = 2, 3, 1
BY_ETH0 = Route(ETH0, HOP, OURS, 0)


class Network(Routes):
    """Stands for the kernel's routes, addresses and neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses = {ETH0: frozenset({OURS, OURS6})}
        self.routes: dict[Address, Route] = {FAR: BY_ETH0}
        self.known: set[Neighbour] = set()
        self.watched: set[Neighbour] = set()
        self.solicited: list[Neighbour] = []
        self.refusal: str | None = None
        self.lookups = 0
        self.link_local = True

    def has_link_local(self, ifindex: int) -> bool:
        return self.link_local

    def lookup(self, remote: Address, local: Address | None, tos: int = 0) -> Route:
        self.lookups += 1
        if remote not in self.routes:
            raise HeliographError(f"no route to {remote}")
        return self.routes[remote]

    def resolved(self, ifindex: int, hop: Address) -> bool:
        self.watched.add(Neighbour(ifindex, hop))
        return Neighbour(ifindex, hop) in self.known

    def solicit(self, ifindex: int, hop: Address) -> None:
        self.solicited.append(Neighbour(ifindex, hop))
        if self.refusal:
            raise HeliographError(self.refusal)

    def forget(self, ifindex: int, hop: Address) -> None:
        self.watched.remove(Neighbour(ifindex, hop))

    def answer(self, ifindex: int, hop: Address) -> None:
        """A neighbour is there."""
        self.known.add(Neighbour(ifindex, hop))
        self.on_change()


class World:
    """A network, the devices of a host, and an underlay of them."""

    def __init__(self) -> None:
        self.network = Network()
        self.devices = Devices()
        self.by_index: dict[int, Device] = {}
        self.devices.by_index = self.by_index
        self.put(device(LOOPBACK, "lo", kind="", link_type=772, arp=False, mtu=65536))
        self.put(device(ETH0, "eth0"))
        self.put(device(ETH1, "eth1"))
        self.wakes = 0
        self.underlay = Underlay(self.network, self.devices, self._wake)

    def put(self, made: Device) -> None:
        """A device is there, with these facts."""
        self.by_index[made.ifindex] = made

    def _wake(self) -> None:
        self.wakes += 1

    def path(self, remote: Address = FAR, local: Address | None = None) -> Path:
        """A pass; the path of its only tunnel."""
        return self.underlay.paths({TUNNEL: Wish(remote, local)})[TUNNEL]

    def receives(
        self, *wishes: Wish, ports: tuple[int, ...] = ()
    ) -> tuple[set[int], list[frozenset[Address]]]:
        """A pass; the devices of the receive program, and the addresses of each tunnel."""
        tunnels = {uuid4(): wish for wish in wishes}
        self.underlay.paths(tunnels)
        found = self.underlay.receivers(tunnels, ports)
        return set(found.devices), [found.addresses[uuid] for uuid in tunnels]


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(module, "SOLICIT_SECONDS", 0.01)
    return World()


# Paths


async def test_path_of_a_resolved_neighbour(world: World) -> None:
    world.network.known.add(Neighbour(ETH0, HOP))
    assert world.path() == Path(ETH0, HOP, OURS, 1500, Reason.DELIVERED, None)


@pytest.mark.parametrize(("of_route", "mtu"), [(0, 1500), (1300, 1300), (9000, 1500)])
async def test_mtu_is_the_routes_but_never_above_the_devices(
    world: World, of_route: int, mtu: int
) -> None:
    world.network.routes[FAR] = Route(ETH0, HOP, OURS, of_route)
    assert world.path().mtu == mtu


async def test_mtu_is_never_above_what_can_be_encapsulated(world: World) -> None:
    world.put(device(ETH0, "eth0", mtu=65535))
    assert world.path().mtu == 16_000


async def test_no_route(world: World) -> None:
    expected = Path(0, None, None, 0, Reason.DROP_NO_ROUTE, "no route to 10.8.0.1")
    assert world.path(ip("10.8.0.1")) == expected


async def test_route_by_a_device_not_heard_of_yet(world: World) -> None:
    world.network.routes[FAR] = Route(77, HOP, OURS, 0)
    path = world.path()
    assert (path.ifindex, path.reason) == (0, Reason.DROP_NO_ROUTE)
    assert path.problem == "device 77, which leads to 10.9.0.1, is not known yet"


async def test_route_that_went_with_its_device(world: World) -> None:
    """The kernel drops the routes of a device that is set down: what helps is to set it up."""
    world.path()
    del world.network.routes[FAR]
    world.put(device(ETH0, "eth0", admin_up=False, carrier=False))
    for _ in range(2):
        path = world.path()
        assert path.reason == Reason.DROP_NO_ROUTE
        assert path.problem == "eth0, which led to 10.9.0.1, is down: ip link set eth0 up"
    world.put(device(ETH0, "eth0"))
    assert world.path().problem == "no route to 10.9.0.1"
    del world.by_index[ETH0]
    assert world.path().problem == "no route to 10.9.0.1"


@pytest.mark.parametrize(
    ("facts", "problem"),
    [
        ({"carrier": False}, "eth0 has no carrier: see to its cable, or to its other end"),
        ({"carrier": False, "admin_up": False}, "eth0 is down: ip link set eth0 up"),
    ],
)
async def test_device_that_cannot_send(world: World, facts: dict[str, bool], problem: str) -> None:
    world.network.known.add(Neighbour(ETH0, HOP))
    world.put(device(ETH0, "eth0", **facts))
    path = world.path()
    assert (path.ifindex, path.reason, path.problem) == (ETH0, Reason.DROP_NO_NEIGHBOUR, problem)


async def test_device_without_neighbour_resolution_needs_none(world: World) -> None:
    world.put(device(ETH0, "eth0", arp=False))
    assert world.path().reason == Reason.DELIVERED
    assert world.network.solicited == []


@pytest.mark.parametrize(
    ("hop", "question"), [(HOP, "ARP"), (ip("fd00::2"), "neighbour discovery")]
)
async def test_silent_neighbour(world: World, hop: Address, question: str) -> None:
    world.network.routes[FAR] = Route(ETH0, hop, OURS, 0)
    path = world.path()
    assert path.reason == Reason.DROP_NO_NEIGHBOUR
    assert path.problem is not None
    assert path.problem.startswith(f"{hop} does not answer {question} on eth0: ")


async def test_a_device_without_a_link_local_address_is_named(world: World) -> None:
    world.network.routes[FAR] = Route(ETH0, ip("fd00::2"), OURS, 0)
    world.network.link_local = False
    said = world.path().problem
    assert said and said.startswith("eth0 has no link-local address")


async def test_kernel_that_refuses_to_solicit_says_why(world: World) -> None:
    world.network.refusal = "neighbour 10.0.0.2: No buffer space available"
    assert world.path().problem == world.network.refusal


async def test_tunnel_without_a_remote_has_no_path(world: World) -> None:
    assert world.underlay.paths({TUNNEL: Wish(None, None)}) == {}


async def test_tunnels_to_one_remote_share_their_path(world: World) -> None:
    paths = world.underlay.paths({uuid4(): Wish(FAR, None) for _ in range(10)})
    assert len(paths) == 10
    assert world.network.lookups == 1


async def test_the_clock_s_offset_is_followed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D5: time daemons set it when they have synchronised, and tell nobody."""
    monkeypatch.setattr(module, "_tai_offset", lambda: 37)
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    world.receives(Wish(FAR, None))
    assert world.underlay.tai_offset == 37
    monkeypatch.setattr(module, "_tai_offset", lambda: 38)
    await until(lambda: world.wakes > 0)
    assert world.underlay.tai_offset == 38


# Following


async def test_soliciting_goes_on_until_there_is_an_answer(world: World) -> None:
    world.path()
    await until(lambda: len(world.network.solicited) >= 3)
    world.network.answer(ETH0, HOP)
    await rest()
    assert world.wakes == 1
    assert world.path().reason == Reason.DELIVERED
    world.network.solicited.clear()
    await rest()
    assert world.network.solicited == []


async def test_soliciting_goes_on_after_a_refusal(world: World) -> None:
    world.network.refusal = "no"
    world.path()
    await until(lambda: len(world.network.solicited) >= 3)


async def test_what_is_no_longer_wished_is_left(world: World) -> None:
    world.path()
    assert world.network.watched == {Neighbour(ETH0, HOP)}
    world.underlay.paths({})
    world.network.solicited.clear()
    world.network.answer(ETH0, HOP)
    await rest()
    assert world.network.watched == set()
    assert world.network.solicited == []
    assert world.wakes == 0


async def test_change_that_changes_nothing_wakes_nobody(world: World) -> None:
    world.path()
    world.underlay.receivers({TUNNEL: Wish(FAR, None)}, ())
    world.network.on_change()
    await rest()
    assert world.network.lookups == 2
    assert world.wakes == 0


async def test_other_route_or_address_wakes(world: World) -> None:
    world.path()
    world.underlay.receivers({TUNNEL: Wish(FAR, None)}, ())
    world.network.routes[FAR] = Route(ETH1, HOP, OURS, 0)
    world.network.on_change()
    await rest()
    assert world.wakes == 1
    world.network.addresses = {ETH0: frozenset({OURS})}
    world.network.on_change()
    await rest()
    assert world.wakes == 2


async def test_address_wakes_a_switch_that_only_receives(world: World) -> None:
    world.receives(Wish(None, None))
    world.network.addresses = {}
    world.network.on_change()
    await rest()
    assert world.wakes == 1


async def test_what_no_event_tells_is_found_in_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path MTU that the kernel learned, or forgot."""
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    world.path()
    world.underlay.receivers({TUNNEL: Wish(FAR, None)}, ())
    await rest(0.05)
    assert world.wakes == 0
    world.network.routes[FAR] = Route(ETH0, HOP, OURS, 1280)
    await until(lambda: world.wakes == 1)


async def test_looks_take_a_tenth_of_the_time_at_most(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host whose routes change all the time is not kept busy by us."""

    def slow(remote: Address, local: Address | None, tos: int = 0) -> Route:
        world.network.lookups += 1
        time.sleep(0.01)
        return BY_ETH0

    monkeypatch.setattr(world.network, "lookup", slow)
    world.path()
    began = time.monotonic()
    while time.monotonic() < began + 0.3 or world.network.lookups < 1 + 2:
        world.network.on_change()
        await asyncio.sleep(0.01)
    tenths = (time.monotonic() - began) / 0.1
    assert world.network.lookups <= 1 + 1 + tenths


async def test_pass_takes_in_what_stirred_before_it(world: World) -> None:
    world.path()
    world.network.answer(ETH0, HOP)
    world.path()
    await rest()
    assert world.wakes == 0


# Settling


async def test_settle_waits_for_the_answer(world: World) -> None:
    loop = asyncio.get_running_loop()
    world.path()
    loop.call_later(0.02, world.network.answer, ETH0, HOP)
    began = loop.time()
    await world.underlay.settle(PATIENCE)
    assert 0.015 < loop.time() - began < PATIENCE
    assert world.path().reason == Reason.DELIVERED
    await rest()
    assert world.wakes == 0


async def test_settle_gives_up_and_waits_once_only(world: World) -> None:
    loop = asyncio.get_running_loop()
    world.path()
    began = loop.time()
    await world.underlay.settle(0.02)
    assert loop.time() - began >= 0.02
    world.path()
    began = loop.time()
    await world.underlay.settle(PATIENCE)
    assert loop.time() - began < PATIENCE


async def test_settle_waits_for_new_neighbours_alone(world: World) -> None:
    world.path()
    await world.underlay.settle(0.01)
    world.network.routes[FAR6] = Route(ETH1, ip("fd01::2"), OURS6, 0)
    wishes = {TUNNEL: Wish(FAR, None), uuid4(): Wish(FAR6, None)}
    world.underlay.paths(wishes)
    loop = asyncio.get_running_loop()
    loop.call_later(0.02, world.network.answer, ETH1, ip("fd01::2"))
    began = loop.time()
    await world.underlay.settle(PATIENCE)
    assert 0.015 < loop.time() - began < PATIENCE


# Receiving


async def test_addresses_that_a_tunnel_receives_at(world: World) -> None:
    _, addresses = world.receives(
        Wish(FAR, None),
        Wish(FAR, OURS),
        Wish(FAR, ip("10.0.0.99")),  # the host has no such address
        Wish(FAR6, None),
        Wish(None, None, family=6),
        Wish(None, OURS),
        Wish(None, None),
    )
    both = {OURS, OURS6}
    assert addresses == [{OURS}, {OURS}, set(), {OURS6}, {OURS6}, {OURS}, both]


async def test_devices_that_own_an_address_and_those_of_the_paths(world: World) -> None:
    world.network.addresses = {ETH0: frozenset({OURS}), ETH1: frozenset({OURS6})}
    world.network.routes[FAR6] = BY_ETH0
    assert world.receives(Wish(None, OURS))[0] == {ETH0}
    assert world.receives(Wish(None, None, family=6))[0] == {ETH1}
    assert world.receives(Wish(FAR6, None))[0] == {ETH0, ETH1}
    assert world.receives(Wish(FAR6, ip("10.0.0.99")))[0] == {ETH0}
    assert world.receives()[0] == set()


@pytest.mark.parametrize(
    "inward",
    [
        {"kind": "", "link_type": 772, "arp": False},
        {"kind": "dummy", "arp": False},
        {"kind": "vrf", "arp": False},
    ],
)
async def test_address_of_the_host_itself_is_reached_by_every_device(
    world: World, inward: dict[str, str]
) -> None:
    """Also by one whose only addresses are link-local, as between routers."""
    vtep = ip("192.0.2.1")
    world.put(device(9, "inner", **inward))
    world.network.addresses = {9: frozenset({vtep}), ETH0: frozenset({OURS}), ETH1: frozenset()}
    assert world.receives(Wish(None, vtep)) == ({ETH0, ETH1}, [frozenset({vtep})])
    assert world.receives(Wish(None, OURS))[0] == {ETH0}


async def test_ports_far_ends_and_what_is_no_ethernet_do_not_receive(world: World) -> None:
    world.put(device(9, "hg0123456789ab"))
    world.put(device(10, "tun0", kind="tun", link_type=65534, arp=False))
    own = frozenset({OURS})
    world.network.addresses = {ETH0: own, ETH1: own, 9: own, 10: own, 77: own}
    assert world.receives(Wish(FAR, None), ports=(ETH1,))[0] == {ETH0}
