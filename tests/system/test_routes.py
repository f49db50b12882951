# SPDX-License-Identifier: Apache-2.0
"""Routes, addresses and neighbours through netlink, in real namespaces."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from ipaddress import ip_address as ip

import pytest
from tools.lab.lab import Lab
from tools.lab.namespaces import veth
from tools.lab.processes import PATIENCE, eventually

from heliograph.errors import HeliographError
from heliograph.kernel import netlink
from heliograph.kernel.routes import Address, Route, Routes

NEXT, NEXT6 = ip("10.0.0.2"), ip("fd00::2")
OURS, OURS6 = ip("10.0.0.1"), ip("fd00::1")


class Net:
    """A host and its neighbour, both with addresses of both families on eth0."""

    def __init__(self, lab: Lab) -> None:
        self.host = lab.namespace("host")
        self.peer = lab.namespace("peer")
        for namespace in (self.host, self.peer):  # no events but those that a test causes
            namespace.set_sysctl("ipv6/conf/default/addr_gen_mode", "1")
        veth((self.host, "eth0"), (self.peer, "eth0"))
        for namespace, last in ((self.host, 1), (self.peer, 2)):
            namespace.ip(f"address add 10.0.0.{last}/24 dev eth0")
            namespace.ip(f"address add fd00::{last}/64 dev eth0 nodad")
            namespace.ip(f"address add fe80::{last}/64 dev eth0 nodad")
        # The kernel tells of carriers in its own time.
        assert eventually(lambda: "state UP" in self.host.ip("-o link show dev eth0"))

    @property
    def eth0(self) -> int:
        (facts,) = json.loads(self.host.ip("-j link show dev eth0"))
        return int(facts["ifindex"])

    def within(self, scenario: Callable[[Routes, "Changes"], Awaitable[None]]) -> None:
        """Run a scenario with the routes of the host."""

        async def bounded() -> None:
            async with asyncio.timeout(2 * PATIENCE), Routes() as routes:
                await scenario(routes, Changes(routes))

        self.host.call(lambda: asyncio.run(bounded()))

    def neighbour(self, address: str = "10.0.0.2") -> str:
        """What `ip` says of a neighbour of the host."""
        return self.host.ip(f"neigh show {address} dev eth0")


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.002)


class Changes:
    """Counts what `on_change` tells."""

    def __init__(self, routes: Routes) -> None:
        self.count = 0
        routes.on_change = self._tell

    def _tell(self) -> None:
        self.count += 1

    async def after(self, deed: Callable[[], object]) -> None:
        """Do something, and wait until it is told."""
        await self.none_for(0.05)
        before = self.count
        deed()
        await until(lambda: self.count > before)

    async def none_for(self, seconds: float) -> None:
        """Let what goes on be told until nothing is for a while."""
        before = -1
        while before != self.count:
            before = self.count
            await asyncio.sleep(seconds)


@pytest.fixture
def net(lab: Lab) -> Net:
    return Net(lab)


def test_how_the_kernel_would_send(net: Net) -> None:
    net.host.ip("route add 10.1.0.0/16 via 10.0.0.2 mtu 1300")
    net.host.ip("route add 10.2.0.0/16 via inet6 fd00::2")
    net.host.ip("-6 route add fd02::/64 via fd00::2 mtu 1400")
    net.host.ip("address add 10.0.0.11/24 dev eth0")
    eth0 = net.eth0

    async def scenario(routes: Routes, _: Changes) -> None:
        assert routes.lookup(NEXT, None) == Route(eth0, NEXT, OURS, 0)
        assert routes.lookup(NEXT, ip("10.0.0.11")) == Route(eth0, NEXT, ip("10.0.0.11"), 0)
        assert routes.lookup(ip("10.1.0.9"), None) == Route(eth0, NEXT, OURS, 1300)
        assert routes.lookup(ip("10.2.0.9"), None) == Route(eth0, NEXT6, OURS, 0)
        assert routes.lookup(NEXT6, None) == Route(eth0, NEXT6, OURS6, 0)
        assert routes.lookup(ip("fd02::9"), OURS6) == Route(eth0, NEXT6, OURS6, 1400)

    net.within(scenario)


def test_rules_choose_by_source_and_tos(net: Net) -> None:
    net.host.ip("address add 10.0.0.11/24 dev eth0")
    net.host.ip("rule add from 10.0.0.11 table 7")
    net.host.ip("rule add tos 0x10 table 8")
    net.host.ip("route add 10.3.0.0/16 via 10.0.0.2")
    net.host.ip("route add 10.3.0.0/16 via 10.0.0.7 table 7")
    net.host.ip("route add 10.3.0.0/16 via 10.0.0.8 table 8")

    async def scenario(routes: Routes, changes: Changes) -> None:
        remote = ip("10.3.0.1")
        assert routes.lookup(remote, None).hop == NEXT
        assert routes.lookup(remote, ip("10.0.0.11")).hop == ip("10.0.0.7")
        assert routes.lookup(remote, None, tos=0x10).hop == ip("10.0.0.8")
        assert routes.lookup(remote, None, tos=0x13).hop == ip("10.0.0.8")
        await changes.after(lambda: net.host.ip("rule del tos 0x10 table 8"))
        assert routes.lookup(remote, None, tos=0x10).hop == NEXT

    net.within(scenario)


REFUSED = [
    ("192.0.2.1", None, "no route to 192.0.2.1: add one (ip route add 192.0.2.1 via"),
    ("2001:db8::1", None, "no route to 2001:db8::1: add one (ip -6 route add 2001:db8::1 via"),
    (
        "10.8.0.1",
        None,
        "a route or rule of the type unreachable stops what is sent to 10.8.0.1: remove",
    ),
    ("10.7.0.1", None, "of the type prohibit"),
    ("10.6.0.1", None, "of the type blackhole"),
    ("fd08::1", None, "of the type unreachable stops what is sent to fd08::1: remove it"),
    ("fd07::1", None, "of the type prohibit"),
    ("fd06::1", None, "of the type blackhole"),
    ("10.0.0.1", None, "10.0.0.1 is an address of this host itself"),
    ("fd00::1", None, "fd00::1 is an address of this host itself"),
    ("127.0.0.5", None, "127.0.0.5 is an address of this host itself"),
    ("10.0.0.255", None, "10.0.0.255 is a broadcast address: name that of one host"),
    ("224.0.0.5", None, "224.0.0.5 is a multicast address: name that of one host"),
    ("ff02::5", None, "ff02::5 is a multicast address"),
    ("fe80::5", None, "fe80::5 is a link-local address"),
    ("10.0.0.2", "127.0.0.1", "127.0.0.1 is no address to send from"),
    ("fd00::2", "fe80::1", "fe80::1 is no address to send from"),
    ("10.0.0.2", "10.0.0.77", "10.0.0.77 is no address of this host: add it"),
    ("fd00::2", "fd00::77", "fd00::77 is no address of this host: add it"),
]


def test_why_there_is_no_route(net: Net) -> None:
    for family, prefix in (("", "10.{}.0.0/16"), ("-6 ", "fd0{}::/64")):
        for kind, number in (("unreachable", 8), ("prohibit", 7), ("blackhole", 6)):
            net.host.ip(f"{family}route add {kind} {prefix.format(number)}")

    async def scenario(routes: Routes, _: Changes) -> None:
        for remote, local, words in REFUSED:
            with pytest.raises(HeliographError) as caught:
                routes.lookup(ip(remote), ip(local) if local else None)
            assert words in str(caught.value)

    net.within(scenario)


def test_host_without_an_address_of_the_family_cannot_send(net: Net) -> None:
    net.host.ip("address del 10.0.0.1/24 dev eth0")
    net.host.ip("route add 10.0.0.0/24 dev eth0")
    net.host.ip("address del fd00::1/64 dev eth0")
    net.host.ip("-6 route add fd00::/64 dev eth0")

    async def scenario(routes: Routes, _: Changes) -> None:
        for remote in (NEXT, NEXT6):
            with pytest.raises(HeliographError, match=r"has no IPv. address to send to"):
                routes.lookup(remote, None)

    net.within(scenario)


def test_what_changes_routes_is_told(net: Net) -> None:
    async def scenario(routes: Routes, changes: Changes) -> None:
        far = ip("10.1.0.1")
        await changes.after(lambda: net.host.ip("route add 10.1.0.0/16 via 10.0.0.2"))
        assert routes.lookup(far, None).hop == NEXT
        await changes.after(lambda: net.host.ip("route change 10.1.0.0/16 via 10.0.0.3"))
        assert routes.lookup(far, None).hop == ip("10.0.0.3")
        await changes.after(lambda: net.host.ip("-6 route add fd01::/64 via fd00::2"))
        await changes.after(lambda: net.host.ip("nexthop add id 5 via 10.0.0.2 dev eth0"))
        await changes.after(lambda: net.host.ip("route replace 10.1.0.0/16 nhid 5"))
        await changes.after(lambda: net.host.ip("nexthop replace id 5 via 10.0.0.9 dev eth0"))
        assert routes.lookup(far, None).hop == ip("10.0.0.9")
        await changes.after(lambda: net.host.ip("rule add to 10.1.0.0/16 prohibit"))
        await changes.after(lambda: net.host.ip("-6 rule add to fd01::/64 prohibit"))
        for remote in (far, ip("fd01::1")):
            with pytest.raises(HeliographError, match="of the type prohibit stops"):
                routes.lookup(remote, None)

    net.within(scenario)


def test_addresses_are_followed(net: Net) -> None:
    net.host.ip("address add 169.254.7.7/16 dev eth0")
    net.host.ip("address add 192.0.2.1/32 dev lo")
    eth0 = net.eth0

    async def scenario(routes: Routes, changes: Changes) -> None:
        whole = {OURS, OURS6, ip("169.254.7.7")}
        assert routes.addresses == {1: {ip("192.0.2.1")}, eth0: whole}
        await changes.after(lambda: net.host.ip("address add 10.0.0.1/25 dev eth0"))
        await changes.after(lambda: net.host.ip("address del 10.0.0.1/24 dev eth0"))
        assert routes.addresses[eth0] == whole
        await changes.after(lambda: net.host.ip("address del 10.0.0.1/25 dev eth0"))
        assert routes.addresses[eth0] == whole - {OURS}
        await changes.after(lambda: net.host.ip("link set eth0 down"))
        await until(lambda: routes.addresses[eth0] == {ip("169.254.7.7")})
        await changes.after(lambda: net.host.ip("link del eth0"))
        assert eth0 not in routes.addresses

    net.within(scenario)


def test_address_is_usable_when_no_other_host_has_it(net: Net) -> None:
    """IPv6 duplicate address detection: an address is tentative first, and may fail."""
    new, taken = ip("fd00::11"), ip("fd00::22")
    net.peer.ip("address add fd00::22/64 dev eth0 nodad")
    eth0 = net.eth0

    async def scenario(routes: Routes, changes: Changes) -> None:
        await changes.after(lambda: net.host.ip("address add fd00::11/64 dev eth0"))
        assert new not in routes.addresses[eth0]
        with pytest.raises(HeliographError, match="fd00::11 is not in use: whether another"):
            routes.lookup(NEXT6, new)
        net.host.ip("address add fd00::22/64 dev eth0")
        await until(lambda: new in routes.addresses[eth0])
        assert routes.lookup(NEXT6, new).source == new
        assert "dadfailed" in net.host.ip("-6 address show dev eth0")
        assert taken not in routes.addresses[eth0]

    net.within(scenario)


@pytest.mark.parametrize("hop", [NEXT, NEXT6])
def test_neighbour_is_resolved_and_its_going_is_told(net: Net, hop: Address) -> None:
    eth0 = net.eth0

    async def scenario(routes: Routes, changes: Changes) -> None:
        assert not routes.resolved(eth0, hop)
        await changes.after(lambda: routes.solicit(eth0, hop))
        assert routes.resolved(eth0, hop)
        assert "lladdr" in net.neighbour(str(hop))
        await changes.after(lambda: net.host.ip(f"neigh del {hop} dev eth0"))
        assert not routes.resolved(eth0, hop)
        await changes.after(lambda: routes.solicit(eth0, hop))
        await changes.after(lambda: net.peer.ip("link set eth0 down"))
        await until(lambda: not routes.resolved(eth0, hop))

    net.within(scenario)


def test_neighbour_in_use_is_told_when_it_is_gone_not_when_it_ages(net: Net) -> None:
    for key, value in {
        "base_reachable_time_ms": 200,
        "delay_first_probe_time": 1,
        "retrans_time_ms": 200,
    }.items():
        net.host.set_sysctl(f"ipv4/neigh/eth0/{key}", str(value))
    eth0 = net.eth0

    async def scenario(routes: Routes, changes: Changes) -> None:
        routes.resolved(eth0, NEXT)
        await changes.after(lambda: routes.solicit(eth0, NEXT))
        await changes.none_for(0.3)
        told = changes.count
        states = set()
        for _ in range(60):
            await asyncio.to_thread(net.host.run, "ping", "-c1", "-W1", "10.0.0.2")
            states.add(net.neighbour().split()[-1])
            await asyncio.sleep(0.03)
        assert len(states) > 1, states
        assert changes.count == told
        net.peer.ip("link set eth0 arp off")
        net.peer.ip("address del 10.0.0.2/24 dev eth0")
        net.host.run("ping", "-c1", "-W1", "10.0.0.2", check=False)
        await until(lambda: changes.count > told)
        assert not routes.resolved(eth0, NEXT)

    net.within(scenario)


def test_neighbour_that_failed_is_solicited_again(net: Net) -> None:
    eth0 = net.eth0
    net.host.set_sysctl("ipv4/neigh/eth0/retrans_time_ms", "50")

    async def scenario(routes: Routes, changes: Changes) -> None:
        late = ip("10.0.0.3")
        routes.resolved(eth0, late)
        routes.solicit(eth0, late)
        routes.solicit(eth0, late)
        await until(lambda: "FAILED" in net.neighbour("10.0.0.3"))
        assert not routes.resolved(eth0, late)
        net.peer.ip("address add 10.0.0.3/24 dev eth0")
        await changes.after(lambda: routes.solicit(eth0, late))
        assert routes.resolved(eth0, late)

    net.within(scenario)


@pytest.mark.parametrize("watched", [False, True])
def test_permanent_neighbour_stays_as_the_user_set_it(net: Net, watched: bool) -> None:
    """NTF_USE alone would make an ordinary entry of it, resolved anew."""
    eth0 = net.eth0

    async def scenario(routes: Routes, changes: Changes) -> None:
        if watched:
            assert not routes.resolved(eth0, NEXT)
        net.host.ip("neigh add 10.0.0.2 lladdr 02:00:00:00:00:99 nud permanent dev eth0")
        routes.solicit(eth0, NEXT)
        await asyncio.sleep(0.1)
        assert net.neighbour().split()[1:] == ["lladdr", "02:00:00:00:00:99", "PERMANENT"]
        assert routes.resolved(eth0, NEXT)

    net.within(scenario)


def test_refused_solicitation_says_why(net: Net) -> None:
    async def scenario(routes: Routes, _: Changes) -> None:
        with pytest.raises(HeliographError, match=r"neighbour 10\.0\.0\.2: "):
            routes.solicit(4711, NEXT)

    net.within(scenario)


def test_events_of_a_storm_are_lost_without_harm(
    net: Net, lab: Lab, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More events than the socket holds: addresses and neighbours are asked for anew."""
    monkeypatch.setattr(netlink, "EVENT_BUFFER", 1 << 16)
    eth0 = net.eth0
    batch = lab.path("addresses")
    lines = [f"address add 10.{n >> 8}.{n & 255}.1/32 dev eth0" for n in range(200)]
    undo = [line.replace(" add ", " del ") for line in lines]
    batch.write_text("\n".join((lines + undo) * 2 + lines))

    async def scenario(routes: Routes, changes: Changes) -> None:
        routes.resolved(eth0, NEXT)
        await changes.after(lambda: routes.solicit(eth0, NEXT))
        net.host.ip(f"-batch {batch}")  # blocks the event loop
        net.host.ip("neigh del 10.0.0.2 dev eth0")
        await until(lambda: "address and neighbour events were lost" in caplog.text)
        await until(lambda: len(routes.addresses[eth0]) == 201)
        await until(lambda: not routes.resolved(eth0, NEXT))

    net.within(scenario)
