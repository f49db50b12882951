# SPDX-License-Identifier: Apache-2.0
"""The connections of one bridge: their roles among one another, and what all of them are told."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from heliograph.control.monitors import Monitors
from heliograph.control.subscriptions import Subscription
from heliograph.flows.change import Step
from heliograph.openflow.errors import Code, OpenFlowError
from heliograph.openflow.flows import FlowRemoved, PacketIn
from heliograph.openflow.message import Message
from heliograph.openflow.messages import PortStatus, Role, RoleRequest, RoleStatus, Version

_AT_ONCE = 200  # messages, before others have their turn
_HALF = 1 << 63


class Peer(Protocol):
    """A connection that has agreed on a version."""

    subscription: Subscription
    monitors: Monitors

    def tell(self, message: Message) -> None:
        """Send it unasked."""

    def tell_frame(self, message: PacketIn) -> None:
        """Send it, unless there are too many of them."""


class Asked(NamedTuple):
    """Who asked for a change, and the numbers of its messages."""

    peer: Peer
    xids: Sequence[int]


class Peers:
    def __init__(self) -> None:
        self._peers: list[Peer] = []
        self._generation: int | None = None  # of the last election of a primary

    def __iter__(self) -> Iterator[Peer]:
        return iter(tuple(self._peers))

    def add(self, peer: Peer) -> None:
        self._peers.append(peer)

    def remove(self, peer: Peer) -> None:
        self._peers.remove(peer)
        peer.monitors.close()

    @property
    def generation(self) -> int | None:
        return self._generation

    def elect(self, peer: Peer, request: RoleRequest) -> None:
        """Give `peer` the role it asks for. Raises OpenFlowError."""
        if request.role == Role.NO_CHANGE:
            return
        if request.role != Role.EQUAL and request.generation_id is not None:
            self._advance(request.generation_id)
        if request.role == Role.PRIMARY:
            for other in self._peers:
                if other is not peer and other.subscription.role == Role.PRIMARY:
                    self._demote(other)
        peer.subscription.role = request.role

    def _demote(self, peer: Peer) -> None:
        peer.subscription.role = Role.SECONDARY
        if peer.subscription.version >= Version.V14:
            peer.tell(RoleStatus(Role.SECONDARY, generation_id=self._generation))

    def _advance(self, generation: int) -> None:
        last = self._generation
        if last is not None and (generation - last) % (2 * _HALF) >= _HALF:
            raise OpenFlowError(
                Code.OFPRRFC_STALE, f"election {generation:#x} is older than {last:#x}"
            )
        self._generation = generation

    @property
    def want_misses(self) -> bool:
        return any(peer.subscription.wants_misses() for peer in self._peers)

    def tell_monitors(self, steps: Sequence[Step], asked: Asked | None) -> None:
        for peer in self:
            own = asked.xids if asked and asked.peer is peer else ()
            peer.monitors.follow(steps, own)

    async def tell_removed(self, removed: Sequence[FlowRemoved]) -> None:
        for position, message in enumerate(removed, 1):
            for peer in self:
                if peer.subscription.wants_flow_removed(message.reason):
                    peer.tell(message)
            if position % _AT_ONCE == 0:
                await asyncio.sleep(0)

    def tell_port(self, status: PortStatus, asked: Peer | None = None) -> None:
        """`asked`: who changed the port. Before 1.5 that one is not told."""
        for peer in self:
            subscription = peer.subscription
            if peer is asked and subscription.version < Version.V15:
                continue
            if subscription.wants_port_status(status.reason):
                peer.tell(status)
