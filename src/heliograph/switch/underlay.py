# SPDX-License-Identifier: Apache-2.0
"""The network below the tunnels: by which device and neighbour each one's frames leave, and where
the frames sent to it arrive.

Strategy: each pass asks for everything as it stands. Between passes, whatever stirs makes us look
again, and only another outcome makes a pass due: a host may have routes that change all the time.
We also look every few seconds, because the kernel keeps silent about path MTUs. A neighbour that
is not resolved is solicited until it is: the program sends it nothing that would do so.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple
from uuid import UUID

from heliograph.errors import HeliographError
from heliograph.kernel import links
from heliograph.kernel.devices import Device, Devices, is_far_end
from heliograph.kernel.layouts import Reason
from heliograph.kernel.routes import Address, Neighbour, Route, Routes

SOLICIT_SECONDS: Final = 1.0
LOOK_SECONDS: Final = 5.0
# After a look, the next one waits for so many times its duration.
REST: Final = 9
# Bytes of a packet: the kernel gives a program 16 KB to put outer headers before a frame.
LARGEST: Final = 16_000
# A pass that waits in settle() takes in what woke it before this would look.
STIR_SECONDS: Final = 0.001


class Wish(NamedTuple):
    """What the underlay must know of a tunnel. `remote` None: any host may send to it, and it
    sends to none; `family` (4 or 6) is what it receives by if neither address says so, None for
    both."""

    remote: Address | None
    local: Address | None
    tos: int = 0
    family: int | None = None


class Way(NamedTuple):
    """What a path is found by; tunnels that agree on it share the path."""

    remote: Address
    local: Address | None
    tos: int


@dataclass(frozen=True, slots=True)
class Path:
    """What a tunnel's frames need of the network now.

    `ifindex` is the egress device, 0 when there is no route; `mtu` the largest outer IP packet;
    `reason` is DELIVERED, DROP_NO_ROUTE or DROP_NO_NEIGHBOUR; `problem` says what is wrong and
    how to mend it, None when all is well.
    """

    ifindex: int
    hop: Address | None
    source: Address | None
    mtu: int
    reason: Reason
    problem: str | None


@dataclass(frozen=True, slots=True)
class Reception:
    """Where the receive program must be, and the addresses that each tunnel receives at."""

    devices: frozenset[int]
    addresses: Mapping[UUID, frozenset[Address]]


class Underlay:
    """Follows the paths of all tunnels; calls `wake` when a pass would find something else."""

    def __init__(self, routes: Routes, devices: Devices, wake: Callable[[], None]) -> None:
        self._routes = routes
        self._devices = devices
        self._wake = wake
        self._wished = False
        self._found: dict[Way, Path] = {}
        self._addresses: Mapping[int, frozenset[Address]] = {}
        self._egress: dict[Way, int] = {}  # the last one known
        self.tai_offset = _tai_offset()  # seconds that the clock TAI is ahead of UTC
        self._needed: set[Neighbour] = set()
        self._missing: set[Neighbour] = set()  # those not resolved
        self._new: set[Neighbour] = set()  # those not resolved and not waited for yet
        self._stir = asyncio.Event()
        self._look: asyncio.TimerHandle | None = None
        self._tick: asyncio.TimerHandle | None = None
        self._rested = 0.0
        routes.on_change = self._stirred

    def paths(self, wishes: Mapping[UUID, Wish]) -> dict[UUID, Path]:
        """The path of each tunnel that has a remote, as things stand."""
        ways = {
            uuid: Way(wish.remote, wish.local, wish.tos)
            for uuid, wish in wishes.items()
            if wish.remote is not None
        }
        self._wished = bool(wishes)
        missing = self._missing
        self._take_in(set(ways.values()))
        self._new = (self._new | (self._missing - missing)) & self._missing
        return {uuid: self._found[way] for uuid, way in ways.items()}

    async def settle(self, seconds: float) -> None:
        """Wait until the neighbours that were needed anew since last time are resolved, but no
        longer than `seconds`; the paths are to be asked for again then."""
        waiting, self._new = self._new, set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not all(self._routes.resolved(*neighbour) for neighbour in waiting):
                    self._stir.clear()
                    await self._stir.wait()

    def receivers(self, wishes: Mapping[UUID, Wish], ports: Collection[int]) -> Reception:
        """Where what is sent to the tunnels arrives; to be asked for after the paths. `ports` are
        the ifindexes of the switch's own ports."""
        self._addresses = self._routes.addresses
        owned = frozenset[Address]().union(*self._addresses.values())
        of_family: dict[int | None, frozenset[Address]] = {
            4: frozenset(address for address in owned if address.version == 4),
            6: frozenset(address for address in owned if address.version == 6),
            None: owned,
        }
        addresses = {
            uuid: owned & {wish.local} if wish.local else of_family[_family(wish)]
            for uuid, wish in wishes.items()
        }
        wanted = frozenset[Address]().union(*set(addresses.values()))
        ifindexes = {path.ifindex for path in self._found.values()}
        for ifindex, found in self._addresses.items():
            if not wanted.isdisjoint(found):
                ifindexes.add(ifindex)
                device = self._devices.by_index.get(ifindex)
                if device and _is_inward(device):
                    ifindexes.update(self._addresses)
        ours = set(ports)
        return Reception(frozenset(i for i in ifindexes - ours if self._can_receive(i)), addresses)

    def _can_receive(self, ifindex: int) -> bool:
        """Whether frames from a network arrive by a device, with Ethernet headers."""
        device = self._devices.by_index.get(ifindex)
        return (
            device is not None
            and device.link_type == links.ARPHRD_ETHER
            and not _is_inward(device)
            and not is_far_end(device)
        )

    # Looking

    def _take_in(self, ways: Collection[Way]) -> None:
        """Look at the ways as they stand, solicit whom they miss, and look again in time."""
        loop = asyncio.get_running_loop()
        if self._look:
            self._look.cancel()
        began = loop.time()
        needed, self._needed, self._missing = self._needed, set(), set()
        self._egress = {way: self._egress.get(way, 0) for way in ways}
        self.tai_offset = _tai_offset()
        self._found = {way: self._path(way) for way in ways}
        for neighbour in needed - self._needed:
            self._routes.forget(*neighbour)
        now = loop.time()
        self._rested = now + REST * (now - began)
        self._look = loop.call_at(now + LOOK_SECONDS, self._look_again) if self._wished else None
        if self._missing and not self._tick:
            self._tick = loop.call_later(SOLICIT_SECONDS, self._solicit_again)

    def _stirred(self) -> None:
        """Something has changed, perhaps nothing of ours."""
        self._stir.set()
        if self._look:
            loop = asyncio.get_running_loop()
            when = max(self._rested, loop.time() + STIR_SECONDS)
            if when < self._look.when():
                self._look.cancel()
                self._look = loop.call_at(when, self._look_again)

    def _look_again(self) -> None:
        before = self._found, self.tai_offset
        self._take_in(self._found.keys())
        moved = self._routes.addresses != self._addresses
        if moved or (self._found, self.tai_offset) != before:
            self._wake()

    def _solicit_again(self) -> None:
        self._tick = None
        for neighbour in self._missing:
            with contextlib.suppress(HeliographError):  # the next look tells
                self._routes.solicit(*neighbour)
        if self._missing:
            loop = asyncio.get_running_loop()
            self._tick = loop.call_later(SOLICIT_SECONDS, self._solicit_again)

    def _path(self, way: Way) -> Path:
        try:
            route = self._routes.lookup(*way)
        except HeliographError as error:
            problem = self._why_gone(way) or str(error)
            return Path(0, None, None, 0, Reason.DROP_NO_ROUTE, problem)
        device = self._devices.by_index.get(route.ifindex)
        if device is None:  # its event, or that of its end, is on its way
            problem = f"device {route.ifindex}, which leads to {way.remote}, is not known yet"
            return Path(0, None, None, 0, Reason.DROP_NO_ROUTE, problem)
        self._egress[way] = route.ifindex
        fault = self._why_unreachable(route, device)
        reason = Reason.DROP_NO_NEIGHBOUR if fault else Reason.DELIVERED
        mtu = min(route.mtu or device.mtu, device.mtu, LARGEST)
        return Path(route.ifindex, route.hop, route.source, mtu, reason, fault)

    def _why_gone(self, way: Way) -> str | None:
        """The kernel drops the routes of a device that is set down, and then knows of none."""
        device = self._devices.by_index.get(self._egress[way])
        if device is None or device.admin_up:
            return None
        return f"{device.name}, which led to {way.remote}, is down: ip link set {device.name} up"

    def _why_unreachable(self, route: Route, device: Device) -> str | None:
        """Why nothing gets to the next hop, None if it does; sees to it that it will."""
        if not device.admin_up:
            return f"{device.name} is down: ip link set {device.name} up"
        if not device.carrier:
            return f"{device.name} has no carrier: see to its cable, or to its other end"
        if not device.arp:
            return None
        neighbour = Neighbour(route.ifindex, route.hop)
        self._needed.add(neighbour)
        if self._routes.resolved(*neighbour):
            return None
        self._missing.add(neighbour)
        try:
            self._routes.solicit(*neighbour)
        except HeliographError as error:
            return str(error)
        if route.hop.version == 4:
            question = "ARP"
        elif self._routes.has_link_local(device.ifindex):
            question = "neighbour discovery"
        else:
            return (
                f"{device.name} has no link-local address, without which nobody is asked for "
                f"{route.hop}: ip address add fe80::1/64 dev {device.name}"
            )
        return (
            f"{route.hop} does not answer {question} on {device.name}: "
            "see that it is up, and on that network"
        )


def _tai_offset() -> int:
    """It is 0 until a time daemon sets it."""
    return round(time.clock_gettime(time.CLOCK_TAI) - time.time())


def _family(wish: Wish) -> int | None:
    return wish.remote.version if wish.remote else wish.family


def _is_inward(device: Device) -> bool:
    """Whether a device has addresses of the host alone, whose packets come by other devices."""
    return device.link_type == links.ARPHRD_LOOPBACK or device.kind in ("dummy", "vrf")
