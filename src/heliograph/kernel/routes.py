# SPDX-License-Identifier: Apache-2.0
"""How the kernel would send to an address, and the addresses and neighbours that matter for it.

Strategy: the kernel's own lookup is asked, never imitated, so that rules, metrics, nexthop groups
and path MTUs count as they do for the host itself. Events about routes say only that answers may
have changed: they are thrown away unread, so none can be lost. Addresses are listed once and then
followed. Of neighbours only those that were asked for are known; an event about one makes us ask
again, since what it tells may be older than what was known.

Not every change is announced: routes go with a device that is set down, and path MTUs come and
expire, in silence. Who relies on an answer asks again after link events, and from time to time.
"""

import asyncio
import errno
import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Final, Self

from heliograph.errors import HeliographError
from heliograph.kernel import route_messages as wire
from heliograph.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    EventsLostError,
    EventSocket,
    NetlinkError,
    RequestSocket,
)
from heliograph.kernel.route_messages import Address, AddressEntry, Neighbour, RouteType

__all__ = ["Address", "Neighbour", "Route", "Routes"]

log = logging.getLogger(__name__)

DUMP_TRIES: Final = 10
RETRY_SECONDS: Final = 1.0
# The kernel announces one deed in several steps.
COALESCE_SECONDS: Final = 0.002


@dataclass(frozen=True, slots=True)
class Route:
    """How the kernel sends: out of device `ifindex`, to the neighbour `hop` (IPv6 perhaps for an
    IPv4 remote), from `source`; `mtu` is 0 where the device's applies."""

    ifindex: int
    hop: Address
    source: Address
    mtu: int


class Routes:
    """Routes, addresses and neighbours of the namespace of the thread that enters this.

    `on_change` is called from the event loop, once per batch of events, when routes, rules or
    addresses changed, or when a neighbour that was asked for became usable or unusable.
    `addresses` has every device with an address, by ifindex, with those of its addresses that
    another host can send to: none of loopback, IPv6 link-local, or not in use (IPv6 DAD).
    """

    def __init__(self) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self.addresses: Mapping[int, frozenset[Address]] = {}
        self._entries: dict[AddressEntry, bool] = {}
        self._ready: dict[Address, bool] = {}
        self._states: dict[Neighbour, int | None] = {}  # NUD_*, None: the kernel has no entry
        self._announcement: asyncio.TimerHandle | None = None
        self._open = False

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        with ExitStack() as stack:
            self._requests = stack.enter_context(RequestSocket())
            self._stirs = stack.enter_context(closing(EventSocket(wire.RTMGRP_ROUTES)))
            followed = wire.RTMGRP_ADDRESSES | wire.RTMGRP_NEIGH
            self._events = stack.enter_context(closing(EventSocket(followed)))
            try:
                self._list_addresses()
            except OSError as error:
                raise HeliographError(f"list of addresses: {error.strerror or error}") from error
            self._sockets = stack.pop_all()
        self._open = True
        self._loop.add_reader(self._stirs.fileno(), self._stirred)
        self._loop.add_reader(self._events.fileno(), self._drain)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._open = False
        if self._announcement:
            self._announcement.cancel()
        self._loop.remove_reader(self._stirs.fileno())
        self._loop.remove_reader(self._events.fileno())
        self._sockets.close()

    # Routes

    def lookup(self, remote: Address, local: Address | None, tos: int = 0) -> Route:
        """How the kernel would send to `remote` now, from `local` if given.

        Raises HeliographError: why it would not, and how to mend it.
        """
        if remote.is_multicast:
            raise HeliographError(f"{remote} is a multicast address: name that of one host")
        if remote.version == 6 and remote.is_link_local:
            raise HeliographError(
                f"{remote} is a link-local address, which names no network: "
                "use a global address of the other end"
            )
        if local is not None:
            self._check_local(local)
        try:
            (body,) = self._requests.execute(
                wire.RTM_GETROUTE, wire.route_request(remote, local, tos)
            ).bodies
        except OSError as error:
            raise HeliographError(_why_refused(remote, error)) from error
        answer = wire.parse_route(body)
        source = local or answer.source
        fault = _why_unfit(remote, answer)
        if fault or source is None or not _is_reachable(source):
            raise HeliographError(
                fault
                or f"this host has no IPv{remote.version} address to send to {remote} from: "
                "give its device one (ip address add ...)"
            )
        return Route(answer.ifindex, answer.gateway or remote, source, answer.mtu)

    def _check_local(self, local: Address) -> None:
        if not _is_reachable(local):
            raise HeliographError(
                f"{local} is no address to send from: another host cannot answer to it"
            )
        if self._ready.get(local):
            return
        if local in self._ready:
            raise HeliographError(
                f"{local} is not in use: whether another host has it is still being found out, "
                "or one has (ip -6 address show: tentative, dadfailed)"
            )
        raise HeliographError(
            f"{local} is no address of this host: add it (ip address add {local} dev ...), "
            "or name one that the host has"
        )

    # Neighbours

    def resolved(self, ifindex: int, hop: Address) -> bool:
        """Whether the kernel knows the neighbour's link-layer address; followed from now on."""
        neighbour = Neighbour(ifindex, hop)
        if neighbour not in self._states:
            self._states[neighbour] = self._ask(neighbour)
        return _is_valid(self._states[neighbour])

    def solicit(self, ifindex: int, hop: Address) -> None:
        """Have the kernel find out the link-layer address; nothing if it is known or sought.

        Raises HeliographError when the kernel refuses.
        """
        neighbour = Neighbour(ifindex, hop)
        if _is_known_or_sought(self._states.get(neighbour)):
            return
        # NTF_USE makes an ordinary entry of a permanent one, and an entry may have been made
        # permanent a moment ago. So one that exists is looked at first, and one that does not is
        # created only if that is still so.
        state = self._ask(neighbour)
        if not _is_known_or_sought(state):
            flags = NLM_F_CREATE | NLM_F_EXCL if state is None else 0
            body = wire.neighbour_request(neighbour, wire.NTF_USE)
            try:
                self._requests.execute(wire.RTM_NEWNEIGH, body, flags)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOENT):  # changed under our hands
                    raise HeliographError(f"neighbour {hop}: {error.strerror or error}") from error
            state = self._ask(neighbour)
        self._note(neighbour, state)

    def forget(self, ifindex: int, hop: Address) -> None:
        """Follow a neighbour no longer."""
        self._states.pop(Neighbour(ifindex, hop), None)

    def _ask(self, neighbour: Neighbour) -> int | None:
        """The kernel's state of a neighbour now; None for no entry."""
        try:
            body = wire.neighbour_request(neighbour)
            answer = self._requests.execute(wire.RTM_GETNEIGH, body)
        except OSError:
            return None  # no entry, or no such device
        told = [entry for entry in map(wire.parse_neighbour, answer.bodies) if entry]
        return told[0][1] if told else None

    def _note(self, neighbour: Neighbour, state: int | None) -> None:
        """Take in the state of a neighbour, if it is one that is followed."""
        if neighbour in self._states:
            old, self._states[neighbour] = self._states[neighbour], state
            if _is_valid(old) != _is_valid(state):
                self._announce_soon()

    # Events

    def _stirred(self) -> None:
        self._stirs.discard()
        self._announce_soon()

    def _drain(self) -> None:
        """Take in the events that wait."""
        moved = False
        named: set[Neighbour] = set()
        while True:
            try:
                events = self._events.receive()
            except EventsLostError:
                log.warning("address and neighbour events were lost; asking anew")
                self._relist()
                continue
            if events is None:
                break
            for kind, body in events:
                if kind in (wire.RTM_NEWADDR, wire.RTM_DELADDR):
                    moved |= self._take_in_address(kind, body)
                elif kind in (wire.RTM_NEWNEIGH, wire.RTM_DELNEIGH):
                    told = wire.parse_neighbour(body)
                    if told and told[0] in self._states:
                        named.add(told[0])
        for neighbour in named:
            self._note(neighbour, self._ask(neighbour))
        if moved:
            self._publish()

    def _take_in_address(self, kind: int, body: bytes) -> bool:
        """Returns whether it is news: routers make the kernel announce addresses over and over."""
        told = wire.parse_address(body)
        if told is None:
            return False
        entry, ready = told
        if kind == wire.RTM_DELADDR:
            return self._entries.pop(entry, None) is not None
        news = self._entries.get(entry) != ready
        self._entries[entry] = ready
        return news

    def _publish(self) -> None:
        addresses: dict[int, set[Address]] = {}
        self._ready = {}
        for entry, ready in self._entries.items():
            self._ready[entry.address] = ready or self._ready.get(entry.address, False)
            usable = addresses.setdefault(entry.ifindex, set())
            if ready and _is_reachable(entry.address):
                usable.add(entry.address)
        self.addresses = {ifindex: frozenset(found) for ifindex, found in addresses.items()}
        self._announce_soon()

    def has_link_local(self, ifindex: int) -> bool:
        """Whether a device has an IPv6 link-local address in use: the kernel solicits neighbours
        from no other when it is not its own packet that waits."""
        return any(
            ready and entry.ifindex == ifindex and entry.address.is_link_local
            for entry, ready in self._entries.items()
        )

    def _list_addresses(self) -> None:
        # What waits is older than the answer; after a loss nothing newer would correct it.
        self._events.discard()
        for _ in range(DUMP_TRIES):
            answer = self._requests.execute(wire.RTM_GETADDR, wire.every_address(), NLM_F_DUMP)
            if answer.whole:
                break
        else:
            log.warning("addresses change faster than they can be listed; trying again")
            self._loop.call_later(RETRY_SECONDS, self._relist)
        self._entries = dict(told for told in map(wire.parse_address, answer.bodies) if told)
        self._publish()

    def _relist(self) -> None:
        if not self._open:
            return
        try:
            self._list_addresses()
        except OSError as error:
            log.warning("addresses cannot be listed (%s); trying again", error)
            self._loop.call_later(RETRY_SECONDS, self._relist)
        for neighbour in self._states:
            self._note(neighbour, self._ask(neighbour))

    def _announce_soon(self) -> None:
        if self._open and self._announcement is None:
            self._announcement = self._loop.call_later(COALESCE_SECONDS, self._announce)

    def _announce(self) -> None:
        self._announcement = None
        self.on_change()


def _is_valid(state: int | None) -> bool:
    return bool(state and state & wire.NUD_VALID)


def _is_known_or_sought(state: int | None) -> bool:
    return bool(state and state & (wire.NUD_VALID | wire.NUD_INCOMPLETE))


def _is_reachable(address: Address) -> bool:
    """Whether it is an address that another host can send to without saying by which device."""
    nowhere = address.is_loopback or address.is_unspecified
    return not nowhere and not (address.version == 6 and address.is_link_local)


def _why_refused(remote: Address, error: OSError) -> str:
    """What the kernel's refusal of a lookup means."""
    words = {
        errno.EHOSTUNREACH: "unreachable",
        errno.EACCES: "prohibit",
        errno.EINVAL: "blackhole",
    }
    family = "-6 " if remote.version == 6 else ""
    if isinstance(error, NetlinkError) and error.errno == errno.ENETUNREACH:
        return f"no route to {remote}: add one (ip {family}route add {remote} via ...)"
    if isinstance(error, NetlinkError) and error.errno in words:
        kind = words[error.errno]
        return (
            f"a route or rule of the type {kind} stops what is sent to {remote}: remove it, or add "
            f"a closer route (ip {family}route show match {remote}; ip {family}rule show)"
        )
    return f"route to {remote}: {error.strerror or error}"


def _why_unfit(remote: Address, answer: wire.RouteAnswer) -> str | None:
    """Why tunnelled frames cannot take a route that the kernel has."""
    if answer.kind in (RouteType.LOCAL, RouteType.ANYCAST):
        return f"{remote} is an address of this host itself: name the other end's"
    if answer.kind in (RouteType.BROADCAST, RouteType.MULTICAST):
        return f"{remote} is a {RouteType(answer.kind).name.lower()} address: name that of one host"
    if answer.kind != RouteType.UNICAST:
        return f"the route to {remote} is of type {answer.kind}: frames cannot take it"
    if answer.encapsulated:
        return (
            f"the route to {remote} encapsulates packets (ip route get {remote}): "
            "give the other end a plain route"
        )
    return None
