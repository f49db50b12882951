# SPDX-License-Identifier: Apache-2.0
"""The network below the tunnels, followed in real namespaces."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import ip_address as ip
from uuid import UUID, uuid4

import pytest
from tools.lab.lab import Lab
from tools.lab.namespaces import veth
from tools.lab.processes import PATIENCE, eventually

from heliograph.kernel.devices import Devices
from heliograph.kernel.layouts import Reason
from heliograph.kernel.routes import Address, Routes
from heliograph.switch import underlay
from heliograph.switch.underlay import Path, Underlay, Wish

NEXT, NEXT6 = ip("10.0.0.2"), ip("fd00::2")
FAR = ip("10.9.0.1")
TUNNEL = uuid4()


class Follower:
    """Stands for the agent: asks for the paths at first and whenever it is woken."""

    def __init__(self, routes: Routes, devices: Devices, wishes: Mapping[UUID, Wish]) -> None:
        self.devices = devices
        self.underlay = Underlay(routes, devices, self._pass)
        devices.on_change = lambda names: self._pass()
        self.wishes = wishes
        self.passes = 0

    def _pass(self) -> None:
        self.passes += 1
        self.paths = self.underlay.paths(self.wishes)
        self.received = self.underlay.receivers(self.wishes, ())

    async def start(self, settle: float = PATIENCE) -> Path:
        """The first passes; the path of TUNNEL."""
        self._pass()
        await self.underlay.settle(settle)
        self._pass()
        return self.paths[TUNNEL]

    async def until(self, condition: Callable[[Path], object], seconds: float = PATIENCE) -> Path:
        """Wait for what the passes find of TUNNEL's path."""
        deadline = time.monotonic() + seconds
        while not condition(self.paths[TUNNEL]):
            assert time.monotonic() < deadline, self.paths[TUNNEL]
            await asyncio.sleep(0.005)
        return self.paths[TUNNEL]


class Net:
    """A host with two neighbours, on eth0 and on eth1."""

    def __init__(self, lab: Lab) -> None:
        self.host = lab.namespace("host")
        self.peers = [lab.namespace("peer0"), lab.namespace("peer1")]
        for namespace in (self.host, *self.peers):  # no events but those that a test causes
            namespace.set_sysctl("ipv6/conf/default/addr_gen_mode", "1")
        for number, peer in enumerate(self.peers):
            veth((self.host, f"eth{number}"), (peer, "eth0"))
            for namespace, last in ((self.host, 1), (peer, 2)):
                device = "eth0" if namespace is peer else f"eth{number}"
                namespace.ip(f"address add 10.0.{number}.{last}/24 dev {device}")
                for prefix in (f"fd0{number}", "fe80"):
                    namespace.ip(f"address add {prefix}::{last}/64 dev {device} nodad")
        # The kernel tells of carriers in its own time.
        assert eventually(lambda: self.host.ip("-o link show up").count("state UP") == 2)

    def within(
        self,
        scenario: Callable[[Follower], Awaitable[None]],
        remote: Address = NEXT,
        local: Address | None = None,
    ) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(2 * PATIENCE), Routes() as routes, Devices() as devices:
                await scenario(Follower(routes, devices, {TUNNEL: Wish(remote, local)}))

        self.host.call(lambda: asyncio.run(bounded()))


@pytest.fixture
def net(lab: Lab) -> Net:
    return Net(lab)


@pytest.mark.parametrize(
    ("remote", "source"),
    [(NEXT, ip("10.0.0.1")), (NEXT6, ip("fd00::1")), (FAR, ip("10.0.0.1"))],
)
def test_neighbour_is_resolved_when_settled(net: Net, remote: Address, source: Address) -> None:
    net.host.ip("route add 10.9.0.0/16 via inet6 fd00::2")

    async def scenario(follower: Follower) -> None:
        began = time.monotonic()
        path = await follower.start()
        assert time.monotonic() - began < PATIENCE, "it has not waited for the neighbour alone"
        eth0 = follower.devices.by_name["eth0"].ifindex
        hop = NEXT6 if remote == FAR else remote
        assert path == Path(eth0, hop, source, 1500, Reason.DELIVERED, None)
        await asyncio.sleep(0.1)
        assert follower.passes == 2

    net.within(scenario, remote)


def test_silent_neighbour_is_solicited_until_it_answers(net: Net) -> None:
    net.peers[0].ip("address del 10.0.0.2/24 dev eth0")

    async def scenario(follower: Follower) -> None:
        began = time.monotonic()
        path = await follower.start(settle=0.05)
        assert 0.05 <= time.monotonic() - began < PATIENCE
        assert path.reason == Reason.DROP_NO_NEIGHBOUR
        assert path.problem and "10.0.0.2 does not answer ARP on eth0" in path.problem
        await asyncio.sleep(4)  # the kernel gives up after three
        net.peers[0].ip("address add 10.0.0.2/24 dev eth0")
        path = await follower.until(lambda path: path.reason == Reason.DELIVERED)
        assert path.problem is None

    net.within(scenario)


def test_path_follows_the_network(net: Net) -> None:
    net.host.ip("route add 10.9.0.0/16 via 10.0.0.2")

    async def scenario(follower: Follower) -> None:
        eth0, eth1 = (follower.devices.by_name[name].ifindex for name in ("eth0", "eth1"))
        path = await follower.start()
        assert (path.ifindex, path.hop, path.reason) == (eth0, NEXT, Reason.DELIVERED)
        net.host.ip("route change 10.9.0.0/16 via 10.0.1.2 mtu 1400")
        path = await follower.until(lambda path: path.ifindex == eth1 and not path.problem)
        assert (path.hop, path.source, path.mtu) == (ip("10.0.1.2"), ip("10.0.1.1"), 1400)
        net.host.ip("link set eth1 mtu 1350")
        await follower.until(lambda path: path.mtu == 1350)
        net.peers[1].ip("link set eth0 down")
        path = await follower.until(lambda path: path.problem)
        assert (path.reason, path.ifindex) == (Reason.DROP_NO_NEIGHBOUR, eth1)
        assert path.problem == "eth1 has no carrier: see to its cable, or to its other end"
        net.peers[1].ip("link set eth0 up")
        await follower.until(lambda path: path.reason == Reason.DELIVERED)
        net.host.ip("link set eth1 down")
        path = await follower.until(lambda path: path.reason == Reason.DROP_NO_ROUTE)
        assert path.problem == "eth1, which led to 10.9.0.1, is down: ip link set eth1 up"
        net.host.ip("link set eth1 up")
        path = await follower.until(lambda path: "no route to 10.9.0.1" in (path.problem or ""))
        net.host.ip("route add 10.9.0.0/16 via 10.0.1.2")
        await follower.until(lambda path: path.reason == Reason.DELIVERED)
        net.host.ip("link del eth1")
        await follower.until(lambda path: path.reason == Reason.DROP_NO_ROUTE)

    net.within(scenario, FAR)


def test_local_address_may_go_and_come(net: Net) -> None:
    net.host.ip("address add 192.0.2.1/32 dev lo")
    local = ip("192.0.2.1")

    async def scenario(follower: Follower) -> None:
        names = {name: device.ifindex for name, device in follower.devices.by_name.items()}
        path = await follower.start()
        assert (path.source, path.reason) == (local, Reason.DELIVERED)
        assert follower.received.devices == {names["eth0"], names["eth1"]}
        net.host.ip("address del 192.0.2.1/32 dev lo")
        path = await follower.until(lambda path: path.reason == Reason.DROP_NO_ROUTE)
        assert path.problem and "192.0.2.1 is no address of this host" in path.problem
        assert follower.received.addresses == {TUNNEL: frozenset()}
        assert follower.received.devices == set()
        net.host.ip("address add 192.0.2.1/32 dev eth1")
        await follower.until(lambda path: path.source == local)
        assert follower.received.devices == {names["eth0"], names["eth1"]}
        assert follower.received.addresses == {TUNNEL: {local}}

    net.within(scenario, local=local)


def test_path_mtu_that_the_kernel_learned_counts(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    """No event tells of it: it is found when the underlay looks again."""
    monkeypatch.setattr(underlay, "LOOK_SECONDS", 1.0)
    router = net.peers[0]
    veth((router, "far0"), (net.peers[1], "far0"))
    router.address_up("far0", "10.9.0.1/24")
    net.peers[1].address_up("far0", "10.9.0.2/24")
    net.peers[1].ip("route add 10.0.0.0/24 via 10.9.0.1")
    router.ip("link set far0 mtu 1280")
    router.set_sysctl("ipv4/ip_forward", "1")
    net.host.ip("route add 10.9.0.0/24 via 10.0.0.2")

    async def scenario(follower: Follower) -> None:
        path = await follower.start()
        assert path.mtu == 1500
        await asyncio.sleep(0.2)  # what is still told of the devices made above
        net.host.run("ping", "-c1", "-W1", "-M", "do", "-s", "1400", "10.9.0.2", check=False)
        await follower.until(lambda path: path.mtu == 1280)

    net.within(scenario, ip("10.9.0.2"))


def test_other_routes_wake_nobody(net: Net) -> None:
    async def scenario(follower: Follower) -> None:
        await follower.start()
        await asyncio.sleep(0.05)
        before = follower.passes
        for number in range(20):
            net.host.ip(f"route add 10.{20 + number}.0.0/16 via 10.0.1.2")
        await asyncio.sleep(0.1)
        assert follower.passes == before

    net.within(scenario)
