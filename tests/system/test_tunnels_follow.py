# SPDX-License-Identifier: Apache-2.0
"""Tunnels follow the network below them while copies flow into them.

Whatever happens there: production loses nothing; each copy arrives or is counted (D2), but for
those handed to a device that has just gone or to a neighbour that has just fallen silent, until the
switch knows; and what is wrong is said within a second on the Mirror and on the Port, until it is
mended (D1).
"""

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv4Address
from itertools import chain, groupby
from typing import Self

import pytest
from tests.oracle.tunnel import decode
from tests.system.remote_span import RemoteSpan, Traffic, outers
from tests.system.site import frame
from tests.system.underlay import (
    BEYOND,
    DETOUR,
    DEVICE,
    FAR,
    NEAR,
    ROUTER,
    End,
    is_tunnelled,
    wire,
)
from tools.lab.capture import Capture, Frame
from tools.lab.lab import Lab
from tools.lab.namespaces import Namespace

ETH_P_ARP = 0x0806
SO_TIMESTAMPNS = 35  # asm-generic/socket.h
TIMESPEC = struct.Struct("=qq")
RATE = 1000  # frames a second


@dataclass
class Scene:
    span: RemoteSpan
    router: Namespace


@pytest.fixture(scope="module")
def scene(tokens: list[str]) -> Iterator[Scene]:
    with Lab() as lab:
        tokens.append(lab.token)
        made = RemoteSpan(lab)
        yield Scene(made, made.under.detour())
        print(made.switch.process.log_text())


@pytest.fixture
def span(scene: Scene) -> Iterator[RemoteSpan]:
    """With the way as it was at first, by FAR."""
    made = scene.span
    made.under.mend()
    made.under.route(FAR)
    yield made
    made.clear()


def leaves_by(span: RemoteSpan, device: str, carrier: str = "up") -> bool:
    """Whether Interface.status says so."""
    wanted = f"{{tunnel_egress_iface={device}, tunnel_egress_iface_carrier={carrier}}}"
    return span.interface("status") == wanted


@pytest.mark.parametrize("beyond", [BEYOND.ipv4, BEYOND.ipv6])
def test_another_next_hop_by_another_device(scene: Scene, span: RemoteSpan, beyond: str) -> None:
    """Not one copy is lost on a change, though nobody had asked for the new neighbour yet."""
    span.under.host.ip(f"neigh flush dev {DETOUR}")
    span.mirror("erspan", "options:erspan_ver=1 options:key=7", remote=beyond)
    with Capture(scene.router, DETOUR) as detour, Traffic(span, detour, rate=RATE) as traffic:
        for hop, device in ((ROUTER, DETOUR), (FAR, DEVICE), (ROUTER, DETOUR)):
            traffic.sends()
            span.under.route(hop)
            span.until(partial(leaves_by, span, device))
        traffic.sends()
        traffic.settle()
        assert traffic.drops == {}
        assert all(len(copies) >= 50 for copies in traffic.copies)
        assert sorted(chain(*traffic.copies)) == list(range(traffic.flow.sent))


def announcement(end: End) -> bytes:
    """A gratuitous ARP request."""
    mac, address = bytes.fromhex(end.mac.replace(":", "")), IPv4Address(end.ipv4).packed
    head = b"\xff" * 6 + mac + bytes.fromhex("0806 0001 0800 06 04 0001")
    return head + mac + address + bytes(6) + address


def test_neighbour_with_another_mac(span: RemoteSpan) -> None:
    """A new machine with the old one's address: copies go there at once, and none is lost."""
    other = replace(FAR, mac="02:09:00:00:00:22")
    span.mirror()
    with span.under.capture() as seen, Traffic(span, rate=RATE) as traffic:
        for end in other, FAR, other:
            traffic.sends()
            span.under.send(announcement(end))
        traffic.sends()
        traffic.settle()
        assert traffic.drops == {}
        found = [outer.to_mac.hex(":") for outer in outers(seen)]
    runs = [(mac, len(list(same))) for mac, same in groupby(found)]
    assert [mac for mac, _ in runs] == [FAR.mac, other.mac, FAR.mac, other.mac]
    assert all(length >= 50 for _, length in runs)


def set_patience(host: Namespace, reachable: int, retrans: int, delay: int) -> None:
    """How long the kernel takes an unconfirmed neighbour to be there."""
    for family in "ipv4", "ipv6":
        for key, value in (
            ("base_reachable_time_ms", reachable),
            ("retrans_time_ms", retrans),
            ("delay_first_probe_time", delay),
        ):
            host.set_sysctl(f"{family}/neigh/{DEVICE}/{key}", str(value))


@pytest.fixture
def impatient(scene: Scene) -> Iterator[None]:
    """The kernel gives up on a neighbour in half a second."""
    host = scene.span.under.host
    set_patience(host, 300, 100, 0)
    yield
    set_patience(host, 30000, 1000, 60)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("remote", [FAR.ipv4, FAR.ipv6])
def test_neighbour_gone(span: RemoteSpan, remote: str) -> None:
    """From the kernel's giving it up to its return, copies are counted as drop_no_neighbour; nobody
    has to do anything."""
    host, collector = span.under.host, span.under.collector
    set_patience(host, 300, 100, 0)
    address, question = f"{remote}/24", "ARP"
    if remote == FAR.ipv6:
        address, question = f"{remote}/64", "neighbour discovery"
    host.ip(f"neigh flush dev {DEVICE}")
    span.mirror(remote=remote)
    with Traffic(span, rate=RATE) as traffic:
        traffic.sends()
        gone = traffic.flow.sent
        collector.ip(f"address del {address} dev {DEVICE}")
        span.until_said(f"does not answer {question}")
        unknown = traffic.flow.sent - gone
        assert leaves_by(span, DEVICE)
        traffic.sends(RATE // 2)  # until the kernel no longer asks by itself
        collector.ip(f"address add {address} dev {DEVICE} nodad")
        span.until_well()
        traffic.sends()
        traffic.settle(unknown)
        assert traffic.drops.keys() == {"drop_no_neighbour"}
        assert traffic.drops["drop_no_neighbour"] >= 50


def test_route_deleted_and_added(span: RemoteSpan) -> None:
    """Nothing goes without being counted: a route can go before any frame is handed to it."""
    span.mirror(remote=BEYOND.ipv4)
    with Traffic(span, rate=RATE) as traffic:
        traffic.sends()
        span.under.host.ip(f"route del {BEYOND.ipv4}")
        span.until_said("no route")
        assert (span.interface("status"), span.interface("link_state")) == ("{}", "down")
        assert (span.interface("error"), span.interface("admin_state")) == ("[]", "up")
        traffic.sends()
        span.under.route(FAR)
        span.until(lambda: leaves_by(span, DEVICE))
        traffic.sends()
        traffic.settle()
        assert traffic.drops.keys() == {"drop_no_route"}


def test_device_set_down_and_up(span: RemoteSpan) -> None:
    span.mirror()
    with Traffic(span, rate=RATE) as traffic:
        traffic.sends()
        gone = traffic.flow.sent
        span.under.host.ip(f"link set {DEVICE} down")
        span.until_said(f"{DEVICE}, which led to {FAR.ipv4}, is down")
        unknown = traffic.flow.sent - gone
        assert (span.interface("status"), span.interface("link_state")) == ("{}", "down")
        traffic.sends()
        span.under.host.ip(f"link set {DEVICE} up")
        span.until(lambda: leaves_by(span, DEVICE))
        traffic.sends()
        traffic.settle(unknown)
        assert traffic.drops["drop_no_route"] >= 50
        assert traffic.drops.keys() <= {"drop_no_route", "drop_no_neighbour"}


def refused(host: Namespace) -> int:
    """What the device has counted as lost itself."""
    (device,) = json.loads(host.ip(f"-s -j link show dev {DEVICE}"))
    dropped: int = device["stats64"]["tx"]["dropped"]
    return dropped


def test_no_carrier(span: RemoteSpan) -> None:
    """The kernel takes up to a second to tell that it is lost; its device counts what it loses."""
    host, collector = span.under.host, span.under.collector
    span.mirror()
    before = refused(host)
    with Traffic(span, rate=RATE) as traffic:
        traffic.sends()
        gone = traffic.flow.sent
        collector.ip(f"link set {DEVICE} down")
        with pytest.raises(OSError, match="down"):
            traffic.wires[0].collect()
        span.until_said("no carrier")
        unknown = traffic.flow.sent - gone
        assert leaves_by(span, DEVICE, "down")
        assert span.interface("link_state") == "down"
        traffic.sends()
        collector.ip(f"link set {DEVICE} up")
        span.until_well()
        assert span.interface("link_state") == "up"
        traffic.sends()
        traffic.settle(unknown)
        assert traffic.lost <= refused(host) - before
        assert traffic.drops.keys() == {"drop_no_neighbour"}


def test_device_deleted_and_made_again(scene: Scene, span: RemoteSpan) -> None:
    """Another device of that name, with another number: the way is found again (D8)."""
    host, router = span.under.host, scene.router
    span.mirror(remote=ROUTER.ipv4)
    with Traffic(span, rate=RATE) as traffic:
        traffic.sends()
        host.ip(f"link del {DETOUR}")
        span.until_said("no route")
        traffic.sends()
        wire((host, DETOUR), (router, DETOUR))
        ROUTER.settle(router, DETOUR)
        with Capture(router, DETOUR) as seen:
            host.ip(f"address add 10.9.1.1/24 dev {DETOUR}")
            span.until_well()
            traffic.sends()
            traffic.settle(traffic.flow.sent)  # what arrived before, no capture could keep
            assert len(outers(seen)) >= 50
        assert traffic.drops["drop_no_route"] >= 50


def comes_from(address: str, packet: Frame) -> bool:
    return is_tunnelled(packet) and decode(packet.data).src == address


@pytest.mark.parametrize("configured", [False, True])
def test_address_changed(span: RemoteSpan, configured: bool) -> None:
    """The source address follows; a local_ip is waited for."""
    host, new = span.under.host, "10.9.0.77"
    closer = f"address {{}} {new}/25 dev {DEVICE}"
    span.mirror(options=f"options:local_ip={NEAR.ipv4}" if configured else "")
    with (
        span.under.capture() as seen,
        span.under.capture() as follower,
        Traffic(span, rate=RATE) as traffic,
    ):
        traffic.sends()
        host.ip(closer.format("add"))
        host.ip(f"address del {NEAR.ipv4}/24 dev {DEVICE}")
        if configured:
            span.until_said(f"{NEAR.ipv4} is no address of this host")
            traffic.sends()
            host.ip(f"address add {NEAR.ipv4}/24 dev {DEVICE}")
            span.until_well()
        else:
            from_new = partial(comes_from, new)
            assert follower.collect(1, keep=from_new, quiet=0), "the new address is not used"
        traffic.sends()
        traffic.settle()
        sources = [outer.src for outer in outers(seen)]
    host.ip(closer.format("del"))
    if configured:
        assert set(sources) == {NEAR.ipv4}
        assert traffic.drops.keys() == {"drop_no_route"}
    else:
        assert [source for source, _ in groupby(sources)] == [NEAR.ipv4, new]
        assert sources.count(NEAR.ipv4) >= 50 <= sources.count(new)
        assert traffic.drops == {}


class SlowNeighbour(threading.Thread):
    """Answers ARP for FAR as slowly as a host behind some switches does; a context manager.

    `late`: the machine has held it up for longer than a switch waits for a neighbour.
    """

    DELAY, MOST = 0.015, 0.03

    def __init__(self, collector: Namespace) -> None:
        super().__init__()
        self._collector = collector
        self._socket = collector.packet_socket(DEVICE, ETH_P_ARP)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._end = threading.Event()
        self.late = False

    def run(self) -> None:
        self._socket.settimeout(0.05)
        while not self._end.is_set():
            with contextlib.suppress(TimeoutError):
                asked, notes, _, _ = self._socket.recvmsg(64, 64)
                time.sleep(self.DELAY)
                self._socket.send(self._answer(asked))
                seconds, nanoseconds = TIMESPEC.unpack(notes[0][2])
                self.late |= time.time() - seconds - nanoseconds / 1e9 > self.MOST

    @staticmethod
    def _answer(asked: bytes) -> bytes:
        mac = bytes.fromhex(FAR.mac.replace(":", ""))
        reply = bytes.fromhex("0806 0001 0800 06 04 0002") + mac + IPv4Address(FAR.ipv4).packed
        return asked[6:12] + mac + reply + asked[22:32]

    def __enter__(self) -> Self:
        self._collector.set_sysctl(f"ipv4/conf/{DEVICE}/arp_ignore", "8")
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self.join()
        self._socket.close()
        self._collector.set_sysctl(f"ipv4/conf/{DEVICE}/arp_ignore", "0")


@pytest.mark.parametrize("remote", [FAR.ipv4, FAR.ipv6])
def test_first_copies_are_delivered(span: RemoteSpan, remote: str) -> None:
    """Not so in Open vSwitch (rule 124): when ovs-vsctl returns, a neighbour that answers within
    some milliseconds is known."""
    for kind, options in (
        ("gre", ""),
        ("erspan", "options:erspan_ver=2 options:key=1"),
        ("vxlan", ""),
    ):
        late = True
        while late:
            span.clear()
            with SlowNeighbour(span.under.collector) as neighbour, span.under.capture() as seen:
                span.under.host.ip(f"neigh flush dev {DEVICE}")
                span.mirror(kind, options, remote=remote)
                late = neighbour.late
                span.site.send("tap1", *[frame()] * 10)
                found = outers(seen, 0 if late else 10)
        assert [outer.inner for outer in found] == [frame()] * 10
        assert span.site.live("m0")["tx_packets"] == 10
