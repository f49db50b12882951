# SPDX-License-Identifier: Apache-2.0
"""Which messages a connection is sent unasked, as Open vSwitch decides it."""

from dataclasses import dataclass, field
from enum import Enum, auto

from heliograph.openflow.errors import Code, OpenFlowError
from heliograph.openflow.flows import PacketInReason
from heliograph.openflow.messages import AsyncConfig, Role, Version

DEFAULT_MISS_SEND_LEN = 128
_EVERY_PORT_REASON = 0x7
_INVALID_TTL = 1 << PacketInReason.INVALID_TTL
# Reasons that versions know; from 1.4 on all six of both kinds.
_PACKET_INS = {Version.V10: 0x7, Version.V13: 0x7}
_REMOVED = {Version.V10: 0x7, Version.V13: 0xF}
_SIX = 0x3F
_NOTHING = AsyncConfig(packet_in=(0, 0), port_status=(0, 0), flow_removed=(0, 0))


class Kind(Enum):
    """Of a connection. A service is told nothing unless it asked for frames."""

    PRIMARY = auto()  # a controller that the switch connects to
    SERVICE = auto()  # who connects to the switch


def default_config(version: int) -> AsyncConfig:
    packet_ins = _PACKET_INS.get(Version(version), _SIX)
    removed = _REMOVED.get(Version(version), _SIX)
    return AsyncConfig(
        packet_in=(packet_ins & ~_INVALID_TTL, 0),
        port_status=(_EVERY_PORT_REASON, _EVERY_PORT_REASON),
        flow_removed=(removed, 0),
    )


def check_config(config: AsyncConfig, version: int) -> None:
    """Raises OpenFlowError for reasons that there are not; before 1.4 they were ignored."""
    several = (*config.packet_in, _SIX), (*config.flow_removed, _SIX)
    for first, second, known in (*several, (*config.port_status, _EVERY_PORT_REASON)):
        if version >= Version.V14 and (first | second) & ~known:
            raise OpenFlowError(Code.OFPACFC_INVALID, f"reasons {first:#x} and {second:#x}")


@dataclass(slots=True)
class Subscription:
    kind: Kind
    version: int
    enabled: bool = True  # column enable_async_messages
    role: Role = Role.EQUAL
    miss_send_len: int = field(init=False)
    controller_id: int = 0
    config: AsyncConfig = field(init=False)

    def __post_init__(self) -> None:
        self.config = default_config(self.version) if self.enabled else _NOTHING
        self.miss_send_len = DEFAULT_MISS_SEND_LEN if self.kind == Kind.PRIMARY else 0

    def _wants(self, masks: tuple[int, int], reason: int) -> bool:
        if self.kind == Kind.SERVICE and not self.miss_send_len:
            return False
        return bool(masks[self.role == Role.SECONDARY] >> reason & 1)

    def wants_port_status(self, reason: int) -> bool:
        return self._wants(self.config.port_status, reason)

    def wants_flow_removed(self, reason: int) -> bool:
        return self._wants(self.config.flow_removed, reason)

    def wants_packet_in(self, reason: int) -> bool:
        if self.version < Version.V14 and reason > PacketInReason.INVALID_TTL:
            reason = PacketInReason.ACTION  # the later ones are kinds of it
        return self._wants(self.config.packet_in, reason)

    def wants_misses(self) -> bool:
        """Of frames that no flow matches. From 1.3 on a flow must say that they are sent."""
        return (
            self.version < Version.V13
            and self.controller_id == 0
            and self.wants_packet_in(PacketInReason.NO_MATCH)
        )

    def set_invalid_ttl(self, wanted: bool) -> None:
        """As 1.0 asks for them, with SET_CONFIG."""
        first, second = self.config.packet_in
        self.config = AsyncConfig(
            packet_in=(first & ~_INVALID_TTL | _INVALID_TTL * wanted, second),
            port_status=self.config.port_status,
            flow_removed=self.config.flow_removed,
        )
