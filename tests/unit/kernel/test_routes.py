# SPDX-License-Identifier: Apache-2.0
"""What of Routes the kernel cannot be made to do at will: losses, races, refusals.

Everything else is in tests/system/test_routes.py, with the real kernel.
"""

import asyncio
import errno
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_address as ip

import pytest
from tests.unit.waiting import rest

from heliograph.errors import HeliographError
from heliograph.kernel import route_messages as wire
from heliograph.kernel import routes as module
from heliograph.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    Answer,
    EventsLostError,
    NetlinkError,
    attribute,
    u32,
)
from heliograph.kernel.route_messages import Neighbour
from heliograph.kernel.routes import Routes

HOP = ip("10.0.0.2")
NEIGHBOUR = Neighbour(2, HOP)


def address(ifindex: int, text: str) -> bytes:
    return struct.pack("=4BI", 2, 24, 0x80, 0, ifindex) + attribute(2, ip(text).packed)


def neighbour(state: int) -> bytes:
    return struct.pack("=B3xiHBB", 2, 2, state, 0, 1) + attribute(1, HOP.packed)


def route(*parts: bytes, kind: int = 1) -> bytes:
    return struct.pack("=8BI", 2, 32, 0, 0, 254, 0, 0, kind, 0) + b"".join(parts)


class Kernel:
    """Stands for the sockets: what it knows it answers, what it announces waits in `events`."""

    def __init__(self) -> None:
        self.addresses = [address(2, "10.0.0.1")]
        self.state: int | None = None
        self.route = route(u32(4, 2), attribute(7, ip("10.0.0.1").packed))
        self.refusals: dict[int, int] = {}
        self.events: deque[tuple[int, bytes] | None] = deque()  # None: some were lost
        self.made: list[int] = []
        self.dumps = 0
        self.interrupted = 0
        self.before_making: Callable[[], None] = lambda: None
        self.readers: list[Callable[[], None]] = []

    def execute(self, kind: int, body: bytes, flags: int = 0) -> Answer:
        if kind == wire.RTM_NEWNEIGH:
            self.before_making()
            self._make(flags)
            return Answer([], whole=True)
        if kind in self.refusals:
            raise NetlinkError(self.refusals[kind], "refused")
        if kind == wire.RTM_GETADDR:
            self.dumps += 1
            self.interrupted -= self.interrupted > 0
            return Answer(list(self.addresses), whole=not self.interrupted)
        if kind == wire.RTM_GETNEIGH:
            if self.state is None:
                raise NetlinkError(errno.ENOENT, "No such file or directory")
            return Answer([neighbour(self.state)], whole=True)
        return Answer([self.route], whole=True)

    def _make(self, flags: int) -> None:
        self.made.append(flags)
        if wire.RTM_NEWNEIGH in self.refusals:
            raise NetlinkError(self.refusals[wire.RTM_NEWNEIGH], "neighbour table overflow")
        if flags & NLM_F_EXCL and self.state is not None:
            raise NetlinkError(errno.EEXIST, "File exists")
        if not flags & NLM_F_CREATE and self.state is None:
            raise NetlinkError(errno.ENOENT, "No such file or directory")
        self.state = wire.NUD_INCOMPLETE

    def receive(self) -> list[tuple[int, bytes]] | None:
        if not self.events:
            return None
        event = self.events.popleft()
        if event is None:
            raise EventsLostError
        return [event]

    def discard(self) -> None:
        self.events.clear()

    def read(self) -> None:
        """Events wait to be read."""
        self.readers[-1]()

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        pass

    def __enter__(self) -> "Kernel":
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(module, "RequestSocket", lambda: made)
    monkeypatch.setattr(module, "EventSocket", lambda groups: made)
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.005)
    loop = asyncio.SelectorEventLoop
    monkeypatch.setattr(loop, "add_reader", lambda self, fd, call: made.readers.append(call))
    monkeypatch.setattr(loop, "remove_reader", lambda self, fd: True)
    return made


@pytest.fixture
async def routes(kernel: Kernel) -> AsyncIterator[Routes]:
    async with Routes() as made:
        yield made


@pytest.fixture
def told(routes: Routes) -> list[int]:
    calls: list[int] = []
    routes.on_change = lambda: calls.append(len(calls))
    return calls


async def test_what_is_there_at_the_start_is_not_told(routes: Routes, told: list[int]) -> None:
    await rest()
    assert routes.addresses == {2: {ip("10.0.0.1")}}
    assert told == []


async def test_burst_of_events_is_told_once(
    kernel: Kernel, routes: Routes, told: list[int]
) -> None:
    for number in range(100):
        kernel.events.append((wire.RTM_NEWADDR, address(3, f"10.1.0.{number}")))
        kernel.read()
    await rest()
    assert len(routes.addresses[3]) == 100
    assert told == [0]
    assert kernel.dumps == 1


async def test_address_that_is_announced_once_more_is_no_news(
    kernel: Kernel, routes: Routes, told: list[int]
) -> None:
    kernel.events.append((wire.RTM_NEWADDR, address(2, "10.0.0.1")))
    kernel.events.append((wire.RTM_DELADDR, address(2, "10.0.0.9")))
    kernel.read()
    await rest()
    assert told == []


async def test_address_that_one_device_of_two_uses_is_one_to_send_from(
    kernel: Kernel, routes: Routes
) -> None:
    ours = ip("fd00::1")
    for ifindex, flags in ((2, 0x80), (3, 0x80 | 0x48)):
        head = struct.pack("=4BI", 10, 64, flags, 0, ifindex)
        kernel.events.append((wire.RTM_NEWADDR, head + attribute(1, ours.packed)))
    kernel.read()
    assert routes.lookup(ip("fd00::2"), ours).source == ours
    kernel.events.append((wire.RTM_DELADDR, address(2, "10.0.0.1")))
    kernel.read()
    with pytest.raises(HeliographError, match=r"10\.0\.0\.1 is no address of this host"):
        routes.lookup(HOP, ip("10.0.0.1"))


async def test_what_waited_when_events_were_lost_does_not_win_over_the_dump(
    kernel: Kernel, routes: Routes, told: list[int]
) -> None:
    assert not routes.resolved(2, HOP)
    kernel.addresses.append(address(3, "10.1.0.1"))
    kernel.state = wire.NUD_REACHABLE
    kernel.events.extend([None, (wire.RTM_DELADDR, address(3, "10.1.0.1"))])
    kernel.read()
    assert routes.addresses == {2: {ip("10.0.0.1")}, 3: {ip("10.1.0.1")}}
    assert routes.resolved(2, HOP)
    await rest()
    assert told == [0]


async def test_addresses_that_cannot_be_listed_after_a_loss_are_tried_again(
    kernel: Kernel, routes: Routes, caplog: pytest.LogCaptureFixture
) -> None:
    kernel.refusals[wire.RTM_GETADDR] = errno.ENOMEM
    kernel.addresses = []
    kernel.events.append(None)
    kernel.read()
    assert routes.addresses == {2: {ip("10.0.0.1")}}
    assert "addresses cannot be listed" in caplog.text
    kernel.refusals.clear()
    await rest()
    assert routes.addresses == {}


async def test_dump_cut_into_is_repeated(kernel: Kernel) -> None:
    kernel.interrupted = 3
    async with Routes():
        assert kernel.dumps == 3


async def test_dump_always_cut_into_is_taken_and_tried_again(kernel: Kernel) -> None:
    kernel.interrupted = 1000
    async with Routes() as routes:
        assert kernel.dumps == module.DUMP_TRIES
        assert routes.addresses
        kernel.interrupted = 0
        await rest()
        assert kernel.dumps == module.DUMP_TRIES + 1


async def test_start_that_is_refused_says_so(kernel: Kernel) -> None:
    kernel.refusals[wire.RTM_GETADDR] = errno.ENOMEM
    with pytest.raises(HeliographError, match="list of addresses: refused"):
        async with Routes():
            pass


async def test_nothing_is_told_after_the_end(kernel: Kernel) -> None:
    async with Routes() as routes:
        calls: list[int] = []
        routes.on_change = lambda: calls.append(0)
        kernel.events.append((wire.RTM_NEWADDR, address(3, "10.1.0.1")))
        kernel.read()
    await rest()
    assert calls == []


async def test_event_about_a_neighbour_makes_us_ask(
    kernel: Kernel, routes: Routes, told: list[int]
) -> None:
    """What an event tells may be older than what is so: two may come in the wrong order."""
    kernel.state = wire.NUD_REACHABLE
    assert routes.resolved(2, HOP)
    kernel.state = wire.NUD_FAILED
    kernel.events.append((wire.RTM_NEWNEIGH, neighbour(wire.NUD_REACHABLE)))
    kernel.read()
    assert not routes.resolved(2, HOP)
    await rest()
    assert told == [0]


async def test_ageing_of_a_neighbour_is_not_told(
    kernel: Kernel, routes: Routes, told: list[int]
) -> None:
    kernel.state = wire.NUD_REACHABLE
    assert routes.resolved(2, HOP)
    for state in (wire.NUD_STALE, wire.NUD_DELAY, wire.NUD_PROBE, wire.NUD_REACHABLE):
        kernel.state = state
        kernel.events.append((wire.RTM_NEWNEIGH, neighbour(state)))
        kernel.read()
    await rest()
    assert told == []


async def test_neighbour_that_nobody_asked_for_is_nothing(
    kernel: Kernel, routes: Routes, told: list[int]
) -> None:
    routes.resolved(2, HOP)
    routes.forget(2, HOP)
    kernel.state = wire.NUD_REACHABLE
    kernel.events.append((wire.RTM_NEWNEIGH, neighbour(wire.NUD_REACHABLE)))
    kernel.read()
    await rest()
    assert told == []


async def test_solicited_neighbour_is_created_only_if_there_is_none(
    kernel: Kernel, routes: Routes
) -> None:
    routes.resolved(2, HOP)
    routes.solicit(2, HOP)
    routes.solicit(2, HOP)  # it is sought already
    assert kernel.made == [NLM_F_CREATE | NLM_F_EXCL]


@pytest.mark.parametrize("state", [0, wire.NUD_FAILED])
async def test_entry_that_is_there_is_used(kernel: Kernel, routes: Routes, state: int) -> None:
    kernel.state = state
    routes.solicit(2, HOP)
    assert kernel.made == [0]


@pytest.mark.parametrize("state", [wire.NUD_PERMANENT, wire.NUD_STALE, wire.NUD_INCOMPLETE])
async def test_valid_entry_is_left_alone(kernel: Kernel, routes: Routes, state: int) -> None:
    routes.resolved(2, HOP)
    kernel.state = state  # its event has not come yet
    routes.solicit(2, HOP)
    assert kernel.made == []
    assert routes.resolved(2, HOP) == (state != wire.NUD_INCOMPLETE)


async def test_entry_made_permanent_meanwhile_stays_so(kernel: Kernel, routes: Routes) -> None:
    def make_permanent() -> None:
        kernel.state = wire.NUD_PERMANENT

    routes.resolved(2, HOP)
    kernel.before_making = make_permanent
    routes.solicit(2, HOP)
    assert kernel.state == wire.NUD_PERMANENT
    assert routes.resolved(2, HOP)


async def test_refused_solicitation_says_why(kernel: Kernel, routes: Routes) -> None:
    kernel.refusals[wire.RTM_NEWNEIGH] = errno.ENOBUFS
    with pytest.raises(HeliographError, match=r"neighbour 10\.0\.0\.2: neighbour table overflow"):
        routes.solicit(2, HOP)


async def test_route_that_encapsulates_is_refused(kernel: Kernel, routes: Routes) -> None:
    """As MPLS and segment routing do: bpf_redirect_neigh would pass that by."""
    kernel.route += attribute(21, struct.pack("=H", 1))
    with pytest.raises(HeliographError, match=r"the route to 10\.9\.0\.1 encapsulates packets"):
        routes.lookup(ip("10.9.0.1"), None)


async def test_route_of_an_unknown_kind_is_refused(kernel: Kernel, routes: Routes) -> None:
    kernel.route = route(u32(4, 2), kind=11)
    with pytest.raises(HeliographError, match=r"the route to 10\.9\.0\.1 is of type 11"):
        routes.lookup(ip("10.9.0.1"), None)


async def test_lookup_that_fails_names_the_remote(kernel: Kernel, routes: Routes) -> None:
    kernel.refusals[wire.RTM_GETROUTE] = errno.ENOMEM
    with pytest.raises(HeliographError, match=r"route to 10\.9\.0\.1: refused"):
        routes.lookup(ip("10.9.0.1"), None)
